from inspect import isfunction

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import (
    ConfigError,
    ConnectionGone,
    Discarded,
    HandlerFailed,
    InvocationTimeout,
    LocalProtocolError,
    NoHandler,
    NotRunning,
    Overloaded,
    QueueFull,
    RemoteError,
)
from cocaine_tx.testing.worker import WorkerStage
from cocaine_tx.wire.headers import Trace, timeout_header, window_header
from cocaine_tx.wire.idl import REVOKE_SLOT
from cocaine_tx.worker import Worker, WorkerConfig
from cocaine_tx.worker.shift import Shift


class StageCase(SynchronousTestCase):
    def setUp(self):
        self.worker = Worker()

    def stage(self, **settings):
        stage = WorkerStage(self.worker, WorkerConfig(endpoint="/nowhere", uuid="U1", **settings))
        self.addCleanup(stage.cut_off)
        return stage

    def failures(self, kind):
        return [failure.value for failure in self.flushLoggedErrors(kind)]


class HandlerTests(StageCase):
    def test_echo(self):
        """A coroutine reads chunks as they come and answers each; its return closes the answer."""

        @self.worker.on("echo")
        async def echo(request, response):
            async for chunk in request:
                response.write(chunk)

        stage = self.stage()
        event = stage.invoke("echo", b"a", b"b")
        self.assertEqual((event.chunks, event.error, event.closed), ([b"a", b"b"], None, True))
        event = stage.open("echo", b"1")
        stage.settle()
        self.assertEqual((event.chunks, event.closed), ([b"1"], False))
        event.channel.chunk(b"2")
        event.channel.choke()
        stage.settle()
        self.assertEqual((event.chunks, event.closed), ([b"1", b"2"], True))

    def test_on_as_a_call(self):
        """Handlers may be given to `on`, and to `run`, as in the original framework."""

        async def echo(request, response):
            response.write(await request.read())

        self.assertIs(self.worker.on("echo", echo), echo)
        self.assertTrue(isfunction(echo))
        self.assertEqual(self.stage().invoke("echo", b"a").chunks, [b"a"])

    def test_read_and_body(self):
        """`read` gives None after the last chunk, again and again; `body` joins what is left."""
        seen = []

        @self.worker.on("e")
        async def handler(request, response):
            seen.append(await request.read())
            seen.append(await request.body())
            seen.append(await request.read())
            seen.append(await request.read())

        self.stage().invoke("e", b"1", b"2", b"3")
        self.assertEqual(seen, [b"1", b"23", None, None])

    def test_body_limit(self):
        """A body larger than its limit is an error of the request."""

        @self.worker.on("e")
        async def handler(request, response):
            await request.body(3)

        event = self.stage().invoke("e", b"12", b"34")
        self.assertEqual(event.error.pair, (42, 100))
        self.assertIn("larger than 3 bytes", event.error.reason)
        self.assertEqual(len(self.failures(Overloaded)), 1)

    def test_exception(self):
        """An exception is told to the caller in its own words, and logged."""

        @self.worker.on("e")
        async def handler(request, response):
            response.write(b"begun")
            raise ValueError("no luck")

        event = self.stage().invoke("e")
        self.assertIsInstance(event.error, HandlerFailed)
        self.assertEqual((event.chunks, event.error.reason), ([b"begun"], "no luck"))
        self.assertEqual([str(error) for error in self.failures(ValueError)], ["no luck"])

    def test_exception_after_waiting(self):
        """So it is when the handler had to wait first, and when the exception has no words."""

        @self.worker.on("e")
        async def handler(request, response):
            await request.read()
            raise KeyError

        stage = self.stage()
        event = stage.open("e")
        stage.settle()
        event.channel.chunk(b"x")
        stage.settle()
        self.assertEqual(event.error.reason, "KeyError")
        self.failures(KeyError)

    def test_exit(self):
        """A handler that calls sys.exit fails its own request, not the worker."""

        @self.worker.on("e")
        async def handler(request, response):
            raise SystemExit(3)

        stage = self.stage()
        self.assertEqual(stage.invoke("e").error.pair, (42, 100))
        self.assertFalse(stage.ended)
        self.failures(SystemExit)

    def test_unknown_event(self):
        """An event nobody answers is refused by name; what else its client sends is dropped."""
        event = self.stage().invoke("nosuch", b"data")
        self.assertIsInstance(event.error, NoHandler)
        self.assertEqual(event.error.reason, "there is no handler for event nosuch")

    def test_own_error(self):
        """A handler may end with an error of its own number, once; a write after it is a mistake."""

        @self.worker.on("e")
        async def handler(request, response):
            response.error(5, "not today")
            response.error(6, "again")
            response.close()
            self.assertTrue(response.closed)
            self.assertRaises(LocalProtocolError, response.write, b"late")

        event = self.stage().invoke("e")
        self.assertEqual((event.error.pair, event.error.reason), ((42, 5), "not today"))

    def test_write_types(self):
        """Text goes out as UTF-8; what is no chunk is refused."""

        @self.worker.on("e")
        async def handler(request, response):
            response.write("\u00e9")
            response.write(bytearray(b"b"))
            self.assertRaises(TypeError, response.write, 3)

        self.assertEqual(self.stage().invoke("e").chunks, ["\u00e9".encode(), b"b"])

    def test_deferred_handlers(self):
        """Functions returning Deferreds: told by run=, by their annotation, or made by inlineCallbacks."""

        def first(request, response):
            return request.body().addCallback(response.write)

        def second(request, response) -> Deferred[None]:
            return request.body().addCallback(response.write)

        @inlineCallbacks
        def third(request, response):
            response.write((yield request.read()))

        self.worker.on("1", first, run="deferred")
        self.worker.on("2", second)
        self.worker.on("3", third)
        stage = self.stage()
        for name in "123":
            self.assertEqual(stage.invoke(name, b"x").chunks, [b"x"])

    def test_awaiting_deferreds(self):
        """Coroutines await Deferreds of Twisted, ready ones and late ones."""
        later = Deferred()
        ready = Deferred()
        ready.callback(b"1")

        @self.worker.on("e")
        async def handler(request, response):
            response.write(await ready)
            response.write(await later)
            try:
                await Deferred.fromCoroutine(bad())
            except ValueError:
                response.write(b"3")

        async def bad():
            raise ValueError

        stage = self.stage()
        event = stage.invoke("e")
        later.callback(b"2")
        stage.settle()
        self.assertEqual((event.chunks, event.closed), ([b"1", b"2", b"3"], True))

    def test_awaiting_nonsense(self):
        """A handler that awaits what Twisted does not know is told what to do."""

        class Odd:
            def __await__(self):
                yield "odd"

        @self.worker.on("e")
        async def handler(request, response):
            await Odd()

        self.assertIn("run='asyncio'", self.stage().invoke("e").error.reason)
        self.failures(TypeError)

    def test_bad_handlers(self):
        """Mistakes at registration are found at registration."""

        def generator(request, response):
            yield

        async def stream(request, response):
            yield

        async def fine(request, response):
            pass

        for wrong in (generator, stream, 5):
            self.assertRaises(ConfigError, self.worker.on, "e", wrong)
        self.worker.on("e", fine)
        self.assertRaises(ConfigError, self.worker.on, "e", fine)
        self.assertRaises(ConfigError, self.worker.on, "f", fine, run="forked")


