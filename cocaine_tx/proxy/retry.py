"""
Whether a request that failed may be sent once more. Pure, but for the budget's own count.

Sent again is what provably reached no worker, and what reached one but may be repeated by its method (RFC 9110 section
9.2.2) and has not been answered by a single byte. Retries draw on a budget, so that they never multiply the load on a
platform that is failing already.

Source: reference ``http-tools-sdk.md`` section A.6, item 5.
"""

from __future__ import annotations

from ..errors import (
    AppStopped,
    CocaineError,
    ConnectionGone,
    Discarded,
    NotRunning,
    QueueFull,
    SpawnFailed,
    Unreachable,
)

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))

#: The platform's word that no worker has seen the request.
_UNDELIVERED = (QueueFull, AppStopped, NotRunning, Unreachable, SpawnFailed)
#: The way to the worker, or the worker itself, was lost; nobody knows how far it had come.
_LOST = (ConnectionGone, Discarded)

#: Retries in hand at the start, and the most that can be saved up.
RESERVE = 100.0


class Budget:
    """
    How many retries there may be.

    :param share: of requests that may be sent again; with none, nothing is.
    """

    __slots__ = ("_left", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._left = RESERVE

    def earn(self) -> None:
        """A request has come."""
        if self._left < RESERVE:
            self._left += self.share

    def spend(self) -> bool:
        """Whether one more retry can be afforded; if so, it is paid."""
        if self._left < 1.0 or not self.share:
            return False
        self._left -= 1.0
        return True


def repeatable(error: CocaineError, method: bytes, answered: bool, whole: bool) -> bool:
    """
    Whether another try is safe.

    :param answered: the worker has said something, be it to us alone.
    :param whole: the request is still here in one piece.
    """
    if answered or not whole:
        return False
    if isinstance(error, _UNDELIVERED):
        return True
    return isinstance(error, _LOST) and method in IDEMPOTENT
