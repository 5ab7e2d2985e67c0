"""
What ``info`` shows of an app: plain maps with the original's keys, its misspelling included.

Cheap enough to be asked for a hundred times a second: counters and small sums, nothing is walked but the workers.

Source: reference ``node-engine.md`` section 3.2 and the capture ``app-info``.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any

from .pool import Pool
from .workers import Worker


class Flags(IntFlag):
    """What ``info`` is asked to show."""

    BRIEF = 0
    OVERSEER = 1
    MANIFEST = 2
    PROFILE = 4


def overseer(pool: Pool, now: float, flags: Flags) -> dict[str, Any]:
    """Counters, queue, timings and workers of a running app."""
    tally, profile = pool.tally, pool.profile
    active = pool.active
    oldest = next(iter(pool.queue), None)
    busy = sum(1 for worker in active if worker.invocations)
    shown: dict[str, Any] = {
        "uptime": int(now - tally.started),
        "profile": _profile(pool, flags),
        # For proxies: whether a request's body may follow its head in parts.
        "http-streaming": pool.manifest.http_streaming,
        # And that this node knows windows and credits.
        "credits": True,
        "requests": {
            "accepted": tally.accepted,
            "rejected": tally.rejected,
            "worked-for-nobody": tally.unwanted,
        },
        "queue": {
            "capacity": profile.queue_limit,
            "depth": len(pool.queue),
            "depth_average": tally.depth.read(now),
            "oldest_event_age": int((now - oldest.arrived) * 1000) if oldest is not None else 0,
        },
        "rate": tally.rate.averages(now),
        "rate_mean": tally.rate.mean(now),
        "timings": tally.timings.percentiles(),
        "timings_reversed": tally.timings.reversed(),
        "load": sum(worker.load for worker in active),
        "load-median": _median([worker.load for worker in active]),
        "pool": {
            "active": busy,
            "idle": len(pool.workers) - busy,
            "capacity": profile.pool_limit,
            "total:spawned": tally.spawned,
            "total:crashed": tally.crashed,
            "slaves": {worker.uuid: _worker(worker, pool, now, flags) for worker in pool.workers.values()},
        },
    }
    if flags & Flags.MANIFEST:
        shown["manifest"] = pool.manifest.expanded()
    return shown


def _profile(pool: Pool, flags: Flags) -> dict[str, Any]:
    named: dict[str, Any] = {"name": pool.profile.name}
    if flags & Flags.PROFILE:
        named["data"] = pool.profile.expanded()
    return named


def _worker(worker: Worker, pool: Pool, now: float, flags: Flags) -> dict[str, Any]:
    tx = rx = 0
    for invocation in worker.invocations:
        towards, back = invocation.sides
        tx += towards
        rx += back
    oldest = next(iter(worker.invocations), None)
    return {
        "state": worker.state,
        "uptime": int(now - worker.born),
        "accepted": worker.accepted,
        "load:tx": tx,
        "load:rx": rx,
        "load:total": worker.load,
        "oldest_channel_age": int((now - oldest.arrived) * 1000) if oldest is not None else 0,
        "profile": _profile(pool, flags),
    }


def _median(loads: list[int]) -> float:
    if not loads:
        return 0.0
    loads.sort()
    middle = len(loads) // 2
    return float(loads[middle]) if len(loads) % 2 else (loads[middle - 1] + loads[middle]) / 2
