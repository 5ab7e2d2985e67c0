"""
The routing groups as this locator knows them: read from storage at the start and at each ``refresh``.

The locator's face asks it what a name stands for. Loading is all or nothing: a group that cannot be read leaves those
known before as they were.

Source: reference ``protocol-v12.md`` sections 10.3 and 10.4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from random import getrandbits
from typing import NoReturn, TypeVar

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError, NotFound, RoutingStorageError
from ..interfaces import IStorage
from .routing import Continuum, Groups, seed_key, weights

#: Where groups are kept, and what marks those in use.
COLLECTION = "groups"
TAGS = ("group", "active")
#: Seconds to wait for storage, and between attempts to load the groups of the start.
STORAGE_TIMEOUT = 30.0
RETRY = 5.0

T = TypeVar("T")


class RoutingTable:
    """
    All groups of one locator.

    :param storage: where groups are kept; None for a locator without groups.
    :param clock: for the limits on waiting.
    :param changed: called after each refresh, with the groups loaded by then.
    :ivar groups: those in force.
    """

    _log = Logger()

    def __init__(self, storage: IStorage | None, clock: IReactorTime) -> None:
        self.groups = Groups()
        self.changed: Callable[[Groups], None] = _nobody
        self._storage = storage
        self._clock = clock
        self._lock = DeferredLock()
        self._retry: IDelayedCall | None = None
        self._loading: Deferred[None] | None = None

    def target(self, name: str, seed: bytes) -> str:
        """The name to resolve instead: a member of the group of that name, or the name itself."""
        rings = self.groups.rings
        if name not in rings:
            return name
        return self.groups.target(name, seed_key(seed) if seed else getrandbits(32))

    def start(self) -> Deferred[None]:
        """
        Load all groups; fires after the first attempt, failed or not.

        A failed attempt is repeated until one succeeds: a locator has to serve while its storage is still starting.
        """
        # In turn with refreshes: what was read before one must not take the place of what it has read.
        self._loading = loading = self._lock.run(lambda: Deferred.fromCoroutine(self._begin()))
        return loading

    def stop(self) -> None:
        """No further attempts."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._loading is not None:
            loading, self._loading = self._loading, None
            loading.cancel()
            loading.addErrback(_cancelled)

    async def _begin(self) -> None:
        storage = self._storage
        if storage is None:
            return
        try:
            names = await self._wait(storage.find(COLLECTION, TAGS))
            updates: dict[str, Continuum | None] = {}
            for name in names:
                try:
                    updates[name] = await self._ring(storage, name)
                except RoutingStorageError as problem:
                    self._log.error("{reason}; the group is left out", reason=problem.reason)
        except CocaineError as problem:
            self._log.warn(
                "routing groups cannot be listed: {reason}; trying again in {pause} s",
                reason=problem.reason, pause=RETRY,
            )  # fmt: skip
            self._retry = self._clock.callLater(RETRY, self._again)
            return
        finally:
            self._loading = None
        self._apply(updates)

    def _again(self) -> None:
        self._retry = None
        self.start()

    def refresh(self, names: Collection[str]) -> Deferred[None]:
        """
        Load these groups anew; those that are not tagged any more are forgotten.

        Fails with `RoutingStorageError`, and then nothing has changed. Refreshes take effect in the order asked for.
        """
        return self._lock.run(lambda: Deferred.fromCoroutine(self._refresh(names)))

    async def _refresh(self, names: Collection[str]) -> None:
        storage = self._storage
        updates: dict[str, Continuum | None] = dict.fromkeys(names)
        if storage is not None:
            try:
                active = await self._wait(storage.find(COLLECTION, TAGS))
            except CocaineError as problem:
                raise RoutingStorageError(f"routing groups cannot be listed: {problem.reason}") from problem
            for name in names:
                if name in active:
                    updates[name] = await self._ring(storage, name)
        self._apply(updates)

    def _apply(self, updates: dict[str, Continuum | None]) -> None:
        self.groups = self.groups.changed(updates)
        self.changed(self.groups)

    async def _ring(self, storage: IStorage, name: str) -> Continuum | None:
        try:
            blob = await self._wait(storage.read(COLLECTION, name))
        except NotFound:
            # Removed between the listing and the reading: as if it had not been listed.
            return None
        except CocaineError as problem:
            raise RoutingStorageError(f"routing group {name!r} cannot be read: {problem.reason}") from problem
        return Continuum(weights(blob, name))

    def _wait(self, waiting: Deferred[T]) -> Deferred[T]:
        return waiting.addTimeout(STORAGE_TIMEOUT, self._clock, onTimeoutCancel=_late)


def _late(result: object, seconds: float) -> NoReturn:
    raise RoutingStorageError(f"storage did not answer within {seconds:g} seconds")


def _nobody(groups: Groups) -> None:
    """Nobody follows."""


def _cancelled(failure: Failure) -> None:
    """The daemon stops; nobody asks for the outcome."""
