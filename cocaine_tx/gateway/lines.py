"""
Connections from a gateway to one node's app: a few, shared by requests, opened when those there are busy.

A node that is no longer offered is drained: its lines close when their last request has ended. Where a node has
requests and says nothing, or is not offered any more, its lines are asked whether they live, since a cut cable says
nothing by itself; a line that does not answer is cut off, and its requests can go elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError, ConnectionGone
from ..interfaces import ServiceInfo
from ..rpc.channel import Reply
from ..rpc.client import Dialer, Remote
from ..wire.idl import Protocol

#: Requests on a line from which another one is opened, and the most lines to one node's app.
BUSY, MOST = 64, 4
#: Seconds without a request after which a line is closed.
IDLE = 60.0
#: Seconds in which a line has to answer when it is asked whether it lives.
SILENCE = 2.0


class Lines:
    """
    The lines to one place.

    :param info: where it is; ``protocol`` is what it speaks.
    :param alive: called when a line has answered that it lives.
    :ivar retired: nothing new is sent there.
    """

    _log = Logger()

    def __init__(self, dialer: Dialer, info: ServiceInfo, protocol: Protocol, alive: Callable[[], None]) -> None:
        self.info = info
        self.protocol = protocol
        self.retired = False
        self._question = "info" if protocol.named("ping") is None else "ping"
        self._alive = alive
        self._dialer = dialer
        self._lines: dict[Remote, float] = {}
        self._connecting = False
        self._waiting: list[Deferred[Remote]] = []
        self._asked: dict[Remote, float] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def ready(self) -> Remote | None:
        """The least busy live line; None when one must be waited for."""
        best = None
        least = 0
        for line in self._lines:
            open_channels = len(line.connection.session)
            if best is None or open_channels < least:
                best, least = line, open_channels
        if best is not None:
            self._lines[best] = self._dialer.reactor.seconds()
            if least >= BUSY and len(self._lines) < MOST and not (self._connecting or self.retired):
                self._connect()
        return best

    def line(self) -> Deferred[Remote]:
        """
        A line, made if there is none. Fails with the error of the attempt.

        Cancelling it leaves the attempt to the others who wait.
        """
        waiting: Deferred[Remote] = Deferred(self._unwait)
        self._waiting.append(waiting)
        if not self._connecting:
            self._connect()
        return waiting

    def _unwait(self, waiting: Deferred[Remote]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    def _connect(self) -> None:
        async def connecting() -> None:
            line = await self._dialer.connect(self.info.endpoints, self.protocol)
            self._lines[line] = self._dialer.reactor.seconds()
            line.connection.lost = lambda connection: self._lost(line)
            for waiting in self._answered():
                waiting.callback(line)
            if self.retired:
                self.close_idle(0.0)

        self._connecting = True
        Deferred.fromCoroutine(connecting()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        for waiting in self._answered():
            waiting.errback(failure)

    def _answered(self) -> list[Deferred[Remote]]:
        self._connecting = False
        waiting, self._waiting = self._waiting, []
        return waiting

    def _lost(self, line: Remote) -> None:
        self._lines.pop(line, None)
        self._asked.pop(line, None)

    def close_idle(self, idle: float = IDLE) -> None:
        """Close lines that had no request for that many seconds and have none now."""
        now = self._dialer.reactor.seconds()
        for line, used in list(self._lines.items()):
            if not len(line.connection.session) and now - used >= idle:
                del self._lines[line]
                line.close()

    def retire(self) -> None:
        """Send nothing more there; close each line when it has no request."""
        self.retired = True
        self.close_idle(0.0)

    def ended(self) -> None:
        """A request, or a question, has ended."""
        if self.retired:
            self.close_idle(0.0)

    def ask(self) -> None:
        """Ask every line with requests whether it lives; those asked before that stay silent are cut off."""
        now = self._dialer.reactor.seconds()
        for line in list(self._lines):
            asked = self._asked.get(line)
            if asked is None:
                self._put_question(line, now)
            elif line.connection.held:
                # A client that reads slowly keeps us from hearing the answer; other requests share the line.
                self._asked[line] = now
            elif now - asked >= SILENCE:
                self._log.warn("{where} does not answer and is cut off", where=line.connection.peer)
                self._lost(line)
                line.connection.sever(ConnectionGone("the node does not answer"))

    def _put_question(self, line: Remote, now: float) -> None:
        if not len(line.connection.session):
            return
        self._asked[line] = now
        reply = Reply()
        reply.answer.addBoth(self._heard, line)
        try:
            line.open(self._question, receiver=reply)
        except CocaineError:
            self._lost(line)

    def _heard(self, _: object, line: Remote) -> None:
        if self._asked.pop(line, None) is not None:
            self._alive()
            # The question itself kept the line open.
            self._dialer.reactor.callLater(0, self.ended)

    def stop(self) -> None:
        """Close everything now."""
        self.retired = True
        for line in list(self._lines):
            line.close()
        self._lines.clear()
