"""
Storage as its clients see it: the four calls on whatever keeps the objects.

Everybody is anonymous here, with an ``authorization`` header or without: who may do what is the business of a backend
that knows users.

Source: reference ``protocol-v12.md`` section 12, ``observed-runtime.md`` 6, 11 and 22.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from ..errors import InvalidArguments
from ..interfaces import IStorage
from ..rpc.dispatch import Dispatch
from ..wire.headers import Headers
from ..wire.protocols import STORAGE

Answer = Deferred[tuple[Any, ...]]


class StorageService:
    """
    The face of storage; ``dispatch`` is what its port serves.

    :param storage: keeps the objects, and keeps the calls of one client in order.
    """

    def __init__(self, storage: IStorage) -> None:
        self._storage = storage
        self.dispatch = Dispatch(
            STORAGE, {"read": self._read, "write": self._write, "remove": self._remove, "find": self._find}
        )

    def _read(self, headers: Headers, collection: bytes, key: bytes) -> Answer:
        return self._storage.read(_text(collection), _text(key)).addCallback(_one)

    def _write(
        self, headers: Headers, collection: bytes, key: bytes, blob: bytes, tags: tuple[Any, ...] = ()
    ) -> Answer:
        return self._storage.write(_text(collection), _text(key), blob, _texts(tags)).addCallback(_none)

    def _remove(self, headers: Headers, collection: bytes, key: bytes) -> Answer:
        return self._storage.remove(_text(collection), _text(key)).addCallback(_none)

    def _find(self, headers: Headers, collection: bytes, tags: tuple[Any, ...]) -> Answer:
        return self._storage.find(_text(collection), _texts(tags)).addCallback(_one)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _texts(tags: tuple[Any, ...]) -> list[str]:
    if any(tag.__class__ is not bytes for tag in tags):
        raise InvalidArguments("tags are a list of raw values")
    return [_text(tag) for tag in tags]


def _one(value: Any) -> tuple[Any, ...]:
    return (value,)


def _none(_: None) -> tuple[Any, ...]:
    return ()
