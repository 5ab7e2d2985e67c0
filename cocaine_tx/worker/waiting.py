"""
Waiting in the handler's own world: Twisted coroutines await Deferreds, asyncio tasks await futures.

What is ready already is awaited the same way in both.
"""

from __future__ import annotations

from asyncio import current_task
from asyncio.events import _get_running_loop
from collections.abc import Awaitable, Generator
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Ready:
    """There is nothing to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, None]:
        return _nothing()


def _nothing() -> Generator[Any, Any, None]:
    return
    yield


READY: Final = Ready()


def native(deferred: Deferred[T]) -> Awaitable[T]:
    """The Deferred itself, or a future for it when an asyncio task is going to wait for it."""
    if deferred.called:
        return deferred
    loop = _get_running_loop()
    if loop is None or current_task(loop) is None:
        return deferred
    return deferred.asFuture(loop)
