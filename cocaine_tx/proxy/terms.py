"""
What the proxy promises and allows, as values: the settings of this room, already checked.

``daemon/proxy.py`` makes them from the configuration; a reload makes a new one, which holds for later requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .request import Limits
from .route import HostSuffix


@dataclass(frozen=True, slots=True)
class Terms:
    """
    Times in seconds, sizes in bytes.

    :ivar parser: what a client may send.
    :ivar request: from a request's head to the end of its answer; travels with it.
    :ivar chunk: from one part of an app's answer to the next, the first included.
    :ivar apps: app to event to its own ``chunk``; event ``""`` is all others of the app.
    :ivar requests: the same for ``request``.
    :ivar head: for a client to send a request's head.
    :ivar body: for a client to send the next part of a body.
    :ivar write: for a client to take anything of what waits for it.
    :ivar keep_alive: for a client to begin its next request.
    :ivar inline: largest body that travels inside the request's first chunk.
    :ivar gathered: most bytes of such bodies, all requests together.
    :ivar buffer: most bytes of one answer that wait for a slow client.
    :ivar unsent: while so many bytes may wait for all clients, new answers have an eighth of ``buffer``.
    :ivar attempts: tries of one request in all.
    :ivar queue_full_status: 503, or 500 as the originals.
    :ivar request_header: lower case; carries the request's id.
    :ivar sticky_header: lower case; its value chooses a member of a routing group.
    :ivar mapped: lower case; HTTP headers that also travel as headers of the call.
    :ivar services: that may be called by JSON-RPC; empty: nobody may.
    :ivar json_size: most bytes of JSON in answer to one JSON-RPC request.
    :ivar tracing_chance: share of requests that are traced though they bring no trace, 0 to 1.
    :ivar chances: app to its own ``tracing_chance``.
    """

    parser: Limits = field(default_factory=Limits)
    by_host: HostSuffix | None = None
    request: float = 300.0
    chunk: float = 30.0
    apps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    requests: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    head: float = 10.0
    body: float = 30.0
    write: float = 30.0
    keep_alive: float = 75.0
    inline: int = 2**20
    gathered: int = 256 * 2**20
    buffer: int = 256 * 2**10
    unsent: int = 64 * 2**20
    attempts: int = 3
    queue_full_status: int = 503
    request_header: bytes = b"x-request-id"
    sticky_header: bytes = b"x-cocaine-sticky"
    mapped: frozenset[bytes] = frozenset()
    services: frozenset[str] = frozenset()
    json_size: int = 8 * 2**20
    tracing_chance: float = 0.05
    chances: Mapping[str, float] = field(default_factory=dict)

    def chunk_time(self, app: str, event: str) -> float:
        """The ``chunk`` time of an event."""
        return _time(self.apps, app, event, self.chunk)

    def request_time(self, app: str, event: str) -> float:
        """The ``request`` time of an event."""
        return _time(self.requests, app, event, self.request)

    def tracing_chance_of(self, app: str) -> float:
        """The ``tracing_chance`` of an app; ``""`` is a request that goes to none."""
        return self.chances.get(app, self.tracing_chance)


def _time(apps: Mapping[str, Mapping[str, float]], app: str, event: str, usual: float) -> float:
    events = apps.get(app)
    return usual if events is None else events.get(event, events.get("", usual))
