"""
How handlers are run: the four ways an app author may write one.

Each starter calls the handler and sees to it that `Invocation.finished` is called once, whatever the handler does. A
coroutine is first driven by hand: one that never has to wait costs no Deferred.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, unwrap
from typing import Any, Literal, Protocol, get_args

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..errors import ConfigError

#: How a handler runs: Twisted coroutine, function that returns a Deferred, asyncio coroutine, blocking function.
Kind = Literal["coroutine", "deferred", "asyncio", "thread"]
Handler = Callable[[Any, Any], Any]


class Task(Protocol):
    """A handler that has not come to its end."""

    def cancel(self) -> Any:
        """Make it end soon; it may do its last things."""


class Finishing(Protocol):
    """Who wants to know the end of a handler."""

    task: Task | None

    def finished(self, problem: BaseException | None = None) -> None:
        """The handler has returned, or failed."""


class Span(Protocol):
    """What begins and ends with a worker's process."""

    def begin(self, failed: Callable[[str], None]) -> None:
        """The reactor runs, and no event has come. Say ``failed`` if none shall."""

    @property
    def leave(self) -> Callable[[], None]:
        """To be called when the worker has been asked to end: what would go on for long is to come to its end."""

    def end(self) -> Deferred[Any]:
        """No handler runs any more, and none will. Fires when the process may end."""


def kind_of(handler: Handler) -> Kind:
    """
    How a handler wants to be run, by its looks.

    A plain function blocks, and gets a thread, unless its annotation says that it returns a Deferred or it was made by
    ``inlineCallbacks``.

    :raises ConfigError: it cannot be a handler.
    """
    if not callable(handler):
        raise ConfigError(f"{handler!r} cannot be called, so it is no handler")
    seen = unwrap(handler)
    for face in (handler, seen, getattr(seen, "__call__", seen)):  # noqa: B004
        if iscoroutinefunction(face):
            return "coroutine"
    if isasyncgenfunction(seen):
        raise ConfigError(f"{handler!r} is an async generator; a handler writes to its response instead of yielding")
    if isgeneratorfunction(seen):
        if seen is handler:
            raise ConfigError(f"{handler!r} is a generator; make it an async def, or decorate it with inlineCallbacks")
        return "deferred"
    returned = getattr(seen, "__annotations__", {}).get("return")
    name = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    return "deferred" if "Deferred" in name else "thread"


def known_kind(kind: str) -> Kind:
    """
    The kind of that name.

    :raises ConfigError: there is none.
    """
    for known in get_args(Kind):
        if kind == known:
            return known  # type: ignore[no-any-return]
    raise ConfigError(f"run={kind!r}: handlers run as one of {', '.join(get_args(Kind))}")


class Suspended:
    """
    A coroutine that waits for a Deferred.

    This is `Deferred.fromCoroutine` from the first wait on; Twisted's own begins with a Deferred and cannot take over.
    """

    __slots__ = ("_cancelled", "_context", "_coroutine", "_finishing", "_waiting")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context, finishing: Finishing) -> None:
        self._coroutine = coroutine
        self._context = context
        self._finishing = finishing
        self._waiting: Deferred[Any] | None = None
        self._cancelled = False

    def wait(self, awaited: object) -> None:
        """Go on when what the coroutine awaits is there."""
        while not isinstance(awaited, Deferred):
            complaint = TypeError(
                f"a handler awaited {awaited!r}; Twisted coroutines wait for Deferreds, "
                "and asyncio ones are registered with run='asyncio'"
            )
            try:
                awaited = self._context.run(self._coroutine.throw, complaint)
            except StopIteration:
                self._finishing.finished()
                return
            except BaseException as problem:
                self._finishing.finished(problem)
                return
        self._waiting = awaited
        awaited.addBoth(self._arrived)
        if self._cancelled and self._waiting is not None:
            self._cancelled = False
            self._waiting.cancel()

    def _arrived(self, result: object) -> None:
        # A value the Deferred hands to the coroutine itself, by its ``__await__``. It is consumed by us returning None.
        self._waiting = None
        try:
            if isinstance(result, Failure):
                awaited = self._context.run(result.throwExceptionIntoGenerator, self._coroutine)
            else:
                awaited = self._context.run(self._coroutine.send, None)
        except StopIteration:
            self._finishing.finished()
        except BaseException as problem:
            # Also CancelledError of asyncio and SystemExit: no handler ends the worker.
            self._finishing.finished(problem)
        else:
            self.wait(awaited)

    def cancel(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        else:
            # It is running just now: its next wait is cut.
            self._cancelled = True


def run_coroutine(handler: Handler, request: Any, response: Any, finishing: Finishing) -> None:
    """An ``async def`` that awaits Deferreds."""
    context = copy_context()
    try:
        coroutine = handler(request, response)
        awaited = context.run(coroutine.send, None)
    except StopIteration:
        finishing.finished()
    except BaseException as problem:
        finishing.finished(problem)
    else:
        suspended = Suspended(coroutine, context, finishing)
        finishing.task = suspended
        suspended.wait(awaited)


def run_deferred(handler: Handler, request: Any, response: Any, finishing: Finishing) -> None:
    """A function that returns a Deferred, or is done when it returns."""
    try:
        result = handler(request, response)
    except BaseException as problem:
        finishing.finished(problem)
        return
    adopt(result, finishing)


def adopt(result: object, finishing: Finishing) -> None:
    """Whatever a handler returned: wait for it if it is a Deferred."""
    if not isinstance(result, Deferred):
        finishing.finished()
        return
    # Also one that has fired: a callback may have made it wait for another.
    finishing.task = result
    result.addCallbacks(lambda _: finishing.finished(), lambda failure: finishing.finished(failure.value))


def run_asyncio(handler: Handler, request: Any, response: Any, finishing: Finishing) -> None:
    """An asyncio coroutine, as a task of the loop that Twisted's asyncio reactor runs on."""
    try:
        task = asyncio.get_running_loop().create_task(_contained(handler(request, response)))
    except BaseException as problem:
        finishing.finished(problem)
        return

    def ended(task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            finishing.finished(asyncio.CancelledError())
            return
        finishing.finished(task.exception() or task.result())

    finishing.task = task
    task.add_done_callback(ended)


async def _contained(handling: Coroutine[Any, Any, Any]) -> BaseException | None:
    """What would end the loop if a task let it out, given as its result: no handler ends the worker."""
    try:
        await handling
    except (SystemExit, KeyboardInterrupt) as problem:
        return problem
    return None
