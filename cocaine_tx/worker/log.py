"""
The standard library's `logging`, sent to the node's ``logging`` service.

::

    logging.getLogger().addHandler(LogHandler(app="myapp"))

Records wait in a bounded queue; what does not fit is counted, and the count is logged when there is room again. While
the service cannot be reached records go to stderr, where the node's crash log has them.

Source: reference ``protocol-v12.md`` section 11.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TextIO

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .config import DEFAULT_APP, option
from .service import Service

#: Records that wait at most.
QUEUE = 10_000

#: Severity by the least standard level that has it.
_SEVERITIES = ((logging.ERROR, 3), (logging.WARNING, 2), (logging.INFO, 1))


class Calling(Protocol):
    """What the handler needs of a `Service`."""

    def call(self, method: str, *args: Any) -> Awaitable[Any]:
        """Call a method."""


def severity_of(level: int) -> int:
    """0 debug, 1 info, 2 warning, 3 error."""
    for least, severity in _SEVERITIES:
        if level >= least:
            return severity
    return 0


class LogHandler(logging.Handler):
    """
    Sends records to a logging service.

    :param app: the app's name; the one on the command line unless given.
    :param attributes: sent with every record, beside the worker's uuid.
    :param service: the service; ``logging`` unless given.
    :param call_in_loop: the reactor's ``callFromThread``.
    :ivar dropped: records that did not fit and have not been reported yet.
    """

    def __init__(
        self,
        app: str | None = None,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        service: Calling | None = None,
        call_in_loop: Callable[..., Any] | None = None,
        fallback: TextIO | None = None,
        queue: int = QUEUE,
    ) -> None:
        super().__init__()
        self.dropped = 0
        self._source = f"app/{(app or option(sys.argv, '--app') or DEFAULT_APP).removeprefix('app/')}"
        uuid = option(sys.argv, "--uuid")
        self._attributes = [*(attributes or {}).items(), *([("uuid", uuid)] if uuid else [])]
        self._service: Calling = Service("logging") if service is None else service
        self._call_in_loop = call_in_loop
        self._fallback = fallback
        self._limit = queue
        self._queue: deque[tuple[int, str]] = deque()
        self._sending = False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, from any thread."""
        try:
            text = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if len(self._queue) >= self._limit:
            self.dropped += 1
            return
        self._queue.append((severity_of(record.levelno), text))
        if not self._sending:
            self._sending = True
            self._wake(self._send)

    def _wake(self, act: Callable[[], None]) -> None:
        call = self._call_in_loop
        if call is None:
            from twisted.internet import reactor

            call = self._call_in_loop = reactor.callFromThread  # type: ignore[attr-defined]
        call(act)

    def _send(self) -> None:
        done = Deferred.fromCoroutine(self._sent())
        done.addErrback(self._fall_back)

    async def _sent(self) -> None:
        queue = self._queue
        while queue:
            severity, text = queue[0]
            await self._service.call("emit", severity, self._source, text, self._attributes)
            queue.popleft()
            if self.dropped and len(queue) < self._limit // 2:
                dropped, self.dropped = self.dropped, 0
                queue.append((2, f"{dropped} log records were dropped: the queue was full"))
        self._sending = False
        if queue:
            # A thread logged between the last look and the flag.
            self._sending = True
            self._wake(self._send)

    def _fall_back(self, failure: Failure) -> None:
        stream = sys.stderr if self._fallback is None else self._fallback
        while self._queue:
            stream.write(f"{self._queue.popleft()[1]}\n")
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            stream.write(f"{dropped} log records were dropped: the queue was full\n")
        stream.flush()
        self._sending = False
