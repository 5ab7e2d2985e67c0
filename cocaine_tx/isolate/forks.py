"""
The conversation with a template: which workers it was asked for, and which have ended and are to be reaped.

What is said is in `cocaine_tx.wire.template`. Whatever the template does or leaves undone, every worker it was asked
for is told its beginning, and every one that has ended is told its end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from signal import SIGKILL
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall

from ..errors import UndecodableError
from ..interfaces import Exit, Launch
from ..wire import template as messages
from .body import Program, Watched, Watching, exit_of
from .child import Child
from .forked import Forked

#: Seconds in which a template answers an order; forking takes a thousandth of that.
PATIENCE = 5.0
#: Messages taken in one turn of the reactor.
_READS = 64

#: Starts a child's program without a template.
Plain = Callable[[Child, Program], None]


class Told(Protocol):
    """Who wants to know about the template itself."""

    def ready(self) -> None:
        """It has imported everything."""

    def failed(self, why: str) -> None:
        """It is not to be used any more."""

    def hung_up(self) -> None:
        """It will say nothing more, and hears nothing."""


@dataclass(slots=True)
class _Awaited:
    """A worker that was asked for, what it would run by itself, and the reading end of its pipe."""

    child: Child
    program: Program
    pipe: int


class Forks:
    """
    Our end of a template's control socket.

    :param plain: called for a worker that was asked for in vain.
    :ivar pid: the template's process, once it has one; what it forks must descend from it.
    :ivar theirs: the other end, for the template to inherit; to be closed here when it has.
    """

    def __init__(self, reactor: Watching, plain: Plain, told: Told) -> None:
        self.pid: int | None = None
        self._reactor = reactor
        self._plain = plain
        self._told = told
        self._numbers = count()
        self._awaited: dict[int, _Awaited] = {}
        self._dying: dict[int, Callable[[Exit], None]] = {}
        self._answer: IDelayedCall | None = None
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._socket: socket.socket | None = ours
        # The descriptor in the reactor's hands is a second one, so that each is closed once, by who has it.
        self._control = Watched(reactor, os.dup(ours.fileno()), lambda fd: self.read())

    def ask(self, child: Child, program: Program, launch: Launch) -> bool:
        """
        Have a worker forked.

        :param program: what to run if that comes to nothing.
        :return: False when it cannot be asked for.
        """
        number = next(self._numbers)
        read, write = os.pipe()
        try:
            sent = self._send(messages.Fork(number, launch.arguments, launch.environment), write)
        finally:
            os.close(write)
        if sent:
            self._awaited[number] = _Awaited(child, program, read)
            child.wait()
        else:
            os.close(read)
        return sent

    def read(self) -> None:
        """Take what it has said."""
        for _ in range(_READS):
            if self._socket is None or not self._take(self._socket):
                return

    def close(self) -> None:
        """Hang up."""
        self._control.close()
        self.theirs.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def abandon(self) -> None:
        """Whoever waits for an answer does without it."""
        self._unset()
        awaited, self._awaited = self._awaited, {}
        for each in awaited.values():
            os.close(each.pipe)
            self._plain(each.child, each.program)
        dying, self._dying = self._dying, {}
        for told in dying.values():
            # Nobody knows; but those who live when a template dies die with it in this way.
            told(Exit(signal=SIGKILL))

    def _send(self, order: messages.Order, *descriptors: int) -> bool:
        if self._socket is None:
            return False
        try:
            socket.send_fds(self._socket, [messages.pack_order(order)], descriptors)
        except OSError:  # it is busy, gone, or the message is too long
            return False
        if self._answer is None:
            self._answer = self._reactor.callLater(PATIENCE, self._silent)
        return True

    def _silent(self) -> None:
        self._answer = None
        self._told.failed(f"it has not answered for {PATIENCE:.0f} s")
        self.abandon()

    def _take(self, control: socket.socket) -> bool:
        """One message; False when there is none now, or there never will be one."""
        try:
            data, descriptors, _, _ = socket.recv_fds(control, messages.LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return False
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.close()
            self._told.hung_up()
            return False
        try:
            self._understood(messages.unpack_report(data), descriptors)
        except (UndecodableError, ValueError, OSError) as problem:
            self._told.failed(f"it talks nonsense: {problem}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _understood(self, report: messages.Report, descriptors: list[int]) -> None:
        match report:
            case messages.Ready():
                self._told.ready()
            case messages.Unfit(reason):
                self._told.failed(reason)
            case messages.Forked(number):
                self._forked(number, descriptors)
            case messages.Failed(number, reason):
                if awaited := self._awaited.pop(number, None):
                    os.close(awaited.pipe)
                    awaited.child.refuse(reason)
            case messages.Ended(number, status):
                if told := self._dying.pop(number, None):
                    told(exit_of(status))
        self._unset()
        if self._awaited or self._dying:
            self._answer = self._reactor.callLater(PATIENCE, self._silent)

    def _forked(self, number: int, descriptors: list[int]) -> None:
        if not descriptors:
            raise ValueError("a worker without its pidfd")
        body = Forked(self._reactor, descriptors[0], self.pid or 0, lambda told: self._reap(number, told))
        descriptors.clear()  # it has it now
        if awaited := self._awaited.pop(number, None):
            awaited.child.adopt(body, awaited.pipe)
        else:
            # Too late: another one was started instead.
            body.watch(lambda: body.reap(lambda end: None))
            body.signal(SIGKILL)

    def _reap(self, number: int, told: Callable[[Exit], None]) -> None:
        if self._send(messages.Reap(number)):
            self._dying[number] = told
        else:
            told(Exit(signal=SIGKILL))

    def _unset(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None
