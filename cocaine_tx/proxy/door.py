"""
What all clients of one proxy process share, and the factory of their connections.

Made by ``daemon/proxy.py``; every `cocaine_tx.proxy.connection.HttpConnection` and every exchange on it holds the door.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from zope.interface import implementer

from ..rpc.deadlines import Deadlines
from ..rpc.turn import Turn
from ..wire.headers import Headers, timeout_header, window_header
from .access import AccessLog
from .answer import http_date
from .metrics import Meters, Totals
from .noted import Notes
from .overrides import Overrides, overridden
from .retry import Budget
from .terms import Terms
from .upstreams import Upstreams


class Door:
    """
    :param clock: tells the time and wakes us; ``wall`` tells the date.
    :param log: where a line for every request goes.
    :ivar connections: open client connections.
    :ivar gathered: bytes of request bodies that are held whole.
    :ivar promised: bytes that may wait for clients: the windows of all requests that have one.
    :ivar calling: JSON-RPC requests that are being carried out.
    :ivar draining: no new request is taken; the process is about to end.
    """

    def __init__(
        self,
        clock: Any,
        turn: Turn,
        upstreams: Upstreams,
        terms: Terms,
        log: AccessLog,
        retry_share: float = 0.2,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.turn = turn
        self.upstreams = upstreams
        self.log = log
        self.wall = wall
        self.budget = Budget(retry_share)
        self.meters = Meters()
        self.draining = False
        self.gathered = self.calling = self.promised = 0
        self.connections: set[Any] = set()
        self.deadlines: Deadlines[Any] = Deadlines(clock, lambda connection: connection.timed())
        self._idle: Deferred[None] | None = None
        self._overrides = Overrides()
        self.reload(terms)

    def reload(self, terms: Terms) -> None:
        """New terms, for requests that begin from now on."""
        self._configured = terms
        self.terms = overridden(terms, self._overrides)
        #: In the spelling of HTTP's own names, and as a line of an answer before its value.
        self.request_header = b"-".join(part.capitalize() for part in terms.request_header.split(b"-"))
        self.request_line = self.request_header + b": "
        self._calls: dict[tuple[float, int], Headers] = {}
        self.notes = Notes(terms)

    def override(self, overrides: Overrides) -> None:
        """What operators say in the cluster goes over the terms, for requests that begin from now on."""
        self._overrides = overrides
        self.terms = overridden(self._configured, overrides)

    @property
    def window(self) -> int:
        """Bytes of a new answer that may wait for its client: fewer, when as many as may be are promised to others."""
        terms = self.terms
        return terms.buffer if self.promised < terms.unsent else max(terms.buffer // 8, 1024)

    def call_headers(self, seconds: float, window: int) -> Headers:
        """
        What travels with a call that has so many seconds, the same object every time.

        :param window: 0: its node knows none.
        """
        made = self._calls.get((seconds, window))
        if made is None:
            windows = (window_header(window),) if window else ()
            made = self._calls[seconds, window] = (timeout_header(seconds), *windows)
        return made

    def date(self) -> bytes:
        """The value of ``Date``."""
        return http_date(int(self.wall()))

    @property
    def healthy(self) -> bool:
        """Whether clients should be sent here."""
        return self.upstreams.locators.healthy and not self.draining

    def totals(self) -> Totals:
        """What has been counted."""
        pools = {name: len(pool.open) for name, pool in self.upstreams.pools.items()}
        return Totals(self.meters, pools, self.healthy)

    def left(self, connection: object) -> None:
        """A client's connection has ended."""
        self.connections.discard(connection)
        self.meters.active -= 1
        if not self.connections and self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def drain(self) -> Deferred[None]:
        """Finish what has begun, and what comes within a moment; fires when the last client has gone."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()
        return self._left_by_all()

    def close(self) -> Deferred[None]:
        """Cut off whoever is left; fires when the last one has gone and is in the log."""
        for connection in list(self.connections):
            connection.abort("the proxy has been stopped")
        self.deadlines.stop()
        return self._left_by_all()

    def _left_by_all(self) -> Deferred[None]:
        self._idle = idle = Deferred[None](lambda _: None)
        if not self.connections:
            self._idle = None
            idle.callback(None)
        return idle


@implementer(IProtocolNegotiationFactory)
class DoorFactory(ServerFactory):
    """
    Client connections on one listening port.

    :param make: a connection for a new client.
    :param most: connections at once over all ports; one more is closed.
    """

    noisy = False
    _log = Logger()

    def __init__(self, door: Door, make: Callable[[Door], Protocol], most: int) -> None:
        self._door = door
        self._make = make
        self.most = most

    def acceptableProtocols(self) -> list[bytes]:
        """To a TLS client that offers HTTP/2 as well, or HTTP/1.0 alone: one that finds nothing is sent away."""
        return [b"http/1.1", b"http/1.0"]

    def buildProtocol(self, addr: Any) -> Protocol | None:
        if len(self._door.connections) >= self.most:
            self._door.meters.refused += 1
            return None
        return self._make(self._door)
