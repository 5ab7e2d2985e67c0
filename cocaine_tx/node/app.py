"""
One app on this node: from ``start_app`` to ``pause_app``, and the service its clients talk to.

`career` says which state follows which; `App` does the acts. Its pool does the work; a replacement (`App.replace`)
boots a second pool from new code beside the first and switches only when that one has an active worker.

Source: reference ``node-engine.md`` sections 2.2, 2.3, 3 and 5.8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import AlreadyStarted, AppStopped, CocaineError, NotRunning, SpawnFailed, SpoolError
from ..interfaces import IIsolate, IStorage, Publication
from ..rpc.dispatch import Dispatch
from ..rpc.turn import Turn
from ..wire.frames import Limits
from ..wire.headers import Headers
from ..wire.protocols import APP
from ..wire.session import Channel
from .balance import Publicity, publicity
from .career import Career, begin_career
from .control import Control
from .crashlog import CrashLogs
from .lifecycle import state_of
from .manifest import Manifest, socket_path
from .offer import Offer
from .pool import Pool
from .premises import Premises
from .profile import Profile
from .reception import Reception
from .report import Flags, overseer
from .tally import Tally
from .workers import LAST_WORDS, Worker

#: Seconds beyond the terminate-timeout after which a stop is over though killed processes are still there.
BURIAL = 30.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    What an app needs of its node.

    :ivar isolate: makes the isolate of a type with the profile's arguments.
    :ivar publish: opens a port for an app's service and tells the locator.
    :ivar locators: what workers are given as ``--locator``; asked for at each spool.
    :ivar runtime: folder of the workers' sockets.
    :ivar taken: names that no app may have.
    """

    reactor: Any
    turn: Turn
    limits: Limits
    storage: IStorage
    isolate: Callable[[str, Mapping[str, Any]], IIsolate]
    publish: Callable[[str, Dispatch], Deferred[Publication]]
    locators: Callable[[], str]
    runtime: str
    taken: frozenset[str] = frozenset()


