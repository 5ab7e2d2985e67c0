"""Real workers: a process, a socket, threads and signals."""

import os
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import ConnectionGone
from cocaine_tx.rpc.connection import Connection
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.worker import PretendEvent, PretendNode
from cocaine_tx.wire.http import pack_request, unpack_head
from cocaine_tx.wire.protocols import INVOKE

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]


class AwaitedEvent(PretendEvent):
    """Fires when something came: `until`."""

    def __init__(self):
        super().__init__()
        self._watch = None

    def received(self, channel, message, args, headers):
        super().received(channel, message, args, headers)
        self._look()

    def lost(self, channel, reason):
        super().lost(channel, reason)
        self._look()

    def until(self, condition):
        done = Deferred()
        self._watch = (condition, done)
        self._look()
        return done.addTimeout(10, reactor)

    def end(self):
        return self.until(lambda: self.closed)

    def _look(self):
        if self._watch is not None and self._watch[0]():
            (_, done), self._watch = self._watch, None
            done.callback(self)


class WorkerProcess(ProcessProtocol):
    def __init__(self):
        self.output = b""
        self.exited = Deferred()
        self.status = None

    def outReceived(self, data):
        self.output += data

    errReceived = outReceived

    def processEnded(self, reason):
        self.status = 0 if reason.check(ProcessDone) else reason.value
        self.exited.callback(self)


class ProcessCase(TestCase):
    timeout = 30

    async def start(self, *words, **variables):
        """A worker that has shaken hands, and its node."""
        greeted = Deferred()
        self.node = PretendNode(lambda: greeted.callback(None))
        path = os.path.join(os.path.relpath(self.mktemp()))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        case = self

        class Listening(Factory):
            noisy = False

            def buildProtocol(self, addr):
                case.connection = Connection(case.node.session, Turn(reactor), reactor)
                return case.connection

        port = reactor.listenUNIX(path, Listening())
        self.addCleanup(port.stopListening)
        await self.spawn("--app", "x", "--endpoint", path, "--locator", "127.0.0.1:1", "--protocol", "1", "--uuid",
                         "U7", *words, **variables)  # fmt: skip
        await greeted.addTimeout(10, reactor)
        self.addCleanup(self.connection.abort)
        self.assertEqual((await self.invoke("echo", b"up").end()).chunks, [b"up"])
        self.assertEqual(self.node.uuid, b"U7")

    async def spawn(self, *words, **variables):
        self.process = WorkerProcess()
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
        transport = reactor.spawnProcess(
            self.process, sys.executable, [sys.executable, str(HERE.parent / "app.py"), *words], environment
        )

        def stop():
            if self.process.status is None:
                transport.signalProcess("KILL")
                return self.process.exited
            return None

        self.addCleanup(stop)
        self.transport = transport

    def open(self, name, *chunks):
        event = AwaitedEvent()
        event.channel = self.node.session.open(INVOKE, (name,), event)
        for chunk in chunks:
            event.channel.chunk(chunk)
        return event

    def invoke(self, name, *chunks):
        event = self.open(name, *chunks)
        event.channel.choke()
        return event

    async def gone(self):
        await self.process.exited.addTimeout(10, reactor)
        return self.process.status