class BlockingTests(StageCase):
    def test_blocking(self):
        """A plain function runs in a thread and reads and writes as if nothing were asynchronous."""

        @self.worker.on("e")
        def handler(request, response):
            response.write(request.read())
            for chunk in request:
                response.write(chunk + b"!")

        stage = self.stage()
        event = stage.invoke("e", b"1", b"2", b"3")
        stage.wait(lambda: event.closed)
        self.assertEqual((event.chunks, event.error), ([b"1", b"2!", b"3!"], None))

    def test_exception(self):
        """Its exception reaches the caller."""

        @self.worker.on("e")
        def handler(request, response):
            raise ValueError("blocked")

        stage = self.stage()
        event = stage.invoke("e")
        stage.wait(lambda: event.closed)
        self.assertEqual(event.error.reason, "blocked")
        self.failures(ValueError)

    def test_client_gone(self):
        """A blocking handler learns that its client has gone when it next reads or writes."""
        seen = []

        @self.worker.on("e")
        def handler(request, response):
            try:
                request.read()
            except ConnectionGone as problem:
                seen.append(problem)
            self.assertTrue(request.cancelled)
            response.write(b"for nobody")

        stage = self.stage()
        event = stage.open("e")
        stage.settle()
        event.channel.fail(ConnectionGone())
        stage.wait(lambda: event.closed)
        self.assertEqual(event.error.pair, (5, 2))
        self.assertEqual(len(seen), 1)

    def test_bounded(self):
        """No more handlers run at once than there are threads; the others wait and are answered."""

        @self.worker.on("e")
        def handler(request, response):
            response.write(request.read())

        stage = self.stage(threads=1)
        first = stage.open("e")
        second = stage.invoke("e", b"2")
        first.channel.chunk(b"1")
        first.channel.choke()
        stage.wait(lambda: first.closed and second.closed)
        self.assertEqual((first.chunks, second.chunks), ([b"1"], [b"2"]))


