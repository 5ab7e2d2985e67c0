"""
The workers of one running app, and the queue before them.

`balance`, `seats` and `favour` decide; this carries out: it spawns, assigns, seals, refuses. Nothing here looks at what
a request carries.

Source: reference ``node-engine.md`` sections 5.3 to 5.10; lessons 1 to 10 of section 10.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError, DeadlineError, NotRunning, QueueFull, SpawnFailed
from ..interfaces import IImage
from ..rpc.deadlines import Deadlines, Grain, grain
from ..wire.headers import Headers, Latest, timeout_of
from ..wire.session import Channel
from . import balance
from .balance import Admission, Pick, Seal, Spawn, View
from .favour import Favour
from .invocation import Invocation
from .leisure import Leisure, dispensable, next_look
from .lifecycle import Cause
from .manifest import Manifest
from .premises import Premises
from .profile import Profile
from .recovery import Recovery
from .seats import Seats
from .waiting import Room
from .workers import Worker


class Pool:
    """
    One generation of an app's workers.

    :ivar workers: those not gone yet, by uuid, oldest first.
    :ivar queue: events that wait, oldest first.
    """

    _log = Logger()

    def __init__(self, manifest: Manifest, profile: Profile, image: IImage, premises: Premises) -> None:
        self.manifest = manifest
        self.profile = profile
        self.image = image
        self.tally = premises.tally
        self.workers: dict[str, Worker] = {}
        self.queue: OrderedDict[Invocation, None] = OrderedDict()
        self._premises = premises
        self._clock = clock = premises.clock
        self._active: dict[Worker, None] = {}
        self._seats: Seats[Worker] = Seats(profile.concurrency)
        self._favour = Favour(self._seats)
        self._room = Room(profile.event_buffer_limit, profile.queue_buffer_limit)
        self._deadlines: Deadlines[Invocation] = Deadlines(clock, Invocation.expire)
        self._times = Latest(self._given)
        self._ending: set[Worker] = set()
        self._recovery = Recovery(clock, self.rebalance)
        self._leisure = Leisure(clock, profile.idle_timeout, self._let_go)
        self._manual = 0
        self._served = False
        self._stopped = False
        self._rebalancing = False
        self._boots: list[tuple[int, Deferred[None]]] = []
        self._drained: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []

    # -- requests

    def enqueue(self, channel: Channel, event: bytes, headers: Headers) -> None:
        """
        Take an event in; its channel gets exactly one end from now on.

        :raises QueueFull: there is no room.
        :raises DeadlineError: it has no time at all.
        :raises InvalidArgument: its ``request_timeout`` cannot be read (lesson 6).
        :raises NotRunning: the pool has stopped.
        """
        tally = self.tally
        now = self._clock.seconds()
        tally.rate.mark(now)
        try:
            if self._stopped:
                raise NotRunning()
            given, width = self._times.of(headers)
            worker = None if self.queue else self._favour.take(now)
            if worker is None:
                self._admit()
        except CocaineError:
            tally.rejected += 1
            raise
        tally.accepted += 1
        self._served = True
        invocation = Invocation(channel, event, headers, now, now + given, self)
        invocation.bin = self._deadlines.enter(invocation, now + given, width)
        if worker is None or not worker.give(invocation, now):
            invocation.wait(self._room)
            self.queue[invocation] = None
            tally.depth.set(len(self.queue), now)
            self.rebalance()

    def _given(self, headers: Headers) -> tuple[float, Grain]:
        """Seconds for an event with such headers, and the width of its bin."""
        asked = timeout_of(headers)
        given = self.profile.request_timeout if asked is None else asked
        if given <= 0:
            raise DeadlineError()
        return given, grain(given)

    def _admit(self) -> None:
        load = 0 if self.profile.queue_limit else self.load
        if balance.admission(self.profile, len(self.queue), load) is Admission.REJECT:
            # Room that a close has just made must not be overlooked because the queue is full (lesson 3).
            self._assign()
            self.rebalance()
            raise QueueFull()

    def _assign(self) -> None:
        """Give waiting events to free seats."""
        queue = self.queue
        if not queue:
            return
        now = self._clock.seconds()
        while queue:
            oldest = next(iter(queue))
            newest = balance.next_event(self.profile, now - oldest.arrived) is Pick.NEWEST
            invocation = next(reversed(queue)) if newest else oldest
            if invocation.deadline <= now:
                # Its end takes it out of the queue.
                invocation.expire()
                continue
            worker = self._favour.take(now)
            if worker is None:
                break
            if worker.give(invocation, now):
                del queue[invocation]
        self.tally.depth.set(len(queue), now)

    def over(self, invocation: Invocation) -> None:
        """An invocation has ended, somehow."""
        self._deadlines.leave(invocation, invocation.bin)
        now = self._clock.seconds()
        worker = invocation.worker
        if worker is None:
            del self.queue[invocation]
            self.tally.depth.set(len(self.queue), now)
        else:
            took = now - invocation.assigned
            self.tally.timings.record(took, now)
            if invocation.unwanted:
                self.tally.unwanted += 1
            else:
                self._favour.ended(worker, took, now)
            self._seats.release(worker)
            worker.take(invocation, now)
            if self.queue:
                # In a later act of the turn: ends come in bursts, and never from inside another end (lesson 4).
                self._later()
        if self._drained:
            self._look_drained()

    def answered(self, invocation: Invocation) -> None:
        """The worker has done its part; the client may keep the place for a while (lesson 10)."""
        invocation.worker.answered = True
        limit = self.profile.half_closed_timeout
        if limit is not None:
            until = self._clock.seconds() + limit
            if until < invocation.deadline:
                self._deadlines.leave(invocation, invocation.bin)
                invocation.deadline = until
                invocation.bin = self._deadlines.enter(invocation, until, grain(limit))

    def _later(self) -> None:
        if not self._rebalancing:
            self._rebalancing = True
            self._premises.turn.call(self._rebalanced)

    def _rebalanced(self) -> None:
        self._rebalancing = False
        self._assign()
        self.rebalance()

    @property
    def load(self) -> int:
        """Open requests over all workers."""
        return sum(worker.load for worker in self.workers.values())

    # -- workers

    @property
    def active(self) -> list[Worker]:
        """Workers that may be given events, oldest first."""
        return list(self._active)

    def rebalance(self) -> None:
        """Let the pool become what `balance.plan` says it should be."""
        if self._stopped:
            return
        view = View(
            size=len(self.workers),
            active=self.active,
            load=0 if self.profile.queue_limit else self.load,
            queued=len(self.queue),
            served=self._served,
            manual=self._manual,
            backoff=self._recovery.current,
            starting=sum(worker.active_since is None for worker in self.workers.values()),
        )
        verdict = balance.plan(self.profile, view)
        if isinstance(verdict, Spawn):
            for _ in range(verdict.count):
                self._spawn()
        elif isinstance(verdict, Seal):
            for worker in verdict.workers:
                worker.life.seal()

    def _spawn(self) -> None:
        name = str(uuid.uuid4())
        worker = self.workers[name] = Worker(name, self.manifest.name, self.profile, self._clock, self)
        self.tally.spawned += 1
        worker.start(self.image, self._premises.launch(self.manifest, uuid=name))

    def boot(self, count: int) -> Deferred[None]:
        """Start workers now; fires when so many are active, fails with `SpawnFailed` when one has died before."""
        booting: Deferred[None] = Deferred()
        self._served = True
        count = min(count, self.profile.pool_limit)
        if len(self._active) >= count:
            booting.callback(None)
            return booting
        self._boots.append((count, booting))
        for _ in range(count - len(self.workers)):
            self._spawn()
        return booting

    def activated(self, worker: Worker) -> None:
        self._seats.add(worker)
        self._active[worker] = None
        boots, self._boots = self._boots, []
        for count, booting in boots:
            if len(self._active) >= count:
                booting.callback(None)
            else:
                self._boots.append((count, booting))
        self._leisure.watch()
        self._premises.changed()
        self._later()

    def deactivated(self, worker: Worker) -> None:
        self._seats.remove(worker)
        self._active.pop(worker, None)

    def died(self, worker: Worker, cause: Cause | None) -> None:
        self.workers.pop(worker.uuid, None)
        self._ending.add(worker)
        if cause is not None and cause.crash and not self._stopped:
            self.tally.crashed += 1
            pause = self._recovery.crashed(worker, self._active)
            said = worker.last_words
            self._log.warn(
                "{app}: worker {uuid} has died ({why}); next one in {pause:.1f} s{said}",
                app=self.manifest.name, uuid=worker.uuid, why=cause.text, pause=pause,
                said=f"; it said: {said} (more: cocaine-tool crashlog view -n {self.manifest.name})" if said else "",
            )  # fmt: skip
        self._premises.changed()
        self._later()

    def buried(self, worker: Worker, cause: Cause | None) -> None:
        self._ending.discard(worker)
        if cause is not None and self.profile.crashlog_limit:
            storing = Deferred.fromCoroutine(self._premises.crashlogs.store(worker.uuid, worker.output.lines()))
            storing.addErrback(self._unlogged)
        if self._boots and (worker.active_since is None or cause is not None):
            self._fail_boots(SpawnFailed(worker.obituary(cause)))
        self._look_ended()

    def _unlogged(self, failure: Failure) -> None:
        self._log.failure("{app}: a crash log is lost", failure, app=self.manifest.name)

    def _fail_boots(self, error: CocaineError) -> None:
        boots, self._boots = self._boots, []
        for _, booting in boots:
            booting.errback(error)

    def _let_go(self) -> float | None:
        """Idle workers leave, down to ``pool-min``; seconds until the next look."""
        idle = self.profile.idle_timeout
        if idle is None or self._stopped:
            return None
        if self._boots:
            return idle  # a boot counts them together: those that are up wait for the others
        now = self._clock.seconds()
        keep = max(self._manual, self.profile.pool_min)
        for worker in dispensable(self.active, keep, idle, now):
            worker.retire(Cause.IDLE)
        return next_look(self.active, keep, idle, now)

    def control(self, target: int) -> None:
        """Keep that many workers; none or less: as many as are needed."""
        self._manual = max(0, min(target, self.profile.pool_limit))
        self._leisure.watch()
        self.rebalance()

    # -- the end

    def hand_over(self, successor: Pool) -> None:
        """Give the waiting events to the pool that replaces this one, and let the workers finish what they have."""
        self._let_nobody_in()
        successor.control(self._manual)
        waiting = list(self.queue)
        self.queue.clear()
        for invocation in waiting:
            self._deadlines.leave(invocation, invocation.bin)
            successor._adopt(invocation)
        for worker in list(self.workers.values()):
            worker.life.seal()
        successor._later()

    def _adopt(self, invocation: Invocation) -> None:
        invocation.keeper = self
        invocation.wait(self._room)
        left = max(0.0, invocation.deadline - self._clock.seconds())
        invocation.bin = self._deadlines.enter(invocation, invocation.deadline, grain(left))
        self.queue[invocation] = None

    def drained(self) -> Deferred[None]:
        """Fires once nothing waits and nobody works."""
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        self._look_drained()
        return drained

    def _look_drained(self) -> None:
        if not self.queue and not self.load:
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)

    def stop(self) -> None:
        """Refuse what waits, terminate the workers; `ended` tells when they are gone."""
        self._let_nobody_in()
        for invocation in list(self.queue):
            invocation.reject(NotRunning("the application is being stopped"))
        for worker in list(self.workers.values()):
            worker.retire(Cause.STOPPED)
        self._fail_boots(NotRunning("the application is being stopped"))

    def cut(self) -> None:
        """The workers have been asked and had their time: end them now."""
        self.stop()
        for worker in list(self.workers.values()):
            worker.life.expired()

    def _let_nobody_in(self) -> None:
        self._stopped = True
        self._recovery.stop()
        self._leisure.stop()

    def ended(self) -> Deferred[None]:
        """Fires when no worker and no process of this pool is left. Only for one that has been stopped or replaced."""
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        self._look_ended()
        return ended

    def _look_ended(self) -> None:
        if self._stopped and not self.workers and not self._ending:
            self._deadlines.stop()
            waiting, self._ended = self._ended, []
            for ended in waiting:
                ended.callback(None)
