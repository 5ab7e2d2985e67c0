"""
All apps that the proxy is connected to: name to pool, kept up to date.

Source: reference ``http-tools-sdk.md`` sections A.2 and A.6.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..rpc.client import Dialer, Remote
from ..wire.idl import parse_protocol
from .locators import Locators
from .upstream import UNUSED, Pool

#: Seconds between looks at the pools, and between questions whether the locator is there.
TEND, CHECK = 1.0, 5.0


class Upstreams:
    """
    :param size: connections for each app.
    :param lifespan: seconds of a connection.
    :param sizes: app to its own size.
    """

    def __init__(
        self, dialer: Dialer, locators: Locators, size: int, lifespan: float, sizes: Mapping[str, int]
    ) -> None:
        self.locators = locators
        self.pools: dict[str, Pool] = {}
        self.size, self.lifespan, self.sizes = size, lifespan, sizes
        self._dialer = dialer
        self._timer: IDelayedCall | None = None
        self._checked = -CHECK
        locators.regrouped = self._regrouped

    def start(self) -> None:
        """Begin to look after the pools."""
        self.locators.follow()
        self._tend()

    def pool(self, app: str) -> Pool:
        """The pool for an app or a routing group; it lasts while it has connections, or somebody waits for one."""
        found = self.pools.get(app)
        if found is None:
            size = self.sizes.get(app, self.size)
            found = self.pools[app] = Pool(app, self._dialer, self.locators, size, self.lifespan)
        return found

    async def reach(self, service: str) -> Remote:
        """
        A connection of its own to any service, which the caller closes.

        :raises ServiceNotFound: no such service.
        :raises ConnectionGone: it cannot be connected to.
        """
        info = await self.locators.resolve(service)
        return await self._dialer.connect(info.endpoints, parse_protocol(service, info.version, info.graph))

    def resize(self, size: int, lifespan: float, sizes: Mapping[str, int]) -> None:
        """New settings, for pools that exist as well."""
        self.size, self.lifespan, self.sizes = size, lifespan, sizes
        for name, pool in self.pools.items():
            pool.size = sizes.get(name, size)
            pool.lifespan = lifespan

    def _regrouped(self, names: set[str]) -> None:
        for name in names:
            if name in self.pools:
                self.pools[name].retire()

    def _tend(self) -> None:
        now = self._dialer.reactor.seconds()
        self._timer = self._dialer.reactor.callLater(TEND, self._tend)
        for name, pool in list(self.pools.items()):
            pool.tend(now)
            if pool.used + UNUSED < now and pool.unused:
                pool.close()
            if pool.forgotten:
                del self.pools[name]
        if self._checked + CHECK <= now:
            self._checked = now
            Deferred.fromCoroutine(self.locators.check())

    def stop(self) -> None:
        """Close everything."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self.locators.stop()
        for pool in self.pools.values():
            pool.close()
