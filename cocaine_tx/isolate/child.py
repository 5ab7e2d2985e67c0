"""
One worker's process: from the decision to start it to its end, reaped and its output drained.

Made by `cocaine_tx.isolate.process`; the engine holds it as an `IWorkerProcess`. The process is started with
``subprocess``, which uses ``vfork``: half a millisecond in the reactor's thread, however large the daemon is, where
``fork`` with a ``preexec_fn`` takes seven. It is started from that thread on purpose: the kernel's "die with your
parent" (asked for by ``setpriv``, see `Program.words`) means the thread. Its end is told by a pidfd, which the reactor
watches.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from cocaine_tx.errors import SpawnFailed
from cocaine_tx.interfaces import Exit, IWorkerProcess

_READ = 64 * 1024
#: Reads at most this often after the end; a stranger that still holds the pipe could feed it for ever.
_LAST_READS = 32
#: Seconds between looks at a process where the system has no pidfd.
_LOOK = 0.05


class Watching(Protocol):
    """What is needed of the reactor."""

    def callLater(self, delay: float, callable: Callable[..., object], /, *args: object) -> Any: ...

    def addReader(self, reader: Any, /) -> Any: ...

    def removeReader(self, reader: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Program:
    """
    What to run.

    :ivar words: the whole command line. Its beginning may be ``prlimit`` and ``setpriv``, which do what must be done
        between fork and exec (limits, parent-death signal, another user) without running Python there, and then become
        the program.
    :ivar environment: the whole environment.
    :ivar folder: where it starts.
    """

    words: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str


class _Inputs(Protocol):
    def ready(self) -> None:
        """The program has been looked at and can be run."""

    def spawned(self) -> None:
        """It runs."""

    def refused(self, reason: str) -> None:
        """It cannot be run."""

    def kill(self) -> None:
        """Its owner wants it gone."""

    def overdue(self) -> None:
        """It had time enough to go by itself."""

    def ended(self) -> None:
        """It has gone."""


@implementer(IWorkerProcess)
class Child:
    """
    A process and its output, in the reactor's thread.

    ``started`` and ``exited`` both fire for every child: one that could not be started fails the first with
    `SpawnFailed` and ends with status 127.

    :param kill_timeout: seconds from TERM to KILL.
    :param output: gets what the process prints, at most 64 KiB at a time.
    :param spawned: told the process id at once.
    :param gone: told when nothing of the process is left, before ``exited`` fires.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Watching,
        kill_timeout: float,
        output: Callable[[bytes], None],
        spawned: Callable[[int], None],
        gone: Callable[[], None],
    ) -> None:
        self.pid: int | None = None
        self.started: Deferred[None] = Deferred()
        self.exited: Deferred[Exit] = Deferred()
        self._reactor = reactor
        self._kill_timeout = kill_timeout
        self._output = output
        self._on_spawned = spawned
        self._on_gone = gone
        self._program: Program | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[_Reader] = []
        self._machine: _Inputs = _machine(self)

    def run(self, program: Program) -> None:
        """The program can be run: run it, unless it has been killed meanwhile."""
        self._program = program
        self._machine.ready()

    def refuse(self, reason: str) -> None:
        """The program cannot be run."""
        self._machine.refused(reason)

    def kill(self) -> None:
        self._machine.kill()

    def _spawn(self) -> None:
        """Start it and tell the machine how that went."""
        assert self._program is not None
        try:
            self._start(self._program)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._machine.refused(f"{self._program.words[0]}: {error}")
        else:
            self._machine.spawned()

    def _start(self, program: Program) -> None:
        read, write = os.pipe()
        try:
            process = subprocess.Popen(
                program.words,
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                cwd=program.folder,
                env=program.environment,
                start_new_session=True,
                close_fds=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._process = process
        self.pid = process.pid
        os.set_blocking(read, False)
        self._readers = [_Reader(self._reactor, read, self._drain)]
        self._watch(process)
        self._on_spawned(process.pid)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        try:
            pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # not Linux, or before 5.3
            self._look()
        else:
            self._readers.append(_Reader(self._reactor, pidfd, lambda fd: self._machine.ended()))

    def _look(self) -> None:
        assert self._process is not None
        if os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._reactor.callLater(_LOOK, self._look)
        else:
            self._machine.ended()

    def _drain(self, fd: int) -> bool:
        """Hand on what the pipe holds, one read's worth. False when there is no more."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if data:
            self._say(data)
        else:
            self._readers[0].close()
        return bool(data)

    def _say(self, data: bytes) -> None:
        try:
            self._output(data)
        except Exception:
            self.log.failure("the output of process {pid} could not be handed on", pid=self.pid)

    def _signal(self, number: signal.Signals) -> None:
        """To the whole group. It exists: its leader, our child, has not been reaped."""
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _ask_to_go(self) -> IDelayedCall:
        """Send the polite signal; the timer of the other one."""
        self._signal(signal.SIGTERM)
        timer: IDelayedCall = self._reactor.callLater(self._kill_timeout, self._machine.overdue)
        return timer

    def _bury(self) -> None:
        """It has ended: end what is left of its group, reap it, take the rest of its output, tell the owner."""
        process = self._process
        assert process is not None
        self._signal(signal.SIGKILL)
        status = process.wait()  # has ended, so this does not wait
        pipe = self._readers[0]
        for _ in range(_LAST_READS):
            if pipe.closed or not self._drain(pipe.fileno()):
                break
        for reader in self._readers:
            reader.close()
        self._on_gone()
        self.exited.callback(Exit(code=status) if status >= 0 else Exit(signal=-status))

    def _tell_refusal(self, reason: str, end: Exit) -> None:
        self._say(reason.encode("utf-8", "surrogateescape") + b"\n")
        self._on_gone()
        self.started.errback(SpawnFailed(reason))
        self.exited.callback(end)


@implementer(IReadDescriptor)
class _Reader:
    """A descriptor the reactor watches, closed exactly once."""

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


def _build() -> Callable[[Child], _Inputs]:
    """
    The life of a child.

    preparing: its program is being looked at, off the reactor. running. stopping: TERM was sent, the timer runs.
    killed: KILL was sent. gone: told to its owner.
    """
    builder = TypeMachineBuilder(_Inputs, Child)
    preparing = builder.state("preparing")
    running = builder.state("running")
    stopping = builder.state("stopping", lambda inputs, child: child._ask_to_go())
    killed = builder.state("killed")
    gone = builder.state("gone")

    @preparing.upon(_Inputs.ready).loop()
    def spawn(inputs: _Inputs, child: Child) -> None:
        child._spawn()

    @preparing.upon(_Inputs.spawned).to(running)
    def spawned(inputs: _Inputs, child: Child) -> None:
        child.started.callback(None)

    @preparing.upon(_Inputs.refused).to(gone)
    def refused(inputs: _Inputs, child: Child, reason: str) -> None:
        child._tell_refusal(reason, Exit(code=127))

    @preparing.upon(_Inputs.kill).to(gone)
    def given_up(inputs: _Inputs, child: Child) -> None:
        child._tell_refusal("killed before it was started", Exit(signal=signal.SIGKILL))

    running.upon(_Inputs.kill).to(stopping).returns(None)

    @running.upon(_Inputs.ended).to(gone)
    def ended(inputs: _Inputs, child: Child) -> None:
        child._bury()

    @stopping.upon(_Inputs.overdue).to(killed)
    def overdue(inputs: _Inputs, child: Child, timer: IDelayedCall) -> None:
        child._signal(signal.SIGKILL)

    @stopping.upon(_Inputs.ended).to(gone)
    def stopped(inputs: _Inputs, child: Child, timer: IDelayedCall) -> None:
        timer.cancel()
        child._bury()

    @killed.upon(_Inputs.ended).to(gone)
    def killed_at_last(inputs: _Inputs, child: Child) -> None:
        child._bury()

    # What comes too late, twice, or cannot come.
    for state, idle in (
        (preparing, (_Inputs.overdue, _Inputs.ended)),
        (running, (_Inputs.ready, _Inputs.spawned, _Inputs.overdue)),
        (stopping, (_Inputs.ready, _Inputs.spawned, _Inputs.kill)),
        (killed, (_Inputs.ready, _Inputs.spawned, _Inputs.kill, _Inputs.overdue)),
        (gone, (_Inputs.ready, _Inputs.spawned, _Inputs.kill, _Inputs.overdue, _Inputs.ended)),
    ):
        for input_method in idle:
            state.upon(input_method).loop().returns(None)
    for state in (running, stopping, killed, gone):
        state.upon(_Inputs.refused).loop().returns(None)
    return builder.build()


_machine = _build()
