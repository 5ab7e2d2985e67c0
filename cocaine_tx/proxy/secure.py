"""
The sending half of a TLS client's connection.

`cocaine_tx.rpc.outlet.Outlet` writes to the socket itself; through TLS everything goes by the transport, which has no
limit of its own but tells a push producer when to stop. This one keeps what comes after that and says how much it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IPushProducer, ISSLTransport
from zope.interface import implementer

from ..rpc.outlet import SLICE, Outlet


@implementer(IPushProducer)
class SecureOutlet:
    """
    Stands in for an `Outlet`; the same arguments.

    :ivar pending: bytes that wait.
    :ivar waiting: the transport takes nothing more for now.
    """

    def __init__(self, transport: Any, drained: Callable[[], None], progressed: Callable[[], None]) -> None:
        self.pending = 0
        self.waiting = False
        self._finished = False
        self._transport = transport
        self._drained = drained
        self._progressed = progressed
        self._queue: deque[bytes] = deque()
        transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send it, in order."""
        if len(data) <= SLICE and not self.waiting:
            self._transport.write(data)
            return
        # In slices, since a transport that was given all at once would tell of no progress.
        self._queue.extend(data[at : at + SLICE] for at in range(0, len(data), SLICE))
        self.pending += len(data)
        self._send()

    def pauseProducing(self) -> None:
        self.waiting = True

    def _send(self) -> None:
        while self._queue and not self.waiting:
            data = self._queue.popleft()
            self.pending -= len(data)
            self._transport.write(data)

    def resumeProducing(self) -> None:
        self.waiting = False
        self._send()
        self._progressed()
        if not self.waiting:
            if self._finished:
                self._transport.unregisterProducer()
            self._drained()

    def stopProducing(self) -> None:
        """The transport is gone; nothing that waits will leave."""
        self._queue.clear()
        self.pending = 0
        self.waiting = False

    def finish(self) -> None:
        """Nothing more will be written: the transport is let go, and can close, when it has taken what waits."""
        if self._finished:
            return
        self._finished = True
        if not self.waiting:
            self._transport.unregisterProducer()


AnyOutlet = Outlet | SecureOutlet


def outlet_for(transport: Any, drained: Callable[[], None], progressed: Callable[[], None]) -> AnyOutlet:
    """The right kind for a transport."""
    kind = SecureOutlet if ISSLTransport.providedBy(transport) else Outlet
    return kind(transport, drained, progressed)


def finish(outlet: AnyOutlet | None) -> None:
    """Nothing more will be written; a plain transport knows by itself when it may close."""
    if isinstance(outlet, SecureOutlet):
        outlet.finish()


def half_of(transport: Any) -> Callable[[], None] | None:
    """Ends our half of a connection alone; behind TLS nothing does (RFC 9112 section 9.8)."""
    return None if ISSLTransport.providedBy(transport) else getattr(transport, "loseWriteConnection", None)


def part(transport: Any) -> None:
    """The client had time to end its half. Behind TLS it is cut off; else it still gets what the kernel has for it."""
    if ISSLTransport.providedBy(transport):
        transport.abortConnection()
    else:
        transport.loseConnection()
