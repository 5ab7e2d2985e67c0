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

from ..rpc.outlet import Outlet


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
        if self.waiting:
            self._queue.append(data)
            self.pending += len(data)
        else:
            self._transport.write(data)

    def pauseProducing(self) -> None:
        self.waiting = True

    def resumeProducing(self) -> None:
        self.waiting = False
        while self._queue and not self.waiting:
            data = self._queue.popleft()
            self.pending -= len(data)
            self._transport.write(data)
        self._progressed()
        if not self.waiting:
            self._drained()

    def stopProducing(self) -> None:
        """The transport is gone; nothing that waits will leave."""
        self._queue.clear()
        self.pending = 0
        self.waiting = False

    def finish(self) -> None:
        """Nothing more will be written: the connection may be closed when what waits has been taken."""
        if self._finished:
            return
        self._finished = True
        queue, self._queue = self._queue, deque()
        self.pending = 0
        for data in queue:
            self._transport.write(data)
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
