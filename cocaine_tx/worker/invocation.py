"""
One event in the worker: from its first frame to the end of its handler.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import (
    WORKER,
    WORKER_USER,
    CocaineError,
    HandlerFailed,
    HttpFormatError,
    InvalidArguments,
    InvocationTimeout,
)
from ..wire.headers import Headers
from ..wire.idl import CHOKE, CHUNK, CREDIT, Message, Slot
from ..wire.session import Channel, error_of
from .request import Request
from .response import Response
from .running import Finishing, Handler, Task

#: ``(handler, request, response, invocation)``: calls the handler and reports its end.
Start = Callable[[Handler, Any, Any, Finishing], None]
#: What a handler sees instead of the raw pair; called when the first chunk is there.
Adapter = Callable[[Request, Response], tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Binding:
    """
    A handler and how it is run.

    :ivar adapter: makes other faces of the request and the response out of the first chunk, or None.
    """

    event: str
    handler: Handler
    start: Start
    adapter: Adapter | None = None


class Invocation:
    """
    Receives what the client sends and keeps the handler's end.

    :param ended: told once, when the handler has come to its end or was never begun.
    :param begin: asked, once, to call `start` when this read's other events have been taken.
    """

    __slots__ = (
        "_began", "_begin", "_binding", "_cause", "_channel", "_done", "_ended", "_lingers", "_timer", "_written",
        "request", "response", "task",
    )  # fmt: skip
    _log = Logger()

    def __init__(
        self,
        binding: Binding,
        channel: Channel,
        request: Request,
        begin: Callable[[Invocation], None],
        ended: Callable[[Invocation], None],
    ) -> None:
        self.request = request
        # An adapter may put another face on it; credits are for what is underneath.
        self.response: Any = Response(channel)
        self._written: Response = self.response
        self.task: Task | None = None
        self._binding = binding
        self._channel = channel
        self._cause: CocaineError | None = None
        self._timer: IDelayedCall | None = None
        self._done = self._lingers = False
        self._begin = begin
        self._ended = ended
        self._began = binding.adapter is None
        if self._began:
            begin(self)

    def __repr__(self) -> str:
        return f"<{self._binding.event} on {self._channel!r}>"

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CHUNK:
            if not args or args[0].__class__ is not bytes:
                self.cancel(InvalidArguments("a chunk is not one raw value"))
                return
            if not self._lingers:
                self.request.feed(args[0])
            if not self._began:
                self._began = True
                self._begin(self)
        elif message is CHOKE:
            self.request.end(None)
            if not self._began:
                self._break(HttpFormatError("the event ended before its request came"))
        elif message is CREDIT:
            self._written.credited(args[0])
            if self._lingers and not self._written.unsent:
                self._leave()
        elif channel.sending:
            self.cancel(error_of(args))
        else:
            # The client has its answer. What the handler does besides reading on is its own business.
            self.request.end(error_of(args))

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self.cancel(reason)

    def start(self) -> None:
        """Call the handler."""
        if self._done:
            return
        binding = self._binding
        request: Any = self.request
        if binding.adapter is not None:
            try:
                request, self.response = binding.adapter(request, self.response)
            except CocaineError as problem:
                self._break(problem)
                return
        binding.start(binding.handler, request, self.response, self)
        if not self._done:
            remaining = self.request.remaining
            if remaining is not None:
                self._timer = self.request.call_later(remaining, self._overdue)

    def cancel(self, cause: CocaineError) -> None:
        """Nobody waits for the answer any more: a waiting handler gets the error, or is cancelled where it waits."""
        if self._done:
            if self._lingers:
                self._written.unlimit()
                self._channel.fail(cause)
                self._leave()
            return
        if self._cause is None:
            self._cause = cause
        # The handler may come to its end by hearing of it.
        self.request.end(cause)
        self._written.unlimit()
        if self.task is not None:
            self.task.cancel()
        elif not self._done:
            self.finished()

    def cut(self, cause: CocaineError) -> None:
        """The client is told at once; the handler is cancelled."""
        self._channel.fail(cause)
        self.cancel(cause)

    def _overdue(self) -> None:
        self._timer = None
        self.cut(InvocationTimeout())

    def _break(self, problem: CocaineError) -> None:
        """The handler cannot be called at all."""
        self._log.info("{invocation!r}: {reason}", invocation=self, reason=problem.reason)
        self._cause = problem
        self.finished()

    def finished(self, problem: BaseException | None = None) -> None:
        """The handler has returned, or failed; called once."""
        if self._done:
            return
        self._done = True
        self.task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        channel = self._channel
        if self._cause is not None:
            channel.fail(self._cause)
        elif problem is None:
            if channel.sending:
                self._close()
        else:
            channel.fail(_error_for(problem))
            failure = Failure(problem)  # type: ignore[no-untyped-call]
            self._log.failure("the handler of {event} failed", failure, event=self._binding.event)
        self.request.drop()
        # The handler may have written more than its client lets be on the way.
        self._lingers = self._written.unsent
        if not self._lingers:
            self._leave()

    def _leave(self) -> None:
        self._lingers = False
        if self._channel.receiving:
            self._channel.abandon()
        self._ended(self)

    def _close(self) -> None:
        try:
            self.response.close()
        except CocaineError as problem:
            self._channel.fail(problem)


def _error_for(problem: BaseException) -> CocaineError:
    """What the client is told: the exception's own words; a worker's own error keeps its numbers."""
    if isinstance(problem, CocaineError) and problem.category in (WORKER, WORKER_USER):
        return problem
    return HandlerFailed(str(problem) or type(problem).__name__)
