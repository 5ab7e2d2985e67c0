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

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..errors import AlreadyStarted, AppStopped, CocaineError, NotRunning, PublishError, SpoolError, UncaughtError
from ..interfaces import IImage, IIsolate, IStorage, Publication
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
from .manifest import Manifest, check_app_name, socket_path
from .pool import Pool
from .profile import Profile
from .reception import Reception
from .report import Flags, overseer
from .tally import Tally
from .workers import Worker


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
    """

    _log = Logger()

    def __init__(self, manifest: Manifest, profile: Profile, around: Surroundings) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.profile = profile
        self.error: CocaineError | None = None
        self.pool: Pool | None = None
        self._around = around
        self._tally = Tally(around.reactor.seconds())
        self._crashlogs = CrashLogs(around.storage, manifest.name)
        self._started: list[Deferred[None]] = []
        self._ended: list[Deferred[None]] = []
        self._spooling: Deferred[None] | None = None
        self._replacing: Deferred[None] | None = None
        self._publication: Publication | None = None
        self._publishing = False
        self._accepting = True
        self._reception: Reception | None = None
        self._former: list[Pool] = []
        self._dispatch = Dispatch(APP, {"info": self._info}, {"enqueue": self._enqueue, "control": self._control})
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
        if self._publication is not None:
            self._withdraw()
        if self.pool is not None and self.state == "running":
            waiting = self.pool.drained()
            waiting.addTimeout(self.profile.terminate_timeout, self._around.reactor)
            try:
                await waiting
            except Exception:
                self._log.warn("{app}: not all requests were done in time", app=self.name)
        await self.stop()

    def info(self, flags: Flags) -> dict[str, Any]:
        """As ``node.info`` shows it."""
        state = self.state
        if state == "running" and self.pool is not None:
            published = self._publication is not None
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
        :raises QueueFull, InvalidArgument: see `Pool.enqueue`.
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
            return result

        return replacing.addBoth(over)

    # -- acts

    def spool(self) -> None:
        self._spooling = Deferred.fromCoroutine(self._spool())
        self._spooling.addCallbacks(lambda _: self.career.spooled(), self._unspooled)

    async def _spool(self) -> None:
        around = self._around
        check_app_name(self.name, around.taken)
        endpoint = socket_path(around.runtime, self.name, os.getpid())
        self._reception = Reception(around.reactor, around.turn, around.limits, endpoint, self._expected)
        image = await around.isolate(self.profile.isolate_type, self.profile.isolate_args).spool(self.name)
        self.pool = self._pool(self.manifest, self.profile, image)
        self._reception.listen()
        self._tally.started = around.reactor.seconds()
        if publicity(self.profile, 0, False) is Publicity.PUBLISH:
            await self._publish()

    def _pool(self, manifest: Manifest, profile: Profile, image: IImage) -> Pool:
        around = self._around
        assert self._reception is not None
        arguments = {
            "--app": self.name,
            "--endpoint": self._reception.path,
            "--locator": around.locators(),
            "--protocol": "1",
        }
        return Pool(
            manifest, profile, image, arguments, self._reception.path, self._crashlogs, self._tally, around.reactor,
            around.turn, self._changed,
        )  # fmt: skip

    def _unspooled(self, failure: Any) -> None:
        error = failure.value
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
        self._spooling.addErrback(lambda _: None)
        self._spooling.cancel()
        for started in self._take(self._started):
            started.errback(NotRunning(f"app '{self.name}' was stopped while it was being started"))
        self.close()

    def close(self) -> None:
        if self._replacing is not None:
            self._replacing.cancel()
        Deferred.fromCoroutine(self._clear()).addErrback(self._unclear).addBoth(lambda _: self.career.gone())

    async def _clear(self) -> None:
        """Give back everything that the app holds."""
        if self._publication is not None:
            await self._withdraw()
        if self._reception is not None:
            await self._reception.close()
        if self.pool is not None:
            pool = self.pool
            pool.stop()
            for former in [*self._former, pool]:
                await self._bury(former)

    async def _bury(self, pool: Pool) -> None:
        await pool.ended()
        await pool.image.discard()

    def _unclear(self, failure: Any) -> None:
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
        around = self._around
        old = self.pool
        assert old is not None
        image = await around.isolate(profile.isolate_type, profile.isolate_args).spool(self.name)
        new = self._pool(manifest, profile, image)
        self._former.append(new)
        try:
            await new.boot()
        except BaseException:
            new.stop()
            Deferred.fromCoroutine(self._retire(new)).addErrback(self._unclear)
            raise
        self._former.remove(new)
        self._former.append(old)
        self.manifest, self.profile, self.pool = manifest, profile, new
        old.hand_over(new)
        Deferred.fromCoroutine(self._retire(old)).addErrback(self._unclear)
        self._changed()

    async def _retire(self, pool: Pool) -> None:
        await self._bury(pool)
        if pool in self._former:
            self._former.remove(pool)

    # -- workers and publication

    def _expected(self, uuid: str) -> Worker | None:
        for pool in (self.pool, *self._former):
            worker = pool.workers.get(uuid) if pool is not None else None
            if worker is not None and worker.joinable:
                return worker
        return None

    def _changed(self) -> None:
        """The number of active workers has changed: publish or withdraw as the profile's thresholds say."""
        if self.pool is None or self._publishing or self.state != "running" or not self._accepting:
            return
        verdict = publicity(self.profile, len(self.pool.active), self._publication is not None)
        if verdict is Publicity.PUBLISH:
            Deferred.fromCoroutine(self._publish()).addErrback(self._unpublished)
        elif verdict is Publicity.WITHDRAW:
            self._withdraw()

    async def _publish(self) -> None:
        self._publishing = True
        try:
            self._publication = await self._around.publish(self.name, self._dispatch)
        except CocaineError:
            raise
        except Exception as problem:
            raise PublishError(f"app '{self.name}' cannot be published: {problem}") from problem
        finally:
            self._publishing = False

    def _withdraw(self) -> Deferred[None]:
        assert self._publication is not None
        publication, self._publication = self._publication, None
        return publication.withdraw().addErrback(self._unclear)

    def _unpublished(self, failure: Any) -> None:
        self._log.failure("{app} cannot be published", failure, app=self.name)

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
        try:
            return (overseer(self.pool, self._around.reactor.seconds(), Flags.OVERSEER),)
        except KeyError as problem:
            raise UncaughtError() from problem

    def _control(self, channel: Channel, headers: Headers) -> None:
        channel.receiver = Control(self.control)
