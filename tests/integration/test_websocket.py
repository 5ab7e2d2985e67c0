"""WebSockets of an ASGI application through proxy, node and worker, with a client that is not ours."""

from __future__ import annotations

import socket
import subprocess
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from .test_proxy import PATIENCE, ROOT, ask, platform


class WebSocketTests(SynchronousTestCase):
    def start(self, **settings: Any) -> tuple[int, subprocess.Popen[bytes]]:
        """A proxy, and ``examples/chat`` behind it."""
        port, process = platform().proxy(**settings)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)
        for words in (("app", "upload", str(ROOT / "examples" / "chat"), "-n", "chat"),
                      ("app", "start", "-n", "chat", "-r", "default")):  # fmt: skip
            self.assertIsNone(platform().tool(*words))
        self.addCleanup(platform().tool, "app", "stop", "-n", "chat")
        return port, process

    def join(self, port: int, **settings: Any) -> ClientConnection:
        address = f"ws://127.0.0.1:{port}/chat/http/"
        return self.enterContext(connect(address, open_timeout=PATIENCE, close_timeout=PATIENCE, **settings))

    def hear(self, client: ClientConnection, *wanted: str) -> None:
        self.assertEqual([client.recv(PATIENCE) for _ in wanted], list(wanted))

    def test_chat(self) -> None:
        """Two clients hear each other; one that closes, and one that vanishes, leave the room."""
        port, _ = self.start()
        status, page = ask(port, "/chat/http/")
        self.assertEqual((status, page[:15]), (200, b"<!doctype html>"))
        one = self.join(port)
        self.hear(one, "1 here")
        two = self.join(port)
        for client in (one, two):
            self.hear(client, "2 here")
        for speaker, text in ((one, "hällo"), (two, "x" * 60_000), (one, "\u2603" * 20_000)):
            speaker.send(text)
            for client in (one, two):
                self.hear(client, text)
        one.send(["in ", "par", "ts"])
        self.hear(two, "in parts")
        self.assertTrue(two.ping().wait(PATIENCE))
        two.close(4001, "enough")
        self.assertEqual((two.close_code, two.close_reason), (4001, "enough"))
        self.hear(one, "in parts", "1 here")
        three = self.join(port)
        self.hear(one, "2 here")
        three.socket.shutdown(socket.SHUT_RDWR)
        self.hear(one, "1 here")
        one.close()
        self.assertEqual(one.close_code, 1000)

    def test_too_large(self) -> None:
        """Who sends more than the application takes hears so, though the rest is still on its way."""
        port, _ = self.start()
        client = self.join(port)
        self.hear(client, "1 here")
        # The client's own sending need not end.
        thread = threading.Thread(target=self.say, args=(client, "x" * 20_000_000))
        thread.start()
        with self.assertRaises(ConnectionClosed) as caught:
            client.recv(PATIENCE)
        thread.join(PATIENCE)
        self.assertIsNotNone(caught.exception.rcvd)
        assert caught.exception.rcvd is not None
        self.assertEqual(caught.exception.rcvd.code, 1009)

    def say(self, client: ClientConnection, text: str) -> None:
        try:
            client.send(text)
        except ConnectionClosed:
            pass

    def test_app_stopped(self) -> None:
        """Clients of an application that is stopped are told at once that it is, and need not wait for its worker."""
        port, _ = self.start()
        client = self.join(port)
        self.hear(client, "1 here")
        self.assertIsNone(platform().tool("app", "stop", "-n", "chat"))
        with self.assertRaises(ConnectionClosed) as caught:
            client.recv(PATIENCE)
        assert caught.exception.rcvd is not None
        self.assertEqual(caught.exception.rcvd.code, 1012)
