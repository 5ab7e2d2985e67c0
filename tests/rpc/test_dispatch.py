"""From a slot to the code that answers."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import InvalidArguments, NotFound, QueueFull
from cocaine_tx.rpc.desk import CALLS
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.frames import Packed
from cocaine_tx.wire.idl import PING_SLOT
from cocaine_tx.wire.protocols import APP, STORAGE
from cocaine_tx.wire.session import NOBODY, dialing, serving


class CallTests(SynchronousTestCase):
    """A handler of a call answers with a tuple, a Deferred or a coroutine, or raises."""

    def ask(self, call, *, slot: str = "read", args=(b"c", b"k")) -> list:
        """What a client hears when this is the handler."""
        self.client = Recorder()
        dispatch = Dispatch(STORAGE, {"read": call})
        self.pair = ConnectionPair(dialing(), serving(STORAGE, dispatch))
        self.pair.near.session.open(STORAGE.named(slot), args, self.client)
        self.pair.pump()
        return [(name, *args) for _, name, args in self.client.told]

    def test_answers(self) -> None:
        """The same answer, however it is given."""
        waiting: Deferred = Deferred()

        async def coroutine(headers, collection, key):
            return (await waiting,)

        async def at_once(headers, collection, key):
            return (collection, key)

        self.assertEqual(self.ask(lambda headers, collection, key: (collection, key)), [("value", b"c", b"k")])
        self.assertEqual(self.ask(at_once), [("value", b"c", b"k")])
        self.assertEqual(self.ask(lambda *_: Packed((b"c", b"k"))), [("value", b"c", b"k")])
        self.assertEqual(self.ask(coroutine), [])
        waiting.callback(b"late")
        self.pair.pump()
        self.assertEqual(self.client.told, [(1, "value", (b"late",))])
        self.assertEqual(len(self.pair.far.session), 0)

    def test_foreseen_errors(self) -> None:
        """An error that a user is to be told about is told with its numbers and words, and not logged."""

        def at_once(headers, collection, key):
            raise NotFound("gone")

        async def coroutine(headers, collection, key):
            raise NotFound("gone")

        def failing(headers, collection, key):
            answer: Deferred = Deferred()
            answer.errback(NotFound("gone"))
            return answer

        for call in (at_once, coroutine, failing):
            self.assertEqual(self.ask(call), [("error", (12, 2), b"gone")])

    def test_unforeseen_errors(self) -> None:
        """Any other exception is logged here and told to the client; the connection stays."""

        def at_once(headers, collection, key):
            raise ZeroDivisionError("oops")

        async def coroutine(headers, collection, key):
            raise ZeroDivisionError("oops")

        for call in (at_once, coroutine):
            self.assertEqual([told[:2] for told in self.ask(call)], [("error", (7, 7))])
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertFalse(self.pair.far.gone)

    def test_answer_that_cannot_be_sent(self) -> None:
        """An answer without a wire form is our fault: logged, and an error to the client."""

        async def coroutine(headers, collection, key):
            return (object(),)

        for call in (lambda *_: (object(),), coroutine):
            self.assertEqual([told[:2] for told in self.ask(call)], [("error", (7, 7))])
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_malformed_arguments(self) -> None:
        """A handler that finds its arguments malformed ends the connection, as the original does."""

        def call(headers, collection, key):
            raise InvalidArguments()

        self.assertEqual(self.ask(call), [("lost", 5, 2)])
        self.assertTrue(self.pair.far.gone)

    def test_not_bound(self) -> None:
        """What a service declares and does not do ends the connection."""
        self.assertEqual(self.ask(lambda *_: (), slot="remove"), [("lost", 5, 2)])

    def test_client_gone(self) -> None:
        """A call goes on when its client has gone; its answer, or its error, is dropped."""
        for end in (lambda waiting: waiting.callback((b"x",)), lambda waiting: waiting.errback(NotFound())):
            waiting: Deferred = Deferred()
            self.ask(lambda *_, waiting=waiting: waiting)
            self.pair.cut()
            end(waiting)
            self.pair.pump()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_headers(self) -> None:
        """A handler gets the request's headers."""
        got: list = []
        dispatch = Dispatch(STORAGE, {"read": lambda headers, *_: got.append(headers) or ()})
        pair = ConnectionPair(dialing(), serving(STORAGE, dispatch))
        pair.near.session.open(STORAGE.slots[0], (b"c", b"k"), Recorder(), ((b"authorization", b"x"),))
        pair.pump()
        self.assertEqual(got, [((b"authorization", b"x"),)])

    def test_unknown_name(self) -> None:
        """Binding a method that the protocol does not have is found out at start."""
        self.assertRaises(KeyError, Dispatch, STORAGE, {"reed": lambda: ()})


