"""
Where the lines of the access log go: a file, opened again when it has been moved away, or the daemon's own log.

Batches are written in a thread, one at a time. Several processes may write to one file: each batch is one append.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

Written = Callable[[], None]


class LogFile:
    """
    :param path: of the file; it is made if it is not there.
    """

    _log = Logger()

    def __init__(self, reactor: Any, path: str) -> None:
        self._reactor = reactor
        self._path = path
        self._file: Any = None

    def write(self, batch: str, written: Written) -> None:
        """Append lines; calls back when it is done, or has failed and said so."""
        if not self._reactor.running:
            self._append(batch)
            written()
            return
        done = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._append, batch)
        done.addErrback(self._failed)
        done.addCallback(lambda _: written())

    def _append(self, batch: str) -> None:
        if self._file is None:
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - it stays open
        self._file.write(batch.encode("utf-8", "replace"))

    def _failed(self, failure: Failure) -> None:
        self._log.error("{path}: lines are lost: {reason}", path=self._path, reason=failure.getErrorMessage())

    def reopen(self) -> None:
        """The file has been moved away: the next batch begins a new one."""
        file, self._file = self._file, None
        if file is not None:
            self._reactor.callInThread(file.close)


class LogLines:
    """The daemon's own log."""

    _log = Logger(namespace="cocaine_tx.proxy.access")

    def write(self, batch: str, written: Written) -> None:
        """Log many lines at once, which costs as much as one."""
        self._log.info("{lines}", lines=batch.rstrip("\n"))
        written()

    def reopen(self) -> None:
        """twistd opens its own log again by itself."""
