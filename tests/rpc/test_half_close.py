"""A peer that says no more, and may still listen."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.rpc.connection import FIRST_PROBE, NOTHING, PROBE
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.protocols import APP, LOCATOR
from cocaine_tx.wire.session import dialing, serving

ENQUEUE, INFO = APP.slots[0], APP.slots[1]


class HalfCloseTests(SynchronousTestCase):
    """A client that says no more after its question, as ``nc -N`` does."""

    def setUp(self) -> None:
        self.heard = Recorder()
        self.service = Recorder()

    def pair(self, protocol=APP) -> ConnectionPair:
        pair = ConnectionPair(dialing(), serving(protocol, self.service))
        pair.near_end.disconnecting = False
        return pair

    def test_answered(self) -> None:
        """A complete question is answered, then the connection ends."""
        pair = self.pair()
        pair.near.session.open(INFO, (), self.heard)
        pair.settle()
        pair.near_end.loseWriteConnection()
        pair.pump()
        self.assertFalse(pair.far.gone)
        self.service.channels[1].value((b"late",))
        pair.pump()
        self.assertEqual(self.heard.told, [(1, "value", (b"late",))])
        self.assertTrue(pair.far.gone and pair.near.gone)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_finished_stream(self) -> None:
        """A stream that the client has closed is answered to its end."""
        pair = self.pair()
        channel = pair.near.session.open(ENQUEUE, (b"ping",), self.heard)
        channel.choke()
        pair.settle()
        pair.near_end.loseWriteConnection()
        pair.pump()
        for act in (lambda: self.service.channels[1].chunk(b"x"), self.service.channels[1].choke):
            act()
            pair.pump()
        self.assertEqual(self.heard.told, [(1, "write", (b"x",)), (1, "close", ())])
        self.assertTrue(pair.far.gone)

    def test_unfinished_stream(self) -> None:
        """A stream that the client can never finish is lost at once, others on the connection are not."""
        pair = self.pair()
        pair.near.session.open(ENQUEUE, (b"ping",), self.heard)
        pair.near.session.open(INFO, (), self.heard)
        pair.settle()
        pair.near_end.loseWriteConnection()
        pair.pump()
        self.service.channels[1].receiver = self.service
        self.assertEqual(self.service.told[2:], [(1, "lost", (5, 2))])
        self.assertFalse(pair.far.gone)
        self.service.channels[2].value(())
        pair.pump()
        self.assertTrue(pair.far.gone)
        self.assertEqual(self.heard.told, [(2, "value", ()), (1, "lost", (5, 2))])

    def test_endless_stream(self) -> None:
        """A subscription that only its client could end ends with the client's last word."""
        pair = self.pair(LOCATOR)
        pair.near.session.open(LOCATOR.slots[1], (b"uuid",), self.heard)
        pair.settle()
        pair.near_end.loseWriteConnection()
        pair.pump()
        self.assertTrue(pair.far.gone)
        self.assertEqual(self.service.told[1:], [(1, "lost", (5, 2))])

    def test_idle(self) -> None:
        """With nothing to answer the connection ends at once."""
        pair = self.pair()
        pair.near_end.loseWriteConnection()
        pair.pump()
        self.assertTrue(pair.far.gone)

    def test_probed(self) -> None:
        """A client that says no more is asked, in words it ignores, whether it still listens; then it is answered."""
        pair = self.pair()
        pair.near.session.open(INFO, (), self.heard)
        pair.settle()
        pair.near_end.loseWriteConnection()
        pair.pump()
        for pause in (FIRST_PROBE, PROBE, PROBE):
            pair.clock.advance(pause)
            pair.pump()
        self.assertFalse(pair.far.gone)
        self.assertEqual(self.heard.told, [])
        self.service.channels[1].value(())
        pair.pump()
        self.assertEqual(self.heard.told, [(1, "value", ())])
        self.assertTrue(pair.far.gone)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_nothing(self) -> None:
        """The words that find out are a whole frame of no channel's."""
        self.assertEqual(NOTHING, b"\x94\x00\x00\x90\x90")

    def test_client_gone(self) -> None:
        """A client that has gone altogether is found out soon, and nobody works for it any longer."""
        pair = self.pair()
        pair.near.session.open(INFO, (), self.heard)
        pair.pump()
        self.service.channels[1].receiver = self.service
        pair.near.close()
        pair.pump()
        pair.clock.advance(FIRST_PROBE)
        pair.pump()
        self.assertTrue(pair.far.gone)
        self.assertEqual(self.service.told, [(1, "info", ()), (1, "lost", (5, 2))])
