"""Channels of one connection: who may say what when, and what becomes of those who do not keep to it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import (
    CocaineError,
    ConnectionGone,
    LocalProtocolError,
    QueueFull,
    RemoteError,
    UndecodableError,
)
from cocaine_tx.wire.frames import Packed, pack, pack_headers, unpack
from cocaine_tx.wire.headers import UNTRACED, HeaderDecoder, Trace
from cocaine_tx.wire.idl import CHOKE, CHUNK, ERROR, VALUE, VOID
from cocaine_tx.wire.protocols import APP, EVENTS, HANDSHAKE, INVOKE, LOCATOR, LOGGING, STORAGE, TERMINATE, WORKER
from cocaine_tx.wire.session import NOBODY, Session, Strangers, dialing, error_of, is_error, serving
from tests.wire.test_recordings import Deliver

ENQUEUE, INFO = APP.slots[0], APP.slots[1]
READ = STORAGE.slots[0]
ZERO = pack(UNTRACED)


class Recorder:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list = []

    def received(self, channel, message, args, headers) -> None:
        self.told.append((channel.number, message.name, args))

    def lost(self, channel, reason) -> None:
        self.told.append((channel.number, "lost", reason.pair))


def frames(data: bytes) -> list:
    """What some bytes say, headers left out."""
    session = Session(None)
    return [frame[:3] for frame in session._decoder.feed(data)]


def said(*values) -> bytes:
    """Frames in the form of the Node client: three elements."""
    return b"".join(pack(value) for value in values)


class ServingTests(SynchronousTestCase):
    """A service's end."""

    def setUp(self) -> None:
        self.session = serving(APP, NOBODY)

    def opened(self, *values) -> list:
        return [event[0] for event in self.session.receive(said(*values))]

    def refused(self, pair: tuple[int, int], data: bytes) -> None:
        self.session.receive(data)
        self.assertIsNotNone(self.session.broken)
        self.assertEqual(self.session.broken.pair, pair)

    def test_open(self) -> None:
        """A client's first frame opens a channel; what it declares too much is dropped."""
        ((channel, message, args, headers),) = self.session.receive(said((1, 0, (b"ping", b"tag", b"more"))))
        self.assertEqual((channel.number, message, args, headers), (1, ENQUEUE, (b"ping", b"tag"), ()))
        self.assertEqual(len(self.session), 1)

    def test_both_ends(self) -> None:
        """A stream channel is forgotten when both sides have said their last, in either order."""
        for client_first in (True, False):
            session = serving(APP, NOBODY)
            ((channel, *_),) = session.receive(said((1, 0, (b"ping",))))
            for client in (client_first, not client_first):
                self.assertEqual(len(session), 1)
                if client:
                    session.receive(said((1, 2, ())))
                else:
                    channel.choke()
            self.assertEqual((len(session), channel.open), (0, False))

    def test_answered_before_client_ends(self) -> None:
        """A client still writing when it was refused is listened to and not punished."""
        (channel,) = self.opened((1, 0, (b"ping",)))
        channel.fail(QueueFull())
        self.session.take()
        events = self.session.receive(said((1, 0, (b"more",)), (1, 2, ())))
        self.assertEqual([event[1] for event in events], [CHUNK, CHOKE])
        self.assertEqual((len(self.session), self.session.broken, self.session.take()), (0, None, b""))

    def test_say_nothing_twice(self) -> None:
        """After the last word nothing more is sent, whatever is tried."""
        (channel,) = self.opened((1, 0, (b"ping",)))
        channel.choke()
        self.session.take()
        channel.chunk(b"x")
        channel.choke()
        channel.fail(QueueFull())
        channel.value(())
        channel.send("nonsense")
        channel.forward(CHUNK, (b"x",))
        self.assertEqual(self.session.take(), b"")

    def test_wrong_message_of_ours(self) -> None:
        """Our own mistake is raised to who made it, and nothing is sent."""
        stream, call = self.opened((1, 0, (b"ping",)), (2, 1, ()))
        for act in (
            lambda: stream.value(()), lambda: stream.send("value"), lambda: call.chunk(b""), call.choke,
            lambda: call.send("write", b""), lambda: call.value((object(),)), lambda: stream.chunk(object()),
        ):  # fmt: skip
            self.assertRaises(LocalProtocolError, act)
        self.assertEqual(self.session.take(), b"")
        call.value((1,))
        self.assertEqual(frames(self.session.take()), [(2, 0, (1,))])

    def test_mute(self) -> None:
        """A log record is a channel that ends at once."""
        session = serving(LOGGING, NOBODY)
        ((channel, *_),) = session.receive(said((1, 0, (1, b"app/x", b"text"))))
        self.assertEqual((len(session), channel.open), (0, False))
        session.receive(said((1, 0, (1, b"app/x", b"text"))))
        self.assertEqual(session.broken.pair, (7, 4))

    def test_numbers(self) -> None:
        """The first id may be anything, gaps are fine; ids below are not, nor 0, nor what leaves none to others."""
        self.assertEqual([channel.number for channel in self.opened((16, 0, (b"a",)), (999999, 0, (b"a",)))],
                         [16, 999999])  # fmt: skip
        for number in (0, 15, 999998, 2**64 - 1):
            session = serving(APP, NOBODY)
            session.receive(said((16, 0, (b"a",)), (999999, 0, (b"a",)), (number, 0, (b"a",))))
            self.assertEqual(session.broken.pair, (7, 4), number)

    def test_reuse(self) -> None:
        """A plain call's number is used up when it has been asked; a second frame on it ends the connection."""
        self.assertEqual(len(self.opened((1, 1, ()))), 1)
        self.refused((7, 4), said((1, 1, ())))

    def test_after_its_own_end(self) -> None:
        """A client that goes on after its close is disconnected, although we still answer."""
        self.opened((1, 0, (b"ping",)), (1, 2, ()))
        self.refused((7, 4), said((1, 0, (b"more",))))

    def test_events_before_the_fault(self) -> None:
        """What was said before a fault is still heard; nothing is heard after it."""
        events = self.session.receive(said((1, 0, (b"ping",)), (1, 0, (b"x",)), (1, 9, ()), (1, 2, ())))
        self.assertEqual([event[1].name for event in events], ["enqueue", "write"])
        self.assertEqual(self.session.broken.pair, (7, 5))
        self.assertEqual(self.session.receive(said((2, 0, (b"ping",)))), [])

    def test_not_a_frame(self) -> None:
        """Values that are no frame end the connection, each with the reason the original logs."""
        for pair, text in (
            ((6, 1), "05"), ((6, 1), "90"), ((6, 1), "920100"), ((6, 1), "c0"), ((6, 1), "80"), ((6, 1), "a3616263"),
            ((6, 1), "93c20090"), ((6, 1), "93a1310090"), ((6, 1), "9301a13090"), ((6, 1), "930100c0"),
            ((6, 1), "93010080"), ((6, 1), "9401009005"), ((6, 1), "9401009080"), ((6, 2), "940100909100"),
            ((6, 2), "940100909153"), ((6, 4), "c1"), ((7, 4), "93ff0090"), ((7, 5), "9301ff90"), ((7, 5), "93010990"),
        ):  # fmt: skip
            self.session = serving(APP, NOBODY)
            self.refused(pair, bytes.fromhex(text))

    def test_more_elements(self) -> None:
        """Nil for headers and elements beyond the fourth are let pass."""
        events = self.session.receive(said((1, 0, (b"a",), None), (2, 0, (b"a",), (), b"fifth", None)))
        self.assertEqual(([event[0].number for event in events], self.session.broken), ([1, 2], None))

    def test_trace_of_the_opening_frame(self) -> None:
        """Every frame we send on a channel carries the trace of the frame that opened it."""
        trace = Trace(7, 8, 9)
        opening = pack((1, 0, (b"ping",), tuple((False, *header) for header in trace.headers())))
        ((channel, *_),) = self.session.receive(opening)
        (other,) = self.opened((2, 0, (b"ping",)))
        for answering in (channel, other):
            answering.chunk(b"x")
            answering.choke()
        parts = self.session.take()
        self.assertEqual((parts.count(pack_headers(trace.headers())), parts.count(ZERO)), (2, 2))

    def test_header_table_is_kept(self) -> None:
        """Headers stored by frames that mean nothing else still count: the table is the connection's."""
        events = self.session.receive(
            said((1, 0, (b"a",), ((True, b"x-first", b"1"),)), (1, 0, (b"b",), ((True, b"x-second", b"2"),)))
            + said((2, 0, (b"a",), (83, 84)))
        )
        self.assertEqual(events[2][3], ((b"x-second", b"2"), (b"x-first", b"1")))

    def test_large_frames(self) -> None:
        """A frame that is large enough not to be copied is the same frame."""
        (channel,) = self.opened((1, 0, (b"ping",)))
        for size in (32_700, 32_760, 32_768, 70_000):
            channel.chunk(b"x" * size)
            self.assertEqual(self.session.take(), pack((1, 0, (b"x" * size,), UNTRACED)), size)

    def test_wake_once(self) -> None:
        """Whoever sends is woken when there is something to send, not for every frame."""
        woken = []
        self.session.wake = lambda: woken.append(1)
        (channel,) = self.opened((1, 0, (b"ping",)))
        channel.chunk(b"1")
        channel.chunk(b"2")
        self.assertEqual(len(woken), 1)
        self.session.take()
        channel.choke()
        self.assertEqual(len(woken), 2)

    def test_lose(self) -> None:
        """When the connection ends, open channels are listed in the order of their opening and can say no more."""
        channels = self.opened((1, 0, (b"a",)), (2, 0, (b"b",)), (3, 0, (b"c",)))
        channels[1].choke()
        self.session.receive(said((2, 2, ())))
        self.assertEqual(self.session.lose(), [channels[0], channels[2]])
        channels[0].chunk(b"x")
        self.assertEqual((self.session.take(), len(self.session), self.session.lose()), (b"", 0, []))


