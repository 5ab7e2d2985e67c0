"""
The process isolate: workers as plain processes of this machine (isolate types ``process`` and ``legacy_process``).

Made by ``daemon/`` for each app; the engine calls it through `IIsolate`. Disk work is done by
`cocaine_tx.isolate.versions` in threads, what was spooled is a `cocaine_tx.isolate.image.Image`.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ..errors import SpoolError
from ..interfaces import IImage, IIsolate, IStorage
from . import versions
from .image import Account, Image, Reactor, off
from .settings import ProcessSettings

T = TypeVar("T")

#: What a worker gets of the daemon's own environment: what a program needs to find its interpreter, modules, language
#: and time zone. Nothing else, as the rest may hold secrets of the daemon (keys of storages, tokens).
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


@implementer(IIsolate)
class ProcessIsolate:
    """
    Spools apps from storage and starts their workers.

    :param threads: a started pool for disk work.
    :param spool_path: where apps are unpacked, unless ``args`` says ``spool``.
    :param args: the profile's ``isolate.args``; see `ProcessSettings`.
    :param environ: the daemon's own environment.
    :raises InvalidArgument: a value in ``args`` cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        threads: ThreadPool,
        storage: IStorage,
        spool_path: str,
        args: Mapping[str, Any],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._storage = storage
        self._settings = ProcessSettings.parse(args, spool_path)
        self._own_spool = spool_path
        self._environment = {
            name: value for name, value in environ.items() if name in INHERITED or name.startswith("LC_")
        }
        for key in self._settings.ignored:
            self.log.warn("isolate.args.{key} means nothing to the process isolate and is ignored", key=key)

    def spool(self, app: str) -> Deferred[IImage]:
        return Deferred.fromCoroutine(self._spool(app))

    def sweep(self) -> Deferred[None]:
        return self._off(versions.sweep, self._settings.spool).addCallback(self._swept)

    async def _spool(self, app: str) -> IImage:
        blob = await self._storage.read("apps", app)
        if self._settings.spool != self._own_spool:
            await self.sweep()  # a folder of the profile, which nobody looked through at the start
        account, prefix = await self._off(_look_up, self._settings.user, self._settings.rlimits)
        version = await self._bring(app, blob, account)
        return Image(self._reactor, self._threads, self._settings, version, self._environment, account, prefix)

    def _bring(self, app: str, blob: bytes, account: Account | None) -> Deferred[versions.Version]:
        """Unpack in a thread. Cancelling answers at once; the thread then cleans up after itself."""
        given_up = Event()
        answer: Deferred[versions.Version] = Deferred(lambda _: given_up.set())
        owner = (account.uid, account.gid) if account else None

        def brought(version: versions.Version) -> None:
            if given_up.is_set():
                self._off(versions.remove, version)
            else:
                answer.callback(version)

        def failed(reason: Failure) -> None:
            if not given_up.is_set():
                answer.errback(reason)

        self._off(
            versions.bring, self._settings.spool, app, blob, self._settings.limits, owner, given_up.is_set
        ).addCallbacks(brought, failed)
        return answer

    def _swept(self, killed: list[int]) -> None:
        if killed:
            self.log.warn("killed {count} processes that an earlier life left behind", count=len(killed), pids=killed)

    def _off(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return off(self._reactor, self._threads, function, *arguments)


def _look_up(user: str | None, rlimits: tuple[tuple[str, int], ...]) -> tuple[Account | None, tuple[str, ...]]:
    """
    The account to run under, and the words to put before a program. Blocks: asks the name service.

    :raises SpoolError: there is no such user, or what was asked for cannot be done here.
    """
    prlimit, setpriv = shutil.which("prlimit"), shutil.which("setpriv")
    words: list[str] = []
    account = None
    if rlimits:
        if not prlimit:
            raise SpoolError("isolate.args.rlimits: the program prlimit (of util-linux) is needed and not installed")
        words += [prlimit, *(f"--{name}={value}:{value}" for name, value in rlimits), "--"]
    if setpriv:
        words += [setpriv, "--pdeathsig", "KILL"]
    if user is not None:
        if os.geteuid() != 0 or not setpriv:
            raise SpoolError(f"isolate.args.user is {user!r}: only root can do this, and with setpriv (of util-linux)")
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise SpoolError(f"isolate.args.user is {user!r}: there is no such user") from None
        account = Account(user, entry.pw_uid, entry.pw_gid, entry.pw_dir, setpriv)
        groups = ",".join(map(str, os.getgrouplist(user, entry.pw_gid)))
        words += ["--reuid", str(account.uid), "--regid", str(account.gid), "--groups", groups]
    if setpriv:
        words.append("--")
    return account, tuple(words)
