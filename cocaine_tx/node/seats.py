"""
The free seats of active workers: `balance.assignment` for the hot path, without looking at every worker.

Workers stand in rows by their number of open channels, so that the least laden is found at once. The pool tells of each
channel's start and end; nothing here is a decision of its own (`favour` makes one). Equals are served in turn.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class Seats(Generic[H]):
    """
    How many channels each active worker has open.

    `take` and `release` cost the same for one worker and for a hundred. A worker not seated (it is starting, sealing,
    gone) is ignored by `release` and `remove`, so its last channels may end at any time.

    :ivar total: open channels of all seated workers.
    """

    __slots__ = ("_concurrency", "_least", "_loads", "_rows", "total")

    def __init__(self, concurrency: int) -> None:
        self._concurrency = concurrency
        self._loads: dict[H, int] = {}
        self._rows: list[dict[H, None]] = [{}]
        self._least = 0  # no row below this one is occupied
        self.total = 0

    def __len__(self) -> int:
        return len(self._loads)

    def load(self, worker: H) -> int:
        """Open channels of a worker; 0 if it is not seated."""
        return self._loads.get(worker, 0)

    def add(self, worker: H) -> None:
        """A worker has become active and has no channel yet."""
        if worker not in self._loads:
            self._loads[worker] = self._least = 0
            self._rows[0][worker] = None

    def remove(self, worker: H) -> int:
        """A worker is not active any more; its number of open channels."""
        load = self._loads.pop(worker, None)
        if load is None:
            return 0
        del self._rows[load][worker]
        self.total -= load
        return load

    def take(self) -> H | None:
        """The least laden worker, now with one channel more; None if all are full or nobody is there."""
        load = self._lowest()
        return None if load is None else self._move_up(next(iter(self._rows[load])), load)

    def take_latest(self) -> H | None:
        """The same, but of equals the one whose number of channels has changed last."""
        load = self._lowest()
        return None if load is None else self._move_up(next(reversed(self._rows[load])), load)

    def take_with(self, worker: H) -> bool:
        """That worker, now with one channel more; False if it is full or not seated."""
        load = self._loads.get(worker)
        if load is None or load >= self._concurrency:
            return False
        self._move_up(worker, load)
        return True

    def _lowest(self) -> int | None:
        """The lowest row with somebody in it, if there is room."""
        rows = self._rows
        load = self._least
        while not rows[load]:
            load += 1
            if load == len(rows):
                self._least = load - 1
                return None
        self._least = load
        return load if load < self._concurrency else None

    def _move_up(self, worker: H, load: int) -> H:
        rows = self._rows
        del rows[load][worker]
        load += 1
        if load == len(rows):
            rows.append({})
        rows[load][worker] = None
        self._loads[worker] = load
        self.total += 1
        return worker

    def release(self, worker: H) -> None:
        """One of the worker's channels has ended."""
        load = self._loads.get(worker)
        if not load:
            return
        del self._rows[load][worker]
        load -= 1
        self._rows[load][worker] = None
        self._loads[worker] = load
        if load < self._least:
            self._least = load
        self.total -= 1