class DialingTests(SynchronousTestCase):
    """A client's end."""

    def test_late_answers(self) -> None:
        """An answer that comes after nobody waits for it any more is dropped, its channel forgotten at once."""
        session = dialing()
        channel = session.open(READ, (b"c", b"k"), NOBODY)
        channel.abandon()
        self.assertEqual(len(session), 0)
        self.assertEqual(session.receive(said((1, 0, (b"blob",)), (1, 0, (b"again",)))), [])
        self.assertIsNone(session.broken)

    def test_abandoned_half_way(self) -> None:
        """Who stops listening may still finish what it says; then the channel is forgotten by a client only."""
        session = dialing()
        channel = session.open(ENQUEUE, (b"e",), NOBODY)
        channel.abandon()
        channel.choke()
        self.assertEqual((frames(session.take()), len(session)), ([(1, 0, (b"e",)), (1, 2, ())], 0))
        server = serving(APP, NOBODY)
        ((held, *_),) = server.receive(said((1, 0, (b"e",))))
        held.choke()
        held.abandon()
        self.assertEqual(len(server), 1)
        server.receive(said((1, 0, (b"x",)), (1, 2, ())))
        self.assertEqual((server.broken, len(server)), (None, 0))

    def test_unknown_message(self) -> None:
        """An answer that its call does not have ends the connection."""
        session = dialing()
        session.open(READ, (b"c", b"k"), NOBODY)
        session.receive(said((1, 2, ())))
        self.assertEqual(session.broken.pair, (7, 5))

    def test_numbers_go_up(self) -> None:
        """Numbers are never used again, also when the peer has used some."""
        node = Session(WORKER, NOBODY)
        node.receive(said((1, 0, (b"uuid",))))
        self.assertEqual([node.open(INVOKE, (b"e",), NOBODY).number for _ in range(3)], [2, 3, 4])

    def test_unpackable_call(self) -> None:
        """A call whose arguments cannot be sent uses up nothing."""
        session = dialing()
        self.assertRaises(LocalProtocolError, session.open, READ, (object(),), NOBODY)
        self.assertEqual((session.open(READ, (b"c", b"k"), NOBODY).number, len(session)), (1, 1))

    def test_ended(self) -> None:
        """Nothing can be asked on a connection that has ended: the caller hears so instead of waiting for ever."""
        session = dialing()
        session.lose()
        self.assertRaises(ConnectionGone, session.open, READ, (b"c", b"k"), NOBODY)

    def test_headers(self) -> None:
        """A client's headers go with the first frame; its trace goes with every frame of the channel."""
        trace = Trace(7, 8, 9)
        session = dialing()
        channel = session.open(ENQUEUE, (b"e",), NOBODY, (*trace.headers(), (b"authorization", b"x")))
        channel.choke()
        first, last = headed(session.take())
        self.assertEqual(first[3], (*trace.headers(), (b"authorization", b"x")))
        self.assertEqual(last[3], trace.headers())
        session.open(INFO, (), NOBODY, ((b"authorization", b"x"),))
        self.assertEqual(headed(session.take())[0][3], ((b"authorization", b"x"),))

    def test_runtime_always_sends_ids(self) -> None:
        """A node's invoke carries the three ids, zero if there are none, exactly once, whatever the client sent."""
        zero = Trace(0, 0, 0).headers()
        for headers in (
            (), zero, (*zero, (b"x", b"y")), ((b"x", b"y"),), zero[:1],
            ((b"x", b"y"), *zero[1:], (b"trace_id", b"odd")),
        ):  # fmt: skip
            node = serving(WORKER, NOBODY)
            node.open(INVOKE, (b"e",), NOBODY, headers)
            custom = tuple(header for header in headers if header[0] == b"x")
            self.assertEqual(headed(node.take())[0][3], (*zero, *custom), headers)


