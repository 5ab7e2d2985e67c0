"""
``make bench``: what the platform costs, in units of the same run's yardstick and in requests a second.

CPU is the processes' own accounting and holds on a noisy machine; requests a second and latencies are what this machine
gave at that moment, with the load program on the same cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from . import beside, cold, load
from .processes import Platform, cpu, descendants
from .yardstick import unit

HERE = Path(__file__).resolve().parent
#: How long each row is measured.
SECONDS = 2.5
Run = Callable[[], Coroutine[Any, Any, list[float]]]


class Table:
    """
    Rows of the report.

    :param yardstick: seconds of CPU of one unit.
    """

    def __init__(self, yardstick: float) -> None:
        self.yardstick = yardstick
        print(f"one unit: {yardstick * 1e6:.2f} us of CPU\n")
        print(f"{'work':<34}{'in flight':>10}{'req/s':>9}{'p50 us':>8}{'p99 us':>8}   CPU in units for each request")

    def row(self, work: str, flight: int, run: Run, processes: dict[str, list[int]]) -> None:
        """Measure one thing; ``processes`` are those whose CPU is shown, by what to call them."""
        asyncio.run(run())  # warms caches, workers and connections
        before = {name: sum(map(cpu, pids)) for name, pids in processes.items()}
        times: list[float] = []
        begun = time.perf_counter()
        # Where CPU is counted in ticks of 10 ms, a tick must be below a percent.
        while (wall := time.perf_counter() - begun) < SECONDS:
            times += asyncio.run(run())
        spent = {name: sum(map(cpu, pids)) - before[name] for name, pids in processes.items()}
        times.sort()
        units = ", ".join(
            f"{name} {seconds / len(times) / self.yardstick:.1f}" for name, seconds in spent.items()
        )
        if len(spent) > 1:
            units += f", all {sum(spent.values()) / len(times) / self.yardstick:.1f}"
        p50, p99 = times[len(times) // 2] * 1e6, times[int(len(times) * 0.99)] * 1e6
        print(f"{work:<34}{flight:>10}{len(times) / wall:>9.0f}{p50:>8.0f}{p99:>8.0f}   {units}")
        sys.stdout.flush()


def main() -> int:
    """Print the table; the exit status says whether everything could be measured."""
    yardstick = unit()
    table = Table(yardstick)
    with Platform() as platform:
        node = platform.start_node()
        storage = _port(platform, "storage")
        asyncio.run(load.call(storage, 1, ["bench", "k100", b"x" * 100, ["bench"]], 1, 1))
        for flight in (1, 32, 256):
            count = 2000 if flight == 1 else 20_000
            run = partial(load.call, platform.locator, 0, ["storage"], count, flight)
            table.row("resolve", flight, run, {"node": [node.pid]})
        for flight in (1, 32, 256):
            count = 1000 if flight == 1 else 10_000
            run = partial(load.call, storage, 0, ["bench", "k100"], count, flight)
            table.row("storage.read of 100 bytes", flight, run, {"node": [node.pid]})
        _echo(table, platform, node.pid, "echo, our worker", HERE / "apps" / "ours", {})
        original = _original()
        if original is None:
            print("echo, original Python worker: not measured, its environment is not built (make test builds it)")
        else:
            _echo(table, platform, node.pid, "echo, original Python worker", HERE / "apps" / "original", original)
        beside.report(yardstick, platform, node.pid)
    print()
    cold.report(yardstick)
    return 0


PROFILE = {"pool-limit": 1, "concurrency": 1000, "queue-limit": 1000, "heartbeat-timeout": 60, "spawn-timeout": 10}


def _echo(table: Table, platform: Platform, node: int, title: str, folder: Path, environment: dict[str, str]) -> None:
    name = folder.name
    platform.tool("profile", "upload", "-n", name, "-r", json.dumps(PROFILE))
    manifest = {"slave": "main.py", "environment": environment}
    if environment:
        manifest["slave"] = "run.sh"
    path = platform.folder / f"{name}.json"
    path.write_text(json.dumps(manifest))
    platform.tool("app", "upload", str(folder), "-n", name, "--manifest", str(path))
    platform.tool("app", "start", "-n", name, "-r", name)
    port = _port(platform, name)
    asyncio.run(load.echo(port, "echo", b"x" * 100, 1, 1))
    workers = descendants(node)
    for flight in (1, 32, 256):
        count = 500 if flight == 1 else 5000
        run = partial(load.echo, port, "echo", b"x" * 100, count, flight)
        table.row(title, flight, run, {"node": [node], "worker": workers})
    platform.tool("app", "stop", "-n", name)


def _port(platform: Platform, service: str) -> int:
    found = json.loads(platform.tool("locate", "-n", service))
    return int(found["endpoints"][0].rpartition(":")[2])


def _original() -> dict[str, str] | None:
    """What the original framework's interpreter needs, as an app's environment; None when it is not there."""
    from tests.original import original_python

    found = original_python()
    if found is None:
        return None
    python, environment = found
    return {"ORIGINAL_PYTHON": python, "PYTHONPATH": environment.get("PYTHONPATH", "")}


if __name__ == "__main__":
    sys.exit(main())
