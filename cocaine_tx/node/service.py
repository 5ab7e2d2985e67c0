"""
The node service: start, stop, replace, list and show apps; hand events to them.

Source: reference ``node-engine.md`` section 2, ``protocol-v12.md`` section 13, texts as in ``observed-runtime.md`` 11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.logger import Logger

from ..errors import AlreadyStarted, CocaineError, InvalidArgument, NotRunning, UncaughtError, UndecodableError
from ..interfaces import IStorage
from ..rpc.dispatch import Dispatch
from ..wire.frames import unpack
from ..wire.headers import Headers
from ..wire.protocols import NODE
from ..wire.session import Channel
from .app import App, Surroundings
from .control import Control
from .manifest import Manifest, check_app_name
from .profile import Profile
from .report import Flags


class NodeService:
    """
    The apps of this node.

    :param make: makes an app; the constructor of `App`, given by whoever wants another.
    :ivar dispatch: the RPC face.
    """

    _log = Logger()

    def __init__(
        self, around: Surroundings, make: Callable[[Manifest, Profile, Surroundings], App] = App
    ) -> None:
        self._around = around
        self._make = make
        self.apps: dict[str, App] = {}
        self._stopping: dict[str, App] = {}
        self._starting: set[str] = set()
        self._draining = False
        self.dispatch = Dispatch(
            NODE,
            {
                "start_app": lambda headers, app, profile: self._start(_text(app), _text(profile)),
                "pause_app": lambda headers, app: self._pause(_text(app)),
                "restart_app": lambda headers, app, profile=None: self._restart(
                    _text(app), None if profile is None else _text(profile)
                ),
                "list": lambda headers: (sorted(self.apps),),
                "info": lambda headers, app, flags=0: (self.info(_text(app), flags),),
            },
            {"control": self._control, "enqueue": self._enqueue},
        )

    async def _start(self, name: str, profile_name: str) -> tuple[Any, ...]:
        await self.start(name, profile_name)
        return ()

    async def start(self, name: str, profile_name: str) -> None:
        """
        Fires once the app is published.

        :raises AlreadyStarted: it holds its name in any state.
        :raises CocaineError: manifest, profile or code cannot be had; after a failed spool it stays, broken.
        """
        self._check_free(name)
        check_app_name(name, self._around.taken)
        self._starting.add(name)
        try:
            manifest, profile = await self._read(name, profile_name)
        finally:
            self._starting.discard(name)
        self._check_free(name)
        app = self.apps[name] = self._make(manifest, profile, self._around)
        await app.start()
        self._log.info("{app} runs with profile {profile}", app=name, profile=profile_name)

    def _check_free(self, name: str) -> None:
        if self._draining:
            raise NotRunning("the node is being shut down")
        app = self.apps.get(name) or self._stopping.get(name)
        if app is not None:
            raise AlreadyStarted(f"app '{name}' is {app.state}: application has already been started")
        if name in self._starting:
            raise AlreadyStarted(f"app '{name}' is starting: application has already been started")

    async def _read(self, name: str, profile_name: str) -> tuple[Manifest, Profile]:
        storage: IStorage = self._around.storage
        manifest = Manifest.from_blob(await storage.read("manifests", name), name)
        profile = Profile.from_blob(await storage.read("profiles", profile_name), profile_name)
        for key in profile.strange:
            self._log.warn("{app}: {key} in profile {profile} means nothing", app=name, key=key, profile=profile_name)
        return manifest, profile

    async def _pause(self, name: str) -> tuple[Any, ...]:
        app = self.apps.pop(name, None)
        if app is None:
            raise NotRunning(f"app '{name}' is not running: application is not running")
        self._stopping[name] = app
        try:
            await app.stop()
        finally:
            self._stopping.pop(name, None)
        self._log.info("{app} has been stopped", app=name)
        return ()

    async def _restart(self, name: str, profile_name: str | None) -> tuple[Any, ...]:
        app = self.apps.get(name)
        if app is None:
            raise NotRunning(f"app '{name}' is not running: application is not running")
        manifest, profile = await self._read(name, profile_name or app.profile.name)
        await app.replace(manifest, profile)
        self._log.info("{app} has been replaced, profile {profile}", app=name, profile=profile.name)
        return ()

    def info(self, name: str, flags: int) -> dict[str, Any]:
        """
        :raises InvalidArgument: no such app here.
        """
        app = self.apps.get(name)
        if app is None:
            raise InvalidArgument(f"app '{name}' is not running: Invalid argument")
        return app.info(Flags(flags & 7))

    def _enqueue(self, channel: Channel, headers: Headers, name: bytes, event: bytes) -> None:
        app = self.apps.get(_text(name))
        if app is None:
            raise NotRunning(f"application {_text(name)} is not found")
        app.enqueue(channel, headers, event)

    def _control(self, channel: Channel, headers: Headers, name: bytes) -> None:
        app = self.apps.get(_text(name))
        if app is None:
            # There is no answer to say it with; the connection has other users.
            self._log.info("control of {app}, which does not run here, is ignored", app=_text(name))
            channel.abandon()
            return
        channel.receiver = Control(app.control)

    async def run_list(self, name: str) -> None:
        """Start the apps of a runlist; what cannot be started is logged and hinders nobody else."""
        try:
            runlist = unpack(await self._around.storage.read("runlists", name))
            apps = {_text(app): _text(profile) for app, profile in runlist.items()}
        except (CocaineError, UndecodableError, AttributeError) as problem:
            self._log.warn("runlist {name} cannot be read: {problem}", name=name, problem=problem)
            return
        starts = [ensureDeferred(self.start(app, profile)) for app, profile in sorted(apps.items())]
        failed = []
        for app, (fine, result) in zip(sorted(apps), await DeferredList(starts, consumeErrors=True), strict=True):
            if not fine:
                failed.append(app)
                self._log.error("{app} cannot be started: {why}", app=app, why=getattr(result, "value", result))
        if failed:
            self._log.error("couldn't start {count} app(s): {apps}", count=len(failed), apps=", ".join(failed))

    async def drain(self) -> None:
        """End all apps, each within its terminate-timeout: finish what was accepted, let nothing new in."""
        self._draining = True
        apps = dict(self.apps)
        self.apps.clear()
        self._stopping.update(apps)
        drains = [Deferred.fromCoroutine(app.drain()) for app in apps.values()]
        # Also those whose pause is still going on.
        drains += [app.stop() for name, app in self._stopping.items() if name not in apps]
        await DeferredList(drains, consumeErrors=True)
        self._stopping.clear()


def _text(name: bytes) -> str:
    try:
        return name.decode("utf-8", "surrogateescape")
    except AttributeError:
        raise UncaughtError("a name is not text") from None
