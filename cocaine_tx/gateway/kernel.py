"""
The kernel's load balancing table as values, and the pure function that finds what has to be changed in it.

`netlink` reads and changes the real table; `cocaine_tx.testing.kernel` is one in memory. Both keep to `Kernel`.

Source: reference ``node-engine.md`` section 8.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from twisted.internet.defer import Deferred

from ..interfaces import Endpoint


@dataclass(frozen=True, slots=True)
class Destination:
    """
    A real server behind a virtual service; always reached by masquerading.

    :ivar weight: 0: nothing new goes there, what is established goes on.
    :ivar flows: established connections, as the kernel counts them.
    """

    weight: int
    flows: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Virtual:
    """A virtual TCP service: how it chooses, and among whom."""

    scheduler: str
    destinations: Mapping[Endpoint, Destination] = field(default_factory=dict)


#: Virtual services by address and port.
Table = Mapping[Endpoint, Virtual]


@dataclass(frozen=True, slots=True)
class AddService:
    """A virtual service that is not there."""

    at: Endpoint
    scheduler: str


@dataclass(frozen=True, slots=True)
class SetService:
    """Another scheduler; flows go on."""

    at: Endpoint
    scheduler: str


@dataclass(frozen=True, slots=True)
class DropService:
    """A virtual service, with what it has left."""

    at: Endpoint


@dataclass(frozen=True, slots=True)
class AddDestination:
    """A server that is not there."""

    at: Endpoint
    to: Endpoint
    weight: int


@dataclass(frozen=True, slots=True)
class SetDestination:
    """Another weight; flows go on."""

    at: Endpoint
    to: Endpoint
    weight: int


@dataclass(frozen=True, slots=True)
class DropDestination:
    """A server; flows to it end."""

    at: Endpoint
    to: Endpoint


Operation = AddService | SetService | DropService | AddDestination | SetDestination | DropDestination


def plan(wanted: Table, kernel: Table, own: Callable[[Endpoint], bool]) -> list[Operation]:
    """
    What makes the kernel's table the wanted one.

    Additions come first, so that a service never has fewer servers than before and after. What is as wanted is not
    touched, and neither is what is not our own.

    :param own: whether a virtual service at that place is ours to change.
    """
    add: list[Operation] = []
    change: list[Operation] = []
    drop: list[Operation] = []
    for at, virtual in wanted.items():
        there = kernel.get(at)
        if there is None:
            add.append(AddService(at, virtual.scheduler))
            there = Virtual(virtual.scheduler)
        elif there.scheduler != virtual.scheduler:
            change.append(SetService(at, virtual.scheduler))
        for to, destination in virtual.destinations.items():
            known = there.destinations.get(to)
            if known is None:
                add.append(AddDestination(at, to, destination.weight))
            elif known.weight != destination.weight:
                change.append(SetDestination(at, to, destination.weight))
        drop += [DropDestination(at, to) for to in there.destinations if to not in virtual.destinations]
    drop += [DropService(at) for at in kernel if at not in wanted and own(at)]
    return add + change + drop


def applied(table: Table, operations: Sequence[Operation]) -> dict[Endpoint, Virtual]:
    """The table after these operations, each taken on its own; those that do not fit are without effect."""
    made = {at: Virtual(virtual.scheduler, dict(virtual.destinations)) for at, virtual in table.items()}
    for operation in operations:
        there = made.get(operation.at)
        match operation:
            case AddService(at, scheduler):
                made.setdefault(at, Virtual(scheduler, {}))
            case SetService(at, scheduler) if there is not None:
                made[at] = Virtual(scheduler, there.destinations)
            case DropService(at):
                made.pop(at, None)
            case AddDestination(at, to, weight) | SetDestination(at, to, weight) if there is not None:
                flows = there.destinations[to].flows if to in there.destinations else 0
                made[at] = Virtual(there.scheduler, {**there.destinations, to: Destination(weight, flows)})
            case DropDestination(at, to) if there is not None:
                rest = {place: what for place, what in there.destinations.items() if place != to}
                made[at] = Virtual(there.scheduler, rest)
    return made


class Kernel(Protocol):
    """Whoever has the table."""

    def start(self) -> Deferred[None]:
        "Take hold of it. Fails with `ConfigError` when this host or this user cannot."

    def read(self) -> Deferred[Table]:
        "All virtual TCP services, ours and others'."

    def apply(self, operations: Sequence[Operation]) -> Deferred[Sequence[tuple[Operation, str]]]:
        "Do them in order; fires with those that failed, and why."

    def stop(self) -> Deferred[None]:
        "Let go of it; the table stays."