class StreamTests(SynchronousTestCase):
    """A handler of a stream gets the channel."""

    def ask(self, stream) -> list:
        self.client = Recorder()
        self.pair = ConnectionPair(dialing(), serving(APP, Dispatch(APP, {}, {"enqueue": stream})))
        self.channel = self.pair.near.session.open(APP.slots[0], (b"ping",), self.client)
        self.pair.pump()
        return [(name, *args) for _, name, args in self.client.told]

    def test_stream(self) -> None:
        """It answers when it likes, and hears what the client says once it has set a receiver."""
        heard = Recorder()

        def stream(channel, headers, event):
            channel.receiver = heard
            channel.chunk(event)

        self.assertEqual(self.ask(stream), [("write", b"ping")])
        self.channel.chunk(b"x")
        self.pair.pump()
        self.assertEqual(heard.told, [(1, "write", (b"x",))])

    def test_refused(self) -> None:
        """A stream refused at its opening is answered by the error; what the client still sends is dropped."""

        def stream(channel, headers, event):
            raise QueueFull()

        self.assertEqual(self.ask(stream), [("error", (0x52FF, 1), b"queue is full")])
        self.channel.chunk(b"x")
        self.channel.choke()
        self.pair.pump()
        self.assertEqual((self.pair.far.gone, len(self.pair.far.session)), (False, 0))

    def test_failing(self) -> None:
        """A fault of ours at the opening is an error to the client too."""

        def stream(channel, headers, event):
            raise ZeroDivisionError

        self.assertEqual([told[:2] for told in self.ask(stream)], [("error", (7, 7))])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_malformed(self) -> None:
        """Malformed arguments of a stream end the connection."""

        def stream(channel, headers, event):
            raise InvalidArguments()

        self.assertEqual(self.ask(stream), [("lost", 5, 2)])


class FactoryTests(SynchronousTestCase):
    """A listening service and its clients."""

    def test_limit(self) -> None:
        """One client more than allowed is refused; when one leaves there is room again."""
        pair = ConnectionPair(dialing(), serving(STORAGE, Dispatch(STORAGE, {})))
        factory = ServiceFactory(Dispatch(STORAGE, {}), Hospitality(Turn(pair.clock), pair.clock, connections=2))
        first, second = (factory.buildProtocol(None) for _ in range(2))
        self.assertIsNone(factory.buildProtocol(None))
        first.makeConnection(pair.near_end)
        first.connectionLost()
        self.assertEqual(factory.connections, {second})
        self.assertIsNotNone(factory.buildProtocol(None))


