"""
A client that has closed its half: does it still listen?

It may wait for its answer, or be gone; TCP says the same of both until something is written. An interim response is
what HTTP/1.1 lets us say at any time and every client skips (RFC 9110 section 15.2): the first one to a client that
is gone comes back as a reset, the next one fails for it. An HTTP/1.0 client is left in doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IReactorTime

if TYPE_CHECKING:
    from .exchange import Exchange

#: Seconds until the first interim response, and between the others.
FIRST, BETWEEN = 0.05, 1.0
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class Doubt:
    """
    :param write: writes to the client, around everything that waits to be sent.
    :param exchange: what is being answered, in HTTP/1.1; interim responses fit until it has an answer.
    """

    def __init__(self, clock: IReactorTime, write: Callable[[bytes], None], exchange: Exchange) -> None:
        self._clock = clock
        self._write = write
        self._exchange = exchange
        self._timer: IDelayedCall | None = None
        self._ask(FIRST)

    def _ask(self, pause: float = BETWEEN) -> None:
        self._timer = None
        if not (self._exchange.over or self._exchange.answer.begun):
            self._write(_INTERIM)
            self._timer = self._clock.callLater(pause, self._ask)

    def settle(self) -> None:
        """It does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
