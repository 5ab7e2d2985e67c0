"""
What one client is given: gathered until its turn ends, and how long it may wait to be taken.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from .secure import AnyOutlet, SecureOutlet, finish, outlet_for

if TYPE_CHECKING:
    from .connection import HttpConnection


class Outbox:
    """
    The sending half of a connection. It tells the connection when the client has taken something, and when all.

    :ivar sent: bytes given out so far.
    :ivar due: the clock's time by which the client must have taken some of what waits; infinite when nothing does.
    """

    __slots__ = ("_asked", "_door", "_http", "_out", "_outlet", "_unsent", "due", "sent")

    def __init__(self, http: HttpConnection) -> None:
        self._http: HttpConnection | None = http
        self._door = http.door
        self._out: list[bytes] = []
        self._unsent = 0
        self._asked = False  # the end of the turn will flush
        self._outlet: AnyOutlet | None = None
        self.due = inf
        self.sent = 0

    def open(self, transport: Any) -> None:
        """Here is the client."""
        self._outlet = outlet_for(transport, self._drained, self._progressed)

    def close(self) -> None:
        """It has gone. What we hold of one another would stay until the collector comes."""
        self._http = self._outlet = None
        self.due = inf

    def say(self, data: bytes) -> None:
        """Some of an answer; it leaves when the turn ends, or with `flush`."""
        self._out.append(data)
        self._unsent += len(data)
        self.sent += len(data)
        if not self._asked:
            self._asked = True
            self._door.turn.call(self._end_turn)

    def _end_turn(self) -> None:
        self._asked = False
        self.flush()
        if self._http is not None and self._outlet is not None and not self._outlet.waiting:
            self._http.relieved()

    def flush(self) -> None:
        """Send what was said."""
        out, outlet = self._out, self._outlet
        if not out or outlet is None:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._unsent = 0
        waiting = outlet.waiting
        outlet.write(data)
        if outlet.waiting and not waiting:
            self._progressed()

    def interrupt(self, data: bytes) -> None:
        """Send this at once, before what was said in this turn."""
        if self._outlet is not None:
            self._outlet.write(data)

    def finish(self) -> None:
        """Nothing more will be said."""
        self.flush()
        finish(self._outlet)

    @property
    def waiting(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._unsent + (self._outlet.pending if self._outlet is not None else 0)

    @property
    def secure(self) -> bool:
        """The client is behind TLS, whose end is a dialogue."""
        return isinstance(self._outlet, SecureOutlet)

    def _progressed(self) -> None:
        if self._http is not None:
            now = self._door.clock.seconds()
            self.due = now + self._door.terms.write
            self._http.watch.expect(self.due, now)

    def _drained(self) -> None:
        self.due = inf
        if self._http is not None:
            self._http.drained()
