"""
A worker forked from a template: a process of which we are not the parent.

We know it by a pidfd. Its number is read from the pidfd, never from what the template says: the template runs an app's
code, and must not have us kill somebody else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

from ..interfaces import Exit
from .body import Watched, Watching

#: Generations between the program we started and the one that forks (shells that do not ``exec``).
_GENERATIONS = 8


class Forked:
    """
    A child of a template, by its pidfd, which is ours from here on.

    :param ancestor: the process id of the program that was started as the template.
    :param bury: asks the template for its end.
    :raises ValueError: the pidfd is no descendant of the ancestor.
    """

    def __init__(
        self, reactor: Watching, pidfd: int, ancestor: int, bury: Callable[[Callable[[Exit], None]], None]
    ) -> None:
        self.pid = _number(pidfd)
        if not _descends(self.pid, ancestor):
            raise ValueError(f"process {self.pid} is not a child of the template {ancestor}")
        self._reactor = reactor
        self._fd = pidfd
        self._pidfd: Watched | None = None
        self._bury = bury

    def watch(self, ended: Callable[[], None]) -> None:
        self._pidfd = Watched(self._reactor, self._fd, lambda fd: ended())

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            try:
                signal.pidfd_send_signal(self._fd, 0)
            except ProcessLookupError:
                # The template is gone and somebody else has reaped its child. What is left of the group still has the
                # number, unless a new process has it now.
                if not os.path.exists(f"/proc/{self.pid}"):
                    os.killpg(self.pid, number)
                return
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has just been forked and has no group of its own yet
                signal.pidfd_send_signal(self._fd, number)

    def reap(self, told: Callable[[Exit], None]) -> None:
        if self._pidfd is not None:
            self._pidfd.close()
        self._bury(told)


def _number(pidfd: int) -> int:
    """:raises ValueError: it is no pidfd, or its process has been reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name == "Pid" and int(value) > 1:
                return int(value)
    raise ValueError("not the pidfd of a process")


def _descends(pid: int, ancestor: int) -> bool:
    for _ in range(_GENERATIONS):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return False
        if pid == ancestor:
            return True
    return False
