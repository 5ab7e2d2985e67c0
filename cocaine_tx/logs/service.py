"""
The logging service: what apps and daemons elsewhere say goes to this daemon's log observers.

Each record becomes one event of `twisted.logger`, its text a field and never a format. What is too long is cut, and
what is too much is counted and left out, so that a talkative app does not stop the daemon.

Source: reference ``protocol-v12.md`` section 11.1, ``observed-runtime.md`` 8.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, Logger, LogLevel, globalLogPublisher

from ..errors import InvalidArgument, InvalidArguments
from ..rpc.dispatch import Dispatch
from ..wire.headers import Headers
from ..wire.protocols import LOGGING

#: The severities of the protocol, by number.
LEVELS = (LogLevel.debug, LogLevel.info, LogLevel.warn, LogLevel.error)
#: Longest source, and longest message or attribute value, in bytes; most attributes.
SOURCE_LIMIT, TEXT_LIMIT, ATTRIBUTES_LIMIT = 256, 64 * 1024, 64
#: Records, and bytes of them, accepted in one second: the largest ones would fill a disk within minutes.
RATE, BYTES = 5000, 8 * 1024 * 1024


class LoggingService:
    """
    The face of logging; ``dispatch`` is what its port serves.

    :param verbosity: the lowest severity that is kept, 0 (debug) to 3 (error).
    :param observer: takes the events.
    :param now: seconds since the epoch.
    :param rate: records taken in one second.
    """

    _log = Logger()

    def __init__(
        self,
        verbosity: int = 1,
        observer: ILogObserver = globalLogPublisher,
        now: Callable[[], float] = time.time,
        rate: int = RATE,
    ) -> None:
        self.verbosity = verbosity
        self._observer = observer
        self._now = now
        self._rate = rate
        self._second = 0
        self._taken = 0
        self._bytes = 0
        self._left_out = 0
        self.dispatch = Dispatch(
            LOGGING,
            {"emit": self._emit, "verbosity": self._verbosity, "set_verbosity": self._set_verbosity},
        )

    def _emit(
        self, headers: Headers, severity: int, source: bytes, message: bytes, attributes: tuple[Any, ...] = ()
    ) -> tuple[Any, ...]:
        # The shape is looked at even when the record is not wanted: a broken client should find out at once.
        values = checked(attributes)
        if severity < self.verbosity:
            return ()
        now = self._now()
        size = min(len(message), TEXT_LIMIT) + sum(len(value) for _, value in values if value.__class__ is str)
        if not self._room(int(now), size):
            return ()
        self._observer({
            "log_level": LEVELS[min(max(severity, 0), 3)],
            "log_namespace": readable(source, SOURCE_LIMIT),
            "log_source": None,
            "log_time": now,
            "log_format": "{message}{shown}",
            "message": readable(message, TEXT_LIMIT),
            "shown": "".join(f" {name}={value!r}" for name, value in values),
            "attributes": dict(values),
        })  # fmt: skip
        return ()

    def _room(self, second: int, size: int) -> bool:
        if second != self._second:
            left_out, self._left_out = self._left_out, 0
            self._second = second
            self._taken = self._bytes = 0
            if left_out:
                self._log.warn(
                    "{count} log records were left out: more than {rate}, or {bytes} bytes, in one second",
                    count=left_out, rate=self._rate, bytes=BYTES,
                )  # fmt: skip
        if self._taken >= self._rate or self._bytes + size > BYTES:
            self._left_out += 1
            return False
        self._taken += 1
        self._bytes += size
        return True

    def _verbosity(self, headers: Headers) -> tuple[Any, ...]:
        return (self.verbosity,)

    def _set_verbosity(self, headers: Headers, severity: int) -> tuple[Any, ...]:
        if not 0 <= severity < len(LEVELS):
            raise InvalidArgument(f"verbosity is a number from 0 (debug) to {len(LEVELS) - 1} (error)")
        self.verbosity = severity
        return ()


def checked(attributes: tuple[Any, ...]) -> list[tuple[str, Any]]:
    """
    A record's attributes as names and values; those beyond the limit are dropped.

    :raises InvalidArguments: one is not ``[name, value]``, or its value is neither raw, a number nor a truth value.
    """
    values: list[tuple[str, Any]] = []
    for pair in attributes:
        if pair.__class__ is not tuple or len(pair) != 2 or pair[0].__class__ is not bytes:
            raise InvalidArguments("an attribute is [name, value]")
        value = pair[1]
        if value.__class__ is bytes:
            value = readable(value, TEXT_LIMIT)
        elif value.__class__ not in (int, float, bool):
            raise InvalidArguments("an attribute's value is raw, a number or a truth value")
        if len(values) < ATTRIBUTES_LIMIT:
            values.append((readable(pair[0], SOURCE_LIMIT), value))
    return values


def readable(raw: bytes, limit: int) -> str:
    """Text for a log: cut to the limit, what is not UTF-8 replaced."""
    text = raw[:limit].decode("utf-8", "replace")
    return text if len(raw) <= limit else f"{text}... ({len(raw)} bytes)"
