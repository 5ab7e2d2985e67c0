"""
One worker's process: from the decision to start it to its end, reaped and its output drained.

Made by `cocaine_tx.isolate.image`; the engine holds it as an `IWorkerProcess`. How the process comes to be is the
business of its `Body`: a program of its own, or the fork of a template.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import SpawnFailed
from ..interfaces import Exit, IWorkerProcess
from .body import Body, Program, Spawned, Watched, Watching

_READ = 64 * 1024
#: Reads at most this often after the end; a stranger that still holds the pipe could feed it for ever.
_LAST_READS = 32
_UNWANTED = "killed before it was started"


class _Inputs(Protocol):
    def ready(self) -> None:
        """The program has been looked at and can be run."""

    def asked(self) -> None:
        """A template was asked to fork it."""

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
        self._body: Body | None = None
        self._pipe: Watched | None = None
        self._machine: _Inputs = _machine(self)

    def run(self, program: Program) -> None:
        """The program can be run: run it, unless it has been killed meanwhile."""
        self._program = program
        self._machine.ready()

    def wait(self) -> None:
        """It is being made elsewhere; `adopt`, `refuse` or, when that came to nothing, `run` follows."""
        self._machine.asked()

    def adopt(self, body: Body, output: int) -> None:
        """
        Here it is.

        :param output: the reading end of the pipe it prints to.
        """
        self._embody(body, output)
        self._machine.spawned()

    def refuse(self, reason: str) -> None:
        """The program cannot be run."""
        self._machine.refused(reason)

    def kill(self) -> None:
        self._machine.kill()

    def _spawn(self) -> None:
        """Start it and tell the machine how that went."""
        assert self._program is not None
        try:
            body = Spawned(self._reactor, self._program)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._machine.refused(f"{self._program.words[0]}: {error}")
        else:
            self.adopt(body, body.output)

    def _embody(self, body: Body, output: int) -> None:
        self._body = body
        self.pid = body.pid
        os.set_blocking(output, False)
        self._pipe = Watched(self._reactor, output, self._drain)
        body.watch(self._machine.ended)
        self._on_spawned(body.pid)

    def _drain(self, fd: int) -> bool:
        """Hand on what the pipe holds, one read's worth. False when there is no more."""
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return False
        if data:
            self._say(data)
        elif self._pipe is not None:
            self._pipe.close()
        return bool(data)

    def _say(self, data: bytes) -> None:
        try:
            self._output(data)
        except Exception:
            self.log.failure("the output of process {pid} could not be handed on", pid=self.pid)

    def _signal(self, number: signal.Signals) -> None:
        assert self._body is not None
        self._body.signal(number)

    def _ask_to_go(self) -> IDelayedCall:
        """Send the polite signal; the timer of the other one."""
        self._signal(signal.SIGTERM)
        timer: IDelayedCall = self._reactor.callLater(self._kill_timeout, self._machine.overdue)
        return timer

    def _bury(self) -> None:
        """It has ended: end what is left of its group, and reap it."""
        assert self._body is not None
        self._signal(signal.SIGKILL)
        self._body.reap(self._mourn)

    def _mourn(self, end: Exit) -> None:
        """It is reaped: take the rest of its output, tell the owner."""
        pipe = self._pipe
        assert pipe is not None
        for _ in range(_LAST_READS):
            if pipe.closed or not self._drain(pipe.fileno()):
                break
        pipe.close()
        self._on_gone()
        self.exited.callback(end)

    def _tell_refusal(self, reason: str, end: Exit) -> None:
        self._say(reason.encode("utf-8", "surrogateescape") + b"\n")
        self._on_gone()
        self.started.errback(SpawnFailed(reason))
        self.exited.callback(end)


def _build() -> Callable[[Child], _Inputs]:
    """
    The life of a child.

    preparing: its program is being looked at, off the reactor. forking: a template makes it. unwanted: it does, but
    nobody wants it any more. running. stopping: TERM was sent, the timer runs. killed: KILL was sent. gone: ended, and
    told to its owner once it is reaped.
    """
    builder = TypeMachineBuilder(_Inputs, Child)
    preparing = builder.state("preparing")
    forking = builder.state("forking")
    unwanted = builder.state("unwanted")
    running = builder.state("running")
    stopping = builder.state("stopping", lambda inputs, child: child._ask_to_go())
    killed = builder.state("killed")
    gone = builder.state("gone")

    preparing.upon(_Inputs.asked).to(forking).returns(None)
    forking.upon(_Inputs.kill).to(unwanted).returns(None)
    running.upon(_Inputs.kill).to(stopping).returns(None)

    # A template that came to nothing is the same as none.
    for state in (preparing, forking):

        @state.upon(_Inputs.ready).to(preparing)
        def spawn(inputs: _Inputs, child: Child) -> None:
            child._spawn()

        @state.upon(_Inputs.spawned).to(running)
        def spawned(inputs: _Inputs, child: Child) -> None:
            child.started.callback(None)

        @state.upon(_Inputs.refused).to(gone)
        def refused(inputs: _Inputs, child: Child, reason: str) -> None:
            child._tell_refusal(reason, Exit(code=127))

    @preparing.upon(_Inputs.kill).to(gone)
    @unwanted.upon(_Inputs.ready).to(gone)
    def given_up(inputs: _Inputs, child: Child) -> None:
        child._tell_refusal(_UNWANTED, Exit(signal=signal.SIGKILL))

    @unwanted.upon(_Inputs.refused).to(gone)
    def neither_wanted_nor_possible(inputs: _Inputs, child: Child, reason: str) -> None:
        child._tell_refusal(reason, Exit(code=127))

    @unwanted.upon(_Inputs.spawned).to(killed)
    def spawned_in_vain(inputs: _Inputs, child: Child) -> None:
        child._signal(signal.SIGKILL)
        child.started.errback(SpawnFailed(_UNWANTED))

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
    early = (_Inputs.asked, _Inputs.ready, _Inputs.spawned, _Inputs.refused)
    for state, idle in (
        (preparing, (_Inputs.overdue, _Inputs.ended)),
        (forking, (_Inputs.asked, _Inputs.overdue, _Inputs.ended)),
        (unwanted, (_Inputs.asked, _Inputs.kill, _Inputs.overdue, _Inputs.ended)),
        (running, (*early, _Inputs.overdue)),
        (killed, (*early, _Inputs.kill, _Inputs.overdue)),
        (gone, (*early, _Inputs.kill, _Inputs.overdue, _Inputs.ended)),
    ):
        for input_method in idle:
            state.upon(input_method).loop().returns(None)
    for input_method in (*early, _Inputs.kill):
        stopping.upon(input_method).loop().returns(None)
    return builder.build()


_machine = _build()
