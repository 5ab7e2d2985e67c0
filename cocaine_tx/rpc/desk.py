"""
One client's calls, in turn: so many are under way at once, and none begins while the client does not take its answers.

An answer may be a hundred thousand times as large as its call (``storage.read``): a client that asks and does not read
would have us keep everything it asks for. Its further calls wait, and when it does not take what it is told, or too
much waits, it is not read from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

#: Calls of one client under way, not counting those that are answered at once.
CALLS = 64
#: Bytes of one client's calls that may wait before it is not read from, and what each costs beside its own.
ROOM, CALL_COST = 256 * 1024, 256


class Counter(Protocol):
    """Where the client stands: its `Connection`."""

    session: Any

    def hold(self, holder: object) -> None:
        """Do not read from it."""

    def release(self, holder: object) -> None:
        """Read from it."""


class Desk:
    """The calls of one client. Made by its connection, which also tells when the client has caught up or has gone."""

    __slots__ = ("_counter", "_resuming", "_size", "_under_way", "_waiting")

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._under_way = 0
        self._size = 0
        self._waiting: deque[tuple[Callable[[], None], int]] | None = None
        self._resuming = False

    @property
    def free(self) -> bool:
        """A call may begin now."""
        return not self._waiting and self._under_way < CALLS and not self._counter.session.congested

    def wait(self, begin: Callable[[], None], size: int) -> None:
        """
        Begin a call in its turn; also when the client has gone by then, for it may have told us to write.

        :param size: bytes of its arguments.
        """
        if self._waiting is None:
            self._waiting = deque()
        size += CALL_COST
        self._waiting.append((begin, size))
        self._size += size
        if self._size > ROOM or self._counter.session.congested:
            self._counter.hold(self)

    def begun(self) -> None:
        """The answer of a call will come later."""
        self._under_way += 1

    def done(self, _: object = None) -> None:
        """It has come."""
        self._under_way -= 1
        self.resume()

    def resume(self) -> None:
        """Begin what can be."""
        waiting = self._waiting
        if not waiting or self._resuming:
            return
        self._resuming = True
        try:
            while waiting and self._under_way < CALLS and not self._counter.session.congested:
                begin, size = waiting.popleft()
                self._size -= size
                begin()
        finally:
            self._resuming = False
        if self._size <= ROOM and not self._counter.session.congested:
            self._counter.release(self)
