"""
One version of an app on this machine, and the processes that run from it.

Made by `cocaine_tx.isolate.process`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ..interfaces import IImage, IWorkerProcess, Launch
from . import versions
from .body import Program, Watching
from .child import Child
from .settings import ProcessSettings
from .template import Template

T = TypeVar("T")

_ENV = "/usr/bin/env"
#: What the loader and the C library load code or tables by; they ignore it in programs that get another user's rights.
_LOADED = ("GCONV_PATH", "GLIBC_TUNABLES", "LD_", "LOCPATH", "MALLOC_", "NLSPATH")


class Reactor(Watching, Protocol):
    """What is needed of the reactor."""

    def callFromThread(self, callable: Callable[..., object], /, *args: object) -> Any: ...


@dataclass(frozen=True, slots=True)
class Account:
    """
    The user workers run under, looked up off the reactor.

    :ivar setpriv: path of the program that becomes them.
    """

    name: str
    uid: int
    gid: int
    home: str
    setpriv: str


@implementer(IImage)
class Image:
    """
    :param environment: what every program gets.
    :param account: who runs them, if not ourselves.
    :param prefix: words before every program's own.
    """

    def __init__(
        self,
        reactor: Reactor,
        threads: ThreadPool,
        settings: ProcessSettings,
        version: versions.Version,
        environment: Mapping[str, str],
        account: Account | None,
        prefix: tuple[str, ...],
    ) -> None:
        self._reactor = reactor
        self._threads = threads
        self._settings = settings
        self._version = version
        self._environment = dict(environment)
        if account:
            self._environment |= {"HOME": account.home, "USER": account.name, "LOGNAME": account.name}
        self._account = account
        self._prefix = prefix
        self._fit: set[str] = set()
        self._live = 0
        self._template: Template | None = None
        self._warmed = ""
        self._template_gone: Deferred[None] = succeed(None)
        self._removal: Deferred[None] | None = None

    def warm(self, launch: Launch) -> Deferred[None]:
        if self._template is None:
            self._warmed = launch.executable
            self._template_gone = Deferred()
            self._template = Template(
                self._reactor,
                self._settings.warm_timeout,
                lambda output: self._child(output, lambda: self._template_gone.callback(None)),
                self._run,
                self._program(launch),
            )
        return self._template.settled()

    def spawn(self, launch: Launch, output: Callable[[bytes], None]) -> IWorkerProcess:
        self._live += 1
        child = self._child(output, self._idle)
        program = self._program(launch)
        if self._account and launch.endpoint:
            self._hand_over(launch.endpoint, self._account)
        template = self._template if launch.executable == self._warmed else None
        if template is None or not template.fork(child, program, launch, output):
            self._run(child, program)
        return child

    def discard(self) -> Deferred[None]:
        if self._removal is None:
            self._removal = Deferred()
            self._remove_when_idle()
        answer: Deferred[None] = Deferred()
        self._removal.addBoth(answer.callback)
        return answer

    @staticmethod
    def _hand_over(endpoint: str, account: Account) -> None:
        """The workers' socket is for its owner alone: from now on for their account, and root."""
        with suppress(OSError):  # then they cannot connect, and the node tells why they died
            os.chown(endpoint, account.uid, -1, follow_symlinks=False)

    def _program(self, launch: Launch) -> Program:
        environment = {**self._environment, **launch.environment, versions.MARK: self._version.name}
        words = list(self._prefix)
        if self._account:
            # What comes before the program still runs as root: the app must not tell its loader what to load.
            late = sorted(name for name in environment if name.startswith(_LOADED))
            if late:
                # Twice, since env would take a program with an equals sign in its path for a variable.
                words += [_ENV, *(f"{name}={environment.pop(name)}" for name in late), self._account.setpriv, "--"]
        executable = os.path.join(self._version.folder, launch.executable)
        words.append(executable)
        for name in sorted(launch.arguments):
            words += [name, launch.arguments[name]]
        return Program(tuple(words), environment, self._version.folder, executable)

    def _child(self, output: Callable[[bytes], None], over: Callable[[], None]) -> Child:
        """
        A process that is on record as long as it lives.

        :param over: called when it has gone, and its record too.
        """
        records: list[Deferred[None]] = []

        def gone() -> None:
            for record in records:
                # In this order, though both are done by threads: written, then removed.
                record.addCallback(lambda _: self._off(versions.forget, self._version, child.pid))
                record.addBoth(lambda _: over())
            if not records:
                over()

        child = Child(
            self._reactor,
            self._settings.kill_timeout,
            output,
            lambda pid: records.append(self._off(versions.record, self._version, pid)),
            gone,
        )
        return child

    def _run(self, child: Child, program: Program) -> None:
        path = program.executable
        if path in self._fit:
            child.run(program)
        else:
            self._off(_complaint, path).addCallback(self._looked_at, path, child, program)

    def _looked_at(self, complaint: str, path: str, child: Child, program: Program) -> None:
        if complaint:
            child.refuse(complaint)
        else:
            self._fit.add(path)
            child.run(program)

    def _idle(self) -> None:
        self._live -= 1
        self._remove_when_idle()

    def _remove_when_idle(self) -> None:
        if self._live == 0 and self._removal is not None:
            if self._template is not None:
                self._template.close()
            removed = self._template_gone.addCallback(lambda _: self._off(versions.remove, self._version))
            removed.chainDeferred(self._removal)

    def _off(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return off(self._reactor, self._threads, function, *arguments)


def off(reactor: Reactor, threads: ThreadPool, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
    """Call in a thread."""
    return deferToThreadPool(cast(IReactorFromThreads, reactor), threads, partial(function, *arguments))


def _complaint(path: str) -> str:
    """Why a program cannot be run, in words; empty when it can. Blocks."""
    try:
        with open(path, "rb") as file:
            first = file.readline(256)
    except OSError as error:
        return f"{path}: {error.strerror}"
    if not os.access(path, os.X_OK):
        return f"{path}: Permission denied (it is not executable)"
    if first.startswith(b"#!") and (words := os.fsdecode(first[2:]).split()) and not os.access(words[0], os.X_OK):
        return f"{path}: its interpreter {words[0]} cannot be run"
    return ""
