"""
Where the lines of the access log go: a file, opened again when it has been moved away, or the daemon's own log.

Batches are written in a thread, one at a time. Several processes may write to one file: each batch is one append.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import ConfigError

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
        self._moved = False

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
        # One batch at a time, so nobody else looks at the file meanwhile.
        if self._file is not None and self._moved:
            self._file.close()
            self._file = None
        if self._file is None:
            self._moved = False
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - it stays open
        rest = memoryview(batch.encode("utf-8", "replace"))
        while rest:
            rest = rest[self._file.write(rest) :]

    def _failed(self, failure: Failure) -> None:
        self._log.error("{path}: lines are lost: {reason}", path=self._path, reason=failure.getErrorMessage())

    def reopen(self) -> None:
        """The file has been moved away: the next batch begins a new one."""
        self._moved = True


def try_file(path: str) -> None:
    """
    See whether lines can be written to a file, which is made if it is not there.

    :raises ConfigError: they cannot.
    """
    try:
        # A pipe that nobody reads yet must not keep us waiting.
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644))
    except OSError as problem:
        mend = "name a file that this user may write"
        raise ConfigError(f"access-log.file: {path}: {problem.strerror}; {mend}") from problem


class LogLines:
    """The daemon's own log."""

    _log = Logger(namespace="cocaine_tx.proxy.access")

    def write(self, batch: str, written: Written) -> None:
        """Log many lines at once, which costs as much as one."""
        self._log.info("{lines}", lines=batch.rstrip("\n"))
        written()

    def reopen(self) -> None:
        """twistd opens its own log again by itself."""
