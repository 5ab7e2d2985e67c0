"""
Who serves what, by which link it is known: the register under every gateway.

A registration belongs to the session that brought it. A newer session of the same node takes it over, and what an older
one then takes back is ignored.

Source: reference ``node-engine.md`` sections 7.5 and 8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..interfaces import ServiceInfo

#: The label of a cluster; nodes of others are not used.
CLUSTER = "x-cocaine-cluster"
#: The label of a node's capacity beside the others', a number above 0. Ours; 1 without it.
WEIGHT = "x-cocaine-weight"


def weight_of(extra: Mapping[str, Any]) -> float:
    """A node's weight by its label; what is no number from 0.001 to 1000 counts as 1."""
    value = extra.get(WEIGHT, 1)
    try:
        weight = float(value)
    except (TypeError, ValueError):
        return 1.0
    return weight if 0.001 <= weight <= 1000 else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """One node's offer of one service."""

    session: object
    uuid: str
    info: ServiceInfo
    weight: float


class Backends:
    """Offers by service name and node."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, Backend]] = {}
        self._sessions: dict[object, set[tuple[str, str]]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def of(self, name: str) -> Mapping[str, Backend]:
        """The offers of a service by node."""
        return self._names.get(name, {})

    def put(self, backend: Backend, name: str) -> None:
        """The node offers the service there; replaces its earlier offer, whoever brought it."""
        offers = self._names.setdefault(name, {})
        old = offers.get(backend.uuid)
        if old is not None and old.session != backend.session:
            self._sessions.get(old.session, set()).discard((backend.uuid, name))
        offers[backend.uuid] = backend
        self._sessions.setdefault(backend.session, set()).add((backend.uuid, name))

    def remove(self, session: object, uuid: str, name: str) -> Backend | None:
        """The offer ends, if it is this session's; returns it."""
        offers = self._names.get(name)
        backend = None if offers is None else offers.get(uuid)
        if offers is None or backend is None or backend.session != session:
            return None
        del offers[uuid]
        if not offers:
            del self._names[name]
        known = self._sessions.get(session)
        if known is not None:
            known.discard((uuid, name))
            if not known:
                del self._sessions[session]
        return backend

    def names(self, session: object, uuid: str) -> list[str]:
        """What the node offers by this session, in alphabetical order."""
        return sorted(name for owner, name in self._sessions.get(session, ()) if owner == uuid)
