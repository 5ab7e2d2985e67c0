"""
The workers of one running app, and the queue before them.

`balance` and `seats` decide; this carries out: it spawns, assigns, seals, refuses. Nothing here looks at what a request
carries.

Source: reference ``node-engine.md`` sections 5.3 to 5.10; lessons 1 to 10 of section 10.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError, NotRunning, QueueFull, SpawnFailed
from ..interfaces import IImage, Launch
from ..rpc.deadlines import Deadlines
from ..rpc.turn import Turn
from ..wire.headers import Headers, timeout_of
from ..wire.session import Channel
from . import balance
from .balance import Admission, Backoff, Pick, Seal, Spawn, View
from .crashlog import CrashLogs
from .invocation import Invocation
from .lifecycle import Cause
from .manifest import Manifest
from .profile import Profile
from .seats import Seats
from .tally import Tally
from .workers import Worker


class Pool:
    """
    One generation of an app's workers.

    :param arguments: what every worker is told on its command line beside its uuid.
    :param endpoint: path of the socket where workers connect.
    :param changed: called when the number of active workers has changed.
    """

    _log = Logger()

    def __init__(
        self,
        manifest: Manifest,
        profile: Profile,
        image: IImage,
        arguments: Mapping[str, str],
        endpoint: str,
        crashlogs: CrashLogs,
        tally: Tally,
        clock: IReactorTime,
        turn: Turn,
        changed: Callable[[], None],
    ) -> None:
        self.manifest = manifest
        self.profile = profile
        self.image = image
        self.tally = tally
        self.workers: dict[str, Worker] = {}
        self.queue: deque[Invocation] = deque()
        self.crash: list[str] | None = None
        self._arguments = dict(arguments)
        self._endpoint = endpoint
        self._crashlogs = crashlogs
        self._clock = clock
        self._turn = turn
        self._changed = changed
        self._seats: Seats[Worker] = Seats(profile.concurrency)
        self._deadlines: Deadlines[Invocation] = Deadlines(clock, Invocation.expire)
        self._ending: dict[str, Worker] = {}
        self._backoff = Backoff()
        self._pause: IDelayedCall | None = None
        self._manual = 0
        self._served = False
        self._stopped = False
        self._idle_check: IDelayedCall | None = None
        self._rebalancing = False
        self._firsts: list[Deferred[None]] = []
        self._drained: Deferred[None] | None = None

    # -- requests

    def enqueue(self, channel: Channel, event: bytes, headers: Headers) -> None:
        """
        Take an event in; its channel gets exactly one end from now on.

        :raises QueueFull: there is no room.
        :raises InvalidArgument: its ``request_timeout`` cannot be read.
        :raises NotRunning: the pool has stopped.
        """
        tally, profile = self.tally, self.profile
        now = self._clock.seconds()
        tally.rate.mark(now)
        try:
            if self._stopped:
                raise NotRunning()
            given = profile.request_timeout
            if headers:
                asked = timeout_of(headers)
                if asked is not None:
                    given = asked
            queue = self.queue
            worker = None if queue else self._seats.take()
            if worker is None:
                load = 0 if profile.queue_limit else self.load
                if balance.admission(profile, len(queue), load) is Admission.REJECT:
                    # Room that a close has just made must not be overlooked because the queue is full (lesson 3).
                    self._assign()
                    self.rebalance()
                    raise QueueFull()
        except CocaineError:
            tally.rejected += 1
            raise
        tally.accepted += 1
        self._served = True
        invocation = Invocation(channel, event, headers, now, now + given, profile.event_buffer_limit, self._over)
        invocation.bin = self._deadlines.enter(invocation, invocation.deadline, given)
        if worker is not None:
            worker.give(invocation, now)
            return
        queue.append(invocation)
        tally.depth.set(len(queue), now)
        self.rebalance()

    def _assign(self) -> None:
        """Give waiting events to free seats."""
        queue = self.queue
        if not queue:
            return
        now = self._clock.seconds()
        while queue:
            oldest_age = now - queue[0].arrived
            newest = balance.next_event(self.profile, oldest_age) is Pick.NEWEST
            invocation = queue[-1] if newest else queue[0]
            if invocation.deadline <= now:
                # `expire` takes it out of the queue by its end.
                invocation.expire()
                continue
            worker = self._seats.take()
            if worker is None:
                break
            if newest:
                queue.pop()
            else:
                queue.popleft()
            worker.give(invocation, now)
        self.tally.depth.set(len(queue), now)

    def _over(self, invocation: Invocation) -> None:
        """An invocation has ended, somehow."""
        self._deadlines.leave(invocation, invocation.bin)
        now = self._clock.seconds()
        worker = invocation.worker
        if worker is None:
            try:
                self.queue.remove(invocation)
            except ValueError:
                pass
            else:
                self.tally.depth.set(len(self.queue), now)
            self._look_drained()
            return
        self.tally.timings.record(now - invocation.assigned, now)
        if invocation.unwanted:
            self.tally.unwanted += 1
        self._seats.release(worker)
        worker.take(invocation, now)
        self._look_drained()
        if self.queue:
            # In a later act of the turn: ends come in bursts, and never from inside another end (lesson 4).
            self._later()

    def _look_drained(self) -> None:
        if self._drained is not None and self.idle():
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _later(self) -> None:
        if not self._rebalancing:
            self._rebalancing = True
            self._turn.call(self._rebalanced)

    def _rebalanced(self) -> None:
        self._rebalancing = False
        self._assign()
        self.rebalance()

    @property
    def load(self) -> int:
        """Open requests over all workers."""
        return sum(worker.load for worker in self.workers.values())

    # -- workers

    def rebalance(self) -> None:
        """Let the pool become what `balance.plan` says it should be."""
        if self._stopped:
            return
        active = self.active
        view = View(
            size=len(self.workers),
            active=active,
            load=0 if self.profile.queue_limit else self.load,
            queued=len(self.queue),
            served=self._served,
            manual=self._manual,
            backoff=self._backoff if self._pause is not None else None,
            starting=sum(worker.active_since is None for worker in self.workers.values()),
        )
        verdict = balance.plan(self.profile, view)
        if isinstance(verdict, Spawn):
            for _ in range(verdict.count):
                self._spawn()
        elif isinstance(verdict, Seal):
            for worker in verdict.workers:
                worker.life.seal()

    @property
    def active(self) -> list[Worker]:
        """Workers that may be given events, oldest first."""
        return [worker for worker in self.workers.values() if worker.state == "active"]

    def _spawn(self) -> None:
        name = str(uuid.uuid4())
        worker = self.workers[name] = Worker(name, self.manifest.name, self.profile, self._clock, self)
        self.tally.spawned += 1
        launch = Launch(
            self.manifest.slave, {**self._arguments, "--uuid": name}, self.manifest.environment, self._endpoint
        )
        worker.start(self.image, launch)

    def boot(self) -> Deferred[None]:
        """Start a worker now; fires when one is active, fails with `SpawnFailed` when the first one died before."""
        first: Deferred[None] = Deferred()
        if self.active:
            first.callback(None)
            return first
        self._firsts.append(first)
        self._served = True
        if not self.workers:
            self._spawn()
        return first

    def activated(self, worker: Worker) -> None:
        self._seats.add(worker)
        for first in self._took_firsts():
            first.callback(None)
        self._watch_idle()
        self._changed()
        self._later()

    def deactivated(self, worker: Worker) -> None:
        self._seats.remove(worker)

    def died(self, worker: Worker, cause: Cause | None) -> None:
        self.workers.pop(worker.uuid, None)
        self._ending[worker.uuid] = worker
        self._seats.remove(worker)
        if cause is not None and cause.crash and not self._stopped:
            now = self._clock.seconds()
            self.tally.crashed += 1
            others = [w.active_since for w in self.active if w.active_since is not None]
            self._backoff = balance.backed_off(self._backoff, now, worker.active_since, others)
            self._log.warn(
                "{app}: worker {uuid} has died ({why}); next one in {pause:.1f} s",
                app=self.manifest.name, uuid=worker.uuid, why=cause.text, pause=max(0.0, self._backoff.until - now),
            )  # fmt: skip
            self._hold_back()
        self._changed()
        self._later()

    def buried(self, worker: Worker, cause: Cause | None) -> None:
        self._ending.pop(worker.uuid, None)
        if cause is not None:
            lines = worker.output.lines()
            why = f"{cause.text}; {worker.exit}" if worker.exit is not None else cause.text
            self.crash = [*(line.decode("utf-8", "replace") for line in lines[-10:]), f"[{why}]"]
            if self.profile.crashlog_limit:
                Deferred.fromCoroutine(self._crashlogs.store(worker.uuid, lines)).addErrback(self._unlogged)
            for first in self._took_firsts():
                first.errback(SpawnFailed("\n".join(self.crash)))

    def _unlogged(self, failure: Failure) -> None:
        self._log.failure("{app}: a crash log is lost", failure, app=self.manifest.name)

    def _took_firsts(self) -> list[Deferred[None]]:
        firsts, self._firsts = self._firsts, []
        return firsts

    def _hold_back(self) -> None:
        if self._pause is not None and self._pause.active():
            self._pause.cancel()
        self._pause = self._clock.callLater(max(0.0, self._backoff.until - self._clock.seconds()), self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self.rebalance()

    def _watch_idle(self) -> None:
        idle = self.profile.idle_timeout
        if idle is not None and self._idle_check is None and not self._stopped:
            self._idle_check = self._clock.callLater(idle, self._look_idle)

    def _look_idle(self) -> None:
        """Let go of workers that have had nothing to do for long, down to ``pool-min``."""
        self._idle_check = None
        idle = self.profile.idle_timeout
        if idle is None or self._stopped:
            return
        now = self._clock.seconds()
        keep = max(self._manual, self.profile.pool_min)
        workers = self.active
        for worker in sorted(workers, key=lambda worker: worker.idle_since):
            if len(self.workers) <= keep or worker.invocations:
                continue
            if now - worker.idle_since >= idle:
                worker.retire(Cause.IDLE)
        rest = [idle - (now - worker.idle_since) for worker in self.active if not worker.invocations]
        if self.workers:
            self._idle_check = self._clock.callLater(max(0.05, min([*rest, idle])), self._look_idle)

    def control(self, target: int) -> None:
        """Keep that many workers; none or less: as many as are needed."""
        self._manual = max(0, min(target, self.profile.pool_limit))
        self.rebalance()

    # -- the end

    def hand_over(self, successor: Pool) -> None:
        """Give the waiting events to the pool that replaces this one, and let the workers finish what they have."""
        waiting = list(self.queue)
        self.queue.clear()
        self._retire_timers()
        for invocation in waiting:
            self._deadlines.leave(invocation, invocation.bin)
            successor._adopt(invocation)
        for worker in list(self.workers.values()):
            worker.life.seal()
        successor._later()

    def _adopt(self, invocation: Invocation) -> None:
        invocation.redirect(self._over)
        now = self._clock.seconds()
        invocation.bin = self._deadlines.enter(invocation, invocation.deadline, max(0.0, invocation.deadline - now))
        self.queue.append(invocation)

    def idle(self) -> bool:
        """Nothing waits and nobody works."""
        return not self.queue and not any(worker.invocations for worker in self.workers.values())

    def drained(self) -> Deferred[None]:
        """Fires once nothing waits and nobody works. Asked for once, when no more events are let in."""
        drained: Deferred[None] = Deferred()
        if self.idle():
            drained.callback(None)
        else:
            self._drained = drained
        return drained

    def stop(self) -> None:
        """Refuse what waits, terminate the workers; `ended` tells when they are gone."""
        self._retire_timers()
        for invocation in list(self.queue):
            invocation.reject(NotRunning("the application is being stopped"))
        for worker in list(self.workers.values()):
            worker.retire(Cause.STOPPED)
        for first in self._took_firsts():
            first.errback(NotRunning("the application is being stopped"))

    def _retire_timers(self) -> None:
        self._stopped = True
        for timer in (self._pause, self._idle_check):
            if timer is not None and timer.active():
                timer.cancel()
        self._pause = self._idle_check = None

    def ended(self) -> Deferred[None]:
        """Fires when no worker and no process of this pool is left."""
        ends = [worker.ended for worker in (*self.workers.values(), *self._ending.values())]
        # A Deferred that others wait for as well must not be consumed here.
        watched = []
        for end in ends:
            told: Deferred[None] = Deferred()
            end.addCallback(_pass_on, told)
            watched.append(told)
        return gatherResults(watched).addCallback(lambda _: self._deadlines.stop())


def _pass_on(value: None, told: Deferred[None]) -> None:
    told.callback(None)
