"""
A first-in first-out line of blocking calls, worked by one pool thread at a time.

Calls asked for in one reactor turn go to the thread as one job and their results come back in one
``callFromThread``, which makes a call about ten times cheaper than ``deferToThreadPool`` does, and keeps their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.threadpool import ThreadPool

from ..errors import CocaineError, Overloaded

T = TypeVar("T")

#: A job ends after this many seconds or bytes of results, so that what is done is not held back by what is slow.
_JOB_TIME = 0.005
_JOB_BYTES = 16 * 1024 * 1024


class Clockwork(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: object) -> Any: ...

    def callFromThread(self, callable: Callable[..., object], /, *args: object) -> Any: ...


#: The Deferred to answer, the function, its arguments, its weight. A plain tuple: one is made for each storage call.
_Call = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...], int]


class Line:
    """
    Calls in waiting and the one job under way. Used from the reactor's thread only.

    :param limit: calls that may wait; more fail with `Overloaded`.
    :param byte_limit: bytes of arguments that may wait, as told by ``weight``; one call of any weight may always wait.
    """

    def __init__(self, reactor: Clockwork, threads: ThreadPool, limit: int, byte_limit: int) -> None:
        self._reactor = reactor
        self._threads = threads
        self._limit = limit
        self._byte_limit = byte_limit
        self._waiting: deque[_Call] = deque()
        self._weight = 0
        self._busy = False

    def ask(self, function: Callable[..., T], *arguments: Any, weight: int = 0) -> Deferred[T]:
        """
        Call it in its turn, off the reactor.

        :return: the function's result, or the exception it raised; `Overloaded` when too much waits.
        """
        if len(self._waiting) >= self._limit:
            return fail(Overloaded(f"{self._limit} storage operations are waiting already"))
        if weight and self._weight and self._weight + weight > self._byte_limit:
            return fail(Overloaded(f"{self._weight} bytes are waiting to be written already"))
        answer: Deferred[T] = Deferred()
        self._waiting.append((answer, function, arguments, weight))
        self._weight += weight
        if not self._busy:
            self._busy = True
            self._reactor.callLater(0, self._hand_over)
        return answer

    def _hand_over(self) -> None:
        calls = list(self._waiting)
        if self._threads.joined:  # a stopped pool swallows what it is given
            self._reactor.callLater(0, self._done, [CocaineError("storage is shutting down")] * len(calls))
        else:
            self._threads.callInThread(self._work, calls)

    def _work(self, calls: list[_Call]) -> None:
        """Runs in a thread."""
        results: list[Any] = []
        size = 0
        end = monotonic() + _JOB_TIME
        for _, function, arguments, _ in calls:
            try:
                result = function(*arguments)
                if type(result) is bytes:
                    size += len(result)
            except Exception as error:
                result = error
            results.append(result)
            if size > _JOB_BYTES or monotonic() > end:
                break
        self._reactor.callFromThread(self._done, results)

    def _done(self, results: list[Any]) -> None:
        waiting = self._waiting
        finished = [waiting.popleft() for _ in results]
        for (answer, _, _, weight), result in zip(finished, results, strict=True):
            self._weight -= weight
            if isinstance(result, Exception):
                answer.errback(result)
            else:
                answer.callback(result)
        if waiting:
            self._hand_over()
        else:
            self._busy = False
