"""Storage in memory, with the rules of storage in files: for tests, and for a platform that need not remember."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from ..interfaces import IStorage
from .names import absent, encoded, key_is_tag, tag_is_key, tag_names


@implementer(IStorage)
class MemoryStorage:
    """Objects as long as this one lives. Every answer is there at once."""

    def __init__(self) -> None:
        self._collections: dict[str, dict[str, tuple[bytes, frozenset[str]]]] = {}

    def read(self, collection: str, key: str) -> Deferred[bytes]:
        return execute(self._read, collection, key)

    def write(self, collection: str, key: str, blob: bytes, tags: Sequence[str]) -> Deferred[None]:
        return execute(self._write, collection, key, blob, tags)

    def remove(self, collection: str, key: str) -> Deferred[None]:
        return execute(self._remove, collection, key)

    def find(self, collection: str, tags: Sequence[str]) -> Deferred[list[str]]:
        return execute(self._find, collection, tags)

    def _objects(self, collection: str) -> dict[str, tuple[bytes, frozenset[str]]]:
        encoded(collection, "collection")
        return self._collections.get(collection, {})

    def _read(self, collection: str, key: str) -> bytes:
        encoded(key, "key")
        try:
            return self._objects(collection)[key][0]
        except KeyError:
            raise absent(collection, key) from None

    def _write(self, collection: str, key: str, blob: bytes, tags: Sequence[str]) -> None:
        encoded(key, "key")
        objects = self._objects(collection)
        wanted = frozenset(tag_names(key, tags).values())
        if any(key in carried for _, carried in objects.values()):
            raise key_is_tag(key)
        for tag in wanted:
            if tag in objects:
                raise tag_is_key(tag)
        self._collections.setdefault(collection, objects)[key] = (bytes(blob), wanted)

    def _remove(self, collection: str, key: str) -> None:
        encoded(key, "key")
        self._objects(collection).pop(key, None)

    def _find(self, collection: str, tags: Sequence[str]) -> list[str]:
        objects = self._objects(collection)
        for tag in tags:
            encoded(tag, "tag")
        wanted = frozenset(tags)
        return sorted(key for key, (_, carried) in objects.items() if wanted and wanted <= carried)
