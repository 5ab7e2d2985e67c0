"""
The gateway that stands in the middle: each app has one address here, and each of its requests finds its own node.

Only services that speak the app protocol are relayed; clients are sent to all others directly, and to this host's own
first. A virtual service's port is opened when somebody asks for the app, and closed some time after its last node.

Source: reference ``node-engine.md`` section 8.3, which recommends this one as the default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import CocaineError
from ..interfaces import IGateway, Publication, ServiceInfo
from ..rpc.client import Dialer
from ..rpc.dispatch import Dispatch
from ..wire.headers import KNOWS_CREDITS
from .adhoc import AdhocGateway
from .backends import CLUSTER, weight_of
from .choice import Rules
from .virtual import VirtualApp, app_protocol

#: Seconds between looks at nodes that say nothing.
WATCH = 0.5
#: Seconds between looks for what nobody uses any more, and how long an app without nodes keeps its port.
SWEEP, KEEP = 15.0, 300.0
#: Most apps; more are not believed.
APPS = 20_000

#: Opens a port of this host for a virtual service and says where it is; it is not announced to anybody.
Open = Callable[[str, Dispatch], Publication]


@dataclass(slots=True)
class _Entry:
    app: VirtualApp
    opened: Publication | None = None


@implementer(IGateway)
class RelayGateway:
    """
    Virtual services for apps, and direct addresses for the rest.

    :param uuid: our own: for services that are no apps, this host's own ones are preferred.
    :param dialer: connects to nodes; its reactor is the clock.
    :param open_port: opens a virtual service's port.
    :param chance: numbers from 0 up to 1, for the choice of nodes.
    :param cluster: only nodes whose ``x-cocaine-cluster`` label equals this are used.
    """

    _log = Logger()
    exclusive = True

    def __init__(
        self,
        uuid: str,
        dialer: Dialer,
        open_port: Open,
        cluster: str = "",
        rules: Rules = Rules(),
        chance: Callable[[], float] = random,
    ) -> None:
        self._uuid = uuid
        self._dialer = dialer
        self._open = open_port
        self._cluster = cluster
        self._rules = rules
        self._chance = chance
        self._apps: dict[str, _Entry] = {}
        self._sessions: dict[tuple[object, str], set[str]] = {}
        self._others = AdhocGateway(cluster)
        self._watching: IDelayedCall | None = None
        self._swept = 0.0

    # -- what nodes offer

    def consume(self, session: object, uuid: str, name: str, info: ServiceInfo, extra: Mapping[str, Any]) -> None:
        if extra.get(CLUSTER, "") != self._cluster:
            self._log.debug("{name} of {uuid} belongs to another cluster", name=name, uuid=uuid)
            return
        protocol = app_protocol(info)
        if protocol is None:
            self._leave(session, uuid, name)
            self._others.consume(session, uuid, name, info, extra)
            return
        self._others.withdraw(session, uuid, name)
        entry = self._apps.get(name)
        if entry is None:
            if len(self._apps) >= APPS:
                self._log.warn("{name} is left out: there are {limit} apps already", name=name, limit=APPS)
                return
            entry = self._apps[name] = _Entry(VirtualApp(name, self._dialer, self._rules, self._chance))
        entry.app.consume(session, uuid, info, protocol, weight_of(extra), extra.get(KNOWS_CREDITS) is True)
        self._sessions.setdefault((session, uuid), set()).add(name)

    def withdraw(self, session: object, uuid: str, name: str) -> None:
        self._leave(session, uuid, name)
        self._others.withdraw(session, uuid, name)

    def _leave(self, session: object, uuid: str, name: str) -> None:
        entry = self._apps.get(name)
        if entry is not None:
            entry.app.withdraw(session, uuid)
        self._sessions.get((session, uuid), set()).discard(name)

    def forget(self, session: object, uuid: str) -> None:
        for name in sorted(self._sessions.pop((session, uuid), ())):
            entry = self._apps.get(name)
            if entry is not None:
                entry.app.forget(session, uuid)
        self._others.forget(session, uuid)

    # -- where clients go

    def resolve(self, name: str) -> ServiceInfo | None:
        entry = self._apps.get(name)
        if entry is None or not entry.app.offers:
            return self._others.of(self._uuid, name) or self._others.resolve(name)
        if entry.opened is None:
            try:
                entry.opened = self._open(name, entry.app.dispatch)
            except CocaineError as problem:
                self._log.error("{name} cannot be offered here: {reason}", name=name, reason=problem.reason)
                return None
        return entry.opened.info

    @property
    def in_flight(self) -> int:
        """Requests on their way."""
        return sum(len(entry.app.errands) for entry in self._apps.values())

    # -- life

    def start(self) -> Deferred[None]:
        self._swept = self._dialer.reactor.seconds()
        self._watch()
        return succeed(None)

    def _watch(self) -> None:
        clock = self._dialer.reactor
        self._watching = clock.callLater(WATCH, self._watch)
        for entry in self._apps.values():
            entry.app.watch()
        if clock.seconds() - self._swept >= SWEEP:
            self._swept = clock.seconds()
            self._sweep()

    def _sweep(self) -> None:
        clock = self._dialer.reactor
        for name, entry in list(self._apps.items()):
            app = entry.app
            app.sweep()
            if app.emptied is not None and clock.seconds() - app.emptied >= KEEP and not app.errands:
                del self._apps[name]
                app.stop()
                if entry.opened is not None:
                    entry.opened.withdraw()

    def stop(self) -> Deferred[None]:
        """Close the ports; requests on their way go on until their clients' connections are closed."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        for entry in self._apps.values():
            if entry.opened is not None:
                entry.opened.withdraw()
                entry.opened = None
        return succeed(None)
