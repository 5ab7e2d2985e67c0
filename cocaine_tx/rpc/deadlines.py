"""
Deadlines of many requests on one timer.

A timer for each request would cost more than the request, and most are cancelled long before. Requests stand in
bins by the time at which they are over, rounded up by at most a 64th of the time they were given; one timer waits for
the next bin. Entering and leaving cost a set operation each, and an emptied bin leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, frexp, inf
from typing import Generic, NewType, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

T = TypeVar("T")

#: Seconds; no bin is finer.
FINEST = 1 / 64
#: The width of bins in seconds. A type of its own, since the time an item was given looks just like it.
Grain = NewType("Grain", float)


def grain(given: float) -> Grain:
    """
    How wide the bins are for items that were given so many seconds.

    The largest power of two below a 64th of it: few bins exist at once, however many items.
    """
    return Grain(max(FINEST, 2.0 ** (frexp(given)[1] - 7)))


class Deadlines(Generic[T]):
    """
    Who is over when.

    :param clock: tells the time and wakes us.
    :param over: called with each item whose time has come; it has left by then.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, over: Callable[[T], None]) -> None:
        self._clock = clock
        self._over = over
        self._bins: dict[float, set[T]] = {}
        self._order: list[float] = []
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return sum(map(len, self._bins.values()))

    def enter(self, item: T, deadline: float, width: Grain) -> float:
        """
        :param deadline: the clock's time at which the item is over.
        :param width: of its bin, from `grain`.
        :return: the bin, to `leave` with.
        """
        when = ceil(deadline / width) * width
        found = self._bins.get(when)
        if found is None:
            self._bins[when] = {item}
            heappush(self._order, when)
            if self._order[0] == when:
                self._wait()
        else:
            found.add(item)
        return when

    def leave(self, item: T, when: float) -> None:
        """The item has ended before its time."""
        found = self._bins.get(when)
        if found is not None:
            found.discard(item)

    def watch(self, item: T) -> Watch[T]:
        """For one item whose deadline moves often."""
        return Watch(self, item)

    def stop(self) -> None:
        """Forget everything."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        self._bins.clear()
        self._order.clear()

    def _wait(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._order:
            pause = max(0.0, self._order[0] - self._clock.seconds())
            self._timer = self._clock.callLater(pause, self._due)

    def _due(self) -> None:
        now = self._clock.seconds()
        due = []
        # All of them first: who comes back with a time that has passed must not keep the reactor from its turn.
        while self._order and self._order[0] <= now:
            due.append(heappop(self._order))
        for when in due:
            for item in self._bins.pop(when, ()):
                try:
                    self._over(item)
                except Exception:
                    # One item's fault must not cost the others their deadlines.
                    self._log.failure("a deadline could not be carried out")
        self._wait()


class Watch(Generic[T]):
    """
    One item whose deadline moves often: it is entered again only when that comes nearer, and looked at then.

    :ivar due: when it is looked at next; the item sets it to infinity when its time has come.
    """

    __slots__ = ("_bin", "_deadlines", "_item", "due")

    def __init__(self, deadlines: Deadlines[T], item: T) -> None:
        self.due = inf
        self._bin = 0.0
        self._deadlines = deadlines
        self._item: T | None = item

    def expect(self, due: float, now: float) -> None:
        """Something must have happened by ``due``."""
        if due < self.due and self._item is not None:
            self.leave()
            self.due = due
            self._bin = self._deadlines.enter(self._item, due, grain(due - now))

    def leave(self) -> None:
        """Nothing is expected."""
        if self.due != inf and self._item is not None:
            self._deadlines.leave(self._item, self._bin)
            self.due = inf

    def forget(self) -> None:
        """Nothing will be expected any more; the item, which holds us, is held no longer."""
        self.leave()
        self._item = None