class CancelTests(StageCase):
    def setUp(self):
        super().setUp()
        self.seen = []

        @self.worker.on("waits")
        async def waits(request, response):
            try:
                await Deferred()
            except BaseException as problem:
                self.seen.append(type(problem))
                raise

        @self.worker.on("reads")
        async def reads(request, response):
            try:
                await request.read()
            except BaseException as problem:
                self.seen.append(type(problem))
                raise

    def test_client_error(self):
        """When the client breaks off, a handler that reads gets its error, one that waits elsewhere is cancelled."""
        stage = self.stage()
        for name, kind in (("waits", CancelledError), ("reads", QueueFull)):
            event = stage.open(name)
            stage.settle()
            event.channel.fail(QueueFull("enough"))
            stage.settle()
            self.assertEqual((self.seen.pop(), event.error.pair), (kind, QueueFull("").pair))
        self.assertEqual(len(stage.shift.intake), 0)

    def test_chained_deferred(self):
        """A handler whose Deferred has fired, but waits for another, is cancelled like any."""
        inner = Deferred(self.seen.append)

        @self.worker.on("chained", run="deferred")
        def chained(request, response):
            return succeed(None).addCallback(lambda _: inner)

        stage = self.stage()
        event = stage.open("chained")
        stage.settle()
        event.channel.fail(QueueFull("enough"))
        stage.settle()
        self.assertEqual((self.seen, event.error.pair), ([inner], QueueFull("").pair))

    def test_error_after_the_answer(self):
        """A handler that has ended its answer is not cancelled; only what it still reads breaks off."""
        gate = Deferred()

        @self.worker.on("answered")
        async def answered(request, response):
            response.close()
            await gate
            self.seen.append("waited")
            await request.body()

        stage = self.stage()
        event = stage.open("answered", b"part")
        stage.settle()
        event.channel.fail(ConnectionGone())
        stage.settle()
        self.assertEqual((self.seen, event.error, len(stage.shift.intake)), ([], None, 1))
        gate.callback(None)
        stage.settle()
        self.assertEqual((self.seen, event.error, len(stage.shift.intake)), (["waited"], None, 0))
        self.assertEqual(len(self.failures(ConnectionGone)), 1)

    def test_never_begun(self):
        """A request that was broken off before its handler began does not begin."""
        stage = self.stage()
        event = stage.open("reads")
        event.channel.fail(ConnectionGone())
        stage.settle()
        self.assertEqual((self.seen, event.error.pair), ([], (5, 2)))

    def test_deadline(self):
        """A handler whose client waits no longer is cancelled, and the client told."""
        stage = self.stage()
        event = stage.open("waits", headers=(timeout_header(2.0),))
        stage.advance(1.9)
        self.assertFalse(event.closed)
        stage.advance(0.2)
        self.assertIsInstance(event.error, InvocationTimeout)
        self.assertEqual(self.seen, [CancelledError])

    def test_deadline_met(self):
        """A handler that ends in time leaves no timer; what it sees of the deadline shrinks."""
        remaining = []

        @self.worker.on("e")
        async def handler(request, response):
            remaining.append(request.remaining)
            await request.read()
            remaining.append(request.remaining)

        stage = self.stage()
        before = len(stage.clock.getDelayedCalls())
        event = stage.open("e", headers=(timeout_header(2.0),))
        stage.advance(0.5)
        event.channel.chunk(b"")
        stage.settle()
        self.assertEqual((remaining, event.closed, event.error), ([2.0, 1.5], True, None))
        self.assertEqual(len(stage.clock.getDelayedCalls()), before)

    def test_malformed_deadline(self):
        """A deadline that cannot be read is none."""
        seen = []

        @self.worker.on("e")
        async def handler(request, response):
            seen.append((request.deadline, request.remaining, request.trace))

        self.stage().invoke("e", headers=((b"request_timeout", b"soon"),))
        self.assertEqual(seen, [(None, None, None)])

    def test_trace(self):
        """Headers and trace of the event are the handler's to see."""
        seen = []

        @self.worker.on("e")
        async def handler(request, response):
            seen.append((request.trace, request.headers[-1]))

        self.stage().invoke("e", headers=(*Trace(1, 2, 3).headers(), (b"authorization", b"x")))
        self.assertEqual(seen, [(Trace(1, 2, 3), (b"authorization", b"x"))])

    def test_connection_lost(self):
        """When the node has gone handlers are cancelled and the worker ends."""
        stage = self.stage()
        stage.invoke("waits")
        stage.cut_off()
        self.assertEqual((self.seen, stage.ended), ([CancelledError], True))
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_malformed_chunk(self):
        """A chunk that carries no bytes ends its request, and nothing else."""
        stage = self.stage()
        event = stage.open("reads")
        event.channel.send("write", 5)
        stage.settle()
        self.assertEqual(event.error.pair, (7, 2))
        self.assertFalse(stage.ended)