def headed(data: bytes) -> list:
    """Frames with their headers decoded."""
    decoder = HeaderDecoder()
    return [(*frame[:3], decoder.decode(frame[3])) for frame in Session(None)._decoder.feed(data)]


class WorkerTests(SynchronousTestCase):
    """Both ends of the worker protocol."""

    def test_life(self) -> None:
        """Handshake, heartbeats, an event there and back, terminate, as both ends see it."""
        node_heard, worker_heard = Recorder(), Recorder()
        node = Deliver(serving(WORKER, node_heard))
        worker = Deliver(Session(EVENTS, worker_heard, Strangers.IGNORED))
        control = worker.session.open(HANDSHAKE, (b"uuid-1",), worker_heard)
        control.send("heartbeat")
        node.feed(worker.session.take())
        seen = node.events[0][0]
        seen.send("heartbeat")
        request = node.session.open(INVOKE, (b"ping",), node_heard)
        request.chunk(b"in")
        request.choke()
        worker.feed(node.session.take())
        answer = worker.events[1][0]
        answer.chunk(b"out")
        answer.fail(RemoteError(42, 7, "own"))
        seen.send("terminate", 11, b"bye")
        node.feed(worker.session.take())
        worker.feed(node.session.take())
        control.send(TERMINATE.name, 11, b"bye")
        node.feed(worker.session.take())
        self.assertEqual(node_heard.told, [
            (1, "handshake", (b"uuid-1",)), (1, "heartbeat", ()), (2, "write", (b"out",)),
            (2, "error", ((42, 7), b"own")), (1, "terminate", (11, b"bye")),
        ])  # fmt: skip
        self.assertEqual(worker_heard.told, [
            (1, "heartbeat", ()), (2, "invoke", (b"ping",)), (2, "write", (b"in",)), (2, "close", ()),
            (1, "terminate", (11, b"bye")),
        ])  # fmt: skip
        self.assertEqual((len(node.session), len(worker.session)), (1, 1))

    def test_no_error_for_ever(self) -> None:
        """A control channel has no error message: failing it is our own mistake, found out at once."""
        node = serving(WORKER, NOBODY)
        ((channel, *_),) = node.receive(said((1, 0, (b"uuid",))))
        self.assertRaises(LocalProtocolError, channel.fail, QueueFull())

    def test_worker_speaks_after_its_end(self) -> None:
        """A worker that goes on after its close ends its own connection."""
        node = serving(WORKER, NOBODY)
        node.receive(said((1, 0, (b"uuid",))))
        node.open(INVOKE, (b"e",), NOBODY)
        node.receive(said((2, 2, ()), (2, 0, (b"late",))))
        self.assertEqual(node.broken.pair, (7, 4))

    def test_discard(self) -> None:
        """A publication is withdrawn by its one other message."""
        session = serving(LOCATOR, NOBODY)
        ((channel, *_),) = session.receive(said((1, 4, (b"name", ()))))
        channel.value(())
        ((_, message, _, _),) = session.receive(said((1, 0, ())))
        self.assertEqual((message.name, message.next, len(session)), ("discard", VOID, 0))


