"""A client behind TLS that does not read must not fill our memory."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.proxy.secure import SecureOutlet


class Transport:
    """Takes ``room`` bytes, then asks its producer to pause."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = b""
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.taken += data
        self.room -= len(data)
        if self.room <= 0 and self.producer is not None:
            self.producer.pauseProducing()

    def drain(self, room: int) -> None:
        self.room = room
        self.producer.resumeProducing()


class SecureOutletTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = Transport(10)
        self.said: list[str] = []
        self.outlet = SecureOutlet(
            self.transport, lambda: self.said.append("drained"), lambda: self.said.append("progressed")
        )

    def test_waiting(self) -> None:
        """What the transport does not take waits, is counted, and leaves in order."""
        for piece in (b"a" * 8, b"b" * 8, b"c" * 8, b"d" * 8):
            self.outlet.write(piece)
        self.assertEqual((self.outlet.pending, self.outlet.waiting, len(self.transport.taken)), (16, True, 16))
        self.transport.drain(5)
        self.assertEqual((self.outlet.pending, self.said), (8, ["progressed"]))
        self.transport.drain(50)
        self.assertEqual((self.outlet.pending, self.outlet.waiting), (0, False))
        self.assertEqual(self.said[-1], "drained")
        self.assertEqual(self.transport.taken, b"a" * 8 + b"b" * 8 + b"c" * 8 + b"d" * 8)

    def test_finish(self) -> None:
        """A connection that is to close gives the transport everything, as it takes it, and lets it go."""
        for piece in (b"a" * 20, b"b" * 20, b"c"):
            self.outlet.write(piece)
        self.outlet.finish()
        self.outlet.finish()
        while self.transport.producer is not None:
            self.transport.drain(10)
        self.assertEqual(self.transport.taken, b"a" * 20 + b"b" * 20 + b"c")
        self.assertEqual((self.outlet.pending, self.said), (0, ["progressed", "progressed", "drained"]))

    def test_finish_at_once(self) -> None:
        """If nothing waits it lets the transport go at once."""
        self.outlet.write(b"a")
        self.outlet.finish()
        self.outlet.finish()
        self.assertEqual((self.transport.taken, self.transport.producer), (b"a", None))
