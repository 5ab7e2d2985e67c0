"""The session's own messages: ping, revoke, and those that were never bound."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.wire.headers import UNTRACED
from cocaine_tx.wire.idl import PING_SLOT
from cocaine_tx.wire.protocols import APP
from cocaine_tx.wire.session import NOBODY, dialing, serving
from tests.wire.test_recordings import Deliver
from tests.wire.test_session import Recorder, frames, said


class ControlTests(SynchronousTestCase):
    """The session's own messages."""

    def setUp(self) -> None:
        self.recorder = Recorder()
        self.delivery = Deliver(serving(APP, self.recorder))
        self.session = self.delivery.session

    def test_ping(self) -> None:
        """A ping is answered, and uses up its channel number."""
        self.delivery.feed(said((1, 65533, ())))
        self.assertEqual(frames(self.session.take()), [(1, 0, ())])
        self.assertEqual((len(self.session), self.recorder.told), (0, []))
        self.delivery.feed(said((1, 65533, ())))
        self.assertEqual(self.session.broken.pair, (7, 4))

    def test_revoke(self) -> None:
        """A revoked channel's holder is told why, once, after everything that was said on it before."""
        self.delivery.feed(
            said((1, 0, (b"e",)), (1, 0, (b"data",)), (2, 65535, (1, (0x52FF, 1))), (3, 65535, (1, (1, 1))))
        )
        self.assertEqual(
            self.recorder.told, [(1, "enqueue", (b"e",)), (1, "write", (b"data",)), (1, "lost", (0x52FF, 1))]
        )
        self.assertEqual(frames(self.session.take()), [(2, 0, ()), (3, 0, ())])
        self.assertEqual(len(self.session), 0)

    def test_revoked_is_over(self) -> None:
        """Nothing more goes or comes on a revoked channel, and the end of the connection does not tell of it again."""
        ((channel, *_),) = self.delivery.feed(said((1, 0, (b"e",))))
        self.delivery.feed(said((2, 65535, (1, (5, 2)))))
        self.session.take()
        channel.chunk(b"x")
        self.assertEqual((self.session.take(), self.session.lose()), (b"", []))
        self.assertEqual(self.recorder.told[1:], [(1, "lost", (5, 2))])

    def test_frame_behind_revoke(self) -> None:
        """A frame on the revoked channel in the same read is one on a channel that has ended."""
        self.delivery.feed(said((1, 0, (b"e",)), (2, 65535, (1, (5, 2))), (1, 0, (b"late",))))
        self.assertEqual(self.session.broken.pair, (7, 4))
        self.assertEqual(self.recorder.told, [(1, "enqueue", (b"e",)), (1, "lost", (5, 2))])

    def test_faulty_holder(self) -> None:
        """A holder that fails when told does not fail the decoding of the peer's bytes."""
        self.recorder.lost = None
        self.session.receive(said((1, 0, (b"e",)), (2, 65535, (1, (5, 2)))))
        self.assertIsNone(self.session.broken)

    def test_malformed(self) -> None:
        """A malformed revoke ends the connection, as do settings and goaway, which were never bound."""
        for kind, args in (
            (65535, ()), (65535, (1,)), (65535, (1, 0)), (65535, (1, ())), (65535, (1, (1,))), (65535, (b"1", (1, 2))),
            (65535, (1, (1, b"2"))), (65534, ({},)), (65532, (0, b"bye")), (65531, ()),
        ):  # fmt: skip
            session = serving(APP, NOBODY)
            self.assertEqual(session.receive(said((1, kind, args))), [])
            self.assertEqual(session.broken.pair[0], 7, (kind, args))

    def test_ping_from_us(self) -> None:
        """We may ask a peer for a sign of life; its answer is a value."""
        client = dialing()
        recorder = Recorder()
        client.open(PING_SLOT, (), recorder)
        self.assertEqual(client.take(), bytes.fromhex("9401cdfffd9090"))
        delivery = Deliver(client)
        delivery.feed(said((1, 0, (), UNTRACED)))
        self.assertEqual((recorder.told, len(client)), ([(1, "value", ())], 0))
