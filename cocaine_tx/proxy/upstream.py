"""
Connections to one app: made before they are offered, the least loaded first, replaced as they age.

Every connection is resolved anew, so that a routing group's weights and new nodes take effect as connections age. One
whose client is slow, or whose request is large, is *set aside*: it serves what it has and is offered to nobody, so that
one slow stream delays nobody else. A request that wants a connection of its own gets one that nobody else uses.

Source: reference ``http-tools-sdk.md`` section A.2, without its defects.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from random import random
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from ..errors import CocaineError, ConnectionGone, ServiceNotFound, Unreachable
from ..interfaces import Endpoint
from ..rpc.client import Dialer, Remote
from ..rpc.connection import Connection
from ..wire.idl import parse_protocol
from ..wire.protocols import is_app
from .abilities import Abilities, abilities
from .locators import STOPPING, Locators
from .pulse import DEAD, SILENT, Pulse

#: Seconds an endpoint that could not be reached is tried only after all others.
EJECTED = 10.0
#: Seconds without a request after which an app's connections are closed.
UNUSED = 600.0
#: Requests of one turn, or close upon each other, that go to the same connection.
BATCH = 32
#: Seconds between such requests.
CLOSE = 0.005
#: Seconds after which a connection whose replacement could not be made is tried to be replaced again.
AGAIN = 5.0


class Passenger(Protocol):
    """A request that waits for a connection."""

    def offered(self, upstream: Upstream) -> None:
        """Here is one."""

    def unserved(self, error: CocaineError) -> None:
        """There is none, and no other attempt is being made."""


class Upstream:
    """
    One live connection.

    :ivar address: where it leads.
    :ivar session: its channels; ``len`` of it is the load.
    :ivar expires: when it is replaced.
    :ivar aside: it is offered to nobody any more.
    :ivar streams: the app takes bodies in parts.
    :ivar windows: each stream can be limited by itself.
    :ivar once: whoever is there can be told that a request may be carried out only once.
    :ivar pulse: whether the node still lives.
    """

    __slots__ = (
        "address", "aside", "connection", "expires", "once", "pulse", "remote", "session", "streams", "windows",
    )  # fmt: skip

    def __init__(self, remote: Remote, address: Endpoint, expires: float, can: Abilities) -> None:
        self.remote = remote
        self.address = address
        self.connection: Connection = remote.connection
        self.session = remote.connection.session
        self.session.kin = can.windows
        self.expires = expires
        self.streams = can.streams
        self.windows = can.windows
        self.once = can.once
        self.pulse = Pulse(remote)
        self.aside = False


class Pool:
    """
    The connections to one app.

    :param size: connections that are offered.
    :param lifespan: seconds; a connection lives once to twice as long.
    :ivar open: those offered.
    :ivar aside: those that only finish what they have.
    :ivar streams: whether the app takes bodies in parts and can switch protocols; None before it could be asked.
    """

    _log = Logger()

    def __init__(
        self, name: str, dialer: Dialer, locators: Locators, size: int, lifespan: float, most_waiting: int = 20_000
    ) -> None:
        self.name = name
        self.size = size
        self.lifespan = lifespan
        self.open: list[Upstream] = []
        self.aside: set[Upstream] = set()
        self.streams: bool | None = None
        self.used = dialer.reactor.seconds()
        self._dialer = dialer
        self._locators = locators
        self._most_waiting = most_waiting
        self._waiting: dict[Passenger, None] = {}
        self._connecting = 0
        self._ejected: dict[Endpoint, float] = {}
        self._next = 0
        self._turn = self._batch = 0
        self._picked = 0.0
        self._latest: Upstream | None = None
        self._pending: set[Deferred[None]] = set()

    # -- choosing

    def pick(self, excluded: tuple[Upstream, ...] = ()) -> Upstream | None:
        """
        The least loaded of those that can take a request; the first of equals changes with every call.

        What comes in one turn of the reactor goes to the same one: it leaves in one write, is read at once by the node
        and by the worker, and their answers come back the same way. So does what comes right after an answer: all that
        it passes through is still in the processors' caches. A full batch goes on to the next.
        """
        turn, now = self._dialer.turn.number, self.used
        latest, close, self._picked = self._latest, now - self._picked < CLOSE, now
        if self._batch and latest is not None and not latest.aside and not excluded:
            together = turn == self._turn or (close and not len(latest.session))
            if together and not latest.connection.held and not latest.connection.over:
                self._turn = turn
                self._batch -= 1
                return latest
        best = self._latest = self._least(excluded)
        self._turn, self._batch = turn, BATCH
        return best

    def _least(self, excluded: tuple[Upstream, ...]) -> Upstream | None:
        offered = self.open
        count = len(offered)
        if count + self._connecting < self.size:
            self._grow()
        best, least = None, 1 << 60
        start = self._next = (self._next + 1) % count if count else 0
        for at in range(start - count, start):
            upstream = offered[at]
            load = len(upstream.session)
            connection = upstream.connection
            if load < least and not (connection.held or connection.over) and upstream not in excluded:
                best, least = upstream, load
                if not load:
                    break
        return best

    def _elsewhere(self, tried: tuple[Upstream, ...]) -> Upstream | None:
        """The least loaded that leads elsewhere: where one was lost, the others to the same node may be as dead."""
        places = {upstream.address for upstream in tried}
        others = [one for one in self.open if one.address not in places and not one.connection.over]
        return min(others, key=lambda one: len(one.session), default=None)

    def seat(self, passenger: Passenger, excluded: tuple[Upstream, ...] = ()) -> None:
        """Offer a connection now or later: to another place than those in ``excluded``, or another one, if there is."""
        self.used = self._dialer.reactor.seconds()
        upstream = self._elsewhere(excluded) if excluded else None
        upstream = upstream or self.pick(excluded) or (self.pick() if excluded else None)
        if upstream is not None:
            passenger.offered(upstream)
        elif len(self._waiting) >= self._most_waiting:
            passenger.unserved(Unreachable("too many requests wait for a connection to it"))
        else:
            self._waiting[passenger] = None
            if not self._connecting:
                self._grow()

    def seat_alone(self, passenger: Passenger) -> None:
        """Offer a connection that nobody else uses or will use."""

        def made(upstream: Upstream) -> None:
            upstream.aside = True
            self.aside.add(upstream)
            passenger.offered(upstream)

        self.used = self._dialer.reactor.seconds()
        self._run(self._connect(made, passenger.unserved))

    def leave(self, passenger: Passenger) -> None:
        """It waits no longer."""
        self._waiting.pop(passenger, None)

    # -- making

    def _grow(self) -> None:
        self._connecting += 1
        self._run(self._connect(self._made, self._failed))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        pending = Deferred.fromCoroutine(work)
        if not pending.called:
            self._pending.add(pending)
            pending.addBoth(lambda _: self._pending.discard(pending))

    async def _connect(self, made: Callable[[Upstream], None], failed: Callable[[CocaineError], None]) -> None:
        try:
            upstream = await self._connected()
        except CocaineError as error:
            failed(error)
        except CancelledError:
            failed(Unreachable(STOPPING))
        except Exception as error:
            self._log.failure("connecting to {name} failed", name=self.name)
            failed(Unreachable(str(error)))
        else:
            made(upstream)

    async def _connected(self) -> Upstream:
        info = await self._locators.resolve(self.name)
        protocol = parse_protocol(self.name, info.version, info.graph)
        if not is_app(protocol):
            raise ServiceNotFound(f"{self.name} is not an application")
        clock = self._dialer.reactor
        problem: CocaineError = Unreachable(f"{self.name} has no address")
        for address in sorted(info.endpoints, key=lambda place: self._ejected.get(place, 0.0) > clock.seconds()):
            try:
                remote = await self._dialer.connect([address], protocol)
                can = await self._introduced(remote)
            except CocaineError as error:
                self._eject(address)
                problem = Unreachable(error.reason)
                continue
            self._ejected.pop(address, None)
            upstream = Upstream(remote, address, clock.seconds() + self.lifespan * (1 + random()), can)
            remote.connection.lost = partial(self._lost, upstream)
            return upstream
        raise problem

    async def _introduced(self, remote: Remote) -> Abilities:
        """What a new connection leads to; one that leads to nobody is closed."""
        try:
            return await abilities(remote)
        except BaseException:
            remote.close()
            raise

    def _eject(self, address: Endpoint) -> None:
        self._ejected[address] = self._dialer.reactor.seconds() + EJECTED

    def _made(self, upstream: Upstream) -> None:
        self._connecting -= 1
        self.streams = upstream.streams  # it may be another version of the app
        self.open.append(upstream)
        waiting, self._waiting = self._waiting, {}
        for passenger in waiting:
            passenger.offered(upstream)

    def _failed(self, error: CocaineError) -> None:
        self._connecting -= 1
        if self._connecting or self.open:
            return
        waiting, self._waiting = self._waiting, {}
        for passenger in waiting:
            passenger.unserved(error)

    # -- leaving

    def set_aside(self, upstream: Upstream) -> None:
        """Offer it to nobody any more; what it has goes on."""
        if not upstream.aside:
            upstream.aside = True
            self.aside.add(upstream)
            if upstream in self.open:
                self.open.remove(upstream)

    def renew(self) -> None:
        """The app has been stopped, perhaps to come back elsewhere: what is open leads nowhere now."""
        for upstream in list(self.open):
            self.set_aside(upstream)

    def finished(self, upstream: Upstream) -> None:
        """A request on a connection set aside has ended."""
        if not len(upstream.session):
            self.aside.discard(upstream)
            upstream.remote.close()

    def _lost(self, upstream: Upstream, connection: Connection) -> None:
        self.aside.discard(upstream)
        if upstream in self.open:
            self.open.remove(upstream)
        if not self.open and self._waiting and not self._connecting:
            self._grow()

    def retire(self) -> None:
        """All connections are replaced as soon as others have been made: a routing group has changed."""
        for upstream in self.open:
            upstream.expires = 0.0

    def tend(self, now: float) -> None:
        """Once a second: replace what has aged, close what has finished."""
        for upstream in [*self.open, *self.aside]:
            self._look_at(upstream)
        for upstream in [old for old in self.open if old.expires <= now]:
            if len(self.open) > self.size:
                self.set_aside(upstream)
                continue
            upstream.expires = inf  # until the replacement has come, or this attempt has failed
            self._connecting += 1
            self._run(self._connect(partial(self._replace, upstream), partial(self._unreplaced, upstream)))
        for upstream in list(self.aside):
            self.finished(upstream)
        self._ejected = {place: until for place, until in self._ejected.items() if until > now}

    def _look_at(self, upstream: Upstream) -> None:
        """A node that hangs is left alone, by all connections to it; when it goes on hanging, its requests are told."""
        missed, (host, port) = upstream.pulse.look(), upstream.address
        if missed == SILENT:
            if not upstream.aside:
                self._log.warn("{name}: {host}:{port} does not answer", name=self.name, host=host, port=port)
            self._eject(upstream.address)
            for other in [one for one in self.open if one.address == upstream.address]:
                self.set_aside(other)
        elif missed == DEAD:
            upstream.connection.sever(ConnectionGone("the node does not answer"))

    def _unreplaced(self, old: Upstream, error: CocaineError) -> None:
        old.expires = self._dialer.reactor.seconds() + AGAIN
        self._failed(error)

    def _replace(self, old: Upstream, made: Upstream) -> None:
        self._made(made)
        self.set_aside(old)

    @property
    def unused(self) -> bool:
        """No request runs on its connections."""
        return not (self.aside or any(len(upstream.session) for upstream in self.open))

    @property
    def forgotten(self) -> bool:
        """Nothing would be lost with it."""
        return not (self.open or self.aside or self._waiting or self._pending)

    def close(self) -> None:
        """End every connection."""
        for upstream in [*self.open, *self.aside]:
            upstream.remote.close()
        for pending in list(self._pending):
            pending.cancel()
        waiting, self._waiting = self._waiting, {}
        for passenger in waiting:
            passenger.unserved(Unreachable(STOPPING))

    # -- what the app takes

    @property
    def windows(self) -> bool:
        """Whether a stream on one of the connections would be limited by itself."""
        return bool(self.open) and all(upstream.windows for upstream in self.open)

    def ask(self, told: Callable[[bool], None], failed: Callable[[CocaineError], None]) -> None:
        """Find out `streams`, or that the app cannot be reached."""
        if self.streams is not None:
            told(self.streams)
        else:
            self.seat(_Question(self, told, failed))


class _Question:
    """Waits for the first connection, which knows."""

    def __init__(
        self, pool: Pool, told: Callable[[bool], None], failed: Callable[[CocaineError], None]
    ) -> None:
        self._pool = pool
        self._told = told
        self._failed = failed

    def offered(self, upstream: Upstream) -> None:
        self._told(bool(self._pool.streams))

    def unserved(self, error: CocaineError) -> None:
        self._failed(error)


__all__ = ["UNUSED", "Passenger", "Pool", "Upstream"]
