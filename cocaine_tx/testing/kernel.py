"""A kernel's load balancing table in memory, and what every such table has to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ..gateway.kernel import (
    AddDestination,
    AddService,
    Destination,
    DropDestination,
    DropService,
    Kernel,
    Operation,
    SetDestination,
    SetService,
    Table,
    Virtual,
    applied,
)
from ..interfaces import Endpoint


class MemoryKernel:
    """
    Keeps to `cocaine_tx.gateway.kernel.Kernel`.

    :ivar table: what is in it; a test may put in what others put in a real one.
    :ivar log: every operation that changed it.
    """

    def __init__(self) -> None:
        self.table: dict[Endpoint, Virtual] = {}
        self.log: list[Operation] = []

    def start(self) -> Deferred[None]:
        return succeed(None)

    def read(self) -> Deferred[Table]:
        return succeed(dict(self.table))

    def apply(self, operations: Sequence[Operation]) -> Deferred[Sequence[tuple[Operation, str]]]:
        failures = []
        for operation in operations:
            problem = self._problem(operation)
            if problem:
                failures.append((operation, problem))
                continue
            made = applied(self.table, [operation])
            if made != self.table:
                self.log.append(operation)
            self.table = made
        return succeed(failures)

    def _problem(self, operation: Operation) -> str:
        there = self.table.get(operation.at)
        match operation:
            case SetService() if there is None:
                return "No such process"
            case AddDestination() | SetDestination() if there is None:
                return "No such process"
            case SetDestination(_, to, _) if there is not None and to not in there.destinations:
                return "No such file or directory"
        return ""

    def flow(self, at: Endpoint, to: Endpoint, flows: int) -> None:
        """Some connections are established there."""
        virtual = self.table[at]
        weight = virtual.destinations[to].weight
        self.table[at] = Virtual(virtual.scheduler, {**virtual.destinations, to: Destination(weight, flows)})

    def stop(self) -> Deferred[None]:
        return succeed(None)


#: A place that a contract may use.
AT: Endpoint = ("127.0.0.1", 18080)
ONE: Endpoint = ("127.0.0.1", 18081)
TWO: Endpoint = ("127.0.0.1", 18082)


def kernel_contract(make: Callable[[], Kernel]) -> type:
    """
    A mixin of tests for a trial ``TestCase``.

    :param make: a table that nobody else changes meanwhile.
    """

    class Contract:
        """What is written is read."""

        async def _started(self) -> Kernel:
            kernel = make()
            await kernel.start()
            case: Any = self
            case.addCleanup(kernel.stop)
            await kernel.apply([DropService(AT)])
            case.addCleanup(kernel.apply, [DropService(AT)])
            return kernel

        def _check(self, seen: object, expected: object) -> None:
            case: Any = self
            case.assertEqual(seen, expected)

        async def test_written_and_read(self) -> None:
            """Services and destinations are there as they were written."""
            kernel = await self._started()
            done = await kernel.apply([AddService(AT, "rr"), AddDestination(AT, ONE, 1), AddDestination(AT, TWO, 5)])
            self._check(list(done), [])
            table = await kernel.read()
            self._check(table[AT], Virtual("rr", {ONE: Destination(1), TWO: Destination(5)}))

        async def test_changed(self) -> None:
            """Weights and schedulers can be changed, and destinations taken out."""
            kernel = await self._started()
            await kernel.apply([AddService(AT, "rr"), AddDestination(AT, ONE, 1), AddDestination(AT, TWO, 1)])
            done = await kernel.apply([SetDestination(AT, ONE, 0), SetService(AT, "wlc"), DropDestination(AT, TWO)])
            self._check(list(done), [])
            table = await kernel.read()
            self._check(table[AT], Virtual("wlc", {ONE: Destination(0)}))

        async def test_twice(self) -> None:
            """What is so already is no failure."""
            kernel = await self._started()
            operations: list[Operation] = [AddService(AT, "rr"), AddDestination(AT, ONE, 1)]
            await kernel.apply(operations)
            self._check(list(await kernel.apply(operations)), [])
            away: list[Operation] = [DropDestination(AT, ONE), DropService(AT)]
            await kernel.apply(away)
            self._check(list(await kernel.apply([DropService(AT)])), [])
            self._check(AT in await kernel.read(), False)

        async def test_failure(self) -> None:
            """One that cannot be done is told, and the others are done."""
            kernel = await self._started()
            wrong = SetDestination(AT, ONE, 3)
            done = await kernel.apply([wrong, AddService(AT, "rr")])
            self._check([operation for operation, _ in done], [wrong])
            self._check((await kernel.read())[AT], Virtual("rr", {}))

    return Contract
