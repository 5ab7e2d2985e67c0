"""
The end of a reactor turn: where everything that was said during it leaves in one write for each connection.

Each daemon has one `Turn`; connections put themselves on its list when they have something to send. Nothing else in the
house calls "later" for its own sake: what must not happen re-entrantly happens at the end of the turn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

#: Rounds of acts asking for further acts before the reactor gets a chance to look at its sockets.
_ROUNDS = 100


class Turn:
    """
    What is left to do when the current reactor turn's events have been taken.

    :param clock: gives ``callLater``, or better ``callAtEnd`` (see `rpc.reactor`).
    :ivar number: of this turn; what is sent under one number leaves in one write.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._at_end: Callable[[Callable[[], None]], Any] = getattr(clock, "callAtEnd", partial(clock.callLater, 0))
        self._due: list[Callable[[], None]] = []
        self._asked = False
        self.number = 0

    def call(self, act: Callable[[], None]) -> None:
        """Run it when the turn ends, in the order asked for."""
        self._due.append(act)
        if not self._asked:
            self._asked = True
            self._at_end(self._end)

    def _end(self) -> None:
        self.number += 1
        for _ in range(_ROUNDS):
            acts, self._due = self._due, []
            for act in acts:
                try:
                    act()
                except Exception:
                    self._log.failure("an act at the end of a turn failed")
            if not self._due:
                self._asked = False
                return
        self._clock.callLater(0, self._end)
