"""Credits, our own extension, and calls taken back: neither may disturb a peer that is late or has ended."""

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import DeadlineError
from cocaine_tx.wire.frames import pack
from cocaine_tx.wire.headers import window_header, window_of
from cocaine_tx.wire.idl import CREDIT, REVOKE_SLOT
from cocaine_tx.wire.protocols import APP
from cocaine_tx.wire.session import dialing, serving


class Nobody:
    """A receiver that is there, unlike `NOBODY`, and says nothing."""

    def received(self, *_: object) -> None:
        pass

    def lost(self, *_: object) -> None:
        pass


class CreditTests(SynchronousTestCase):
    """Bytes that may be on their way."""

    def setUp(self) -> None:
        self.client = dialing()
        self.client.kin = True
        self.server = serving(APP, Nobody())
        self.near = self.client.open(APP.slots[0], (b"e",), Nobody(), (window_header(4096),))
        (self.far, _, _, headers) = self.server.receive(self.client.take())[0]
        self.assertEqual(window_of(headers), 4096)

    def test_both_ways(self) -> None:
        """A credit reaches the other end as an event of the stream and changes nothing else."""
        self.near.choke()
        self.near.credit(10)
        events = self.server.receive(self.client.take())
        self.assertEqual([(m.name, a) for _, m, a, _ in events], [("close", ()), ("credit", (10,))])
        self.far.credit(20)
        self.far.chunk(b"x")
        events = self.client.receive(self.server.take())
        self.assertEqual([(m.name, a) for _, m, a, _ in events], [("credit", (20,)), ("write", (b"x",))])
        self.assertIsNone(self.server.broken)

    def test_unknown(self) -> None:
        """A peer that is not known to understand credits is sent none."""
        self.near.kin = False
        self.near.credit(10)
        self.assertEqual(self.client.take(), b"")

    def test_late(self) -> None:
        """A credit for a stream that has just ended is no fault of the peer's."""
        self.near.choke()
        self.server.receive(self.client.take())
        self.far.choke()
        self.near.credit(10)
        self.assertEqual(self.server.receive(self.client.take()), [])
        self.assertIsNone(self.server.broken)

    def test_malformed(self) -> None:
        """A credit that is no number of bytes costs its sender the connection."""
        self.server.receive(pack((1, CREDIT.id, (-1,), ())))
        self.assertIsNotNone(self.server.broken)


class CancelTests(SynchronousTestCase):
    """A call whose answer nobody waits for any more."""

    def setUp(self) -> None:
        self.heard: list[object] = []
        self.client = dialing()
        self.server = serving(APP, self)
        self.near = self.client.open(APP.slots[0], (b"e",), Nobody())

    def received(self, channel: object, message: object, args: object, headers: object) -> None:
        channel.receiver = self

    def lost(self, channel: object, reason: object) -> None:
        self.heard.append(reason.pair)

    def carry(self) -> None:
        """What the client says, as a connection delivers it."""
        for channel, *event in self.server.receive(self.client.take()):
            channel.receiver.received(channel, *event)

    def test_unfinished(self) -> None:
        """While the request is being sent, it ends with the error."""
        self.near.cancel(DeadlineError())
        events = self.server.receive(self.client.take())
        self.assertEqual([m.name for _, m, _, _ in events], ["enqueue", "error"])

    def test_complete(self) -> None:
        """A complete request is revoked where the peer knows how: its server hears of it, and there is no answer."""
        self.client.revocation = REVOKE_SLOT
        self.near.choke()
        self.carry()
        self.near.cancel(DeadlineError())
        self.near.abandon()
        self.carry()
        self.assertEqual(self.heard, [DeadlineError().pair])
        self.assertEqual(self.client.receive(self.server.take())[0][1].name, "value")
        self.assertEqual((len(self.server), len(self.client)), (0, 0))

    def test_unknown(self) -> None:
        """A peer that has no word for it is left alone."""
        self.near.choke()
        self.carry()
        self.near.cancel(DeadlineError())
        self.assertEqual(self.client.take(), b"")
