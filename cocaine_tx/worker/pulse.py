"""
Heartbeats: the node is told that we live, and we notice when it does not.

The reactor beats while it turns. A thread stands in for it when a handler keeps the reactor busy: the node must not
kill a worker because it works. A handler that holds the interpreter itself (a C function that does not let go of it)
silences the thread too, and while more than the socket takes is half-sent nothing can go before it.

Source: reference ``protocol-v12.md`` section 20.3.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

#: How much later than due a beat may be before the thread sends one: part of the interval.
_LATE = 1.1


class Pulse:
    """
    The reactor's half.

    :param interval: seconds between beats.
    :param patience: seconds an answer may take.
    :param beat: sends one.
    :param unread: whether the node has said something that we did not look at yet.
    :param silent: called once when a beat was not answered.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        patience: float,
        beat: Callable[[], None],
        unread: Callable[[], bool],
        silent: Callable[[], None],
    ) -> None:
        self.interval = interval
        self.beaten = monotonic()
        self._clock = clock
        self._patience = patience
        self._send = beat
        self._unread = unread
        self._silent = silent
        self._next: IDelayedCall | None = None
        self._answer: IDelayedCall | None = None

    def beat(self) -> None:
        """Beat now, and from now on."""
        self._next = self._clock.callLater(self.interval, self.beat)
        self.beaten = monotonic()
        self._send()
        if self._answer is None:
            self._answer = self._clock.callLater(self._patience, self._missed)

    def answered(self) -> None:
        """The node lives."""
        if self._answer is not None:
            self._answer.cancel()
            self._answer = None

    def _missed(self) -> None:
        self._answer = None
        if self._unread():
            # We were too busy to listen, or keep the node waiting ourselves: the answer may be there already.
            self._answer = self._clock.callLater(self._patience, self._missed)
            return
        self.stop()
        self._silent()

    def stop(self) -> None:
        """No more beats."""
        for timer in (self._next, self._answer):
            if timer is not None and timer.active():
                timer.cancel()
        self._next = self._answer = None


class StandIn:
    """
    The thread's half: beats when the reactor is late, and says so in the log.

    :param send: puts one heartbeat on the wire from this thread; False when it could not.
    """

    _log = Logger()

    def __init__(self, pulse: Pulse, send: Callable[[], bool]) -> None:
        self._pulse = pulse
        self._send = send
        self._stopped = Event()

    def start(self) -> None:
        """Begin to watch. The thread does not keep the process alive."""
        Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """End the thread soon."""
        self._stopped.set()

    def _watch(self) -> None:
        pulse = self._pulse
        due = pulse.interval * _LATE
        beaten = pulse.beaten
        while not self._stopped.wait(max(0.01, beaten + due - monotonic())):
            beaten = max(beaten, pulse.beaten)
            now = monotonic()
            if now < beaten + due:
                continue
            if self._send():
                beaten = now
                self._log.warn(
                    "a handler has kept the worker busy for {seconds:.0f} seconds; other requests wait",
                    seconds=now - pulse.beaten,
                )
            else:
                # Something is half-sent; look again soon.
                beaten = now - due + pulse.interval / 10
