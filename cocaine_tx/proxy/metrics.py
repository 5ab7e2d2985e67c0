"""
What has happened, in numbers: counted where it happens, shown as Prometheus text or as JSON.

Source: the Prometheus text format 0.0.4; reference ``http-tools-sdk.md`` A.2 (``/info``).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import UndecodableError

#: Upper bounds of the histogram of durations, in seconds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: Different apps that are counted one by one; later ones together, since clients choose names.
APPS = 500
#: Different methods of services, called by JSON-RPC, that are counted one by one; a service may have very many.
METHODS = 500
_OTHERS = "(others)"
#: Of `Meters`: those that only grow, and those that are now.
_COUNTERS = ("accepted", "refused", "retries", "disconnections", "aborted", "received", "sent", "seconds")
_GAUGES = ("active", "running")


class Meters:
    """
    The counters of one process.

    :ivar accepted: connections taken.
    :ivar active: connections open now.
    :ivar refused: connections that were too many.
    :ivar running: requests that wait for their answer.
    :ivar retries: requests sent once more.
    :ivar disconnections: requests whose client has gone.
    :ivar aborted: answers that broke off.
    :ivar statuses: answers by application and status.
    :ivar calls: made by JSON-RPC, by service, method and outcome (``result`` or ``error``).
    """

    __slots__ = (
        "_apps", "_buckets", "_methods", "aborted", "accepted", "active", "calls", "disconnections", "received",
        "refused", "retries", "running", "seconds", "sent", "statuses",
    )  # fmt: skip

    def __init__(self) -> None:
        self.accepted = self.active = self.refused = self.running = self.retries = 0
        self.disconnections = self.aborted = self.received = self.sent = 0
        self.seconds = 0.0
        self.statuses: dict[tuple[str, int], int] = {}
        self.calls: dict[tuple[str, str, str], int] = {}
        self._apps: set[str] = set()
        self._methods: set[tuple[str, str]] = set()
        self._buckets = [0] * (len(BOUNDS) + 1)

    def answered(self, app: str, status: int, seconds: float, sent: int) -> None:
        """A request has its answer."""
        if app not in self._apps:
            if len(self._apps) < APPS:
                self._apps.add(app)
            else:
                app = _OTHERS
        key = (app, status)
        self.statuses[key] = self.statuses.get(key, 0) + 1
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        self.sent += sent

    def called(self, service: str | None, method: str | None, outcome: str) -> None:
        """A call by JSON-RPC has its outcome. A name that only its caller knows is None: clients choose names."""
        name = (service or _OTHERS, method or _OTHERS)
        if name not in self._methods:
            if len(self._methods) < METHODS:
                self._methods.add(name)
            else:
                name = (_OTHERS, _OTHERS)
        key = (*name, outcome)
        self.calls[key] = self.calls.get(key, 0) + 1

    @property
    def total(self) -> int:
        """Requests answered."""
        return sum(self._buckets)

    def add(self, other: Meters) -> None:
        """Count what another has counted as well."""
        for name in (*_COUNTERS, *_GAUGES):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for key, count in other.statuses.items():
            self.statuses[key] = self.statuses.get(key, 0) + count
        for call, count in other.calls.items():
            self.calls[call] = self.calls.get(call, 0) + count
        self._buckets = [ours + theirs for ours, theirs in zip(self._buckets, other._buckets, strict=True)]

    def plain(self) -> dict[str, object]:
        """Everything, as JSON can carry it."""
        statuses = [[app, status, count] for (app, status), count in self.statuses.items()]
        numbers = {name: getattr(self, name) for name in (*_COUNTERS, *_GAUGES)}
        calls = [[*names, count] for names, count in self.calls.items()]
        return {**numbers, "statuses": statuses, "calls": calls, "buckets": self._buckets}

    @classmethod
    def read(cls, plain: Mapping[str, object]) -> Meters:
        """
        The mirror of `plain`.

        :raises LookupError, TypeError, ValueError: it is not one.
        """
        made = cls()
        for name in (*_COUNTERS, *_GAUGES):
            setattr(made, name, plain[name])
        made.statuses = {(str(app), int(status)): int(count) for app, status, count in plain["statuses"]}  # type: ignore[attr-defined]
        for service, method, outcome, count in plain["calls"]:  # type: ignore[attr-defined]
            made.calls[str(service), str(method), str(outcome)] = int(count)
        (*made._buckets,) = plain["buckets"]  # type: ignore[misc]
        if len(made._buckets) != len(BOUNDS) + 1:
            raise ValueError("another number of buckets")
        return made

    def info(self, pools: Mapping[str, int]) -> dict[str, object]:
        """As the original's ``/info``, and more."""
        outcomes = {"result": 0, "error": 0}
        for (_, _, outcome), count in self.calls.items():
            outcomes[outcome] = outcomes.get(outcome, 0) + count
        return {
            "services": {"cache": dict(pools)},
            "requests": {"inprogress": self.running, "total": self.total, "retried": self.retries},
            "errors": {"disconnections": self.disconnections, "aborted": self.aborted},
            "connections": {"accepted": self.accepted, "active": self.active, "refused": self.refused},
            "jsonrpc": outcomes,
            "sampling": {},
        }

    def text(self, pools: Mapping[str, int]) -> str:
        """For Prometheus."""
        lines: list[str] = []

        def metric(name: str, kind: str, about: str, *samples: tuple[str, int]) -> None:
            lines.append(f"# HELP cocaine_proxy_{name} {about}")
            lines.append(f"# TYPE cocaine_proxy_{name} {kind}")
            lines.extend(f"cocaine_proxy_{name}{labels} {value}" for labels, value in samples)

        metric("connections_accepted_total", "counter", "Connections taken.", ("", self.accepted))
        metric("connections_refused_total", "counter", "Connections that were too many.", ("", self.refused))
        metric("connections_active", "gauge", "Connections open now.", ("", self.active))
        metric("requests_active", "gauge", "Requests that wait for their answer.", ("", self.running))
        metric("retries_total", "counter", "Requests sent once more.", ("", self.retries))
        metric("client_disconnects_total", "counter", "Requests whose client has gone.", ("", self.disconnections))
        metric("aborted_total", "counter", "Answers that broke off.", ("", self.aborted))
        metric("received_bytes_total", "counter", "Bytes of request bodies.", ("", self.received))
        metric("sent_bytes_total", "counter", "Bytes of answers.", ("", self.sent))
        metric(
            "requests_total", "counter", "Requests answered, by application and status.",
            *((f'{{app="{_label(app)}",code="{status}"}}', n) for (app, status), n in sorted(self.statuses.items())),
        )  # fmt: skip
        metric(
            "jsonrpc_calls_total", "counter", "Calls by JSON-RPC, by service, method and outcome.",
            *((f'{{service="{_label(service)}",method="{_label(method)}",outcome="{outcome}"}}', n)
              for (service, method, outcome), n in sorted(self.calls.items())),
        )  # fmt: skip
        metric(
            "upstream_connections", "gauge", "Connections to applications.",
            *((f'{{app="{_label(app)}"}}', n) for app, n in sorted(pools.items()) if n),
        )  # fmt: skip
        lines.append("# HELP cocaine_proxy_request_seconds Time from a request's head to the end of its answer.")
        lines.append("# TYPE cocaine_proxy_request_seconds histogram")
        below = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._buckets, strict=True):
            below += count
            lines.append(f'cocaine_proxy_request_seconds_bucket{{le="{bound}"}} {below}')
        lines.append(f"cocaine_proxy_request_seconds_sum {self.seconds:.6f}")
        lines.append(f"cocaine_proxy_request_seconds_count {below}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What an operator is shown of one process, or of several together.

    :ivar pools: app to connections.
    :ivar healthy: clients should be sent there.
    """

    meters: Meters = field(default_factory=Meters)
    pools: Mapping[str, int] = field(default_factory=dict)
    healthy: bool = False

    def packed(self) -> bytes:
        """One line of text without its end."""
        return json.dumps([self.meters.plain(), dict(self.pools), self.healthy]).encode("ascii")

    @classmethod
    def read(cls, line: bytes) -> Totals:
        """
        The mirror of `packed`.

        :raises UndecodableError: it is not one.
        """
        try:
            meters, pools, healthy = json.loads(line)
            return cls(Meters.read(meters), pools, healthy)
        except (LookupError, TypeError, ValueError) as problem:
            raise UndecodableError(f"no report: {problem}") from problem

    def ended(self) -> Totals:
        """What is left of it when its process is no more."""
        meters = Meters()
        meters.add(self.meters)
        for name in _GAUGES:
            setattr(meters, name, 0)
        return Totals(meters)


def sum_of(several: Iterable[Totals]) -> Totals:
    """Several processes as one, which is healthy if one of them is."""
    meters, pools, healthy = Meters(), dict[str, int](), False
    for one in several:
        meters.add(one.meters)
        healthy = healthy or one.healthy
        for app, count in one.pools.items():
            pools[app] = pools.get(app, 0) + count
    return Totals(meters, pools, healthy)


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
