"""
Routing groups: one name for several versions of an app, each with a weight.

A group is a ring of points. A seed always finds the same member, no seed finds a random one; both as the original does,
so that a proxy that follows the ``routing`` stream and a locator that is asked agree.

Source: reference ``protocol-v12.md`` section 10.4; points and picks were compared with the running original
(``observed-runtime.md`` 24).
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import msgpack

from ..errors import RoutingStorageError
from ..wire.frames import mapped

#: Ring steps for each member on average; each gives four points.
STEPS = 64
#: Limits of one group: members, and the largest weight (the sum stays exact in a double).
MEMBER_LIMIT = 512
WEIGHT_LIMIT = 2**32 - 1


def weights(blob: bytes, group: str) -> dict[str, int]:
    """
    Read a stored group: a map of app to weight, at least one weight above 0.

    :raise RoutingStorageError: ``[10, 2]``, saying what is wrong with it.
    """
    try:
        stored = msgpack.unpackb(
            blob, raw=False, unicode_errors="surrogateescape", strict_map_key=False, object_pairs_hook=mapped
        )
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise _unusable(group, "it cannot be decoded") from e
    if not isinstance(stored, dict):
        raise _unusable(group, "it is not a map")
    if len(stored) > MEMBER_LIMIT:
        raise _unusable(group, f"it has more than {MEMBER_LIMIT} members")
    members: dict[str, int] = {}
    for key, weight in stored.items():
        app = key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else key
        if not isinstance(app, str) or not app:
            raise _unusable(group, "an app's name must be text that is not empty")
        if type(weight) is not int or not 0 <= weight <= WEIGHT_LIMIT:
            raise _unusable(group, f"the weight of {app!r} must be a whole number from 0 to {WEIGHT_LIMIT}")
        members[app] = weight
    if not any(members.values()):
        raise _unusable(group, "the sum of its weights must be positive")
    return members


def _unusable(group: str, why: str) -> RoutingStorageError:
    return RoutingStorageError(f"routing group {group!r}: {why}")


def seed_key(seed: bytes) -> int:
    """Where a seed stands on every ring: 32 bits."""
    a, b, c, d = _words(hashlib.md5(seed, usedforsecurity=False).digest())
    return a ^ b ^ c ^ d


def _words(digest: bytes) -> tuple[int, int, int, int]:
    a, b, c, d = (int.from_bytes(digest[start : start + 4], "little") for start in (0, 4, 8, 12))
    return a, b, c, d


class Continuum:
    """
    The ring of one group.

    :param members: app to weight, as `weights` returns it.
    """

    __slots__ = ("_apps", "_points")

    def __init__(self, members: Mapping[str, int]) -> None:
        total = sum(members.values())
        ring: list[tuple[int, str]] = []
        for app in sorted(members, key=_raw):
            # The order of these operations is the original's, and so is rounding halves away from zero.
            steps = math.floor(members[app] / total * STEPS * len(members) + 0.5)
            for step in range(steps):
                digest = hashlib.md5(_raw(app) + step.to_bytes(8, "little"), usedforsecurity=False).digest()
                ring += [(point, app) for point in _words(digest)]
        ring.sort()
        self._points = [point for point, _ in ring]
        self._apps = [app for _, app in ring]

    def __len__(self) -> int:
        return len(self._points)

    def pick(self, key: int) -> str:
        """The member at a key of 32 bits: `seed_key` of a seed, or any random one."""
        at = bisect_right(self._points, key)
        return self._apps[at if at < len(self._apps) else 0]

    def points(self) -> list[list[Any]]:
        """The ring as the ``routing`` stream carries it: ``[[point, app], ...]``, ascending."""
        return [[point, app] for point, app in zip(self._points, self._apps, strict=True)]


def _raw(app: str) -> bytes:
    return app.encode("utf-8", "surrogateescape")


class Groups:
    """
    All routing groups at one moment; a refresh makes a new value.

    >>> Groups({"app": Continuum({"app_v1": 1, "app_v2": 3})}).target("app", 3243234095)
    'app_v1'
    """

    __slots__ = ("rings",)

    def __init__(self, rings: Mapping[str, Continuum] = MappingProxyType({})) -> None:
        self.rings = MappingProxyType(dict(rings))

    def changed(self, updates: Mapping[str, Continuum | None]) -> Self:
        """The groups with some replaced, and those given as None removed."""
        merged: dict[str, Continuum | None] = {**self.rings, **updates}
        return type(self)({name: ring for name, ring in merged.items() if ring is not None})

    def target(self, name: str, key: int) -> str:
        """What to resolve instead of ``name``: a member if it is a group, itself otherwise. Groups do not nest."""
        ring = self.rings.get(name)
        return name if ring is None else ring.pick(key)

    def as_map(self) -> dict[str, list[list[Any]]]:
        """The value of one write of the ``routing`` stream."""
        return {name: ring.points() for name, ring in self.rings.items()}
