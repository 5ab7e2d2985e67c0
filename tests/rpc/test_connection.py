"""A session on a transport: what leaves when, who is told what, and who waits for whom."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import ConnectionGone, InvalidArguments
from cocaine_tx.rpc.connection import STALL
from cocaine_tx.rpc.outlet import SLICE
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.frames import Limits, pack
from cocaine_tx.wire.protocols import APP, EVENTS, HANDSHAKE, STORAGE, WORKER
from cocaine_tx.wire.session import NOBODY, Session, Strangers, dialing, serving

ENQUEUE, INFO = APP.slots[0], APP.slots[1]


class Echo(Recorder):
    """Answers every chunk by the same, a close by a close, and a plain call by its arguments."""

    def received(self, channel, message, args, headers) -> None:
        super().received(channel, message, args, headers)
        channel.receiver = self
        if message.name == "write":
            channel.chunk(*args)
        elif message.name == "close":
            channel.choke()
        elif not channel.slot.downstream:
            channel.value(args)


class Failing(Recorder):
    """Fails at whatever it is told."""

    def received(self, channel, message, args, headers) -> None:
        super().received(channel, message, args, headers)
        raise ZeroDivisionError("a receiver's own fault")

    def lost(self, channel, reason) -> None:
        super().lost(channel, reason)
        raise ZeroDivisionError("a receiver's own fault")


class TalkTests(SynchronousTestCase):
    """Two connections that keep to the protocol."""

    def setUp(self) -> None:
        self.echo = Echo()
        self.client = Recorder()
        self.pair = ConnectionPair(dialing(), serving(APP, self.echo))

    def ask(self, slot=ENQUEUE, args=(b"ping",), receiver=None):
        return self.pair.near.session.open(slot, args, receiver or self.client)

    def test_one_write_for_a_turn(self) -> None:
        """All that is said during one turn, on any channel, leaves in one piece, in the order said."""
        first, second = self.ask(), self.ask()
        for number in range(10):
            first.chunk(b"%d" % number)
            second.chunk(b"%d" % number)
        self.assertEqual(self.pair.near_end.writes, [])
        self.pair.settle()
        self.assertEqual(len(self.pair.near_end.writes), 1)
        self.pair.pump()
        self.assertEqual(len(self.pair.far_end.writes), 1)
        chunks = [(number, args[0]) for number, name, args in self.client.told if name == "write"]
        self.assertEqual(chunks, [(channel, b"%d" % number) for number in range(10) for channel in (1, 2)])

    def test_any_pieces(self) -> None:
        """However small the pieces, the talk is the same."""
        for size in (1, 2, 7, None):
            self.setUp()
            channel = self.ask()
            for number in range(5):
                channel.chunk(b"%d" % number)
            channel.choke()
            self.pair.pump(size)
            self.assertEqual(
                self.client.told, [*((1, "write", (b"%d" % number,)) for number in range(5)), (1, "close", ())]
            )
            self.assertEqual((len(self.pair.near.session), len(self.pair.far.session)), (0, 0))

    def test_said_before_connected(self) -> None:
        """What is asked before the connection is up leaves when it is."""
        session = dialing()
        session.open(INFO, (), self.client)
        ConnectionPair(session, serving(APP, self.echo)).pump()
        self.assertEqual(self.client.told, [(1, "value", ())])

    def test_lost_in_order(self) -> None:
        """When the network breaks every open channel is told once, in the order of their opening, then the owner."""
        told: list = self.client.told
        self.pair.near.lost = lambda connection: told.append(connection)
        for _ in range(4):
            self.ask()
        self.ask(INFO, ())
        self.pair.pump()
        del told[:]
        self.pair.cut()
        self.pair.cut()
        self.assertEqual(told, [*((number, "lost", (5, 2)) for number in (1, 2, 3, 4)), self.pair.near])
        self.assertTrue(self.pair.near.gone)
        self.assertRaises(ConnectionGone, self.ask)

    def test_far_side_learns_too(self) -> None:
        """The service's channels are told as well, and a plain call in progress does not mind."""
        self.ask()
        self.pair.pump()
        self.pair.near.close()
        self.pair.pump()
        self.assertEqual(self.echo.told, [(1, "enqueue", (b"ping",)), (1, "lost", (5, 2))])
        self.assertTrue(self.pair.far.gone)

    def test_close_says_the_last(self) -> None:
        """What was said before closing arrives; what is tried afterwards is dropped."""
        channel = self.ask()
        channel.chunk(b"before")
        self.pair.near.close()
        self.pair.near.close()
        channel.chunk(b"after")
        self.assertRaises(ConnectionGone, self.ask)
        self.pair.pump()
        self.assertEqual(self.echo.told, [(1, "enqueue", (b"ping",)), (1, "write", (b"before",)), (1, "lost", (5, 2))])
        self.assertEqual(self.client.told, [(1, "lost", (5, 2))])

    def test_nothing_kept_for_a_closed_peer(self) -> None:
        """A source that does not know of the closing yet fills no memory."""
        self.ask()
        self.pair.pump()
        channel = self.echo.channels[1]
        self.pair.near_end.paused = True
        self.pair.far.close()
        for _ in range(10):
            channel.chunk(b"x" * 100_000)
            self.pair.settle()
        self.assertEqual(self.pair.far.session.take(), b"")

    def test_abort(self) -> None:
        """An aborted connection is gone at the end of the turn, what waited with it."""
        self.ask()
        self.pair.near.abort()
        self.pair.settle()
        self.assertEqual(self.client.told, [(1, "lost", (5, 2))])
        self.pair.near.abort()
        self.pair.near.close()


