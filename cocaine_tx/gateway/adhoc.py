"""
The simplest gateway: whoever asks is sent to one of the nodes, and talks to it directly.

Source: reference ``node-engine.md`` section 8.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate
from random import choices
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from ..interfaces import IGateway, ServiceInfo
from .backends import CLUSTER, Backend, Backends, weight_of


@implementer(IGateway)
class AdhocGateway:
    """
    A node's own endpoint, by weighted chance.

    :param cluster: only nodes whose ``x-cocaine-cluster`` label equals this are used.
    """

    _log = Logger()
    exclusive = False

    def __init__(self, cluster: str = "") -> None:
        self._cluster = cluster
        self._backends = Backends()
        self._draws: dict[str, Callable[[], ServiceInfo]] = {}

    def consume(self, session: object, uuid: str, name: str, info: ServiceInfo, extra: Mapping[str, Any]) -> None:
        if extra.get(CLUSTER, "") != self._cluster:
            self._log.debug("{name} of {uuid} belongs to another cluster", name=name, uuid=uuid)
            return
        self._backends.put(Backend(session, uuid, info, weight_of(extra)), name)
        self._draws.pop(name, None)

    def withdraw(self, session: object, uuid: str, name: str) -> None:
        if self._backends.remove(session, uuid, name) is not None:
            self._draws.pop(name, None)

    def forget(self, session: object, uuid: str) -> None:
        for name in self._backends.names(session, uuid):
            self.withdraw(session, uuid, name)

    def resolve(self, name: str) -> ServiceInfo | None:
        draw = self._draws.get(name)
        if draw is None:
            offers = self._backends.of(name)
            if not offers:
                return None
            draw = self._draws[name] = _lottery(offers)
        return draw()

    def of(self, uuid: str, name: str) -> ServiceInfo | None:
        """What one node offers."""
        backend = self._backends.of(name).get(uuid)
        return None if backend is None else backend.info

    def start(self) -> Deferred[None]:
        return succeed(None)

    def stop(self) -> Deferred[None]:
        return succeed(None)


def _lottery(offers: Mapping[str, Backend]) -> Callable[[], ServiceInfo]:
    infos = [backend.info for backend in offers.values()]
    if len(infos) == 1:
        return lambda: infos[0]
    shares = list(accumulate(backend.weight for backend in offers.values()))
    return lambda: choices(infos, cum_weights=shares)[0]
