"""
Balancing: which event goes to which worker, how many workers there should be, and whether the app is offered.

Pure functions from what is seen to a verdict; the pool carries verdicts out. Nobody here knows time, workers or wires.

When to ask: `admission` for each enqueue. `next_event` and `assignment` (or `seats.Seats`, which answers the same
question for the hot path; `favour` bends the answer for quick apps) after an enqueue, a worker's activation and every
channel's close. `plan` after an enqueue, a change of manual control, a worker's activation or death, the end of a
back-off and a failed assignment. `publicity` after every activation and death. `backed_off` for every crash.

Source: reference ``node-engine.md`` sections 3.1, 5.3 to 5.6, 5.9 and 5.10. Where it says [bug] or "spec", ours is the
better one; so are ``pool-min`` and the adaptive queue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from .profile import Profile, QueuePolicy

#: Back-off after crashes, in seconds: the first pause, the longest, and the active life that proves a worker sound.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 32.0
STABLE_LIFE = 32.0


class Laden(Protocol):
    """A worker as balancing sees it."""

    @property
    def load(self) -> int:
        """Its open channels."""


class Mortal(Protocol):
    """A worker as the back-off sees it. Times are the clock's."""

    @property
    def born(self) -> float:
        """When its start began."""

    @property
    def active_since(self) -> float | None:
        """None if it never became active."""

    @property
    def answered(self) -> bool:
        """It has done its part of an event, be it with an error."""


W = TypeVar("W", bound=Laden)


class Admission(Enum):
    """Verdict on a new event."""

    ADMIT = "admit"
    REJECT = "reject"


class Pick(Enum):
    """Verdict on which waiting event is served next."""

    OLDEST = "oldest"
    NEWEST = "newest"


class Publicity(Enum):
    """Verdict on the app's service."""

    PUBLISH = "publish"
    WITHDRAW = "withdraw"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be done."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start so many workers."""

    count: int


@dataclass(frozen=True, slots=True)
class Seal(Generic[W]):
    """Give these workers no new events; they leave when they have finished theirs."""

    workers: tuple[W, ...]


@dataclass(frozen=True, slots=True)
class Assign(Generic[W]):
    """The event goes to this worker."""

    worker: W


@dataclass(frozen=True, slots=True)
class Backoff:
    """
    The pause after crashes.

    :ivar delay: seconds, which the next failure to start doubles; 0 before the first, and after a sound life.
    :ivar until: the clock's time at which it ends.
    :ivar failed_at: the clock's time of the last crash.
    :ivar booted: the worker that crashed last had become active before.
    """

    delay: float = 0.0
    until: float = -math.inf
    failed_at: float = -math.inf
    booted: bool = True


@dataclass(frozen=True, slots=True)
class View(Generic[W]):
    """
    An app's pool and queue at one moment.

    :ivar size: workers not yet gone, whatever their state.
    :ivar active: those in state active, oldest first.
    :ivar load: open channels of all workers.
    :ivar queued: waiting events.
    :ivar served: an event has been accepted since the app started. Until then nobody needs a worker.
    :ivar manual: number of workers asked for by ``control``; 0 or less means automatic.
    :ivar backoff: the crash whose pause is still running, or None.
    :ivar starting: workers that have not become active yet.
    """

    size: int
    active: Sequence[W]
    load: int
    queued: int
    served: bool = True
    manual: int = 0
    backoff: Backoff | None = None
    starting: int = 0


def admission(profile: Profile, queued: int, load: int) -> Admission:
    """
    Whether one more event may wait (5.3).

    Without a queue (``queue-limit`` 0) as many may wait as the full pool could take at once, so that a burst survives
    the start of the first worker.

    :param load: open channels of all workers.
    """
    limit = profile.queue_limit or profile.pool_limit * profile.concurrency - load
    return Admission.ADMIT if queued < limit else Admission.REJECT