class TrustTests(StageCase):
    def test_large_request(self):
        """What a node has let through ends no worker, for others' requests are there too: large frames and headers."""

        @self.worker.on("size")
        async def size(request, response):
            told = len(dict(request.headers)[b"custom"])
            response.write(b"%d %d" % (told, len(await request.body(2**30))))

        stage = self.stage()
        event = stage.invoke("size", b"x" * (70 * 2**20), headers=((b"custom", b"h" * 100_000),))
        self.assertEqual((event.chunks, event.closed), ([b"100000 73400320"], True))


class PressureTests(StageCase):
    def test_slow_handler(self):
        """A request larger than the buffer is not read from the node until the handler has caught up."""
        gate = Deferred()
        sizes = []

        @self.worker.on("e")
        async def handler(request, response):
            await gate
            async for chunk in request:
                sizes.append(len(chunk))

        stage = self.stage(buffer=1000)
        event = stage.open("e", b"x" * 2000)
        stage.settle()
        self.assertEqual(stage.transport.producerState, "paused")
        self.assertTrue(stage.shift.link.unread)
        event.channel.chunk(b"y")
        event.channel.choke()
        gate.callback(None)
        stage.settle()
        self.assertEqual(sizes, [2000, 1])
        self.assertEqual(stage.transport.producerState, "producing")

    def test_handler_leaves_early(self):
        """A handler that ends without reading lets the node go on."""
        gate = Deferred()

        @self.worker.on("e")
        async def handler(request, response):
            await gate

        stage = self.stage(buffer=1000)
        event = stage.open("e", b"x" * 2000)
        stage.settle()
        gate.callback(None)
        stage.settle()
        event.channel.chunk(b"more")
        stage.settle()
        self.assertEqual((event.closed, stage.transport.producerState), (True, "producing"))

    def test_slow_node(self):
        """A handler that awaits its writes does not get ahead of a node that takes nothing."""
        written = []

        @self.worker.on("e")
        async def handler(request, response):
            for number in range(100):
                await response.write(bytes(100_000))
                written.append(number)

        stage = self.stage()
        event = stage.open("e")
        real = stage.transport.registerProducer
        held = []
        stage.transport.registerProducer = lambda producer, streaming: held.append(producer)
        stage.shift.link.dataReceived(stage.node.session.take())
        self.assertLess(len(written), 20)
        stage.transport.registerProducer = real
        stage.transport.registerProducer(held[0], False)
        stage.settle()
        self.assertEqual((len(written), len(event.chunks), event.closed), (100, 100, True))


