"""
Who gets the next event: the least laden worker; of an app whose events are quick, one and the same for a while.

To wake a process costs as much as a small event does, and one that was woken a moment ago has all it needs in the
processor's caches. So an app that has shown to take next to nothing for an event has its favourite given one after the
other, as long as none of them has to wait noticeably. What the favourite has no room for goes to one of the least
laden, and there to the one that was busy last; it is the favourite then. After a while it is the turn of the one that
has rested longest, so that a worker which fails quickly does not attract more than its share. Where events take their
time, be it of the processor or of something that they wait for, the rule is the original's (reference
``node-engine.md`` section 5.5).
"""

from __future__ import annotations

from math import inf
from typing import Generic

from .seats import H, Seats

#: Seconds in which favourites are chosen among those that were busy last.
SPAN = 0.05
#: Seconds that an event may have to wait behind others of the favourite.
PATIENCE = 0.01
#: How fast the estimate of an event's price falls and rises. Cheap events count more, since under load all seem dear:
#: workers wait for a processor. One event in ten that takes 0.1 s still makes an app that is not quick.
_FALL, _RISE = 1 / 16, 1 / 32


class Favour(Generic[H]):
    """
    Chooses among seated workers.

    :ivar price: seconds of a worker's time for one event, as far as is known; infinite at first.
    """

    __slots__ = ("_favourite", "_heard", "_seats", "_until", "price")

    def __init__(self, seats: Seats[H]) -> None:
        self._seats = seats
        self._favourite: H | None = None
        self._until = self._heard = -inf
        self.price = inf

    def take(self, now: float) -> H | None:
        """A worker, now with one channel more; None if all are full or nobody is there."""
        seats, favourite = self._seats, self._favourite
        if favourite is None or now >= self._until:
            self._favourite = favourite = seats.take()
            self._heard = now
            self._until = now + SPAN if 2 * self.price <= PATIENCE else -inf
            return favourite
        load = seats.load(favourite)
        if (load + 1) * self.price <= PATIENCE and (not load or now - self._heard < PATIENCE):
            if not load:
                self._heard = now
            if seats.take_with(favourite):
                return favourite
        self._favourite = favourite = seats.take_latest()
        self._heard = now
        return favourite

    def ended(self, worker: H, seconds: float, now: float) -> None:
        """
        A worker has done its part of an event; the event still counts among its channels.

        :param seconds: how long it took, beside the others that the worker had.
        """
        if worker is self._favourite:
            self._heard = now
        price, shown = self.price, seconds / max(1, self._seats.load(worker))
        self.price = shown if price == inf else price + (shown - price) * (_FALL if shown < price else _RISE)
