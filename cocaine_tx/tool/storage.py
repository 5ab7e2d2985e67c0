"""
The ``storage`` service in the tool's words: objects by collection and key, texts in and texts out.

Source: reference ``protocol-v12.md`` section 12, ``http-tools-sdk.md`` section B.3.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NotFound
from .exits import Refused, ServiceError, WrongValue
from .platform import Platform


def check_name(collection: str, key: str, tags: Sequence[str]) -> None:
    """
    Refuse a name that no storage takes, in words that say why: a folder called ``app`` is easily uploaded as one.

    :raises WrongValue: it is one of the tags.
    """
    if key in tags:
        why = f"storage lists {collection} under that word"
        raise WrongValue(f'"{key}" cannot be a name here: {why}; choose another')


class Storage:
    """
    The platform's storage. Every method raises what `cocaine_tx.tool.platform.Service.call` raises.

    The connection is found anew for every call, so that a rollback works after the first one broke.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    async def find(self, collection: str, *tags: str) -> list[str]:
        """Sorted keys of the objects that carry all the tags."""
        service = await self._platform.service("storage")
        keys = await service.value("find", collection, list(tags))
        if not isinstance(keys, (list, tuple)) or not all(isinstance(key, bytes) for key in keys):
            raise Refused('Service "storage" answered something that is no list of keys')
        return sorted(key.decode("utf-8", "surrogateescape") for key in keys)

    async def read(self, collection: str, key: str) -> bytes:
        """The object's bytes."""
        service = await self._platform.service("storage")
        blob = await service.value("read", collection, key)
        if not isinstance(blob, bytes):
            raise Refused(f'Service "storage" answered something that is no object for {collection}/{key}')
        return blob

    async def read_or_none(self, collection: str, key: str) -> bytes | None:
        """The object's bytes, or None when there is no such object."""
        try:
            return await self.read(collection, key)
        except ServiceError as problem:
            if isinstance(problem.error, NotFound):
                return None
            raise

    async def write(self, collection: str, key: str, blob: bytes, tags: Sequence[str]) -> None:
        """
        Store the object; it is on disk when this returns.

        :raises WrongValue: it has the name of one of its tags.
        """
        check_name(collection, key, tags)
        service = await self._platform.service("storage")
        await service.call("write", collection, key, blob, list(tags))

    async def remove(self, collection: str, key: str) -> None:
        """Remove the object, if there is one."""
        service = await self._platform.service("storage")
        await service.call("remove", collection, key)