class ProcessTests(ProcessCase):
    async def test_serves(self):
        """A worker started as a node starts it answers, streams more than a socket holds, and ends with status 0."""
        await self.start()
        event = await self.invoke("http", pack_request("POST", "/x", "1.1", [("A", "b")], b"body")).end()
        self.assertEqual(unpack_head(event.chunks[0]), (200, [(b"X-Method", b"POST")]))
        self.assertEqual(event.chunks[1:], [b"body"])
        event = await self.invoke("big").end()
        self.assertEqual(sum(map(len, event.chunks)), 4_000_000)
        events = [self.invoke("echo", b"%d" % number) for number in range(300)]
        for number, event in enumerate(events):
            self.assertEqual((await event.end()).chunks, [b"%d" % number])
        self.node.terminate(11, "overseer is shutting down")
        self.assertEqual(await self.gone(), 0)
        self.assertEqual(self.node.farewell, (11, b"overseer is shutting down"))

    async def test_socket_closed(self):
        """A worker whose node has gone leaves with status 0."""
        await self.start()
        self.connection.close()
        self.assertEqual(await self.gone(), 0)

    async def test_sigterm(self):
        """SIGTERM lets a running handler, even a blocking one, end; the worker says that it goes."""
        await self.start()
        event = self.invoke("block", b"0.3")
        await event.until(lambda: event.chunks)
        self.transport.signalProcess("TERM")
        await event.end()
        self.assertEqual((event.chunks, event.error), ([b"begun", b"slept"], None))
        self.assertEqual(await self.gone(), 0)
        self.assertEqual(self.node.farewell[0], 1)

    async def test_stuck_thread(self):
        """A blocking handler that does not end cannot keep the process alive past its limit."""
        await self.start(COCAINE_TX_DRAIN="0.2")
        event = self.invoke("block", b"600")
        await event.until(lambda: event.chunks)
        self.node.terminate(11, "x")
        self.assertEqual(await self.gone(), 0)
        self.assertEqual(event.error.pair, (2, 125))

    async def test_busy_handler(self):
        """A handler that keeps the interpreter busy does not silence the heartbeats, nor is the node blamed."""
        await self.start(COCAINE_TX_HEARTBEAT="0.1", COCAINE_TX_DISOWN="0.1")
        before = self.node.heartbeats
        event = await self.invoke("burn", b"1.0").end()
        self.assertEqual(event.chunks, [b"burnt"])
        self.assertGreater(self.node.heartbeats - before, 4)
        self.assertEqual((await self.invoke("echo", b"still").end()).chunks, [b"still"])
        self.assertIn(b"has kept the worker busy", self.process.output)

    async def test_disowned(self):
        """A node that has stopped answering is left, with status 0."""
        await self.start(COCAINE_TX_HEARTBEAT="0.1", COCAINE_TX_DISOWN="0.2")
        self.node.answering = False
        self.assertEqual(await self.gone(), 0)
        self.assertIn(b"disowned", self.process.output)

    async def test_asyncio(self):
        """asyncio handlers are tasks of a running loop, beside Twisted's coroutines; they can be cancelled."""
        await self.start("--with-asyncio")
        event = self.open("tasks", b"1")
        await event.until(lambda: event.chunks)
        event.channel.chunk(b"2")
        event.channel.choke()
        await event.end()
        self.assertEqual((event.chunks, event.error), ([b"1", b"2"], None))
        event = await self.invoke("asgi", pack_request("POST", "/a%20b?c", "1.1", [], b"body")).end()
        self.assertEqual(unpack_head(event.chunks[0]), (201, [(b"x-path", b"/a%20b")]))
        self.assertEqual(b"".join(event.chunks[1:]), b"body!?")
        event = self.open("forever")
        await event.until(lambda: event.chunks)
        event.channel.fail(ConnectionGone())
        await event.end()
        self.assertEqual((event.chunks, event.error.pair), ([b"begun", b"cancelled"], (5, 2)))
        self.node.terminate(11, "x")
        self.assertEqual(await self.gone(), 0)

    async def test_asgi_ends(self):
        """An application that returns early has failed: a part of an answer does not pass for all of it."""
        await self.start("--with-asyncio")
        for path, chunks in (("/nothing", 0), ("/part", 2)):
            event = await self.invoke("asgi", pack_request("GET", path, "1.1", [], b"body")).end()
            self.assertEqual((len(event.chunks), event.error.pair), (chunks, (42, 100)))

    async def test_lifespan(self):
        """An ASGI application is told of its worker's begin and end; one that does not want to know serves as well."""
        await self.start("--with-asyncio")
        for name, body in (("asgi", b"body!?"), ("plain", b"")):
            event = await self.invoke(name, pack_request("POST", "/", "1.1", [], b"body")).end()
            self.assertEqual((b"".join(event.chunks[1:]), event.error), (body, None))
        self.node.terminate(11, "x")
        self.assertEqual(await self.gone(), 0)
        self.assertEqual(self.node.farewell, (11, b"x"))
        self.assertIn(b"shut down", self.process.output)

    async def test_exit(self):
        """A task that calls sys.exit fails its own request, not the worker."""
        await self.start("--with-asyncio")
        self.assertEqual((await self.invoke("exit").end()).error.pair, (42, 100))
        self.assertEqual((await self.invoke("echo", b"still").end()).chunks, [b"still"])

    async def test_crash_log(self):
        """A handler's failure is readable on stderr."""
        await self.start()
        event = await self.invoke("burn", b"long").end()
        self.assertEqual(event.error.pair, (42, 100))
        self.connection.close()
        await self.gone()
        self.assertIn(b"ValueError: could not convert string to float", self.process.output)


class StartUpTests(ProcessCase):
    async def test_by_hand(self):
        """Started by hand, it says in one line what is missing and exits with status 1."""
        await self.spawn()
        self.assertEqual((await self.gone()).exitCode, 1)
        self.assertEqual(self.process.output.count(b"\n"), 1)
        self.assertIn(b"app.py: no --endpoint", self.process.output)

    async def test_lifespan_failed(self):
        """A worker whose application says that it cannot start says why and exits with status 1."""
        starting = Deferred.fromCoroutine(self.start("--with-asyncio", "--no-start"))
        starting.addErrback(lambda failure: None)
        self.assertEqual((await self.gone()).exitCode, 1)
        starting.cancel()
        self.assertIn(b"the application did not start: there is no database", self.process.output)

    async def test_no_node(self):
        """Without a node at the socket it says so and exits with status 1."""
        await self.spawn("--endpoint", "./absent.sock", "--uuid", "U")
        self.assertEqual((await self.gone()).exitCode, 1)
        self.assertIn(b"cannot connect to the node at ./absent.sock", self.process.output)
