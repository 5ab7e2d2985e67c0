"""
A client that has closed its half: does it still listen?

It may wait for its answer, or be gone; TCP says the same of both until something is written. An interim response is
what HTTP/1.1 lets us say at any time and every client skips (RFC 9110 section 15.2): the first one to a client that
is gone comes back as a reset, the next one fails for it. An HTTP/1.0 client is left in doubt.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: Seconds until the first interim response, and between the others.
FIRST, BETWEEN = 0.05, 1.0
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class Doubt:
    """
    :param write: writes to the client, around everything that waits to be sent.
    :param fitting: whether an interim response may be sent now: a request of HTTP/1.1 has no answer yet.
    """

    def __init__(self, clock: IReactorTime, write: Callable[[bytes], None], fitting: Callable[[], bool]) -> None:
        self._clock = clock
        self._write = write
        self._fitting = fitting
        self._timer: IDelayedCall | None = None
        self._ask(FIRST)

    def _ask(self, pause: float = BETWEEN) -> None:
        self._timer = None
        if self._fitting():
            self._write(_INTERIM)
            self._timer = self._clock.callLater(pause, self._ask)

    def settle(self) -> None:
        """It does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
