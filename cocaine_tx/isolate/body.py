"""
A running process as the one who had it started can reach it: its pidfd, its group, its end.

`Spawned` is a child of ours; `cocaine_tx.isolate.template.Forked` is a child of a template. Both are moved by
`cocaine_tx.isolate.child.Child`.

A process is started with ``subprocess``, which uses ``vfork``: half a millisecond in the reactor's thread, however
large the daemon is, where ``fork`` with a ``preexec_fn`` takes seven. It is started from that thread on purpose: the
kernel's "die with your parent" (asked for by ``setpriv``, see `Program.words`) means the thread.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Exit

#: Seconds between looks at a process where the system has no pidfd.
_LOOK = 0.05


class Watching(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: object) -> Any: ...

    def addReader(self, reader: Any, /) -> Any: ...

    def removeReader(self, reader: Any, /) -> Any: ...


@implementer(IReadDescriptor)
class Watched:
    """
    A descriptor the reactor watches, closed exactly once.

    :param readable: called with the descriptor whenever there is something to read.
    """

    def __init__(self, reactor: Watching, fd: int, readable: Callable[[int], object]) -> None:
        self._reactor = reactor
        self._fd = fd
        self._readable = readable
        self.closed = False
        reactor.addReader(self)

    def fileno(self) -> int:
        return -1 if self.closed else self._fd

    def doRead(self) -> None:
        self._readable(self._fd)

    def connectionLost(self, reason: Failure) -> None:
        self.close()

    def logPrefix(self) -> str:
        return "worker"

    def close(self) -> None:
        if not self.closed:
            self._reactor.removeReader(self)
            self.closed = True
            os.close(self._fd)


@dataclass(frozen=True, slots=True)
class Program:
    """
    What to run.

    :ivar words: the whole command line. Its beginning may be ``prlimit``, ``setpriv`` and ``env``, which do what must
        be done between fork and exec (limits, parent-death signal, another user) without running Python there, and then
        become the program.
    :ivar environment: the whole environment.
    :ivar folder: where it starts.
    :ivar executable: the one of the words that is the app's own program.
    :ivar descriptors: those of ours that it gets too, under the same numbers.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str
    executable: str
    descriptors: tuple[int, ...] = ()


class Body(Protocol):
    """A process that runs, the leader of its own session and group."""

    @property
    def pid(self) -> int: ...

    def watch(self, ended: Callable[[], None]) -> None:
        """Have ``ended`` called at its end, perhaps more than once until `reap`."""

    def signal(self, number: signal.Signals) -> None:
        """To its whole group."""

    def reap(self, told: Callable[[Exit], None]) -> None:
        """It has ended: let go of it, and tell how it ended, now or soon."""


class Spawned:
    """
    A child of ours.

    :raises OSError: it cannot be started; also ValueError and SubprocessError.
    :ivar output: the reading end of the pipe it prints to, for the caller to close.
    """

    def __init__(self, reactor: Watching, program: Program) -> None:
        self._reactor = reactor
        self._pidfd: Watched | None = None
        self.output, write = os.pipe()
        try:
            self._process = subprocess.Popen(
                program.words,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                cwd=program.folder,
                env=program.environment,
                start_new_session=True,
                close_fds=True,
                pass_fds=program.descriptors,
            )
        except BaseException:
            os.close(self.output)
            raise
        finally:
            os.close(write)

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, ended: Callable[[], None]) -> None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # not Linux, or before 5.3
            self._reactor.callLater(_LOOK, self._look, ended)
        else:
            self._pidfd = Watched(self._reactor, pidfd, lambda fd: ended())

    def _look(self, ended: Callable[[], None]) -> None:
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._reactor.callLater(_LOOK, self._look, ended)
        else:
            ended()

    def signal(self, number: signal.Signals) -> None:
        # The group exists: its leader, our child, has not been reaped.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def reap(self, told: Callable[[Exit], None]) -> None:
        if self._pidfd is not None:
            self._pidfd.close()
        told(exit_of(self._process.wait()))  # has ended, so this does not wait


def exit_of(status: int) -> Exit:
    """How a process ended: its exit status, or a signal's number below zero."""
    return Exit(code=status) if status >= 0 else Exit(signal=-status)