class FaultTests(SynchronousTestCase):
    """A faulty peer and faulty receivers cost themselves, and nobody else."""

    def test_broken_peer(self) -> None:
        """A peer that breaks the protocol is heard to that point, answered, and disconnected."""
        echo = Echo()
        pair = ConnectionPair(dialing(), serving(APP, echo))
        told = Recorder()
        pair.near.session.open(INFO, (), told)
        pair.near.session.emit(1, 0, (), b"\x90")
        pair.near.session.open(INFO, (), told)
        pair.pump()
        self.assertEqual(echo.told, [(1, "info", ())])
        self.assertEqual(told.told, [(1, "value", ()), (2, "lost", (5, 2))])
        self.assertTrue(pair.near.gone and pair.far.gone)

    def test_garbage(self) -> None:
        """Random bytes end the connection that they came by."""
        pair = ConnectionPair(dialing(), serving(APP, NOBODY))
        pair.near_end.write(b"\xc1GET / HTTP/1.1\r\n\r\n")
        pair.pump()
        self.assertTrue(pair.far.gone)

    def test_faulty_receiver(self) -> None:
        """A receiver that fails costs its own channel an error; others go on, the connection stays."""
        failing, client = Failing(), Recorder()
        pair = ConnectionPair(dialing(), serving(APP, failing))
        for _ in range(2):
            channel = pair.near.session.open(ENQUEUE, (b"ping",), client)
            channel.chunk(b"x")
        pair.pump()
        self.assertEqual([(number, name) for number, name, _ in client.told], [(1, "error"), (2, "error")])
        self.assertEqual(client.told[0][2][0], (7, 7))
        self.assertEqual([name for _, name, _ in failing.told], ["enqueue", "enqueue"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertFalse(pair.far.gone)

    def test_faulty_receiver_without_words(self) -> None:
        """Where the protocol has no word for a failure the connection ends, and nothing is raised into the reactor."""
        failing = Failing()
        pair = ConnectionPair(Session(EVENTS, NOBODY, Strangers.IGNORED), serving(WORKER, failing))
        told = Recorder()
        pair.near.session.open(HANDSHAKE, (b"uuid",), told)
        pair.pump()
        self.assertEqual(told.told, [(1, "lost", (5, 2))])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_faulty_receiver_at_the_end(self) -> None:
        """One receiver that fails when the connection ends does not keep the news from the others."""
        failing, client = Failing(), Recorder()
        pair = ConnectionPair(dialing(), serving(APP, NOBODY))
        for receiver in (client, failing, client):
            pair.near.session.open(ENQUEUE, (b"ping",), receiver)
        pair.cut()
        self.assertEqual(client.told, [(1, "lost", (5, 2)), (3, "lost", (5, 2))])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_revoke(self) -> None:
        """A revoked channel's owner is told between what came before and what comes after."""
        echo = Echo()
        pair = ConnectionPair(dialing(), serving(APP, echo))
        pair.near_end.write(
            b"".join(pack(value) for value in ((1, 0, (b"e",)), (1, 0, (b"x",)), (2, 65535, (1, (7, 2))), (3, 1, ())))
        )
        pair.pump()
        self.assertEqual(echo.told, [
            (1, "enqueue", (b"e",)), (1, "write", (b"x",)), (1, "lost", InvalidArguments().pair), (3, "info", ()),
        ])  # fmt: skip


class PressureTests(SynchronousTestCase):
    """Whoever does not take what is sent slows down its source, and is cut off in the end."""

    def setUp(self) -> None:
        self.pair = ConnectionPair(dialing(), serving(APP, NOBODY), capacity=100_000)
        self.source = ConnectionPair(dialing(), serving(STORAGE, NOBODY), clock=self.pair.clock)
        self.channel = self.pair.near.session.open(ENQUEUE, (b"ping",), NOBODY)
        self.pair.pump()
        self.pair.far_end.paused = True

    def congest(self) -> None:
        for _ in range(20):
            self.channel.chunk(b"x" * 100_000)
        self.pair.settle()
        self.assertTrue(self.pair.near.session.congested)

    def test_congested(self) -> None:
        """A connection with much waiting holds the source it is filled from, until its peer has taken everything."""
        self.pair.near.delay(self.source.near)
        self.assertFalse(self.source.near.held)
        self.congest()
        self.pair.near.delay(self.source.near)
        self.pair.near.delay(self.source.near)
        self.pair.near.delay(self.pair.near)
        self.assertTrue(self.source.near.held and self.source.near_end.paused)
        self.assertFalse(self.pair.near.held)
        self.pair.far_end.paused = False
        self.pair.pump()
        self.assertFalse(self.source.near.held or self.source.near_end.paused or self.pair.near.session.congested)

    def test_limit(self) -> None:
        """How much must wait for that is a limit of the session."""
        for unsent, congested in ((900_000, True), (1_100_000, False)):
            pair = ConnectionPair(dialing(Limits(unsent=unsent)), serving(APP, NOBODY), capacity=100_000)
            pair.far_end.paused = True
            pair.near.session.open(ENQUEUE, (b"ping",), NOBODY).chunk(b"x" * (1_000_000 + 100_000 + SLICE))
            pair.settle()
            self.assertEqual(pair.near.session.congested, congested)

    def test_two_holders(self) -> None:
        """A source held for two reasons goes on when both are gone."""
        self.congest()
        self.pair.near.delay(self.source.near)
        self.source.near.hold(self)
        self.pair.far_end.paused = False
        self.pair.pump()
        self.assertTrue(self.source.near_end.paused)
        self.source.near.release(self)
        self.source.near.release(self)
        self.assertFalse(self.source.near_end.paused)

    def test_congested_peer_lost(self) -> None:
        """When the slow peer goes, its source is not left held."""
        self.congest()
        self.pair.near.delay(self.source.near)
        self.pair.cut()
        self.assertFalse(self.source.near.held)

    def test_source_lost(self) -> None:
        """A held source may go; being released afterwards is harmless."""
        self.congest()
        self.pair.near.delay(self.source.near)
        self.source.cut()
        self.pair.far_end.paused = False
        self.pair.pump()
        self.assertFalse(self.source.near.held)

    def test_stall(self) -> None:
        """A peer that takes nothing for the whole limit is cut off; one that takes a slice now and then is not."""
        self.congest()
        for _ in range(3):
            self.pair.clock.advance(STALL - 1)
            self.pair.far_end.paused = False
            for _ in range(8):
                self.pair.carry(self.pair.near_end, SLICE // 4)
            self.pair.far_end.paused = True
        self.assertFalse(self.pair.near.gone)
        self.pair.clock.advance(STALL)
        self.pair.settle()
        self.assertTrue(self.pair.near.gone)

    def test_little_waits(self) -> None:
        """Also when less than a slice waits: a peer that never reads has a deadline."""
        self.channel.chunk(b"x" * 120_000)
        self.pair.settle()
        self.assertFalse(self.pair.near.session.congested)
        self.pair.clock.advance(STALL)
        self.pair.settle()
        self.assertTrue(self.pair.near.gone)

    def test_nothing_waits(self) -> None:
        """A peer that is merely silent is left alone for ever."""
        self.pair.far_end.paused = False
        self.congest()
        self.pair.pump()
        self.pair.clock.advance(STALL * 10)
        self.pair.pump()
        self.assertFalse(self.pair.near.gone)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_closing_has_a_deadline(self) -> None:
        """A peer that never reads does not keep us from closing."""
        self.congest()
        self.pair.near.close()
        self.pair.pump()
        self.assertFalse(self.pair.near.gone)
        self.pair.clock.advance(STALL)
        self.pair.settle()
        self.assertTrue(self.pair.near.gone)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_order_under_pressure(self) -> None:
        """What had to wait arrives whole and in order."""
        self.pair.near.session.lose_unfinished()
        echo = Recorder()
        pair = ConnectionPair(dialing(), serving(APP, echo), capacity=50_000)
        channel = pair.near.session.open(ENQUEUE, (b"ping",), NOBODY)
        chunks = [bytes([number]) * size for number, size in enumerate((1, 70_000, 10, 300_000, 0, 128 * 1024, 5))]
        for chunk in chunks:
            channel.chunk(chunk)
            pair.carry(pair.near_end, 10_000)
        pair.near.close()
        pair.pump(30_000)
        receiver = [args[0] for _, name, args in echo.told if name == "write"]
        self.assertEqual(receiver, chunks)
