"""What a client's connection leaves behind when it ends."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.proxy.connection import HttpConnection
from tests.proxy.world import World, get

BROKEN_OFF = b"PUT /nope/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n" + b"x" * 60000


class Transport(StringTransport):
    """Like a socket's transport, which does not hold its protocol when that is told of the end."""

    def loseWriteConnection(self) -> None:
        pass


class LateTests(SynchronousTestCase):
    def test_rest_of_a_body(self) -> None:
        """A client that has its answer and never sends the rest of its request is let go, and gets no second answer."""
        world = World(inline=4, head=10.0, body=30.0)
        self.addCleanup(world.stop)
        app = world.app()
        app.info = {"http-streaming": True, "credits": True}
        app.greet = lambda job: job.answer(b"enough")
        client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n12345")
        self.assertTrue(client.take().endswith(b"6\r\nenough\r\n0\r\n\r\n"))
        for _ in range(50):
            world.advance(1)
        self.assertEqual(client.got, b"")
        self.assertIsNotNone(client.ended)


class EndTests(SynchronousTestCase):
    def ended(self, world: World, said: bytes) -> weakref.ref[HttpConnection]:
        """A client says this, gets its answer and is gone."""
        connection: Any = HttpConnection(world.door)
        connection.makeConnection(Transport())
        connection.dataReceived(said)
        for _ in range(10):
            world.advance(0.1)
        self.assertTrue(connection.transport.value().startswith(b"HTTP/1.1 "))
        connection.connectionLost()
        world.advance()
        return weakref.ref(connection)

    def test_nothing(self) -> None:
        """It goes at once with all it holds, and does not wait for the collector: thousands may end in a second."""
        for said in (get(), get("/nope/http/"), b"GET / HTTP/1.1\r\n\r\n", BROKEN_OFF):
            world = World(inline=1000)
            self.addCleanup(world.stop)
            world.app(play=lambda job: job.answer(b"x"))
            gc.disable()
            self.addCleanup(gc.enable)
            self.assertIsNone(self.ended(world, said)(), said[:40])
            gc.enable()
