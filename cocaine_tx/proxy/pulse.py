"""
Whether whoever is at the other end of a connection still lives.

A process that hangs, and a host that is cut off, say nothing of it: their connections stand for minutes. So each one
that has requests is asked for a word from time to time.
"""

from __future__ import annotations

from ..errors import CocaineError
from ..rpc.channel import Reply
from ..rpc.client import Remote

#: Looks in a row without a word after which a peer gets nothing more, and after which it is given up.
SILENT, DEAD = 3, 10


class Pulse:
    """
    One connection's.

    :ivar missed: looks since it was asked; 0: it has answered, or nobody has asked.
    """

    __slots__ = ("_asking", "_question", "_remote", "missed")

    def __init__(self, remote: Remote) -> None:
        self.missed = 0
        self._remote = remote
        self._asking = False
        # Runtimes before 0.12.13 hang up on a ping.
        self._question = "info" if remote.protocol.named("ping") is None else "ping"

    def look(self) -> int:
        """Called once a second; looks are counted, not seconds, since we ourselves may have been kept from looking."""
        connection = self._remote.connection
        if connection.held:
            self.missed = 0  # its silence is our doing
        elif self._asking:
            self.missed += 1
        elif len(connection.session):
            self._ask()
        return self.missed

    def _ask(self) -> None:
        reply = Reply()
        reply.answer.addBoth(self._heard)
        self._asking = True
        try:
            self._remote.open(self._question, receiver=reply)
        except CocaineError:
            self._asking = False  # it has no such word, or is ending anyway

    def _heard(self, _: object) -> None:
        self._asking = False
        self.missed = 0
