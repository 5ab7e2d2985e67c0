"""
Several proxy processes on the same sockets: started, watched, started again, told to reload, and drained.

The parent opens the endpoints and does nothing else, so that nothing a client sends can end it. A child that ends by
itself is replaced, more slowly the more often it happens. Children end when their parent does: they hold the reading
end of a pipe that nobody writes to.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConfigError

#: Seconds before a child is started again: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
#: A child that has lived for so many seconds has proved itself.
PROVEN = 30.0
#: Descriptor of the pipe that tells a child its parent has gone.
LIFELINE = 3
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

    def processEnded(self, reason: Failure) -> None:
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
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, endpoints: tuple[str, ...], count: int, arguments: list[str], patience: float
    ) -> None:
        self.reactor = reactor
        self._endpoints = endpoints
        self._count = count
        self._arguments = arguments
        self._patience = patience
        self._ports: list[Any] = []
        self._children: dict[int, Child] = {}
        self._pauses: dict[int, float] = {}
        self._timers: dict[int, IDelayedCall] = {}
        self._stopping = False
        self._lifeline: tuple[int, int] | None = None

    async def start(self) -> None:
        """
        Open the sockets, start the children.

        :raises ConfigError: an endpoint cannot be had.
        """
        self._lifeline = os.pipe()
        for description in self._endpoints:
            port = await open_port(self.reactor, description, Factory())
            # The children accept; here it only stays open.
            port.stopReading()
            self._ports.append(port)
        for number in range(self._count):
            self._spawn(number)
        self._log.info("{count} proxy processes share {where}", count=self._count, where=", ".join(self._endpoints))

    def _spawn(self, number: int) -> None:
        assert self._lifeline is not None
        self._timers.pop(number, None)
        child = self._children[number] = Child(self, number)
        descriptors = {0: "w", 1: 1, 2: 2, LIFELINE: self._lifeline[0]}
        names = []
        for place, port in enumerate(self._ports, LIFELINE + 1):
            descriptors[place] = port.fileno()
            names.append(str(place))
        environment = {**os.environ, VARIABLE: ",".join(names)}
        command = [sys.executable, *self._arguments]
        self.reactor.spawnProcess(child, command[0], command, environment, childFDs=descriptors)

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
        for timer in self._timers.values():
            timer.cancel()
        for port in self._ports:
            port.startReading()  # stopListening expects it
            port.stopListening()
        children = list(self._children.values())
        for child in children:
            child.signal("TERM")
        ended = DeferredList([child.ended for child in children])
        ended.addTimeout(self._patience, self.reactor, onTimeoutCancel=lambda *_: None)
        await ended
        for child in list(self._children.values()):
            child.signal("KILL")


async def open_port(reactor: Any, description: str, factory: Any) -> Any:
    """
    Listen at an endpoint string.

    :raises ConfigError: it is none, or it cannot be had.
    """
    try:
        return await serverFromString(reactor, description).listen(factory)  # type: ignore[no-untyped-call]
    except (CannotListenError, OSError) as problem:
        reason = str(getattr(problem, "socketError", problem)).rstrip(".")
        mend = "stop who has it, or give another"
        raise ConfigError(f"endpoints: {description!r} cannot be had: {reason}; {mend}") from problem
    except Exception as problem:
        # Twisted's parsers raise whatever they stumble over.
        mend = "give one such as tcp:8080:interface=127.0.0.1"
        raise ConfigError(f"endpoints: {description!r} is no endpoint: {problem}; {mend}") from problem


def end_with_parent(reactor: Any) -> None:
    """In a child: end in good order when the parent has gone."""
    reactor.addReader(_Lifeline(reactor))


class _Lifeline:
    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def fileno(self) -> int:
        return LIFELINE

    def logPrefix(self) -> str:
        return "lifeline"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        os.kill(os.getpid(), signal.SIGTERM)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going down."""
