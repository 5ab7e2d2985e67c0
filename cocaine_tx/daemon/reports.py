"""
What the children of a supervisor tell it: their counters, so that an operator sees one proxy and not several.

The supervisor asks over one pipe and is answered over another, a line each, once a second; a child that does not answer
is not asked again, so nothing piles up. What a child that has ended had counted is kept, since counters never fall.
The same pipe tells a child, by its end, that the supervisor has gone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Hashable
from typing import Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import UndecodableError
from ..proxy.metrics import Totals, sum_of

#: Descriptors in a child: where it is asked, and where it answers.
QUESTIONS, ANSWERS = 3, 4
#: Seconds between questions.
INTERVAL = 1.0
#: Longest answer, in bytes.
LONGEST = 16 * 2**20


class Reporter(Protocol):
    """
    In a child: answers, and ends the process in good order when the supervisor has gone.

    :param totals: what has been counted so far.
    """

    def __init__(self, reactor: Any, totals: Callable[[], Totals]) -> None:
        self._totals = totals
        self._ending = False
        reactor.addSystemEventTrigger("before", "shutdown", self._end)
        StandardIO(self, QUESTIONS, ANSWERS, reactor)  # type: ignore[no-untyped-call,call-arg]

    def _end(self) -> None:
        self._ending = True

    def dataReceived(self, data: bytes) -> None:
        self.report()

    def report(self) -> None:
        """Tell the supervisor without being asked, for there may be no other time."""
        if self.transport is not None:
            self.transport.write(self._totals().packed() + b"\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        if not self._ending:
            os.kill(os.getpid(), signal.SIGTERM)


class Board:
    """In the supervisor: what all children have counted, at most a second or two old."""

    _log = Logger()

    def __init__(self) -> None:
        self._latest: dict[Hashable, Totals] = {}
        self._past = Totals()
        self._parts: dict[Hashable, bytes] = {}
        self._asked: set[Hashable] = set()

    def due(self, child: Hashable) -> bool:
        """Whether a child is to be asked now: it has answered the last question."""
        if child in self._asked:
            return False
        self._asked.add(child)
        return True

    def told(self, child: Hashable, data: bytes) -> None:
        """Some of a child's answers."""
        *lines, rest = (self._parts.get(child, b"") + data).split(b"\n")
        self._parts[child] = rest if len(rest) <= LONGEST else b""
        if not lines:
            return
        self._asked.discard(child)
        try:
            self._latest[child] = Totals.read(lines[-1])
        except UndecodableError as problem:
            self._log.error("a proxy process reports what cannot be read: {reason}", reason=problem.reason)

    def ended(self, child: Hashable) -> None:
        """A child is no more; what it has counted stays."""
        self._asked.discard(child)
        self._parts.pop(child, None)
        latest = self._latest.pop(child, None)
        if latest is not None:
            self._past = sum_of((self._past, latest.ended()))

    def totals(self) -> Totals:
        """All children together."""
        return sum_of((self._past, *self._latest.values()))