class App:
    """
    An app that holds its name on this node.

    :param manifest: and ``profile``: read from storage already.
    :raises CocaineError: the profile's isolate cannot be had.
    :ivar pool: the workers that get new events; None before there are any.
    """

    _log = Logger()

    def __init__(self, manifest: Manifest, profile: Profile, around: Surroundings) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.profile = profile
        self.error: CocaineError | None = None
        self.pool: Pool | None = None
        self._around = around
        self._isolate = around.isolate(profile.isolate_type, profile.isolate_args)
        self._tally = Tally(around.reactor.seconds())
        self._crashlogs = CrashLogs(around.storage, manifest.name)
        self._started: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []
        self._spooling: Deferred[None] | None = None
        self._replacing: Deferred[None] | None = None
        self._accepting = True
        self._reception: Reception | None = None
        #: Pools beside the current one: replaced and finishing, or booting to replace it.
        self._others: list[Pool] = []
        self._dispatch = Dispatch(APP, {"info": self._info}, {"enqueue": self._enqueue, "control": self._control})
        self._offer = Offer(self.name, lambda: around.publish(self.name, self._dispatch))
        self.career: Career = begin_career(self)

    @property
    def state(self) -> str:
        """As ``info`` shows it."""
        return state_of(self.career)

    # -- for the node

    def start(self) -> Deferred[None]:
        """Fires once the app is published; fails with what made it broken."""
        started: Deferred[None] = Deferred()
        self._started.append(started)
        self.career.start()
        return started

    def stop(self) -> Deferred[None]:
        """Fires when nothing of it is left. Requests that wait are refused, running ones have the terminate-timeout."""
        ended: Deferred[None] = Deferred()
        self._ended.append(ended)
        self.career.stop()
        return ended

    async def drain(self) -> None:
        """Let nothing new in, finish what was accepted within the terminate-timeout, then stop."""
        self._accepting = False
        self._offer.close()
        if self._replacing is not None:
            self._replacing.cancel()
        if self.state == "running":
            finishing = gatherResults([pool.drained() for pool in self._pools()], consumeErrors=True)
            finishing.addTimeout(self.profile.terminate_timeout, self._around.reactor)
            try:
                await finishing
            except Exception:
                self._log.warn("{app}: not all requests were done in time", app=self.name)
                for pool in self._pools():
                    pool.cut()
        await self.stop()

    def info(self, flags: Flags) -> dict[str, Any]:
        """As ``node.info`` shows it."""
        state = self.state
        if state == "running" and self.pool is not None:
            published = self._offer.published
            now = self._around.reactor.seconds()
            if not flags & Flags.OVERSEER:
                uptime = int(now - self._tally.started)
                return {"state": state, "uptime": uptime, "publushed": published, "published": published}
            return {"state": state, "publushed": published, "published": published} | overseer(self.pool, now, flags)
        if state == "broken" and self.error is not None:
            return {"state": state, "error": self.error.pair[1], "cause": self.error.reason}
        if state == "stopped":
            return {"state": state, "error": 0, "cause": "manually stopped"}
        return {"state": state}

    def enqueue(self, channel: Channel, headers: Headers, event: bytes) -> None:
        """
        Take an event in.

        :raises NotRunning: the app does not run now.
        :raises CocaineError: see `Pool.enqueue`.
        """
        if self.pool is None or not self._accepting or self.state != "running":
            raise NotRunning(f"application {self.name} is not running")
        self.pool.enqueue(channel, event, headers)

    def control(self, target: int) -> None:
        """Keep that many workers."""
        if self.pool is not None:
            self.pool.control(target)

    def replace(self, manifest: Manifest, profile: Profile) -> Deferred[None]:
        """
        New code and profile without losing a request: fires once the new workers serve.

        Fails, with the old ones still serving, when the new code cannot be spooled or its first worker does not boot.
        """
        if self._replacing is not None:
            raise AlreadyStarted(f"app '{self.name}' is being replaced already")
        if self.state != "running":
            raise NotRunning(f"app '{self.name}' is {self.state}: application is not running")
        replacing = self._replacing = Deferred.fromCoroutine(self._replace(manifest, profile))

        def over(result: Any) -> Any:
            self._replacing = None
            if isinstance(result, Failure) and isinstance(result.value, CancelledError):
                raise NotRunning(f"app '{self.name}' was stopped while it was being replaced")
            return result

        return replacing.addBoth(over)

    # -- acts

    def spool(self) -> None:
        self._spooling = Deferred.fromCoroutine(self._spool())
        self._spooling.addCallbacks(lambda _: self.career.spooled(), self._unspooled)

    async def _spool(self) -> None:
        around = self._around
        endpoint = socket_path(around.runtime, self.name, os.getpid())
        self._reception = Reception(around.reactor, around.turn, around.limits, endpoint, self._expected)
        image = await self._isolate.spool(self.name)
        premises = self._premises(endpoint)
        self.pool = Pool(self.manifest, self.profile, image, premises)
        self._reception.listen()
        if self.manifest.warm:
            await image.warm(premises.launch(self.manifest))
        self._tally.restart(around.reactor.seconds())
        if publicity(self.profile, 0, False) is Publicity.PUBLISH:
            await self._offer.make()

    def _premises(self, endpoint: str) -> Premises:
        around = self._around
        arguments = {
            "--app": self.name,
            "--endpoint": endpoint,
            "--locator": around.locators(),
            "--protocol": "1",
        }
        return Premises(
            arguments, endpoint, self._crashlogs, self._tally, around.reactor, around.turn, self._changed
        )

    def _unspooled(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if not isinstance(error, CocaineError):
            self._log.failure("{app} cannot be started", failure, app=self.name)
            error = SpoolError(f"{type(error).__name__}: {error}")
        self.error = error
        self.career.failed()

    def opened(self) -> None:
        assert self.pool is not None
        self.pool.rebalance()
        for started in self._take(self._started):
            started.callback(None)

    def broke(self) -> None:
        assert self.error is not None
        self._log.warn("{app} is broken: {reason}", app=self.name, reason=self.error.reason)
        Deferred.fromCoroutine(self._clear()).addErrback(self._unclear)
        for started in self._take(self._started):
            started.errback(self.error)

    def abandon(self) -> None:
        assert self._spooling is not None
        self._spooling.cancel()
        for started in self._take(self._started):
            started.errback(NotRunning(f"app '{self.name}' was stopped while it was being started"))
        self.close()

    def close(self) -> None:
        if self._replacing is not None:
            self._replacing.cancel()
        Deferred.fromCoroutine(self._clear()).addErrback(self._unclear).addBoth(lambda _: self.career.gone())

    async def _clear(self) -> None:
        """Give back everything that the app holds: its name, its socket, its workers, its code."""
        withdrawn = self._offer.close()
        pools = self._pools()
        for pool in pools:
            pool.stop()
        buried = [Deferred.fromCoroutine(self._bury(pool)) for pool in pools]
        await withdrawn
        if self._reception is not None:
            await self._reception.close()
        limit = self.profile.terminate_timeout + LAST_WORDS + BURIAL
        over = gatherResults(buried, consumeErrors=True)
        over.addTimeout(limit, self._around.reactor)
        await over

    async def _bury(self, pool: Pool) -> None:
        await pool.ended()
        await pool.image.discard()

    def _pools(self) -> list[Pool]:
        return self._others if self.pool is None else [*self._others, self.pool]

    def _unclear(self, failure: Failure) -> None:
        self._log.failure("{app}: not everything could be given back", failure, app=self.name)

    def finished(self) -> None:
        for ended in self._take(self._ended):
            ended.callback(None)

    @staticmethod
    def _take(waiting: list[Deferred[None]]) -> list[Deferred[None]]:
        taken = list(waiting)
        waiting.clear()
        return taken

    # -- replacement

    async def _replace(self, manifest: Manifest, profile: Profile) -> None:
        old, reception = self.pool, self._reception
        assert old is not None and reception is not None
        isolate = self._around.isolate(profile.isolate_type, profile.isolate_args)
        image = await isolate.spool(self.name)
        premises = self._premises(reception.path)
        new = Pool(manifest, profile, image, premises)
        self._others.append(new)
        try:
            if manifest.warm:
                await image.warm(premises.launch(manifest))
            await self._boot(new, old)
        except BaseException:
            new.stop()
            Deferred.fromCoroutine(self._retire(new)).addErrback(self._unclear)
            raise
        self._others.remove(new)
        self._others.append(old)
        self.manifest, self.profile, self.pool = manifest, profile, new
        old.hand_over(new)
        Deferred.fromCoroutine(self._retire(old)).addErrback(self._unclear)
        self._changed()

    async def _boot(self, new: Pool, old: Pool) -> None:
        """One worker must come up; then as many as serve now, so that the queue does not overflow at the change."""
        await new.boot(1)
        try:
            await new.boot(len(old.active))
        except SpawnFailed as problem:
            if not new.active:
                raise
            self._log.warn("{app}: the new code's pool is not full: {why}", app=self.name, why=problem.reason)

    async def _retire(self, pool: Pool) -> None:
        await self._bury(pool)
        if pool in self._others:
            self._others.remove(pool)

    # -- workers and publication

    def _expected(self, uuid: str) -> Worker | None:
        for pool in self._pools():
            worker = pool.workers.get(uuid)
            if worker is not None and worker.joinable:
                return worker
        return None

    def _changed(self) -> None:
        """The number of active workers has changed: publish or withdraw as the profile's thresholds say."""
        if self.pool is not None and self.state == "running":
            self._offer.follow(publicity(self.profile, len(self.pool.active), self._offer.published))

    # -- the app's own service

    def _enqueue(self, channel: Channel, headers: Headers, event: bytes, tag: bytes = b"") -> None:
        pool = self.pool
        if pool is None or not self._accepting:
            raise AppStopped()
        try:
            pool.enqueue(channel, event, headers)
        except NotRunning:
            raise AppStopped() from None

    def _info(self, headers: Headers) -> tuple[Any, ...]:
        if self.pool is None or self.state != "running":
            raise AppStopped()
        return (overseer(self.pool, self._around.reactor.seconds(), Flags.OVERSEER),)

    def _control(self, channel: Channel, headers: Headers) -> None:
        channel.receiver = Control(self.control)
