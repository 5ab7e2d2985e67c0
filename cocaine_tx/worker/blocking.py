"""
Blocking handlers: a thread for the function, and faces of request and response that wait for the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import WORKER, CocaineError, LocalProtocolError
from .request import BODY_LIMIT, Request
from .response import Response
from .running import Finishing, Handler, adopt
from .threads import Crew

T = TypeVar("T")
_Request = TypeVar("_Request", bound=Any)
_Response = TypeVar("_Response", bound=Any)
#: Calls a function in the reactor's thread, from any other.
CallInLoop = Callable[..., Any]

#: Bytes a handler may write ahead of the reactor.
_AHEAD = 256 * 1024


class Calls:
    """
    The way from one handler's thread to the reactor.

    :ivar stopped: why the handler should stop: its next call raises this.
    """

    __slots__ = ("_call_in_loop", "stopped")

    def __init__(self, call_in_loop: CallInLoop) -> None:
        self._call_in_loop = call_in_loop
        self.stopped: CocaineError | None = None

    def later(self, act: Callable[..., Any], *args: Any) -> None:
        """Have it done, in order, without waiting."""
        self.check()
        self._call_in_loop(act, *args)

    def wait(self, act: Callable[..., Any], *args: Any) -> Any:
        """Have it done and wait for what it, or its Deferred, gives."""
        self.check()
        done: Future[Any] = Future()

        def failed(failure: Failure) -> None:
            done.set_exception(failure.value)

        def doing() -> None:
            try:
                result = act(*args)
            except Exception as problem:
                done.set_exception(problem)
                return
            if isinstance(result, Deferred):
                result.addCallbacks(done.set_result, failed)
            else:
                done.set_result(result)

        self._call_in_loop(doing)
        return done.result()

    def check(self) -> None:
        """
        :raises CocaineError: the client has gone, or the deadline has passed.
        """
        if self.stopped is not None:
            raise self.stopped

    def cancel(self) -> None:
        """A thread cannot be stopped; it is told when it next says something."""
        if self.stopped is None:
            self.stopped = CocaineError("the handler has been cancelled")


class BlockingRequest(Generic[_Request]):
    """`Request` for a thread: ``for chunk in request``, `read` and `body` wait."""

    def __init__(self, request: _Request, calls: Calls) -> None:
        self._request: Any = request
        self._calls = calls

    @property
    def event(self) -> str:
        """The event's name."""
        return self._request.event  # type: ignore[no-any-return]

    @property
    def headers(self) -> Any:
        """What came beside the payload."""
        return self._request.headers

    @property
    def trace(self) -> Any:
        """The ids of the client's request."""
        return self._request.trace

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting."""
        return self._request.deadline  # type: ignore[no-any-return]

    @property
    def remaining(self) -> float | None:
        """Seconds until then."""
        return self._request.remaining  # type: ignore[no-any-return]

    @property
    def cancelled(self) -> bool:
        """Nobody waits for the answer any more."""
        return self._calls.stopped is not None

    def read(self) -> bytes | None:
        """
        The next chunk; None after the last.

        :raises CocaineError: the request was broken off.
        """
        return self._calls.wait(self._request.read)  # type: ignore[no-any-return]

    def body(self, limit: int = BODY_LIMIT) -> bytes:
        """
        Everything the client sends, joined.

        :raises Overloaded: it is more than ``limit`` bytes.
        """
        return self._calls.wait(self._request.body, limit)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self.read()) is not None:
            yield chunk


class BlockingResponse(Generic[_Response]):
    """`Response` for a thread; `write` waits when the client does not take what was written."""

    def __init__(self, response: _Response, calls: Calls) -> None:
        self._response: Any = response
        self._calls = calls
        self._ahead = 0
        self._finished = False

    @property
    def closed(self) -> bool:
        """Nothing more can be said."""
        return self._finished or self._response.closed

    def write(self, data: bytes | str) -> None:
        """
        One chunk.

        :raises LocalProtocolError: the response has been ended by its handler.
        :raises CocaineError: the client has gone.
        """
        if self._finished:
            raise LocalProtocolError("the response has been ended already")
        if not isinstance(data, (bytes, str)):
            data = bytes(data)
        self._ahead += len(data)
        if self._ahead > _AHEAD:
            self._calls.wait(self._response.write, data)
            self._ahead = 0
        else:
            self._calls.later(self._response.write, data)

    def close(self) -> None:
        """The regular end."""
        self._finished = True
        self._calls.later(self._response.close)

    def error(self, code: int, reason: str, category: int = WORKER) -> None:
        """The irregular end."""
        self._finished = True
        self._calls.later(self._response.error, code, reason, category)


class InThread:
    """
    Starts blocking handlers.

    :param call_in_loop: the reactor's ``callFromThread``.
    """

    def __init__(self, crew: Crew, call_in_loop: CallInLoop) -> None:
        self._crew = crew
        self._call_in_loop = call_in_loop

    def start(self, handler: Handler, request: Any, response: Any, finishing: Finishing) -> None:
        """Run it in a thread with blocking faces of its request and response."""
        calls = Calls(self._call_in_loop)
        finishing.task = calls
        faces = blocking_faces(request, response, calls)

        def work() -> None:
            if calls.stopped is not None:
                # Cancelled while it waited for a thread.
                self._call_in_loop(finishing.finished)
                return
            try:
                result = handler(*faces)
            except BaseException as problem:
                self._call_in_loop(finishing.finished, problem)
                return
            self._call_in_loop(adopt, result, finishing)

        self._crew.give(work)


def blocking_faces(request: Any, response: Any, calls: Calls) -> tuple[Any, Any]:
    """The blocking faces of a pair, raw or adapted."""
    make_request = BlockingRequest if isinstance(request, Request) else request.blocking
    make_response = BlockingResponse if isinstance(response, Response) else response.blocking
    return make_request(request, calls), make_response(response, calls)