class GreedyTests(SynchronousTestCase):
    """A client that asks for more than it takes is not given more of our memory than others."""

    def begin(self, answer):
        """A client that can ask for anything, 8 KiB of which fit into its socket; what was begun for it."""
        self.begun = begun = []

        def call(headers, collection, key):
            begun.append(key)
            return answer(key)

        self.client = Recorder()
        dispatch = Dispatch(STORAGE, {"read": call})
        self.pair = pair = ConnectionPair(dialing(), serving(STORAGE, dispatch), capacity=8192)
        return pair

    def ask(self, *keys: int) -> None:
        for key in keys:
            self.pair.near.session.open(STORAGE.slots[0], (b"c", b"%d" % key), self.client)
        self.pair.settle()
        self.pair.carry(self.pair.near_end)

    def test_answers_not_taken(self) -> None:
        """It is not read from, and what it has asked for meanwhile waits; when it reads, it gets all, in order."""
        self.begin(lambda key: (b"x" * 1_000_000 + key,))
        self.ask(1)
        self.assertEqual(self.begun, [b"1"])
        self.ask(2, 3)
        self.assertEqual(self.begun, [b"1"])
        self.assertTrue(self.pair.far.held)
        self.pair.pump()
        self.assertEqual(self.begun, [b"1", b"2", b"3"])
        self.assertEqual([args[0][-1:] for _, _, args in self.client.told], [b"1", b"2", b"3"])
        self.assertFalse(self.pair.far.held)

    def test_calls_under_way(self) -> None:
        """So many of its calls are under way at once; the others begin in their order, as answers come."""
        waiting = {}

        def answer(key):
            waiting[key] = Deferred()
            return waiting[key]

        self.begin(answer)
        self.ask(*range(CALLS + 3))
        self.assertEqual(len(self.begun), CALLS)
        waiting[b"5"].callback((b"five",))
        waiting[b"6"].errback(NotFound("six"))
        self.assertEqual(self.begun[CALLS:], [b"%d" % CALLS, b"%d" % (CALLS + 1)])
        for key in range(CALLS + 3):
            if key not in (5, 6):
                waiting[b"%d" % key].callback((b"later",))
        self.pair.pump()
        self.assertEqual(len(self.client.told), CALLS + 3)

    def test_much_that_waits(self) -> None:
        """Small calls that wait keep nobody from being read, for a client may write and go at once; many bytes do."""
        self.begin(lambda key: Deferred())
        self.ask(*range(CALLS + 500))
        self.assertFalse(self.pair.far.held)
        self.pair.near.session.open(STORAGE.slots[0], (b"c", b"k" * 200_000), self.client)
        self.pair.carry(self.pair.near_end)
        for _ in range(30):
            self.pair.carry(self.pair.near_end)
        self.assertTrue(self.pair.far.held)

    def test_gone_without_taking(self) -> None:
        """What it has asked for is done though it has gone: it may have been a write."""
        self.begin(lambda key: (b"x" * 1_000_000,))
        self.ask(1)
        self.ask(2, 3)
        self.pair.cut()
        self.assertEqual(self.begun, [b"1", b"2", b"3"])

    def test_thousands_that_wait(self) -> None:
        """However many wait, they begin one after the other and not inside one another."""
        waiting = []

        def answer(key):
            answered: Deferred = Deferred()
            if len(waiting) < CALLS:
                waiting.append(answered)
            else:
                answered.callback((key,))
            return answered

        self.begin(answer)
        self.ask(*range(5000))
        for _ in range(100):
            self.pair.settle()
            self.pair.carry(self.pair.near_end)
        self.assertEqual(len(self.begun), CALLS)
        for answered in list(waiting):
            answered.callback((b"first",))
        self.pair.pump()
        self.assertEqual(len(self.client.told), 5000)

    def test_late_failure(self) -> None:
        """A call that waited and fails is logged and answered as others are."""
        self.begin(lambda key: (b"x" * 1_000_000,) if key == b"1" else 1 // 0)
        self.ask(1)
        self.ask(2)
        self.pair.pump()
        self.assertEqual([name for _, name, _ in self.client.told], ["value", "error"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_questions_without_end(self) -> None:
        """Who pings or opens streams and reads nothing is soon not read from, and gets all answers when it does."""

        def refuse(channel, headers, *args):
            raise QueueFull()

        for slot, args in ((PING_SLOT, ()), (APP.slots[0], (b"event",))):
            pair = ConnectionPair(dialing(), serving(APP, NOBODY), capacity=8192)
            factory = ServiceFactory(Dispatch(APP, {}, {"enqueue": refuse}), Hospitality(pair.turn, pair.clock))
            served = pair.far_end.protocol = factory.buildProtocol(None)
            served.makeConnection(pair.far_end)
            pair.near_end.paused = True
            client = Recorder()
            asked = 0
            while not pair.far_end.paused:
                self.assertLess(asked, 20_000)
                for _ in range(500):
                    channel = pair.near.session.open(slot, args, client)
                    if channel.sending:
                        channel.choke()
                asked += 500
                for _ in range(10):
                    pair.carry(pair.near_end)
            pair.near_end.paused = False
            pair.pump()
            self.assertEqual(len(client.told), asked)
            self.assertFalse(pair.far_end.paused)