class ErrorTests(SynchronousTestCase):
    """Errors as they arrive."""

    def test_known(self) -> None:
        """A pair that is known becomes its class, another keeps its numbers."""
        error = error_of(((0x52FF, 1), b"queue is full"))
        self.assertIsInstance(error, QueueFull)
        error = error_of(((77, 5), b"\xffodd", b"more"))
        self.assertEqual((error.pair, error.reason), ((77, 5), "\ufffdodd"))

    def test_without_reason(self) -> None:
        """A reason may be missing, or be something that is no text."""
        for args in (((12, 2),), ((12, 2), None), ((12, 2), (b"deep",)), ((12, 2, 3), {})):
            self.assertEqual(error_of(args).pair, (12, 2))

    def test_malformed(self) -> None:
        """Whatever else comes is an error all the same: the stream has ended."""
        nested: tuple = ()
        for _ in range(900):
            nested = (nested,)
        for args in (
            (), (5, b"text"), ((),), ((1,),), ((b"12", 2),), ((1.0, float("inf")),), ((None, None),), (nested,), ({},),
            ((True, 1),),
        ):  # fmt: skip
            self.assertIsInstance(error_of(args), UndecodableError)
            self.assertFalse(is_error(args))
        self.assertIsInstance(error_of(((1, 2), nested)), CocaineError)
        self.assertFalse(is_error(((1, 2), nested)))

    def test_values(self) -> None:
        """Constants mean what the other tests take them for."""
        self.assertEqual((VALUE.id, CHUNK.id, ERROR.id, CHOKE.id), (0, 0, 1, 2))
        self.assertEqual(tuple(Packed((1,))), ())
        self.assertEqual(unpack(Packed((1,)).blob), (1,))
