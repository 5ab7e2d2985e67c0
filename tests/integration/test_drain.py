"""SIGTERM: what was accepted is answered, and then there is nothing left."""

from __future__ import annotations

import signal
import threading
from http.client import HTTPConnection

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.daemons import PATIENCE, Peer, Platform, mentioning


class DrainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.addCleanup(self.platform.remove)
        self.platform.start_node()
        self.port = self.platform.start_app("patient")
        self.platform.start_proxy()

    def _slow(self, count: int) -> list[tuple[HTTPConnection, object]]:
        """Requests whose answers have begun."""
        begun = []
        for _ in range(count):
            connection = HTTPConnection("127.0.0.1", self.platform.http, timeout=PATIENCE)
            self.addCleanup(connection.close)
            connection.request("GET", "/patient/http/slow")
            begun.append(connection)
        return [(connection, connection.getresponse()) for connection in begun]

    def _ended(self, answers: list[tuple[HTTPConnection, object]]) -> None:
        self.assertEqual([answer.read() for _, answer in answers], [b"first last\n"] * len(answers))

    def test_node(self) -> None:
        """A node that is stopped finishes its requests, HTTP and others, and leaves no process and no socket."""
        answers = self._slow(6)
        with Peer(self.port) as client:
            channel = client.open(0, "hold")
            client.read(channel)
            self.platform.node.send_signal(signal.SIGTERM)
            self._ended(answers)
            client.send(channel, 2)
            self.assertEqual(client.read(channel), (2, []))
        # twistd ends itself by the signal that stopped it.
        self.assertEqual(self.platform.node.wait(PATIENCE), -signal.SIGTERM)
        self.assertEqual(mentioning(str(self.platform.folder / "spool")), {})
        self.assertEqual(list((self.platform.folder / "run").iterdir()), [])

    def test_hangup(self) -> None:
        """A node whose terminal is closed does the same."""
        answers = self._slow(6)
        self.platform.node.send_signal(signal.SIGHUP)
        self._ended(answers)
        self.assertEqual(self.platform.node.wait(PATIENCE), 0)
        self.assertEqual(list((self.platform.folder / "run").iterdir()), [])

    def test_proxy(self) -> None:
        """A proxy that is stopped finishes its requests."""
        answers = self._slow(6)
        threading.Timer(0, self.platform.proxy.send_signal, (signal.SIGTERM,)).start()
        self._ended(answers)
        self.assertEqual(self.platform.proxy.wait(PATIENCE), -signal.SIGTERM)
