"""What is left, and what goes on, after somebody was killed without a warning."""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.platform import Peer, Platform, get, mentioning, until


class KillTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.addCleanup(self.platform.remove)

    def test_worker(self) -> None:
        """Whoever's worker is killed gets an error at once, not silence; the next request is answered."""
        self.platform.start_node()
        port = self.platform.start_app("patient")
        with Peer(port) as client:
            channel = client.open(0, "hold")
            _, (pid,) = client.read(channel)
            os.kill(int(pid), signal.SIGKILL)
            message, (pair, reason) = client.read(channel)
            self.assertEqual((message, len(pair)), (1, 2), reason)
            self.assertEqual(client.ask("echo", b"again"), [(0, [b"again"]), (2, [])])

    def test_node(self) -> None:
        """A killed node leaves no worker behind, and serves again from the same storage when it is restarted."""
        runlist = {"services": {"node": {"type": "node", "args": {"runlist": "all"}}}}
        self.platform.start_node(**runlist)
        port = self.platform.start_app("patient")
        self.platform.tool("runlist", "create", "-n", "all")
        self.platform.tool("runlist", "add-app", "-n", "all", "--app", "patient", "--profile", "patient")
        with Peer(port) as client:
            channel = client.open(0, "hold")
            client.read(channel)
            os.kill(self.platform.node.pid, signal.SIGKILL)
            self.platform.node.wait()
            self.assertIsNone(client.read(channel))
        spool = str(self.platform.folder / "spool")
        until(lambda: not mentioning(spool), "no worker is left", seconds=10)

        self.platform.start_node(**runlist)
        self.platform.start_proxy()
        self.assertEqual(until(lambda: self._hello(), "the app is served again"), (200, b"last\n"))
        # What the first life had unpacked and bound has been cleared away.
        self.assertEqual(len(list((self.platform.folder / "run").iterdir())), 1)
        self.assertEqual(len(list((self.platform.folder / "spool" / "patient").iterdir())), 1)

    def _hello(self) -> tuple[int, bytes] | None:
        answer = get(self.platform.http, "/patient/http/")
        return answer if answer[0] == 200 else None
