"""
What a runtime has to do with others: how it is found, whom it links to, how it spreads load over them.

Node, locator and gateway daemons share this; what there is of it is the configuration's choice.

Source: reference ``node-engine.md`` sections 7, 8 and 9.1.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ..errors import ConfigError
from ..gateway.adhoc import AdhocGateway
from ..gateway.choice import Rules
from ..gateway.ipvs import IpvsGateway, Place
from ..gateway.netlink import NetlinkKernel
from ..gateway.relay import RelayGateway
from ..interfaces import ICluster, IGateway
from ..locator.multicast import Group, MulticastCluster
from ..locator.predefined import PredefinedCluster
from ..locator.service import LocatorService
from ..locator.table import RoutingTable
from ..locator.uplinks import Uplinks
from ..wire.headers import KNOWS_CREDITS
from . import settings
from .house import Runtime

#: Seconds between looks whether the last request has ended.
_LOOK = 0.05


class Neighbours:
    """
    The cluster, the links and the gateway of one runtime; each may be missing.

    :param runtime: whose they are.
    """

    _log = Logger()

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._gateway: IGateway | None = None
        self._uplinks: Uplinks | None = None
        self._cluster: ICluster | None = None

    def locator(self, runtime: Runtime) -> LocatorService:
        """The locator of a runtime with these neighbours; `start` begins to listen to them."""
        config = runtime.config.locator
        if config.gateway is not None:
            self._gateway = make_gateway(runtime, config.gateway)
            if config.cluster is not None:
                self._uplinks = Uplinks(runtime.uuid, self._gateway, runtime.dialer)
        if config.cluster is not None:
            self._cluster = make_cluster(runtime, config.cluster)
        members = None
        if self._uplinks is not None:
            members = self._uplinks.members
        elif self._cluster is not None or config.followed:
            members = dict
        return LocatorService(
            runtime.uuid,
            runtime.directory,
            RoutingTable(runtime.storage, runtime.reactor),
            gateway=self._gateway,
            members=members,
            extra={KNOWS_CREDITS: True, **config.extra_param},
        )

    async def start(self) -> None:
        """
        Be seen, and look around. Call it when everything has been published.

        :raises ConfigError: the gateway cannot work here.
        """
        if self._gateway is not None:
            await self._gateway.start()
        if self._cluster is not None:
            self._cluster.start(self._runtime.uuid, self._runtime.endpoints, self._uplinks)

    async def stop(self) -> None:
        """Be silent, end the requests on their way, let the neighbours go."""
        if self._cluster is not None:
            await self._cluster.stop()
        if self._gateway is not None:
            await self._gateway.stop()
        if isinstance(self._gateway, RelayGateway):
            await self._drain(self._gateway)
        if self._uplinks is not None:
            self._uplinks.stop()

    async def _drain(self, gateway: RelayGateway) -> None:
        clock = self._runtime.reactor
        end = clock.seconds() + self._runtime.config.limits.drain_timeout
        while gateway.in_flight and clock.seconds() < end:
            pause: Deferred[None] = deferLater(clock, _LOOK)
            await pause
        if gateway.in_flight:
            self._log.warn("{count} requests had not ended in time", count=gateway.in_flight)


def make_gateway(runtime: Runtime, config: settings.Gateway) -> IGateway:
    """
    The gateway of the configuration.

    :raises ConfigError: it has no address or ports to offer anything at, or its type does not exist.
    """
    match config.type:
        case "relay":
            rules = Rules(config.tries, config.eject_after, config.eject_time, config.slow_start)
            return RelayGateway(
                runtime.uuid,
                runtime.dialer,
                lambda name, dispatch: runtime.open(f"virtual::{name}", dispatch),
                config.cluster,
                rules,
            )
        case "adhoc":
            return AdhocGateway(config.cluster)
        case "ipvs":
            place = Place(
                runtime.addresses,
                runtime.config.network.shared or (0, 0),
                config.scheduler,
                config.weight,
                config.cluster,
            )
            return IpvsGateway(NetlinkKernel(runtime.reactor), runtime.reactor, place)
    raise ConfigError(f"services.locator.args.gateway.type: {config.type!r} is none of relay, adhoc, ipvs")


def make_cluster(runtime: Runtime, config: settings.Multicast | settings.Predefined) -> ICluster:
    """How this runtime finds others and is found."""
    if isinstance(config, settings.Predefined):
        return PredefinedCluster(runtime.reactor, config.nodes, config.interval)
    group = Group(config.group, config.port, config.interval, config.interface, config.loopback, config.hops)
    return MulticastCluster(runtime.reactor, group)
