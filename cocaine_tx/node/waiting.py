"""
What clients send while their events wait for a worker: kept in order, within limits, and replayed to the worker.

An event that finds a free worker never gets here.

Source: reference ``node-engine.md`` section 5.3; its unlimited buffer [bug] is mended.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import CocaineError, InvalidArguments, Overloaded
from ..wire.headers import Headers
from ..wire.idl import CHOKE, CHUNK, CREDIT, ERROR, Message, Slot
from ..wire.session import Channel, is_error

#: What a buffered message costs beside its bytes, so that a flood of empty chunks counts too.
MESSAGE_COST = 64


class Room:
    """
    How much may wait.

    :param each: bytes that one event may have waiting.
    :param total: bytes that all events of an app may have waiting.
    :ivar used: bytes that wait now.
    """

    __slots__ = ("each", "total", "used")

    def __init__(self, each: int, total: int) -> None:
        self.each = each
        self.total = total
        self.used = 0


class Held(Protocol):
    """Whose messages they are: the invocation."""

    def reject(self, error: CocaineError) -> None:
        "It will not be served: tell the client."

    def withdraw(self) -> None:
        "The client does not want it any more."


class Waiting:
    """
    Receives what a client sends for an event that waits.

    :param size: bytes of the event itself.
    """

    __slots__ = ("_held", "_kept", "_messages", "_room")

    def __init__(self, held: Held, room: Room, size: int) -> None:
        self._held = held
        self._room = room
        self._kept = size
        self._messages: list[tuple[Message, tuple[Any, ...]]] = []
        room.used += size

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CREDIT:
            # Nothing has been sent to it yet that it could have taken.
            return
        cost = MESSAGE_COST
        if message is CHUNK:
            if not args or args[0].__class__ is not bytes:
                self._malformed(channel)
                return
            cost += len(args[0])
            self._messages.append((CHUNK, args[:1]))
        elif message is ERROR:
            # The client has given up: no worker's time is to be spent on it.
            if is_error(args):
                channel.choke()
                self._held.withdraw()
            else:
                self._malformed(channel)
            return
        else:
            self._messages.append((CHOKE, ()))
        room = self._room
        self._kept += cost
        room.used += cost
        if self._kept > room.each:
            self._held.reject(Overloaded(f"more than {room.each} bytes of one event wait for a worker"))
        elif room.used > room.total:
            self._held.reject(Overloaded(f"more than {room.total} bytes of the app's events wait for a worker"))

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        # The client has gone while its event waited: nobody's time is spent on it (lesson 9).
        self._held.withdraw()

    def _malformed(self, channel: Channel) -> None:
        self._held.reject(InvalidArguments("a message of the stream is malformed"))
        channel.session.connection.close()

    def replay(self, worker: Channel) -> None:
        """Say to the worker what the client has said so far (lesson 5)."""
        for message, args in self._messages:
            worker.forward(message, args)

    def move(self, room: Room) -> None:
        """It waits elsewhere now."""
        self._room.used -= self._kept
        room.used += self._kept
        self._room = room

    def clear(self) -> None:
        """It does not wait any more."""
        self._room.used -= self._kept
        self._kept = 0
        self._messages.clear()