class WindowTests(StageCase):
    def setUp(self):
        super().setUp()

        @self.worker.on("e")
        async def handler(request, response):
            """It does not wait for anything it writes."""
            for number in range(10):
                response.write(b"%d" % number * 100)
            self.assertFalse(response.closed)

        @self.worker.on("fails")
        async def fails(request, response):
            for _ in range(10):
                response.write(bytes(100))
            raise ValueError

        @self.worker.on("waits")
        async def waits(request, response):
            for _ in range(10):
                await response.write(bytes(100))

        @self.worker.on("blocks")
        def blocks(request, response):
            for number in range(10):
                response.write(b"%d" % number * 100)

    def open(self, name="e"):
        """An event of a client that lets 250 bytes be on their way."""
        stage = self.stage(credits=True)
        stage.node.session.kin = True
        stage.node.session.revocation = REVOKE_SLOT
        event = stage.open(name, headers=(window_header(250),))
        event.channel.choke()
        stage.settle()
        return stage, event

    def test_not_awaited(self):
        """What a handler writes without waiting stays in the worker until the client grants it, and comes whole."""
        for name in ("e", "blocks"):
            stage, event = self.open(name)
            if name == "blocks":
                stage.wait(lambda event=event: len(event.chunks) == 3)
            self.assertEqual((len(event.chunks), event.closed, len(stage.shift.intake)), (3, False, 1))
            event.channel.credit(100)
            stage.settle()
            self.assertEqual((len(event.chunks), event.closed), (4, False))
            event.channel.credit(10_000)
            stage.wait(lambda event=event: event.closed)
            self.assertEqual(b"".join(event.chunks), b"".join(b"%d" % number * 100 for number in range(10)))
            self.assertEqual((event.error, len(stage.shift.intake)), (None, 0))

    def test_awaited(self):
        """A handler that waits goes on when it is granted more."""
        stage, event = self.open("waits")
        self.assertEqual((len(event.chunks), event.closed), (3, False))
        event.channel.credit(10_000)
        stage.settle()
        self.assertEqual((len(event.chunks), event.closed, len(stage.shift.intake)), (10, True, 0))

    def test_error(self):
        """An error does not wait for room."""
        stage, event = self.open("fails")
        self.assertEqual((len(event.chunks), event.error.pair, len(stage.shift.intake)), (3, (42, 100), 0))
        self.failures(ValueError)

    def test_client_gone(self):
        """What waits for a client that goes away is dropped, and its event ends."""
        stage, event = self.open()
        event.channel.cancel(ConnectionGone())
        stage.settle()
        self.assertEqual((len(event.chunks), len(stage.shift.intake)), (3, 0))
        stage, event = self.open()
        stage.cut_off()
        self.assertEqual((len(event.chunks), len(stage.shift.intake)), (3, 0))
        stage = self.stage(credits=True)
        stage.node.session.kin = True
        event = stage.open("e", headers=(window_header(250),))
        stage.settle()
        event.channel.chunk(b"more")
        event.channel.fail(ConnectionGone())
        stage.settle()
        self.assertEqual((len(event.chunks), event.error.pair, len(stage.shift.intake)), (3, (5, 2), 0))

    def test_terminated(self):
        """A worker that is told to stop waits for what its clients have still to take, as long as for a handler."""
        for wait in (False, True):
            stage, event = self.open()
            stage.node.terminate(11, "x")
            stage.settle()
            self.assertEqual((event.closed, stage.node.farewell), (False, None))
            if wait:
                stage.advance(10)
                self.assertEqual(event.error.pair, Discarded().pair)
            else:
                event.channel.credit(10_000)
                stage.settle()
                self.assertEqual((len(event.chunks), event.error), (10, None))
            self.assertEqual(stage.node.farewell, (11, b"x"))


