"""
Which reactor a process runs on, and how long it looks for events before it sleeps.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.main import installReactor

#: Seconds of the first look, and how much longer the next may be when it was too short.
FIRST, GROWTH = 50e-6, 2
#: What is left of the time for looking after a wait that was too long for it.
DECAY = 1 / 4
#: Seconds of work from which on the price of being woken for it does not matter.
LABOUR = 150e-6


class Attention:
    """
    How long to look for events before sleeping.

    To be woken costs 20 to 100 us, as much as the work of a hop. So whoever waits for short times only looks on, and
    one that has waited long a few times sleeps at once, until waits become short again. The kernel treats idle
    processors alike (``cpuidle_haltpoll``). Where long and short waits take turns this settles at `FIRST`.

    :param most: seconds that are worth looking; 0: never look, sleep.
    :ivar window: seconds to look before a sleep.
    """

    __slots__ = ("most", "window")

    def __init__(self, most: float = 0.0) -> None:
        self.most = most
        self.window = 0.0

    def after(self, worked: float) -> float:
        """Seconds to look, after so many of work since the last wait."""
        return self.window if worked < LABOUR else 0.0

    def waited(self, seconds: float) -> None:
        """It has taken so long until something came."""
        if seconds > self.most:
            self.window *= DECAY
            if self.window < FIRST:
                self.window = 0.0
        elif seconds > self.window:
            self.window = min(self.most, max(FIRST, self.window * GROWTH))

    def crowded(self) -> None:
        """Somebody else had the processor for long: do not stand in the way."""
        self.window = 0.0


def install_reactor() -> None:
    """
    Make ours the reactor of this process, unless there is one already or the system has no epoll.

    Entries of processes call it before they import the reactor.
    """
    if "twisted.internet.reactor" not in sys.modules:
        try:
            from .epoll import AttentiveReactor
        except ImportError:
            return
        installReactor(AttentiveReactor())  # type: ignore[no-untyped-call]


def attend(reactor: Any, most: float) -> None:
    """Let a reactor look for up to so many seconds before it sleeps, if it is one of ours."""
    attention = getattr(reactor, "attention", None)
    if isinstance(attention, Attention):
        attention.most = most
