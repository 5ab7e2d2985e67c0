"""
The gateway in the kernel: every service of the nodes gets a virtual address here, and the kernel chooses for each
connection.

This class keeps what should be in the kernel's table; `kernel.plan` finds the difference, and `kernel.Kernel` does it.
Only virtual services at our addresses, with ports of ``network.shared``, are ours; everything else is left alone.

A restart loses nothing: entries of an earlier life are known again by the nodes behind them, and what no node has
claimed after a while is drained and removed. A node that goes is given weight 0 first, and leaves the table when its
last flow has ended or the time for that is over.

Source: reference ``node-engine.md`` section 8.2 with its [bug] marks mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import ConfigError
from ..interfaces import Endpoint, IGateway, ServiceInfo
from .backends import CLUSTER, Backend, Backends, weight_of
from .kernel import Destination, Kernel, Table, Virtual, applied, plan

#: Seconds in which nodes may claim what an earlier life left; in which flows may go on at a node that has gone; that a
#: service without nodes keeps its port.
CLAIM, DRAIN, KEEP = 30.0, 60.0, 300.0
#: Seconds between looks at what drains, and between looks at the whole table: it is large, and reading it costs.
LOOK, READ = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """
    Where virtual services are, and how the kernel chooses.

    :ivar addresses: of this host, numeric; one of each family is used.
    :ivar ports: the first one, and the one after the last.
    :ivar weight: of a node without a weight of its own.
    """

    addresses: tuple[str, ...]
    ports: tuple[int, int]
    scheduler: str = "wlc"
    weight: int = 1
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class _Leaving:
    """A destination without a node: it gets nothing new after ``begin``, and is gone after ``end`` at the latest."""

    begin: float
    end: float

    def keep(self, now: float, known: Destination) -> Destination | None:
        """What it should be now."""
        if now < self.begin:
            return Destination(known.weight)
        if known.weight or (known.flows and now < self.end):
            return Destination(0)
        return None


@dataclass(slots=True)
class _Service:
    """A virtual service: its port, what the first node said of it, and who has been behind it."""

    port: int
    info: ServiceInfo
    used: float
    leaving: dict[Endpoint, _Leaving] = field(default_factory=dict)
    answer: ServiceInfo | None = None


@implementer(IGateway)
class IpvsGateway:
    """
    Virtual services in the kernel.

    :param clock: for what takes time.
    :raises ConfigError: no address or no port to offer anything at.
    """

    _log = Logger()
    exclusive = False

    def __init__(self, kernel: Kernel, clock: IReactorTime, place: Place) -> None:
        families: dict[bool, str] = {}
        for address in place.addresses:
            if address in ("0.0.0.0", "::"):
                raise ConfigError("network.hostname: a virtual service cannot be at a wildcard; give an address")
            families.setdefault(":" in address, address)
        if not families:
            raise ConfigError("network.endpoint: the IPVS gateway needs an address")
        if place.ports[1] <= place.ports[0] or place.ports[0] <= 0:
            raise ConfigError("network.shared: shared ports must be specified to use the IPVS gateway")
        self._kernel = kernel
        self._clock = clock
        self._place = place
        self._families = families
        self._backends = Backends()
        self._services: dict[str, _Service] = {}
        self._orphans: dict[Endpoint, dict[Endpoint, _Leaving]] = {}
        self._claimable = 0.0
        self._view: Table = {}
        self._read = 0.0
        self._started = False
        self._working: Deferred[None] | None = None
        self._soon: IDelayedCall | None = None
        self._call: IDelayedCall | None = None

    # -- what nodes offer

    def consume(self, session: object, uuid: str, name: str, info: ServiceInfo, extra: Mapping[str, Any]) -> None:
        if extra.get(CLUSTER, "") != self._place.cluster:
            self._log.debug("{name} of {uuid} belongs to another cluster", name=name, uuid=uuid)
            return
        old = self._backends.of(name).get(uuid)
        self._backends.put(Backend(session, uuid, info, weight_of(extra)), name)
        service = self._services.get(name)
        if service is None:
            port = self._port(info)
            if port is None:
                self._log.error("{name} has no virtual service: widen network.shared", name=name)
                return
            service = self._services[name] = _Service(port, info, self._clock.seconds())
            self._adopt(service)
        if old is not None:
            self._leave(service, old.info)
        for endpoint in self._behind(info):
            service.leaving.pop(endpoint, None)
        self._sync()

    def withdraw(self, session: object, uuid: str, name: str) -> None:
        backend = self._backends.remove(session, uuid, name)
        service = self._services.get(name)
        if backend is not None and service is not None:
            self._leave(service, backend.info)
            self._sync()

    def forget(self, session: object, uuid: str) -> None:
        for name in self._backends.names(session, uuid):
            self.withdraw(session, uuid, name)

    def _leave(self, service: _Service, info: ServiceInfo) -> None:
        now = service.used = self._clock.seconds()
        for endpoint in self._behind(info):
            service.leaving[endpoint] = _Leaving(now, now + DRAIN)

    def _behind(self, info: ServiceInfo) -> list[Endpoint]:
        """A node's endpoints that a virtual service of ours can lead to: one of each family."""
        chosen: dict[bool, Endpoint] = {}
        for endpoint in info.endpoints:
            family = ":" in endpoint[0]
            if family in self._families:
                chosen.setdefault(family, endpoint)
        return list(chosen.values())

    # -- ports

    def _own(self, at: Endpoint) -> bool:
        first, end = self._place.ports
        return at[0] in self._families.values() and first <= at[1] < end

    def _port(self, info: ServiceInfo) -> int | None:
        """The port that leads to this node already, from an earlier life; else a free one."""
        behind = set(self._behind(info))
        for at, destinations in self._orphans.items():
            if behind & destinations.keys():
                return at[1]
        taken = {service.port for service in self._services.values()} | {at[1] for at in self._view}
        return next((port for port in range(*self._place.ports) if port not in taken), None)

    def _adopt(self, service: _Service) -> None:
        """What an earlier life had behind the port stays until its node is heard of, or the time for that is over."""
        for at in [at for at in self._orphans if at[1] == service.port]:
            service.leaving.update(self._orphans.pop(at))

    # -- the table

    def wanted(self) -> Table:
        """What should be in the kernel now."""
        table: dict[Endpoint, Virtual] = {}
        for name, service in self._services.items():
            nodes = [
                (endpoint, Destination(max(1, round(self._place.weight * backend.weight))))
                for backend in self._backends.of(name).values()
                for endpoint in self._behind(backend.info)
            ]
            for six, address in self._families.items():
                at = (address, service.port)
                destinations = self._draining(at, service.leaving)
                destinations.update((to, what) for to, what in nodes if (":" in to[0]) == six)
                if destinations or at in self._view:
                    table[at] = Virtual(self._place.scheduler, destinations)
        for at, leaving in self._orphans.items():
            destinations = self._draining(at, leaving)
            if destinations:
                table[at] = Virtual(self._view[at].scheduler, destinations)
        return table

    def _draining(self, at: Endpoint, leaving: Mapping[Endpoint, _Leaving]) -> dict[Endpoint, Destination]:
        there = self._view.get(at)
        if there is None:
            return {}
        now = self._clock.seconds()
        destinations = {}
        for to, departure in leaving.items():
            known = there.destinations.get(to)
            kept = None if known is None else departure.keep(now, known)
            if kept is not None:
                destinations[to] = kept
        return destinations

    def _drop_unused(self) -> None:
        """Services that have been empty for long give their ports back, and what has left is forgotten."""
        now = self._clock.seconds()
        for name, service in list(self._services.items()):
            for to in [to for to in service.leaving if not self._listed(service.port, to)]:
                del service.leaving[to]
            if not service.leaving and not self._backends.of(name) and now - service.used >= KEEP:
                del self._services[name]
        for at in [at for at in self._orphans if at not in self._view]:
            del self._orphans[at]

    def _sync(self) -> None:
        """Bring the kernel's table up to date, soon and in one go."""
        if self._started and self._soon is None:
            self._soon = self._clock.callLater(0, self._begin)

    def _begin(self) -> None:
        self._soon = None
        if self._working is None:
            self._working = Deferred.fromCoroutine(self._work())
            self._working.addErrback(self._failed).addCallback(self._worked)
        else:
            self._working.addCallback(lambda _: self._sync())

    async def _work(self) -> None:
        now = self._clock.seconds()
        if now >= self._read:
            self._view = await self._kernel.read()
            self._read = now + READ
        self._drop_unused()
        view = self._view
        operations = plan(self.wanted(), view, self._own)
        failures = await self._kernel.apply(operations) if operations else ()
        for operation, problem in failures:
            self._log.warn("{operation}: {problem}", operation=operation, problem=problem)
        if failures:
            # Somebody else has changed the table: look before the next attempt.
            self._read = 0.0
        failed = {id(operation) for operation, _ in failures}
        self._view = applied(view, [operation for operation in operations if id(operation) not in failed])
        self._answer()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the kernel's table cannot be brought up to date", failure)

    def _worked(self, _: object) -> None:
        self._working = None

    def _answer(self) -> None:
        """Where clients are sent now: addresses that lead to somebody."""
        for name, service in self._services.items():
            places = [(address, service.port) for address in self._families.values()]
            endpoints = tuple(at for at in places if self._open(at)) if self._backends.of(name) else ()
            if not endpoints:
                service.answer = None
            elif service.answer is None or service.answer.endpoints != endpoints:
                service.answer = ServiceInfo(endpoints, service.info.version, service.info.graph)

    def _open(self, at: Endpoint) -> bool:
        virtual = self._view.get(at)
        return virtual is not None and any(destination.weight for destination in virtual.destinations.values())

    def _listed(self, port: int, endpoint: Endpoint) -> bool:
        return any(at[1] == port and endpoint in virtual.destinations for at, virtual in self._view.items())

    # -- where clients go

    def resolve(self, name: str) -> ServiceInfo | None:
        service = self._services.get(name)
        return None if service is None else service.answer

    # -- life

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        await self._kernel.start()
        self._view = await self._kernel.read()
        now = self._clock.seconds()
        self._read = now + READ
        self._claimable = now + CLAIM
        departure = _Leaving(self._claimable, self._claimable + DRAIN)
        self._orphans = {
            at: dict.fromkeys(virtual.destinations, departure) for at, virtual in self._view.items() if self._own(at)
        }
        self._started = True
        self._look()

    def _look(self) -> None:
        self._call = self._clock.callLater(LOOK, self._look)
        now = self._clock.seconds()
        draining = any(service.leaving for service in self._services.values())
        if draining or (self._orphans and now >= self._claimable):
            # How many flows are left is known to the kernel only.
            self._read = 0.0
        if now >= self._read:
            self._sync()

    def stop(self) -> Deferred[None]:
        """Leave the table as it is: flows go on, and the next start takes it over."""
        self._started = False
        for call in (self._call, self._soon):
            if call is not None and call.active():
                call.cancel()
        waiting = self._working
        if waiting is None:
            return self._kernel.stop()
        return waiting.addCallback(lambda _: self._kernel.stop())


__all__: Sequence[str] = ["CLAIM", "DRAIN", "LOOK", "IpvsGateway", "Place"]
