"""
Several proxy processes on the same sockets: started, watched, started again, told to reload, and drained.

The parent opens the endpoints and serves no client of theirs, so that nothing a client sends can end it; operators it
answers itself, with its children's `reports` added up. A child that ends by itself is replaced, more slowly the more
often it happens. Children end when their parent does, which they see by the pipe on which it asks for reports.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from .inherited import hand_over_port, open_port
from .reports import ANSWERS, INTERVAL, QUESTIONS, Board

#: Seconds before a child is started again: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: A child that has lived for so many seconds has proved itself.
PROVEN = 30.0
#: Names the descriptors of the sockets, in the order of the endpoints, in a child's environment.
VARIABLE = "COCAINE_TX_PROXY_SOCKETS"


class Child(ProcessProtocol):
    """One proxy process."""

    _log = Logger()

    def __init__(self, supervisor: Supervisor, number: int) -> None:
        self.number = number
        self.ended: Deferred[None] = Deferred()
        self._supervisor = supervisor
        self._began = 0.0

    def connectionMade(self) -> None:
        self._began = self._supervisor.reactor.seconds()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._supervisor.board.told(self, data)

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
    :param patience: seconds for children to drain.
    :param backlog: connections that may wait to be accepted.
    :param operations: endpoint string and factory of what operators are shown.
    :ivar board: what the children have counted.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        endpoints: tuple[str, ...],
        count: int,
        arguments: list[str],
        patience: float,
        board: Board,
        backlog: int,
        operations: tuple[str, Any] | None = None,
    ) -> None:
        self.reactor = reactor
        self.board = board
        self._backlog = backlog
        self._operations = operations
        self._shown: Any = None
        self._asking: IDelayedCall | None = None
        self._endpoints = endpoints
        self._count = count
        self._arguments = arguments
        self._patience = patience
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
            self._shown = await open_port(self.reactor, *self._operations, self._backlog)
        for number in range(self._count):
            self._spawn(number)
        self._ask()
        self._log.info("{count} proxy processes share {where}", count=self._count, where=", ".join(self._endpoints))

    def _spawn(self, number: int) -> None:
        self._timers.pop(number, None)
        child = self._children[number] = Child(self, number)
        descriptors: dict[int, int | str] = {0: "w", 1: 1, 2: 2, QUESTIONS: "w", ANSWERS: "r"}
        names = []
        for place, port in enumerate(self._ports, ANSWERS + 1):
            descriptors[place] = port.fileno()
            names.append(str(place))
        environment = {**os.environ, VARIABLE: ",".join(names)}
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
        """Every child reads its configuration again."""
        for child in self._children.values():
            child.signal("HUP")

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
        ended.addTimeout(self._patience, self.reactor, onTimeoutCancel=lambda *_: None)
        await ended
        for child in list(self._children.values()):
            child.signal("KILL")
