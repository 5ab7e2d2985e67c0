"""
A daemon as twistd runs it: brought up when the reactor runs, taken down in good order, its failures told in one line.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError
from .document import BUILT_IN


class DaemonService(Service):
    """
    A daemon as twistd runs it.

    :param file: the configuration's name, for complaints.
    :param start: brings it up; an error becomes one line on stderr and exit status 1.
    :param stop: takes it down in good order.
    """

    _log = Logger()

    def __init__(
        self, name: str, file: str, reactor: Any, start: Callable[[], Any], stop: Callable[[], Any]
    ) -> None:
        self.name = name
        self._file = file
        self._reactor = reactor
        self._start = start
        self._stop = stop
        self.started: Deferred[None] | None = None

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self.started = Deferred.fromCoroutine(self._start())
        self.started.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not self.running:
            return  # it was stopped while it came up: that is no failure
        error = failure.value
        if isinstance(error, CocaineError):
            line = complaint(str(self.name), self._file, error)
            self._log.critical("{line}", line=line)
        else:
            self._log.failure("{name} cannot start", failure, name=self.name)
            line = f"{self.name}: {type(error).__name__}: {error}; this is a mistake of ours, the log has more"
        # Not sys.stderr: that is the log by now.
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{line}\n")
            sys.__stderr__.flush()
        # twistd has no way to give an exit status from within; everything else has been shut down by then.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        if self._reactor.running:
            self._reactor.stop()

    def stopService(self) -> Deferred[None]:
        super().stopService()  # type: ignore[no-untyped-call]
        if self.started is not None:
            self.started.cancel()  # of what is still coming up nothing more shall begin
        return Deferred.fromCoroutine(self._stop())


def end_on_hangup(reactor: Any) -> None:
    """
    SIGHUP, which a closed terminal sends as well, drains as SIGTERM does; left alone it would end us at once.

    ``nohup`` still has its way.
    """

    def end() -> None:
        with suppress(ReactorNotRunning):  # it ends already
            reactor.stop()

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(end))


def complaint(name: str, file: str, problem: CocaineError) -> str:
    """One line for whoever starts a daemon: its name, the file, the key and the mend."""
    reason = problem.reason if problem.reason.startswith(f"{file}: ") else f"{file}: {problem.reason}"
    return f"{name}: {' '.join(reason.split())}"


def refuse(name: str, file: str | None, problem: CocaineError) -> SystemExit:
    """The end of a start that never began: one line on stderr, exit status 1."""
    return SystemExit(complaint(name, file or BUILT_IN, problem))
