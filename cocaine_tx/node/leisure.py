"""
Workers with nothing to do leave after a while.

Source: reference ``node-engine.md`` section 5.9; ``pool-min`` is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Idler(Protocol):
    """A worker as far as this is concerned."""

    idle_since: float

    @property
    def load(self) -> int:
        "Its open channels."


W = TypeVar("W", bound=Idler)

#: Seconds; workers are not looked at more often.
FINEST = 0.05


def dispensable(active: Sequence[W], keep: int, idle: float, now: float) -> list[W]:
    """Those that have had nothing to do for ``idle`` seconds, the longest idle first, leaving at least ``keep``."""
    free = sorted((w for w in active if not w.load and now - w.idle_since >= idle), key=lambda w: w.idle_since)
    return free[: max(0, len(active) - keep)]


def next_look(active: Sequence[Idler], keep: int, idle: float, now: float) -> float | None:
    """Seconds until somebody may have to leave; None while nobody can, whatever happens."""
    if len(active) <= keep:
        return None
    return max(FINEST, min((idle - (now - w.idle_since) for w in active if not w.load), default=idle))


class Leisure:
    """
    Looks for idle workers of one pool, at the moments when there can be any.

    :param idle: seconds; None: nobody ever leaves for that.
    :param look: lets go of those who may leave; answers with `next_look`.
    """

    def __init__(self, clock: IReactorTime, idle: float | None, look: Callable[[], float | None]) -> None:
        self._clock = clock
        self._idle = idle
        self._look = look
        self._timer: IDelayedCall | None = None

    def watch(self) -> None:
        """There may be somebody, in time."""
        if self._idle is not None and self._timer is None:
            self._timer = self._clock.callLater(self._idle, self._due)

    def stop(self) -> None:
        """The pool ends."""
        self._idle = None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _due(self) -> None:
        self._timer = None
        pause = self._look()
        if pause is not None:
            self._timer = self._clock.callLater(pause, self._due)
