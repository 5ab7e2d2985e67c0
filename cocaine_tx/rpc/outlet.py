"""
Bytes to one transport: straight to the kernel while it takes them, and in slices when it does not.

Twisted's own ``write`` waits for the next poll to find out that the socket is writable, which it nearly always is;
trying at once saves two ``epoll_ctl`` calls and a poll for each message. What the kernel refuses goes through the
transport as a pull producer, so that order, closing and errors stay Twisted's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPullProducer, ISSLTransport
from zope.interface import implementer

#: Bytes given to the transport at a time; small enough to see progress, large enough to be cheap.
SLICE = 128 * 1024


@implementer(IPullProducer)
class Outlet:
    """
    The sending half of a connection.

    :param transport: a connected Twisted transport.
    :param drained: called when everything has been taken after something had to wait.
    :param progressed: called whenever the peer took a slice of what waits.
    :ivar pending: bytes that wait, not counting the slice that the transport has.
    """

    __slots__ = ("_drained", "_offset", "_progressed", "_pulling", "_queue", "_socket", "_transport", "pending")

    def __init__(self, transport: Any, drained: Callable[[], None], progressed: Callable[[], None]) -> None:
        self._transport = transport
        self._drained = drained
        self._progressed = progressed
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._pulling = False
        self.pending = 0
        self._socket: Any = None
        if not ISSLTransport.providedBy(transport):
            handle = getattr(transport, "getHandle", _no_handle)()
            if hasattr(handle, "send"):
                self._socket = handle

    @property
    def waiting(self) -> bool:
        """The kernel has not taken all yet."""
        return self._pulling

    def write(self, data: bytes) -> None:
        """Send it, in order; never blocks, never raises."""
        if self._pulling:
            if not data:
                # A transport that is given nothing does not ask again.
                return
            self._queue.append(data)
            self.pending += len(data)
            return
        if self._socket is not None:
            try:
                sent = self._socket.send(data)
            except OSError:
                # Would block, or the peer has gone: the transport will find out which, and say so in its own way.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        elif len(data) <= SLICE:
            self._transport.write(data)
            return
        self._queue.append(data)
        self.pending = len(data)
        self._pulling = True
        self._transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if not self._queue:
            self._pulling = False
            self._transport.unregisterProducer()
            self._drained()
            return
        data = self._queue[0]
        piece = data[self._offset : self._offset + SLICE]
        self._offset += len(piece)
        if self._offset >= len(data):
            self._queue.popleft()
            self._offset = 0
        self.pending -= len(piece)
        self._transport.write(piece)
        self._progressed()

    def stopProducing(self) -> None:
        """The transport is gone; nothing that waits will leave."""
        self._queue.clear()
        self.pending = 0


def _no_handle() -> None:
    """In-memory transports have no socket."""
