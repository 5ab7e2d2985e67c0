"""
Ports of the services: pinned by name, from a shared range, or whatever the system gives.

Source: reference ``node-engine.md`` section 1.6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from random import shuffle

from ..errors import PublishError


class Ports:
    """
    Which name has which port.

    :param pinned: fixed ports by name.
    :param shared: first port and the one after the last; None: the system chooses.
    """

    def __init__(self, pinned: Mapping[str, int], shared: tuple[int, int] | None) -> None:
        self._pinned = dict(pinned)
        self._named: dict[str, int] = {}
        free = [] if shared is None else [port for port in range(*shared) if port not in self._pinned.values()]
        # Shuffled, so that a restarted runtime does not meet the clients of another service at once.
        shuffle(free)
        self._free = deque(free)
        self._system = shared is None or shared[1] <= shared[0]

    def take(self, name: str) -> int:
        """
        The port for a service; 0 means that the system chooses.

        :raises PublishError: the name has a port already, or there is none left.
        """
        if name in self._named:
            raise PublishError(f"named port for {name} is already in use")
        port = self._pinned.get(name)
        if port is None:
            if self._system:
                return 0
            if not self._free:
                raise PublishError("network.shared: no ports left for allocation; give a wider range")
            port = self._free.popleft()
        self._named[name] = port
        return port

    def shared(self, name: str) -> bool:
        """Whether another port would do as well for a service, if somebody else has the one that it was given."""
        return name not in self._pinned and not self._system

    def release(self, name: str) -> None:
        """The service is gone; a shared port is used again after all others."""
        port = self._named.pop(name, None)
        if port is not None and name not in self._pinned:
            self._free.append(port)
