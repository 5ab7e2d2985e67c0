"""
The directory of one runtime: the services it offers, and those who follow it.

The locator's face asks it, rooms add to it, gateways elsewhere follow it through ``connect``. It holds what is so now,
never a history.

Source: reference ``node-engine.md`` section 7.6, ``protocol-v12.md`` 10.2, ``observed-runtime.md`` 19.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidArgument
from ..interfaces import ServiceInfo

#: Receives services that have appeared or changed; one without endpoints has gone.
Follower = Callable[[Mapping[str, ServiceInfo]], None]


def wire_form(services: Mapping[str, ServiceInfo]) -> dict[str, list[Any]]:
    """Services as the ``connect`` stream carries them: ``{name: [[[address, port], ...], version, graph]}``."""
    return {
        name: [[list(endpoint) for endpoint in info.endpoints], info.version, info.graph]
        for name, info in services.items()
    }


class Directory:
    """
    Local services by name.

    Two kinds of followers: *peers* (the ``connect`` streams, one for each caller's uuid) are not told of restricted
    services; *observers* (this runtime's own gateway) are. Nobody is told of the locator itself, which everybody
    reaches another way. A follower must not raise. It may change the directory from within the call: everybody hears
    of all changes in the order in which they were made.

    :param restricted: names that stay on this host.
    :param own: the name under which the locator itself is listed.
    """

    def __init__(self, restricted: Collection[str] = (), own: str = "locator") -> None:
        self._services: dict[str, ServiceInfo] = {}
        self._unannounced = frozenset({*restricted, own})
        self._own = own
        self._peers: dict[str, Follower] = {}
        self._observers: list[Follower] = []
        self._untold: deque[tuple[str, ServiceInfo]] = deque()
        self._telling = False

    def __contains__(self, name: str) -> bool:
        return name in self._services

    def __iter__(self) -> Iterator[str]:
        """Names in alphabetical order."""
        return iter(sorted(self._services))

    def __len__(self) -> int:
        return len(self._services)

    def find(self, name: str) -> ServiceInfo | None:
        """The service of that name here, or None."""
        return self._services.get(name)

    def add(self, name: str, info: ServiceInfo) -> None:
        """
        A service is offered from now on.

        :raise InvalidArgument: the name is in use; the service that has it is left alone.
        """
        if name in self._services:
            raise InvalidArgument(f"service '{name}' already exists")
        self._services[name] = info
        self._tell(name, info)

    def move(self, name: str, info: ServiceInfo) -> None:
        """A listed service answers elsewhere from now on; an unlisted one stays unlisted."""
        if name in self._services and self._services[name] != info:
            self._services[name] = info
            self._tell(name, info)

    def remove(self, name: str) -> None:
        """A service is not offered any more; an unlisted name is ignored."""
        info = self._services.pop(name, None)
        if info is not None:
            self._tell(name, replace(info, endpoints=()))

    def follow(self, uuid: str, peer: Follower) -> Callable[[], None]:
        """
        Send a peer the snapshot (perhaps empty) now and each change from then on.

        A second call for the same uuid replaces the first.

        :return: ends this following, and never a later one of the same uuid.
        """
        self._peers[uuid] = peer
        peer({name: info for name, info in self._services.items() if name not in self._unannounced})

        def end() -> None:
            if self._peers.get(uuid) is peer:
                del self._peers[uuid]

        return end

    def observe(self, observer: Follower) -> Callable[[], None]:
        """
        Tell a part of this runtime of all services but the locator, restricted ones too: first those listed now.

        :return: ends the observation.
        """
        self._observers.append(observer)
        observer({name: info for name, info in self._services.items() if name != self._own})

        def end() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return end

    def peers(self) -> tuple[str, ...]:
        """Uuids of those who follow."""
        return tuple(self._peers)

    def _tell(self, name: str, info: ServiceInfo) -> None:
        self._untold.append((name, info))
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                self._tell_all(*self._untold.popleft())
        finally:
            self._telling = False

    def _tell_all(self, name: str, info: ServiceInfo) -> None:
        change = {name: info}
        if name != self._own:
            for observer in tuple(self._observers):
                if observer in self._observers:
                    observer(change)
        if name not in self._unannounced:
            for uuid, peer in tuple(self._peers.items()):
                if self._peers.get(uuid) is peer:
                    peer(change)
