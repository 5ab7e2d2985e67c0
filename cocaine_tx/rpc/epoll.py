"""
Twisted's own reactor for epoll, with a shorter way to a reader and an attentive wait.

Four things differ, all of them where a small request spends its time:

* A descriptor that has something to read is read; Twisted first sets the prefix of its old log for it, which takes as
  long as reading does.
* What is to be done at the end of a turn (`callAtEnd`) is done when the turn's events have been taken, without a timer.
* A process that has been waiting for short times only does not sleep at once but looks for events for a moment first,
  and lets others run in between. `Attention` says how long.
* A turn takes a few descriptors, where Twisted takes all there are: of 64 requests that come at once the first are on
  their way while the last are read.

The rest is Twisted's, and its own tests of reactors are run on this one. uvloop was refused: under Twisted's asyncio
reactor it is slower than this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import inf
from time import perf_counter

from twisted.internet.epollreactor import EPOLLIN, EPollReactor
from twisted.internet.error import ConnectionFdescWentAway
from twisted.python import log

from .reactor import Attention

#: Seconds from one look to the next after which somebody else is thought to need the processor.
CROWDED = 0.5e-3
#: Descriptors that one turn takes: enough to share a write, so few that the next process begins while we go on.
BATCH = 24

_GONE = ConnectionFdescWentAway("the descriptor has been closed")


class AttentiveReactor(EPollReactor):
    """
    Twisted's epoll reactor, changed as the module says.

    :ivar attention: how it waits; at first it sleeps at once.
    """

    def __init__(self) -> None:
        self.attention = Attention()
        self._ends: list[Callable[[], None]] = []
        self._woken = inf  # it has not worked yet
        super().__init__()  # type: ignore[no-untyped-call]

    def callAtEnd(self, act: Callable[[], None]) -> None:
        """Run it when the events of this turn have been taken, before the next wait. It must not raise."""
        self._ends.append(act)

    def _end(self) -> None:
        acts, self._ends = self._ends, []
        for act in acts:
            act()

    def doPoll(self, timeout: float | None) -> None:
        """One turn, as in `EPollReactor.doPoll`."""
        if self._ends:
            # Asked for by timed calls; what they do may want another call at once.
            self._end()
            timeout = 0
        selectables = self._selectables
        for descriptor, event in self._wait(-1 if timeout is None else timeout):
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue  # closed by an earlier one of these
            if event != EPOLLIN:
                turn = self._doReadOrWrite
                log.callWithLogger(selectable, turn, selectable, descriptor, event)  # type: ignore[no-untyped-call]
                continue
            try:
                why = selectable.doRead() if selectable.fileno() != -1 else _GONE
            except BaseException as problem:
                why = problem
                log.err()  # type: ignore[no-untyped-call]
            if why:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]
        if self._ends:
            self._end()

    doIteration = doPoll

    def _wait(self, timeout: float) -> list[tuple[int, int]]:
        """
        The next events.

        :param timeout: seconds; negative: for ever.
        """
        poll, most, attention = self._poller.poll, min(BATCH, len(self._selectables)), self.attention
        if not timeout or not attention.most:
            events: list[tuple[int, int]] = poll(timeout, most)
            return events
        begun = now = perf_counter()
        look = attention.after(begun - self._woken)
        end = begun + (look if timeout < 0 else min(look, timeout))
        while now < end:
            events = poll(0, most)
            if events:
                self._woken = perf_counter()
                return events
            os.sched_yield()
            before, now = now, perf_counter()
            if now - before > CROWDED:
                attention.crowded()
                break
        events = poll(timeout if timeout < 0 else max(0.0, timeout - (now - begun)), most)
        self._woken = now = perf_counter()
        attention.waited(now - begun)
        return events
