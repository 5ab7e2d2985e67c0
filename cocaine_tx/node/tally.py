"""What an app's ``info`` counts (reference ``node-engine.md`` section 3.2)."""

from __future__ import annotations

from .meters import Average, Rate, Timings


class Tally:
    """What ``info`` counts for an app; survives the replacement of its pool."""

    def __init__(self, now: float) -> None:
        self.restart(now)

    def restart(self, now: float) -> None:
        """Count from here."""
        self.started = now
        self.rate = Rate(now)
        self.depth = Average(now)
        self.timings = Timings(now)
        self.accepted = 0
        self.rejected = 0
        self.spawned = 0
        self.crashed = 0
        #: Events that a worker finished when nobody waited for them any more.
        self.unwanted = 0
