"""A worker's own calls, against a locator and a service on loopback."""

import io
import logging
from types import SimpleNamespace

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cocaine_tx.errors import ConnectionGone, InvocationTimeout, NotFound, ServiceNotFound
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.wire.headers import Trace, timeout_of, trace_of
from cocaine_tx.wire.protocols import APP, LOCATOR, STORAGE
from cocaine_tx.worker import Locator, LogHandler, Service


class Echo:
    """Answers a stream with itself."""

    def received(self, channel, message, args, headers):
        channel.forward(message, args)

    def lost(self, channel, reason):
        pass


class ServiceTests(TestCase):
    def setUp(self):
        self.seen = []
        self.never = Deferred()
        hospitality = Hospitality(Turn(reactor), reactor)

        def read(headers, collection, key):
            self.seen.append(headers)
            if collection == b"slow":
                return self.never
            if key == b"absent":
                raise NotFound("no such file")
            return (collection + key,)

        def enqueue(channel, headers, event, tag=None):
            self.seen.append(headers)
            channel.receiver = Echo()

        def listen(protocol, calls, streams=None):
            factory = ServiceFactory(Dispatch(protocol, calls, streams), hospitality)
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")

            def stop():
                factory.close_all()
                return port.stopListening()

            self.addCleanup(stop)
            return ("127.0.0.1", port.getHost().port), factory

        storage, self.storage = listen(STORAGE, {"read": read})
        app, _ = listen(APP, {}, {"enqueue": enqueue})
        known = {b"storage": (storage, STORAGE), b"app": (app, APP)}

        def resolve(headers, name, seed=None):
            if name not in known:
                raise ServiceNotFound
            place, protocol = known[name]
            return ((place,), protocol.version, protocol.graph())

        self.locators = [listen(LOCATOR, {"resolve": resolve, "cluster": lambda headers: ({b"u1": [b"::1", 1]},)})[0]]

    def service(self, name):
        made = Service(name, self.locators, reactor)
        self.addCleanup(made.close)
        return made

    async def test_call(self):
        """A call gives its value, or raises what was answered; an unknown service says so."""
        storage = self.service("storage")
        self.assertEqual(await storage.call("read", "a", "b"), b"ab")
        with self.assertRaises(NotFound):
            await storage.call("read", "a", "absent")
        with self.assertRaises(ServiceNotFound):
            await self.service("nosuch").call("x")

    async def test_within(self):
        """A call made for a request inherits its trace and what is left of its time."""
        within = SimpleNamespace(remaining=2.0, deadline=1.0, trace=Trace(1, 2, 0))
        await self.service("storage").call("read", "a", "b", within=within)
        trace = trace_of(self.seen[0])
        self.assertEqual((trace.trace_id, trace.parent_id, timeout_of(self.seen[0])), (1, 2, 2.0))

    async def test_timeout(self):
        """A call that is not answered ends by itself."""
        with self.assertRaises(InvocationTimeout):
            await self.service("storage").call("read", "slow", "b", timeout=0.1)
        self.never.callback((b"",))

    async def test_connection_lost(self):
        """A lost connection fails the call that was open, once; the next call connects anew."""
        storage = self.service("storage")
        await storage.call("read", "a", "b")
        waiting = storage.call("read", "slow", "b")
        while len(self.seen) < 2:
            await _turn()
        self.storage.close_all()
        with self.assertRaises(ConnectionGone):
            await waiting
        self.assertEqual(await storage.call("read", "c", "d"), b"cd")

    async def test_stream(self):
        """A stream is written and read like a request."""
        async with await self.service("app").stream("enqueue", "event") as stream:
            for size in (1, 1_000_000):
                await stream.write(bytes(size))
                self.assertEqual(len(await stream.read()), size)
            stream.close()
            self.assertEqual([chunk async for chunk in stream], [])
        self.assertEqual(self.seen, [()])

    async def test_locator(self):
        """The locator tells where a service is, and who else is there."""
        locator = Locator(self.locators, reactor)
        self.assertEqual((await locator.resolve("storage")).version, 1)
        self.assertEqual(await locator.cluster(), {"u1": ("::1", 1)})
        with self.assertRaises(ServiceNotFound):
            await locator.resolve("nosuch")


def _turn():
    done = Deferred()
    reactor.callLater(0, done.callback, None)
    return done


class Recorder:
    def __init__(self):
        self.calls = []
        self.answer = lambda: succeed(None)

    def call(self, *args):
        self.calls.append(args)
        return self.answer()


class LogHandlerTests(SynchronousTestCase):
    def setUp(self):
        self.recorder = Recorder()
        self.later = []
        self.stderr = io.StringIO()
        self.handler = LogHandler("x", {"a": 1}, self.recorder, self.later.append, self.stderr, queue=2)
        self.logger = logging.Logger("test")
        self.logger.addHandler(self.handler)

    def run_loop(self):
        while self.later:
            self.later.pop(0)()

    def test_emit(self):
        """Records reach the service with their severity, the app's name and their attributes."""
        self.logger.debug("d %s", 1)
        self.logger.critical("c")
        self.run_loop()
        self.assertEqual(
            self.recorder.calls,
            [("emit", 0, "app/x", "d 1", [("a", 1)]), ("emit", 3, "app/x", "c", [("a", 1)])],
        )

    def test_overflow(self):
        """Records that do not fit are counted and the count is told."""
        for number in range(5):
            self.logger.warning("w%d", number)
        self.run_loop()
        self.assertEqual([call[3] for call in self.recorder.calls],
                         ["w0", "w1", "3 log records were dropped: the queue was full"])  # fmt: skip

    def test_fallback(self):
        """While the service cannot be reached records go to stderr, and later ones to the service again."""

        def refuse():
            raise ConnectionGone

        self.recorder.answer = refuse
        self.logger.error("lost?")
        self.run_loop()
        self.assertEqual(self.stderr.getvalue(), "lost?\n")
        self.recorder.answer = lambda: succeed(None)
        self.logger.error("found")
        self.run_loop()
        self.assertEqual(self.recorder.calls[-1][3], "found")