def next_event(profile: Profile, oldest_age: float) -> Pick:
    """
    Which waiting event is served next: under ``adaptive``, the newest while the oldest has waited past the age limit.

    After a stall the newest events are those whose clients are still there; the old ones are served, or expire, later.
    """
    if profile.queue_policy is QueuePolicy.ADAPTIVE and oldest_age > profile.queue_age_limit:
        return Pick.NEWEST
    return Pick.OLDEST


def assignment(active: Iterable[W], concurrency: int) -> Assign[W] | Wait:
    """The active worker with the fewest open channels that has room for one more; the first of equals (5.5)."""
    worker = min(active, key=_load, default=None)
    return Wait() if worker is None or worker.load >= concurrency else Assign(worker)


def plan(profile: Profile, view: View[W]) -> Spawn | Seal[W] | Wait:
    """
    How the pool should change now (5.4, 5.10).

    Automatic mode only grows. Manual mode also seals, least laden first. A back-off never holds up sealing; see
    `_startable` for what it does to growth.
    """
    target = _target(profile, view)
    if target > view.size:
        count = _startable(view, target - view.size)
        return Spawn(count) if count else Wait()
    surplus = len(view.active) - target
    if view.manual > 0 and surplus > 0:
        return Seal(tuple(sorted(view.active, key=_load)[:surplus]))
    return Wait()


def _target(profile: Profile, view: View[W]) -> int:
    """The number of workers there should be."""
    if view.manual > 0:
        return min(view.manual, profile.pool_limit)
    if profile.queue_limit:
        wanted = view.queued // profile.grow_threshold
    else:
        lacking = view.queued - (view.size * profile.concurrency - view.load)
        wanted = view.size + max(0, -(-lacking // profile.concurrency))
    # An app that has served keeps a worker, as in the original, unless its idle workers are meant to leave.
    leaves = profile.idle_timeout is not None or not view.served
    floor = 0 if leaves and not view.queued else 1
    return min(max(wanted, floor, profile.pool_min), profile.pool_limit)


def _startable(view: View[W], missing: int) -> int:
    """
    How many of the missing workers may be started now.

    During a back-off: none if no worker is active, or if the one that crashed had never become active, for then
    nothing shows that the next would live. Otherwise the pool is healthy but for single crashes and goes on, one start
    at a time.
    """
    if view.backoff is None:
        return missing
    if not view.active or not view.backoff.booted or view.starting:
        return 0
    return 1


def publicity(profile: Profile, active: int, published: bool) -> Publicity:
    """Whether the app's service should be offered with so many active workers (3.1)."""
    if not published and active >= profile.publish_on:
        return Publicity.PUBLISH
    if published and active < profile.unpublish_under:
        return Publicity.WITHDRAW
    return Publicity.KEEP


def backed_off(last: Backoff, now: float, fallen: Mortal, others: Iterable[Mortal] = ()) -> Backoff:
    """
    The pause after a worker has crashed (5.6).

    A worker that has answered an event, or was active for long, was sound: whatever has ended it, the next can start.
    Its place is filled at once, but not within `FIRST_PAUSE` of its own start, so that an app whose workers die of what
    they are asked costs one start a second and place, and no more.

    A life that has shown nothing is a failure to start: the pauses are 1, 2, 4 ... 32 seconds. They begin at 1 again
    after a sound life, be it of one that became active since the crash before and still lives. Crashes during a pause
    do not change it, so ten workers dying of one cause count as one failure.

    :param others: those that are still active.
    """
    booted = fallen.active_since is not None
    if now < last.until:
        return Backoff(last.delay, last.until, now, booted)
    if _sound(fallen, now):
        return Backoff(0.0, max(now, fallen.born + FIRST_PAUSE), now, booted)
    proven = any(_sound(other, now, last.failed_at) for other in others)
    delay = FIRST_PAUSE if proven or not last.delay else min(2 * last.delay, LONGEST_PAUSE)
    return Backoff(delay, now + delay, now, booted)


def _sound(worker: Mortal, now: float, since: float = -math.inf) -> bool:
    """Whether it became active after that time and has shown since that it works."""
    active = worker.active_since
    return active is not None and active > since and (worker.answered or now - active >= STABLE_LIFE)


def _load(worker: Laden) -> int:
    return worker.load
