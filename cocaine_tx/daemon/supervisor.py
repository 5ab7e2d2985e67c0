"""
Several proxy processes on the same sockets: started, watched, started again, told to reload, and drained.

The parent opens the endpoints and serves no client of theirs, so that nothing a client sends can end it; operators it
answers itself, with its children's `reports` added up. A child that ends by itself is replaced, more slowly the more
often it happens. Children end when their parent does, which they see by the pipe on which it asks for reports.

A child gets its configuration from the parent, on stdin: the last text that was found good, and the endpoints that the
parent has opened. So a child that is started again comes up whatever the file has become meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConfigError
from .inherited import hand_over_port, open_port
from .reports import ANSWERS, INTERVAL, QUESTIONS, Board

#: Seconds before a child is started again: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: A child that has lived for so many seconds has proved itself.
PROVEN = 30.0
#: Names the endpoints and the descriptors of their sockets in a child's environment: JSON pairs, in order.
VARIABLE = "COCAINE_TX_PROXY_SOCKETS"
#: Where a child's stdout and stderr go: where ours do, or to us, who have a log elsewhere.
SHARED: Mapping[int, int | str] = {1: 1, 2: 2}
HEARD: Mapping[int, int | str] = {1: "r", 2: "r"}
#: Longest line of a child's that is kept in one piece, in bytes.
LONGEST_LINE = 65536
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\S+ ")


class Orders(NamedTuple):
    """
    What children are to do.

    :ivar text: their configuration.
    :ivar patience: seconds for them to drain.
    """

    text: str
    patience: float


class Child(ProcessProtocol):
    """One proxy process."""

    _log = Logger()

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self.number = number
        self.ended: Deferred[None] = Deferred()
        self._supervisor = supervisor
        self._began = 0.0
        self._up = self._outdated = False
        self._said: dict[int, bytes] = {}

    def connectionMade(self) -> None:
        self._began = self._supervisor.reactor.seconds()
        transport: Any = self.transport
        transport.writeToChild(0, self._supervisor.orders.text.encode())
        transport.closeChildFD(0)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != ANSWERS:
            return self._hear(childFD, data)
        self._supervisor.board.told(self, data)
        self._up = True
        if self._outdated:
            self.reload()

    def _hear(self, childFD: int, data: bytes) -> None:
        """What it has logged, for our log; without its times, which ours has as well."""
        text, end, rest = (self._said.pop(childFD, b"") + data).rpartition(b"\n")
        if not end and len(rest) > LONGEST_LINE:
            text, rest = rest, b""
        self._said[childFD] = rest
        if text:
            lines = [_TIME.sub("", line) for line in text.decode("utf-8", "replace").split("\n")]
            self._log.info("{number}: {lines}", number=self.number, lines="\n".join(lines))

    def reload(self) -> None:
        """Read the configuration again: at once, or when it has come up; before, the signal would end it."""
        self._outdated = not self._up
        if self._up:
            self.signal("HUP")

    def ask(self) -> None:
        """For a report."""
        self.transport.writeToChild(QUESTIONS, b"\n")  # type: ignore[union-attr]

    def processEnded(self, reason: Failure) -> None:
        self._supervisor.board.ended(self)
        self.ended.callback(None)
        lived = self._supervisor.reactor.seconds() - self._began
        self._supervisor.ended(self, lived, reason.getErrorMessage())

    def signal(self, name: str) -> None:
        try:
            self.transport.signalProcess(name)  # type: ignore[union-attr]
        except ProcessExitedAlready:
            pass


class Supervisor:
    """
    :param endpoints: endpoint strings, in order.
    :param count: how many processes.
    :param arguments: a child's command line.
    :param orders: what children are to do, and ``again`` what they are to do when we are told to look again.
    :param board: what the children have counted.
    :param backlog: connections that may wait to be accepted.
    :param outputs: `SHARED` or `HEARD`.
    :param operations: endpoint string and factory of what operators are shown.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: tuple[str, ...],
        count: int,
        arguments: list[str],
        orders: Orders,
        again: Callable[[], Orders],
        board: Board,
        backlog: int,
        outputs: Mapping[int, int | str],
        operations: tuple[str, Any] | None = None,
    ) -> None:
        self.reactor = reactor
        self.board = board
        self.orders = orders
        self._again = again
        self._outputs = outputs
        self._backlog = backlog
        self._operations = operations
        self._shown: Any = None
        self._asking: IDelayedCall | None = None
        self._endpoints = endpoints
        self._count = count
        self._arguments = arguments
        self._ports: list[Any] = []
        self._children: dict[int, Child] = {}
        self._pauses: dict[int, float] = {}
        self._timers: dict[int, IDelayedCall] = {}
        self._stopping = False

    async def start(self) -> None:
        """
        Open the sockets, start the children.

        :raises ConfigError: an endpoint cannot be had.
        """
        for description in self._endpoints:
            port = await open_port(self.reactor, description, Factory(), self._backlog)
            # The children accept; here it only stays open.
            port.stopReading()
            self._ports.append(port)
        if self._operations is not None:
            self._shown = await open_port(self.reactor, *self._operations, self._backlog, "operations")
        for number in range(self._count):
            self._spawn(number)
        self._ask()
        self._log.info("{count} proxy processes share {where}", count=self._count, where=", ".join(self._endpoints))

    def _spawn(self, number: int) -> None:
        self._timers.pop(number, None)
        child = self._children[number] = Child(self, number)
        descriptors: dict[int, int | str] = {0: "w", **self._outputs, QUESTIONS: "w", ANSWERS: "r"}
        sockets = []
        for place, (port, endpoint) in enumerate(zip(self._ports, self._endpoints, strict=True), ANSWERS + 1):
            descriptors[place] = port.fileno()
            sockets.append((endpoint, place))
        environment = {**os.environ, VARIABLE: json.dumps(sockets)}
        command = [sys.executable, *self._arguments]
        self.reactor.spawnProcess(child, command[0], command, environment, childFDs=descriptors)

    def _ask(self) -> None:
        self._asking = self.reactor.callLater(INTERVAL, self._ask)
        for child in self._children.values():
            if self.board.due(child):
                child.ask()

    def ended(self, child: Child, lived: float, why: str) -> None:
        """A child has ended."""
        del self._children[child.number]
        if self._stopping:
            return
        last = 0.0 if lived > PROVEN else self._pauses.get(child.number, 0.0)
        pause = self._pauses[child.number] = min(max(last * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._log.error("proxy process {number} has ended: {why}", number=child.number, why=why)
        self._timers[child.number] = self.reactor.callLater(pause, self._spawn, child.number)

    def reload(self) -> None:
        """Every child reads its configuration again, unless it has a fault."""
        try:
            self.orders = self._again()
        except ConfigError as problem:
            self._log.error("the configuration stays as it was: {reason}", reason=problem.reason)
            return
        for child in self._children.values():
            child.reload()

    async def stop(self) -> None:
        """Let the children drain; whoever takes too long is killed."""
        self._stopping = True
        for timer in (*self._timers.values(), self._asking):
            if timer is not None:
                timer.cancel()
        if self._shown is not None:
            self._shown.stopListening()
        for port in self._ports:
            hand_over_port(port)
        children = list(self._children.values())
        for child in children:
            child.signal("TERM")
        ended = DeferredList([child.ended for child in children])
        ended.addTimeout(self.orders.patience, self.reactor, onTimeoutCancel=lambda *_: None)
        await ended
        for child in list(self._children.values()):
            child.signal("KILL")
