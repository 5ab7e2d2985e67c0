"""
Meters for ``info``: how many a second, how deep the queue, how long it took.

Each update is one short call with the clock's time passed in (the hot path). No samples are kept, only counts in fixed
buckets, so that a reading costs the same after a million requests.

Source: reference ``node-engine.md`` section 3.2; the shape of each value as captured from the original.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from operator import add

#: Rates are averaged over ticks of so many seconds, as in the original: they are zero before the first.
TICK = 5.0
#: The windows of the three rates, in seconds.
WINDOWS = (60.0, 300.0, 900.0)
#: Queue depth is averaged over this window, in seconds.
DEPTH_WINDOW = 2.0
#: Timings forget what is older than one to two of these, in seconds, as long as new ones come.
TIMINGS_WINDOW = 150.0

QUANTILES = (("50.00%", 0.50), ("75.00%", 0.75), ("90.00%", 0.90), ("95.00%", 0.95), ("98.00%", 0.98), ("99.00%", 0.99),
             ("99.95%", 0.9995))  # fmt: skip
BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0, 1000.0)

#: Upper edges of the buckets in milliseconds: from 10 us to 10 days in steps of 5%, and `BOUNDS` exactly.
_EDGES = sorted({*BOUNDS, *(0.01 * 1.05**step for step in range(512))})


class Rate:
    """
    Events a second: the averages of 1, 5 and 15 minutes and the mean since the start.

    :ivar count: events so far.
    """

    __slots__ = ("_averages", "_decays", "_next", "_start", "_ticked", "count")

    def __init__(self, now: float) -> None:
        self.count = 0
        self._start = now
        self._next = now + TICK
        self._ticked = 0  # the count at the last tick
        self._averages: list[float] | None = None
        self._decays = [math.exp(-TICK / window) for window in WINDOWS]

    def mark(self, now: float) -> None:
        """One event."""
        if now >= self._next:
            self._tick(now)
        self.count += 1

    def averages(self, now: float) -> list[float]:
        """``[m1, m5, m15]`` in events a second."""
        if now >= self._next:
            self._tick(now)
        return list(self._averages) if self._averages else [0.0] * len(WINDOWS)

    def mean(self, now: float) -> float:
        """Events a second since the start."""
        lived = now - self._start
        return self.count / lived if lived > 0 else 0.0

    def _tick(self, now: float) -> None:
        """Account for the tick that has ended, and for the silent ones since."""
        recent = (self.count - self._ticked) / TICK
        silent = int((now - self._next) // TICK)
        if self._averages is None:
            self._averages = [recent * decay**silent for decay in self._decays]
        else:
            self._averages = [
                (recent + (average - recent) * decay) * decay**silent
                for average, decay in zip(self._averages, self._decays, strict=True)
            ]
        self._ticked = self.count
        self._next += TICK * (silent + 1)


class Average:
    """The average of a quantity that changes in steps, each value weighing as long as it was in force."""

    __slots__ = ("_average", "_since", "_value")

    def __init__(self, now: float) -> None:
        self._average = self._value = 0.0
        self._since = now

    def set(self, value: float, now: float) -> None:
        """From now on the quantity has this value."""
        if now > self._since:
            self._settle(now)
        self._value = value

    def read(self, now: float) -> float:
        """The average over about `DEPTH_WINDOW` seconds, rounded up to 3 decimals."""
        if now > self._since:
            self._settle(now)
        # Rounding up keeps "something waits" visible; the noise of the arithmetic itself is not something.
        return math.ceil(self._average * 1000 - 1e-6) / 1000

    def _settle(self, now: float) -> None:
        value = self._value
        if self._average != value:
            self._average = value + (self._average - value) * math.exp((self._since - now) / DEPTH_WINDOW)
        self._since = now


class Timings:
    """How long things took, as percentiles and as shares below given times; within 5%."""

    __slots__ = ("_counts", "_older", "_turn")

    def __init__(self, now: float) -> None:
        self._counts = [0] * (len(_EDGES) + 1)
        self._older = [0] * (len(_EDGES) + 1)
        self._turn = now + TIMINGS_WINDOW

    def record(self, seconds: float, now: float) -> None:
        """One thing took so long."""
        if now >= self._turn:
            self._older, self._counts = self._counts, [0] * (len(_EDGES) + 1)
            self._turn = now + TIMINGS_WINDOW
        self._counts[bisect_right(_EDGES, seconds * 1000.0)] += 1

    def percentiles(self) -> dict[str, float]:
        """Milliseconds that the given share took at most; zeros while nothing was recorded."""
        below = self._below()
        total = below[-1]
        return {key: _quantile(below, share * total) if total else 0.0 for key, share in QUANTILES}

    def reversed(self) -> dict[str, float]:
        """Percent that took less than the given times; zeros while nothing was recorded."""
        below = self._below()
        total = below[-1]
        return {
            f"{bound:.0f}ms": round(100.0 * below[bisect_right(_EDGES, bound) - 1] / total, 2) if total else 0.0
            for bound in BOUNDS
        }

    def _below(self) -> list[int]:
        """For each bucket, the number of records in it and in all shorter ones."""
        return list(accumulate(map(add, self._counts, self._older)))


def _quantile(below: list[int], rank: float) -> float:
    """The time in milliseconds at which the running count reaches ``rank``, straight between a bucket's edges."""
    bucket = bisect_right(below, rank - 1e-9)
    if bucket >= len(_EDGES):
        return _EDGES[-1]
    lower = _EDGES[bucket - 1] if bucket else 0.0
    before = below[bucket - 1] if bucket else 0
    return round(lower + (_EDGES[bucket] - lower) * (rank - before) / (below[bucket] - before), 3)
