"""
Stored maps, read with complaints: what `manifest` and `profile` share.

Objects come from storage as msgpack written by tools of every age: old raw for text and bytes alike, sometimes ``bin``.
All of it is read as text; bytes that are not UTF-8 survive by ``surrogateescape``.

msgpack is taken because the stored objects are msgpack; nothing else here depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack

from ..errors import InvalidArgument, UncaughtError
from ..wire.frames import mapped

#: Deeper nesting than this has no use in a manifest or a profile.
DEPTH_LIMIT = 32
#: The largest count and the longest time (68 years) that a stored map may ask for.
COUNT_LIMIT = SECONDS_LIMIT = 2**31 - 1


def decode(blob: bytes, what: str) -> dict[str, Any]:
    """
    The map inside a stored object, with all raw and ``bin`` turned to text.

    :param what: how complaints call the object, such as ``manifest of app 'echo'``.
    :raise UncaughtError: not msgpack, or not a map: pair ``[7, 7]`` as in the original (``node-engine.md`` 2.2).
    """
    try:
        value = msgpack.unpackb(
            blob, raw=False, unicode_errors="surrogateescape", strict_map_key=False, object_pairs_hook=mapped
        )
        value = _text(value, DEPTH_LIMIT)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise UncaughtError(f"{what} cannot be decoded: {UncaughtError.default_reason}") from e
    if not isinstance(value, dict):
        raise UncaughtError(f"{what} is not a map: {UncaughtError.default_reason}")
    return value


def _text(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {_text(key, depth - 1): _text(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_text(item, depth - 1) for item in value]
    return value


def shown(value: object) -> str:
    """A value as a complaint names it: short, on one line, its kind visible."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f"text {_cut(ascii(value))}"
        case Mapping():
            return "a map"
        case list() | tuple():
            return "a list"
        case _:
            return _cut(ascii(value))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True, slots=True)
class Fields:
    """
    One stored map and how complaints call it. Readers raise `InvalidArgument` naming the key, the rule and the value.

    Absent keys give the default; so does an explicit nil, which some tools write for "not set".
    """

    what: str
    values: Mapping[str, Any]

    def complaint(self, key: str, rule: str) -> InvalidArgument:
        """The error for a key that breaks a rule."""
        return InvalidArgument(f"{self.what}: {key} must be {rule}, not {shown(self.values.get(key))}")

    def given(self, key: str) -> bool:
        """Whether the map says anything about the key."""
        return self.values.get(key) is not None

    def whole(self, key: str, default: int) -> int:
        """A count from 0 to `COUNT_LIMIT`."""
        value = self.values.get(key)
        if value is None:
            return default
        if type(value) is not int or not 0 <= value <= COUNT_LIMIT:
            raise self.complaint(key, f"a whole number from 0 to {COUNT_LIMIT}")
        return value

    def seconds(self, key: str, default: float) -> float:
        """A time in seconds, fractions allowed, from 0 to `SECONDS_LIMIT`."""
        value = self.values.get(key)
        if value is None:
            return default
        # Compared before it is converted: an integer may be too large for a float. NaN compares false with everything.
        if type(value) not in (int, float) or not 0 <= value <= SECONDS_LIMIT:
            raise self.complaint(key, f"a number of seconds from 0 to {SECONDS_LIMIT}")
        return float(value)

    def optional_seconds(self, key: str) -> float | None:
        """A time in seconds, or None for an absent key and for 0: never."""
        return self.seconds(key, 0.0) or None

    def flag(self, key: str) -> bool:
        """True or false; absent is false."""
        value = self.values.get(key)
        if value is None:
            return False
        if type(value) is not bool:
            raise self.complaint(key, "true or false")
        return value

    def text(self, key: str, default: str) -> str:
        """Text without NUL, which no program name or variable can carry."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or "\0" in value:
            raise self.complaint(key, "text without NUL")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """A map; absent is an empty one."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.complaint(key, "a map")
        return dict(value)
