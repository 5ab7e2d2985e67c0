"""
The worker's connection to its node.

It differs from other connections in three ways: what the handlers answer within one read leaves at its end, without a
trip through the reactor; handlers may wait for room; and a thread may put a heartbeat between two frames while the
reactor is kept busy by a handler.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Awaitable, Callable
from threading import Lock
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ..rpc.connection import Connection
from ..rpc.outlet import Outlet
from ..rpc.turn import Turn
from ..wire.session import Session
from .waiting import READY, native

#: Bytes that handlers write within one turn before they are sent without waiting for its end.
_EARLY = 256 * 1024
#: Seconds of handlers' work after which answers do not wait for the rest of the batch.
_SLOW = 0.005
#: Seconds a thread waits to complete a frame of which the kernel took only a part.
_COMPLETION = 5.0


class SharedOutlet(Outlet):
    """An outlet through which a thread may say a small thing when no frame is half-sent."""

    __slots__ = ("_lock",)

    def __init__(self, transport: Any, drained: Callable[[], None], progressed: Callable[[], None]) -> None:
        super().__init__(transport, drained, progressed)
        self._lock = Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            super().write(data)

    def slip_in(self, frame: bytes) -> bool:
        """
        Send one whole frame now, from any thread; False when that is not possible now.

        While something waits in the transport a frame may be half-sent, and only the reactor can go on with it.
        """
        handle = self._socket
        with self._lock:
            if handle is None or self._pulling:
                return False
            until = monotonic() + _COMPLETION
            rest = frame
            try:
                while rest:
                    try:
                        rest = rest[handle.send(rest) :]
                    except BlockingIOError:
                        if rest is frame:
                            return False
                        if monotonic() > until:
                            # Nothing sensible can follow half a frame.
                            handle.shutdown(socket.SHUT_RDWR)
                            return False
                        _ready(handle, select.POLLOUT, 100)
            except (OSError, ValueError):
                # The connection has ended; the reactor will find out by itself.
                return False
            return True


class Link(Connection):
    """
    The connection of one worker.

    :ivar made: called when the socket is there, before anything is read from it.
    :ivar begin: starts the handlers of the events that a read brought.
    """

    outlet = SharedOutlet

    def __init__(self, session: Session, turn: Turn, clock: IReactorTime) -> None:
        super().__init__(session, turn, clock)
        self.made: Callable[[], None] = _nothing
        self.begin: Callable[[], None] = _nothing
        self._reading = False
        self._unsent = 0
        self._flushed = 0.0
        self._roomless: list[Deferred[None]] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        self.made()
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        self._reading = True
        self._flushed = monotonic()
        try:
            super().dataReceived(data)
            self.begin()
        finally:
            self._reading = False
            self._flush()

    def pause_between_handlers(self) -> None:
        """Between two handlers of one read: let answers go when the last one took its time."""
        if monotonic() - self._flushed > _SLOW:
            self._flush()
            self._flushed = monotonic()

    def wrote(self, size: int) -> Awaitable[None]:
        """A handler wrote that many bytes; the result fires when it may write more."""
        self._unsent += size
        if self._unsent > _EARLY:
            self._flush()
        if not self.session.congested:
            return READY
        room: Deferred[None] = Deferred(self._unwait)
        self._roomless.append(room)
        return native(room)

    def _unwait(self, room: Deferred[None]) -> None:
        if room in self._roomless:
            self._roomless.remove(room)

    def slip_in(self, frame: bytes) -> bool:
        """Send a frame from another thread, if that can be done between two others."""
        outlet = self._outlet
        return isinstance(outlet, SharedOutlet) and not self._closing and outlet.slip_in(frame)

    @property
    def pending(self) -> int:
        """Bytes that the node has not taken."""
        return 0 if self._outlet is None else self._outlet.pending

    @property
    def unread(self) -> bool:
        """The node has said something that we did not look at yet: its silence is our doing."""
        if self.held:
            return True
        handle = getattr(self.transport, "getHandle", _no_handle)()
        if handle is None:
            return False
        try:
            return _ready(handle, select.POLLIN, 0)
        except (OSError, ValueError):
            return False

    def _wake(self) -> None:
        if not self._reading:
            super()._wake()

    def _flush(self) -> None:
        self._unsent = 0
        super()._flush()

    def _drained(self) -> None:
        super()._drained()
        waiting, self._roomless = self._roomless, []
        for room in waiting:
            room.callback(None)


def _nothing() -> None:
    """Nobody has asked to be told."""


def _ready(handle: Any, event: int, milliseconds: int) -> bool:
    poll = select.poll()
    poll.register(handle, event)
    return bool(poll.poll(milliseconds))


def _no_handle() -> None:
    """In-memory transports have no socket."""
