"""
Profiles: how an app is to be run. Every key, default, alias and limit; validated before any default is derived.

Source: reference ``node-engine.md`` section 4.2, corrected by ``observed-runtime.md`` 23: a value of the wrong type
answers ``[12, 22]``. Keys of our own: ``pool-min``, ``queue-policy``, ``queue-age-limit``, ``half-closed-timeout``,
``event-buffer-limit``, ``queue-buffer-limit``. The original's ``idle-timeout`` default of 600 s had no effect; here the
key means what it says and its absence means never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from ..errors import InvalidArgument
from .fields import Fields, decode

#: Keys of version 0.11 that have another name now.
_OLD_KEYS = {"startup-timeout", "termination-timeout"}


class QueuePolicy(Enum):
    """
    Which waiting event is served next.

    ``FIFO``: the oldest, always. ``ADAPTIVE``: the newest while the oldest has waited past the age limit.
    """

    FIFO = "fifo"
    ADAPTIVE = "adaptive"


@dataclass(frozen=True, slots=True)
class Profile:
    """
    How an app is run. Times in seconds, sizes in bytes; the stored key is the attribute's name with dashes.

    :ivar pool_limit: most workers, of all states.
    :ivar pool_min: workers kept even when nobody asks.
    :ivar queue_limit: most waiting events; 0 means no queue beyond the pool's own capacity.
    :ivar concurrency: most open channels of one worker.
    :ivar grow_threshold: waiting events that call for one worker; at least 1.
    :ivar queue_policy: order of service.
    :ivar queue_age_limit: age of the oldest waiting event that ``adaptive`` takes for overload.
    :ivar event_buffer_limit: bytes that may wait for a worker with one event.
    :ivar queue_buffer_limit: bytes that may wait for a worker with all events together.
    :ivar crashlog_limit: lines of output kept for one worker.
    :ivar log_output: workers' output also goes to the node's log.
    :ivar idle_timeout: a worker without channels for so long leaves; None: never.
    :ivar half_closed_timeout: an event that the worker has answered and the client does not end gives its place free
        after that; None: not before its deadline.
    :ivar publish_on: active workers from which the app's service is offered.
    :ivar unpublish_under: active workers below which it is withdrawn.
    :ivar raw: the map as stored.
    """

    name: str
    pool_limit: int
    pool_min: int
    queue_limit: int
    concurrency: int
    grow_threshold: int
    queue_policy: QueuePolicy
    queue_age_limit: float
    event_buffer_limit: int
    queue_buffer_limit: int
    crashlog_limit: int
    log_output: bool
    spawn_timeout: float
    handshake_timeout: float
    heartbeat_timeout: float
    seal_timeout: float
    terminate_timeout: float
    idle_timeout: float | None
    request_timeout: float
    half_closed_timeout: float | None
    publish_on: int
    unpublish_under: int
    isolate_type: str
    isolate_args: Mapping[str, Any]
    raw: Mapping[str, Any]

    @classmethod
    def from_blob(cls, blob: bytes, name: str = "") -> Self:
        """
        :raise UncaughtError: the object is not msgpack or not a map.
        :raise InvalidArgument: as `from_dict`.
        """
        return cls.from_dict(decode(blob, f"profile {name!r}"), name)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], name: str = "") -> Self:
        """
        Unknown keys are kept in ``raw`` and not interpreted.

        :raise InvalidArgument: a value of the wrong kind or out of its range, in the original's words where it had any.
        """
        fields = Fields(f"profile {name!r}", raw)
        isolate = Fields(f"profile {name!r}: isolate", fields.mapping("isolate"))
        # Version 0.11 timed everything from fork to handshake with one key; it is the default of both parts.
        startup = fields.seconds("startup-timeout", 0.0)
        profile = cls(
            name=name,
            pool_limit=(pool_limit := fields.whole("pool-limit", 10)),
            pool_min=fields.whole("pool-min", 0),
            queue_limit=(queue_limit := fields.whole("queue-limit", 100)),
            concurrency=fields.whole("concurrency", 10),
            grow_threshold=max(1, fields.whole("grow-threshold", queue_limit // max(1, pool_limit) // 2)),
            queue_policy=_policy(fields),
            queue_age_limit=fields.seconds("queue-age-limit", 1.0),
            event_buffer_limit=fields.whole("event-buffer-limit", 16 * 2**20),
            queue_buffer_limit=fields.whole("queue-buffer-limit", 128 * 2**20),
            crashlog_limit=fields.whole("crashlog-limit", 50),
            log_output=fields.flag("log-output"),
            spawn_timeout=fields.seconds("spawn-timeout", startup or 1.0),
            handshake_timeout=fields.seconds("handshake-timeout", startup or 5.0),
            heartbeat_timeout=fields.seconds("heartbeat-timeout", 30.0),
            seal_timeout=fields.seconds("seal-timeout", 60.0),
            terminate_timeout=fields.seconds("terminate-timeout", fields.seconds("termination-timeout", 10.0)),
            idle_timeout=fields.optional_seconds("idle-timeout"),
            request_timeout=fields.seconds("request-timeout", 86400.0),
            half_closed_timeout=fields.optional_seconds("half-closed-timeout"),
            publish_on=fields.whole("publish-on", 0),
            unpublish_under=fields.whole("unpublish-under", 0),
            isolate_type=isolate.text("type", "process"),
            isolate_args=isolate.mapping("args"),
            raw=dict(raw),
        )
        profile._check()
        return profile

    def _check(self) -> None:
        """The rules between values; the first five texts are the original's."""
        for broken, complaint in (
            (self.heartbeat_timeout == 0, "slave heartbeat timeout must be positive"),
            (self.pool_limit == 0, "engine pool limit must be positive"),
            (self.concurrency == 0, "engine concurrency must be positive"),
            (self.publish_on > self.pool_limit, "publish threshold must not be greater than pool limit"),
            (self.unpublish_under > self.publish_on, "publish threshold must not be less than unpublish one"),
            (self.pool_min > self.pool_limit, "pool-min must not be greater than pool-limit"),
            (self.handshake_timeout == 0, "handshake-timeout must be positive"),
            (self.request_timeout == 0, "request-timeout must be positive"),
            (not self.isolate_type, "isolate type must not be empty"),
        ):
            if broken:
                raise InvalidArgument(complaint)

    @property
    def strange(self) -> list[str]:
        """Stored keys that mean nothing here, such as misspelt ones."""
        return sorted(str(key) for key in self.raw.keys() - self._in_force().keys() - _OLD_KEYS)

    def expanded(self) -> dict[str, Any]:
        """The profile as ``info`` shows it with flag 4: all stored keys, and the values in force for the others."""
        return self._in_force() | dict(self.raw)

    def _in_force(self) -> dict[str, Any]:
        return {
            "pool-limit": self.pool_limit,
            "pool-min": self.pool_min,
            "queue-limit": self.queue_limit,
            "concurrency": self.concurrency,
            "grow-threshold": self.grow_threshold,
            "queue-policy": self.queue_policy.value,
            "queue-age-limit": self.queue_age_limit,
            "event-buffer-limit": self.event_buffer_limit,
            "queue-buffer-limit": self.queue_buffer_limit,
            "crashlog-limit": self.crashlog_limit,
            "log-output": self.log_output,
            "spawn-timeout": self.spawn_timeout,
            "handshake-timeout": self.handshake_timeout,
            "heartbeat-timeout": self.heartbeat_timeout,
            "seal-timeout": self.seal_timeout,
            "terminate-timeout": self.terminate_timeout,
            "idle-timeout": self.idle_timeout or 0,
            "request-timeout": self.request_timeout,
            "half-closed-timeout": self.half_closed_timeout or 0,
            "publish-on": self.publish_on,
            "unpublish-under": self.unpublish_under,
            "isolate": {"type": self.isolate_type, "args": dict(self.isolate_args)},
        }


def _policy(fields: Fields) -> QueuePolicy:
    try:
        return QueuePolicy(fields.text("queue-policy", QueuePolicy.FIFO.value))
    except ValueError:
        raise fields.complaint("queue-policy", "'fifo' or 'adaptive'") from None
