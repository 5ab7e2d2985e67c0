"""
A request's body that must be whole before it can be used, and the bound on all of them together.

Bytes count from their arrival until the request has its answer, since a request that may be sent once more keeps them.
"""

from __future__ import annotations

from .door import Door
from .failure import Failure, error_answer


class Gathering:
    """
    :param limit: largest body, in bytes.
    :ivar size: bytes so far.
    """

    __slots__ = ("_door", "_held", "_limit", "_parts", "size")

    def __init__(self, door: Door, limit: int) -> None:
        self.size = 0
        self._door = door
        self._limit = limit
        self._held = 0
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> Failure | None:
        """Some of the body has arrived. An answer in place of the rest if there is no room for it."""
        self._parts.append(data)
        self.size += len(data)
        self._held += len(data)
        self._door.gathered += len(data)
        if self._door.gathered > self._door.terms.gathered:
            return error_answer(503, "the proxy holds as many request bodies as it may", retry_after=1)
        return None

    @property
    def excess(self) -> bool:
        """The body is larger than it may be."""
        return self.size > self._limit

    def parts(self) -> list[bytes]:
        """What has been gathered, which goes on in parts and is held no longer."""
        parts, self._parts = self._parts, []
        self.release()
        return parts

    def whole(self) -> bytes:
        """The body. It counts until `release`."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def release(self) -> None:
        """The body is needed no more."""
        self._parts.clear()
        self._door.gathered -= self._held
        self._held = 0