class LifeTests(StageCase):
    def setUp(self):
        super().setUp()
        self.gates = []

        @self.worker.on("waits")
        async def waits(request, response):
            self.gates.append(Deferred())
            response.write(await self.gates[-1])

    def open_gates(self, data):
        for gate in self.gates:
            gate.callback(data)

    def test_handshake(self):
        """The worker says who it is, and that it lives, at once."""
        stage = self.stage()
        self.assertEqual((stage.node.uuid, stage.node.heartbeats), (b"U1", 1))

    def test_node_in_a_hurry(self):
        """The handshake is the first thing on the wire and has channel 1, whatever the node says meanwhile."""
        shift = Shift(Clock(), WorkerConfig("/nowhere", "U1"), {}, lambda: None)
        transport = StringTransport()
        shift.link.makeConnection(transport)
        self.assertEqual(transport.value()[:3], b"\x94\x01\x00")
        shift.link.connectionLost()

    def test_heartbeats(self):
        """It goes on living while the node answers."""
        stage = self.stage()
        for _ in range(10):
            stage.advance(20)
        self.assertEqual((stage.node.heartbeats, stage.ended), (11, False))

    def test_disowned(self):
        """A node that does not answer for five seconds has lost its worker."""
        stage = self.stage()
        stage.node.answering = False
        stage.advance(20)
        stage.advance(4.9)
        self.assertFalse(stage.ended)
        stage.advance(0.2)
        stage.advance(0)
        self.assertTrue(stage.ended)
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_not_disowned_while_we_do_not_read(self):
        """A worker that does not read the node, or did not come to it, does not blame the node."""
        stage = self.stage()
        stage.node.answering = False
        stage.shift.link.hold(self)
        stage.advance(20)
        for _ in range(10):
            stage.advance(2)
        self.assertFalse(stage.ended)
        stage.shift.link.release(self)
        stage.advance(10)
        self.assertTrue(stage.ended)

    def test_terminate(self):
        """Told to stop with nothing to do, a worker answers in the same words and goes."""
        stage = self.stage()
        stage.node.terminate(11, "overseer is shutting down")
        stage.settle()
        stage.advance(0)
        self.assertEqual((stage.node.farewell, stage.ended), ((11, b"overseer is shutting down"), True))
        self.assertEqual(stage.clock.getDelayedCalls(), [])

    def test_terminate_waits_for_handlers(self):
        """Running handlers may end first; new events are refused meanwhile."""
        stage = self.stage()
        running = stage.invoke("waits")
        stage.node.terminate(14, "slave is sealing")
        stage.settle()
        self.assertIsNone(stage.node.farewell)
        late = stage.invoke("waits")
        self.assertIsInstance(late.error, NotRunning)
        stage.node.terminate(14, "slave is sealing")
        stage.shift.signalled()
        self.open_gates(b"done")
        stage.settle()
        stage.advance(0)
        self.assertEqual((running.chunks, running.error, running.closed), ([b"done"], None, True))
        self.assertEqual((stage.node.farewell, stage.ended), ((14, b"slave is sealing"), True))

    def test_terminate_limit(self):
        """A handler that takes too long is cancelled and its client told."""
        stage = self.stage(drain=3.0)
        running = stage.invoke("waits")
        stage.node.terminate(11, "x")
        stage.advance(2.9)
        self.assertFalse(running.closed)
        stage.advance(0.2)
        stage.advance(0)
        self.assertIsInstance(running.error, Discarded)
        self.assertEqual((stage.node.farewell, stage.ended), ((11, b"x"), True))

    def test_signal(self):
        """On SIGTERM a worker serves until nothing is running, then says that it goes and waits to be seen off."""
        stage = self.stage()
        first = stage.invoke("waits")
        stage.shift.signalled()
        stage.shift.signalled()
        second = stage.invoke("waits")
        self.assertFalse(second.closed)
        self.open_gates(b"done")
        stage.settle()
        self.assertTrue(first.closed and second.closed)
        self.assertEqual(stage.node.farewell[0], 1)
        self.assertIsInstance(stage.invoke("waits").error, NotRunning)
        stage.cut_off()
        self.assertTrue(stage.ended)

    def test_signal_not_seen_off(self):
        """A node that does not close is waited for a second."""
        stage = self.stage()
        stage.shift.signalled()
        stage.settle()
        self.assertFalse(stage.ended)
        stage.advance(1.1)
        stage.advance(0)
        self.assertTrue(stage.ended)

    def test_signal_then_terminate(self):
        """A node that terminates us meanwhile gets its own words."""
        stage = self.stage()
        stage.invoke("waits")
        stage.shift.signalled()
        stage.node.terminate(14, "sealed")
        stage.settle()
        self.open_gates(b"")
        stage.settle()
        stage.advance(0)
        self.assertEqual((stage.node.farewell, stage.ended), ((14, b"sealed"), True))

    def test_signal_limit(self):
        """On SIGTERM, too, a handler has only so long."""
        stage = self.stage(drain=3.0)
        running = stage.invoke("waits")
        stage.shift.signalled()
        stage.advance(3.1)
        self.assertIsInstance(running.error, Discarded)
        self.assertEqual(stage.node.farewell[0], 1)

    def test_broken_node(self):
        """A node that talks nonsense loses its worker."""
        stage = self.stage()
        stage.shift.link.dataReceived(b"\xc1")
        stage.advance(0)
        self.assertTrue(stage.ended)


class SplitTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(1, 400), max_size=40))
    def test_any_chunking(self, cuts):
        """However the node's bytes are split, the same answers come out."""
        worker = Worker()

        @worker.on("echo")
        async def echo(request, response):
            async for chunk in request:
                response.write(chunk)

        @worker.on("whole")
        async def whole(request, response):
            response.write(await request.body())

        stage = WorkerStage(worker)
        events = [
            stage.open("echo", b"a", b"b" * 300),
            stage.open("whole", b"c", b"d"),
            stage.open("nosuch", b"e"),
            stage.open("echo"),
        ]
        for event in events[:3]:
            event.channel.choke()
        events[3].channel.fail(RemoteError(42, 5, "client cancelled"))
        told = stage.node.session.take()
        start = 0
        for cut in cuts:
            stage.shift.link.dataReceived(told[start : start + cut])
            start += cut
        stage.shift.link.dataReceived(told[start:])
        stage.settle()
        self.assertEqual([b"".join(event.chunks) for event in events], [b"a" + b"b" * 300, b"cd", b"", b""])
        self.assertEqual([event.error and event.error.pair for event in events], [None, None, (42, 200), (42, 5)])
        stage.cut_off()
