"""
Which node gets the next request: pure rules on plain records.

Two random candidates, and of these the one with less in flight for its weight. A node that fails again and again is
left out for a while; one that has requests and says nothing at all is avoided; one that has just joined, or come back,
gets its share little by little.

Source: reference ``node-engine.md`` section 8.3 for what the original lacked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeVar

#: Random draws before looking at every candidate in order.
_DRAWS = 8
#: The share of a node in the moment it joins.
_FIRST_SHARE = 0.05
#: Seconds without a sign of life, while it has requests, after which a node counts as quiet.
QUIET = 1.0
#: An ejection lasts at most this many times the first one.
_LONGEST = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """
    How load is spread.

    :ivar tries: nodes tried for one request, while that is safe.
    :ivar eject_after: failures in a row that take a node out.
    :ivar eject_time: seconds it stays out, times the number of its ejections in a row.
    :ivar slow_start: seconds until a node that has joined gets its full share.
    """

    tries: int = 4
    eject_after: int = 5
    eject_time: float = 10.0
    slow_start: float = 10.0


@dataclass(slots=True, eq=False)
class Standing:
    """
    What is known of one node's part in one app.

    :ivar since: the clock's time at which it joined, or came back after an ejection.
    :ivar weight: its capacity beside the others'.
    :ivar in_flight: requests it has from us.
    :ivar heard: the clock's time of its last sign of life, or at which it got a request while it had none.
    :ivar failures: in a row.
    :ivar ejections: in a row.
    :ivar until: the clock's time until which it is left out.
    """

    since: float
    weight: float = 1.0
    in_flight: int = 0
    heard: float = 0.0
    failures: int = 0
    ejections: int = 0
    until: float = 0.0

    def share(self, now: float, rules: Rules) -> float:
        """How much of its weight it is trusted with, 0 to 1."""
        if rules.slow_start <= 0:
            return 1.0
        return min(1.0, max(_FIRST_SHARE, (now - self.since) / rules.slow_start))

    def load(self) -> float:
        """What it has for what it can do."""
        return self.in_flight / self.weight

    def took(self, now: float) -> None:
        """It has one more request."""
        if not self.in_flight:
            self.heard = now
        self.in_flight += 1

    def quiet(self, now: float) -> bool:
        """It has requests, and has given no sign of life for a while: it may be slow, or gone."""
        return self.in_flight > 0 and now - self.heard > QUIET

    def spoke(self, now: float) -> None:
        """It has given a sign of life."""
        self.heard = now

    def succeeded(self, now: float) -> None:
        """It has answered."""
        self.heard = now
        self.failures = 0
        self.ejections = 0

    def failed(self, now: float, rules: Rules) -> bool:
        """It could not be reached, or was lost; True if it is left out from now on."""
        self.failures += 1
        if self.failures < rules.eject_after or self.until > now:
            return False
        self.ejections += 1
        self.failures = 0
        self.until = now + rules.eject_time * min(self.ejections, _LONGEST)
        self.since = self.until
        return True


S = TypeVar("S", bound=Standing)


def choose(
    candidates: Sequence[S],
    tried: Collection[S],
    now: float,
    rules: Rules,
    random: Callable[[], float],
    heaviest: float = 1.0,
) -> S | None:
    """
    The node for a request, or None when all have been tried.

    When every node that is left is out or quiet, the best of them gets the request after all: both are guesses, and no
    answer is worse than a doubtful one.

    :param random: numbers from 0 up to 1.
    :param heaviest: the largest weight among the candidates.
    """
    first = _draw(candidates, tried, now, rules, random, heaviest)
    if first is None:
        left = [candidate for candidate in candidates if candidate not in tried]
        return min(left, key=lambda one: (one.until > now, one.quiet(now), one.load()), default=None)
    second = _draw(candidates, tried, now, rules, random, heaviest)
    if second is None or first.load() <= second.load():
        return first
    return second


def _draw(
    candidates: Sequence[S],
    tried: Collection[S],
    now: float,
    rules: Rules,
    random: Callable[[], float],
    heaviest: float,
) -> S | None:
    count = len(candidates)
    if not count:
        return None
    for _ in range(_DRAWS):
        candidate = candidates[int(random() * count)]
        if candidate.until > now or candidate in tried or candidate.quiet(now):
            continue
        trust = candidate.share(now, rules) * candidate.weight / heaviest
        if trust >= 1.0 or random() < trust:
            return candidate
    return None
