"""
The pause after crashes: nobody is started in vain, and nobody waits longer than he must.

`balance.backed_off` says how long; this keeps the time.

Source: reference ``node-engine.md`` section 5.6.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from .balance import Backoff, Mortal, backed_off


class Recovery:
    """
    One pool's back-off.

    :param over: called when a pause has ended.
    """

    def __init__(self, clock: IReactorTime, over: Callable[[], None]) -> None:
        self._clock = clock
        self._over = over
        self._backoff = Backoff()
        self._timer: IDelayedCall | None = None

    @property
    def current(self) -> Backoff | None:
        """The pause that is running now."""
        return self._backoff if self._timer is not None else None

    def crashed(self, worker: Mortal, others: Iterable[Mortal]) -> float:
        """
        A worker has crashed.

        :param others: those that are still active.
        :return: seconds until the pause is over; 0 if there is none, and then nobody is called.
        """
        now = self._clock.seconds()
        self._backoff = backed_off(self._backoff, now, worker, others)
        pause = max(0.0, self._backoff.until - now)
        self.stop()
        if pause:
            self._timer = self._clock.callLater(pause, self._go_on)
        return pause

    def stop(self) -> None:
        """Nobody waits any more."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _go_on(self) -> None:
        self._timer = None
        self._over()
