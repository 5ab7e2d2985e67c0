"""
A worker under test, with a pretend node: no process, no socket, no real time.

::

    def test_hello(self):
        stage = WorkerStage(worker)
        event = stage.invoke("http", pack_request("GET", "/", "1.1", []))
        self.assertEqual(event.chunks[-1], b"hello")
        self.assertTrue(event.closed)

Coroutines, Deferreds and blocking handlers all work; asyncio ones need their loop, and so a real worker.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ..errors import CocaineError
from ..wire.headers import Headers
from ..wire.idl import CHUNK, ERROR, Message, Slot
from ..wire.protocols import HEARTBEAT, INVOKE, TERMINATE, WORKER
from ..wire.session import Channel, error_of, serving
from ..worker.blocking import InThread
from ..worker.config import WorkerConfig
from ..worker.shift import Shift
from ..worker.threads import Crew
from ..worker.worker import Worker

#: Seconds `WorkerStage.wait` gives a thread.
PATIENCE = 5.0


class PretendEvent:
    """
    One event as its client sees it.

    :ivar chunks: what the worker answered so far.
    :ivar error: the error that ended the answer, or None.
    :ivar closed: the answer has ended.
    """

    def __init__(self) -> None:
        self.channel: Any = None
        self.chunks: list[bytes] = []
        self.error: CocaineError | None = None
        self.closed = False

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CHUNK:
            self.chunks.append(args[0])
            return
        self.closed = True
        if message is ERROR:
            self.error = error_of(args)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self.closed = True
        self.error = reason


class PretendNode:
    """
    The node's end of the worker's connection.

    :param greeted: called when the worker has shaken hands; events may be sent from then on.
    :ivar answering: whether heartbeats are answered.
    :ivar uuid: who shook hands, or None.
    :ivar heartbeats: how many came.
    :ivar farewell: the words of the worker's ``terminate``, or None.
    """

    def __init__(self, greeted: Callable[[], None] = lambda: None) -> None:
        self.session = serving(WORKER, self)
        self._greeted = greeted
        self.answering = True
        self.uuid: bytes | None = None
        self.heartbeats = 0
        self.farewell: tuple[Any, ...] | None = None
        self._control: Channel | None = None

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is HEARTBEAT:
            self.heartbeats += 1
            if self.answering:
                channel.forward(HEARTBEAT, ())
        elif message is TERMINATE:
            self.farewell = args
        else:
            self.uuid = args[0]
            self._control = channel
            self._greeted()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """The worker has gone."""

    def terminate(self, code: int, reason: str) -> None:
        """Ask the worker to stop."""
        if self._control is None:
            raise AssertionError("the worker has not shaken hands")
        self._control.forward(TERMINATE, (code, reason))


class _Wire(StringTransport):
    """A transport that tells when it is to be closed."""

    def __init__(self, closed: Callable[[], None]) -> None:
        super().__init__()
        self._closed = closed

    def loseConnection(self) -> None:
        self._closed()

    abortConnection = loseConnection


class WorkerStage:
    """
    A worker at work.

    :param worker: its handlers.
    :param config: settings; by default those of a worker named ``test``.
    :ivar clock: advance it by `advance`.
    :ivar node: the other end.
    :ivar ended: the worker wants its process to exit.
    """

    def __init__(self, worker: Worker, config: WorkerConfig | None = None) -> None:
        self.clock = Clock()
        self.node = PretendNode()
        self.ended = False
        self.transport = _Wire(self._closed)
        self.connected = True
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        config = config or WorkerConfig(endpoint="/nowhere", uuid="U1", app="test")
        threads = InThread(Crew(config.threads), lambda act, *args: self._calls.put(lambda: act(*args)))
        self.shift = Shift(self.clock, config, worker.bindings(threads.start), self._end, leaving=worker.leave)
        link: Any = self.shift.link
        link.makeConnection(self.transport)
        self.settle()

    def _end(self) -> None:
        self.ended = True

    def _closed(self) -> None:
        if self.connected:
            self.clock.callLater(0, self.cut_off)

    def cut_off(self) -> None:
        """The connection ends."""
        if self.connected:
            self._carry()
            self.connected = False
            self.shift.link.connectionLost(Failure(ConnectionDone()))

    def invoke(self, name: str, *chunks: bytes, headers: Headers = ()) -> PretendEvent:
        """An event with its whole request."""
        event = self.open(name, *chunks, headers=headers)
        event.channel.choke()
        self.settle()
        return event

    def open(self, name: str, *chunks: bytes, headers: Headers = ()) -> PretendEvent:
        """An event whose request goes on: send more with ``event.channel`` and `settle`."""
        event = PretendEvent()
        event.channel = self.node.session.open(INVOKE, (name,), event, headers)
        for chunk in chunks:
            event.channel.chunk(chunk)
        return event

    def settle(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(1000):
            moved = self._carry()
            while not self._calls.empty():
                self._calls.get()()
                moved = True
            if not moved:
                return
        raise AssertionError("worker and node talk without end")

    def advance(self, seconds: float) -> None:
        """Let what is due happen, then time pass."""
        self.settle()
        self.clock.advance(seconds)
        self.settle()

    def wait(self, done: Callable[[], bool]) -> None:
        """
        Let threads work until it is so.

        :raises AssertionError: it was not so within `PATIENCE`.
        """
        self.settle()
        while not done():
            try:
                self._calls.get(timeout=PATIENCE)()
            except Empty:
                raise AssertionError("a thread did not come to an end") from None
            self.settle()

    def _carry(self) -> bool:
        """Bytes each way, once."""
        self.clock.advance(0)
        moved = False
        transport: Any = self.transport
        while transport.producer is not None and not transport.streaming:
            transport.producer.resumeProducing()
        said = transport.value()
        if said:
            transport.clear()
            moved = True
            for channel, message, args, headers in self.node.session.receive(said):
                channel.receiver.received(channel, message, args, headers)
        if self.connected and transport.producerState == "producing":
            told = self.node.session.take()
            if told:
                moved = True
                self.shift.link.dataReceived(told)
        return moved
