"""
Storage in files: the embedded default. Made by ``daemon/``, called through `IStorage`; does its disk work by
`cocaine_tx.storage.folder`, in threads, through a `cocaine_tx.storage.line.Line`.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from ..errors import ConfigError
from ..interfaces import IStorage
from .folder import ObjectFolder
from .line import Clockwork, Line


@implementer(IStorage)
class FileStorage:
    """
    Objects under one folder, in the original's layout. Operations take effect in the order they were asked for.

    :param path: the folder; made when it is not there. What a killed writer left in it is swept first.
    :param threads: a started pool; one of its threads at a time is used.
    :param limit: operations that may wait for the disk; more fail with `cocaine_tx.errors.Overloaded`.
    :param byte_limit: bytes that may wait to be written.
    :ivar opened: fires when the folder is ready; fails with `ConfigError`. Nobody needs to wait for it.
    """

    def __init__(
        self,
        reactor: Clockwork,
        path: str,
        threads: ThreadPool,
        limit: int = 10_000,
        byte_limit: int = 512 * 1024 * 1024,
    ) -> None:
        self._path = path
        self._folder = ObjectFolder(path)
        self._line = Line(reactor, threads, limit, byte_limit)
        self.opened: Deferred[None] = self._line.ask(self._folder.open).addErrback(self._unusable)

    def read(self, collection: str, key: str) -> Deferred[bytes]:
        return self._line.ask(self._folder.read, collection, key)

    def write(self, collection: str, key: str, blob: bytes, tags: Sequence[str]) -> Deferred[None]:
        return self._line.ask(self._folder.write, collection, key, blob, tags, weight=len(blob))

    def remove(self, collection: str, key: str) -> Deferred[None]:
        return self._line.ask(self._folder.remove, collection, key)

    def find(self, collection: str, tags: Sequence[str]) -> Deferred[list[str]]:
        return self._line.ask(self._folder.find, collection, tags)

    def close(self) -> Deferred[None]:
        """Fires when everything asked for so far is on disk and the folder has been let go."""
        return self._line.ask(self._folder.close)

    def _unusable(self, reason: Failure) -> None:
        raise ConfigError(f"storage folder {self._path}: {reason.value}; make it and let the daemon write in it")
