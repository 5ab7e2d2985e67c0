"""What a profile's ``isolate.args`` may say to the process isolate, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidArgument
from .archive import Limits

#: Names of limits, as ``prlimit`` and POSIX call them.
RLIMITS = frozenset(
    [
        *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
        *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    ]
)


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """
    Source: reference ``node-engine.md`` section 6.2; ``user``, ``rlimits`` and the archive's limits are ours.

    :ivar spool: the folder that holds a folder for each app.
    :ivar kill_timeout: seconds from the polite signal to the forcible one.
    :ivar warm_timeout: seconds in which the template of a warm app must have imported everything.
    :ivar user: the account workers run under; None for the node's own.
    :ivar rlimits: pairs of a name out of `RLIMITS` and the value for both its soft and hard limit.
    :ivar limits: how much an app's archive may unpack to (``archive_size`` bytes, ``archive_members``).
    :ivar ignored: keys that mean nothing here, such as control groups.
    """

    spool: str
    kill_timeout: float = 5.0
    warm_timeout: float = 10.0
    user: str | None = None
    rlimits: tuple[tuple[str, int], ...] = ()
    limits: Limits = field(default_factory=Limits)
    ignored: tuple[str, ...] = ()

    @classmethod
    def parse(cls, args: Mapping[str, Any], spool: str) -> ProcessSettings:
        """
        :param spool: used unless ``args`` names another.
        :raises InvalidArgument: the reason names the key and what was expected.
        """
        known = {"spool", "kill_timeout", "warm_timeout", "user", "rlimits", "archive_size", "archive_members"}
        default = Limits()
        return cls(
            spool=_text(args, "spool", spool),
            kill_timeout=float(_number(args, "kill_timeout", 5.0)),
            warm_timeout=float(_number(args, "warm_timeout", 10.0)),
            user=_text(args, "user", "") or None,
            rlimits=_rlimits(args.get("rlimits", {})),
            limits=Limits(
                int(_number(args, "archive_size", default.size)), int(_number(args, "archive_members", default.members))
            ),
            ignored=tuple(sorted(str(key) for key in args if key not in known)),
        )


def _text(args: Mapping[str, Any], key: str, default: str) -> str:
    value = args.get(key, default)
    if not isinstance(value, str) or "\0" in value:
        raise InvalidArgument(f"isolate.args.{key} is {value!r}, a text was expected")
    return value


def _number(args: Mapping[str, Any], key: str, default: float) -> float:
    value = args.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        raise InvalidArgument(f"isolate.args.{key} is {value!r}, a number not below 0 was expected")
    return value


def _rlimits(value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, Mapping):
        raise InvalidArgument(f'isolate.args.rlimits is {value!r}, a map such as {{"nofile": 1024}} was expected')
    found = []
    for name, limit in value.items():
        if name not in RLIMITS:
            raise InvalidArgument(f"isolate.args.rlimits has {name!r}; known are {', '.join(sorted(RLIMITS))}")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit < 2**63:
            raise InvalidArgument(f"isolate.args.rlimits.{name} is {limit!r}, a whole number not below 0 was expected")
        found.append((name, limit))
    return tuple(found)
