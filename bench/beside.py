"""
The whole HTTP chain beside uvicorn that serves the same hello alone: ``python -m bench.beside [SECONDS]``.

Both run at the same time and are asked in turns, a fraction of a second each, so that whatever else goes on in the
machine slows them alike; the ratio of their CPU is what to look at. Neither writes an access log.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field

from cocaine_tx.daemon.quickstart import PROFILE

from .processes import ROOT, Platform, cpu, descendants, free_port
from .visitors import Visitors
from .words import number
from .yardstick import unit

#: How long each number of connections is measured, in seconds.
SECONDS = 12
#: How long visitors come before anything is measured, in seconds: new workers are up by then.
WARM = 3.0
#: The same app under the profile that ``make run`` gives it, and under that of the original when nobody says anything.
APPS = {"hello": json.dumps(PROFILE), "hello-default": "{}"}


@dataclass
class Side:
    """One of the two; ``processes`` by what to call them."""

    visitors: Visitors
    processes: dict[str, list[int]]
    times: list[float] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    wall: float = 0.0

    def ask(self, count: int) -> None:
        """So many requests more."""
        before = {name: sum(map(cpu, pids)) for name, pids in self.processes.items()}
        begun = time.perf_counter()
        self.times += self.visitors.ask(count)
        self.wall += time.perf_counter() - begun
        for name, pids in self.processes.items():
            self.spent[name] = self.spent.get(name, 0.0) + sum(map(cpu, pids)) - before[name]

    def each(self, name: str) -> float:
        """Seconds of CPU for each request."""
        return self.spent[name] / len(self.times)

    @property
    def all(self) -> float:
        """The same, of all processes together."""
        return sum(map(self.each, self.spent))

    @property
    def median(self) -> float:
        """Seconds."""
        return sorted(self.times)[len(self.times) // 2]


def report(yardstick: float, platform: Platform, node: int, seconds: float = SECONDS) -> None:
    """
    Print the comparison, with and without an app's usual crowd of workers.

    :param platform: with a node that runs.
    :param node: its process.
    """
    for app, profile in APPS.items():
        platform.run_app(app, ROOT / "examples" / "hello", profile)
    proxy = platform.start_proxy().pid
    alone = free_port()
    uvicorn = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "hello:app", "--port", str(alone), "--http", "httptools", "--loop", "uvloop",
         "--no-access-log", "--log-level", "error", "--timeout-keep-alive", "600"],
        cwd=ROOT / "bench" / "apps" / "asgi", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(alone, uvicorn)
        for connections in (1, 64):
            crowds = {app: Visitors(platform.http, f"/{app}/http/", connections) for app in APPS}
            try:
                for crowd in crowds.values():
                    _warm(crowd, connections)
                chain = {"proxy": [proxy], "node": [node], "workers": descendants(node)}
                sides = {app: Side(crowd, chain) for app, crowd in crowds.items()}
                reference = Side(Visitors(alone, "/", connections), {"": [uvicorn.pid]})
                _compare(yardstick, connections, reference, sides, seconds)
            finally:
                for crowd in crowds.values():
                    crowd.leave()
    finally:
        uvicorn.terminate()
        uvicorn.wait()


def _warm(crowd: Visitors, connections: int) -> None:
    """Until all workers that the crowd calls for are there."""
    end = time.monotonic() + WARM
    while time.monotonic() < end:
        crowd.ask(20 * connections)


def _compare(yardstick: float, connections: int, alone: Side, sides: dict[str, Side], seconds: float) -> None:
    try:
        alone.visitors.ask(20 * connections)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for side in (alone, *sides.values()):
                side.ask(50 * connections if connections > 1 else 300)
        _show(yardstick, connections, "uvicorn, hello", alone)
        for app, side in sides.items():
            _show(yardstick, connections, f"HTTP chain, {app}", side)
            ratio, added = side.all / alone.all, (side.median - alone.median) * 1e6
            print(f"{'':34}{connections:>10}   the chain costs {ratio:.2f} of uvicorn's CPU, median +{added:.0f} us")
        sys.stdout.flush()
    finally:
        alone.visitors.leave()


def _wait(port: int, uvicorn: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            return Visitors(port, "/", 1).leave()
        except ConnectionError as problem:
            if uvicorn.poll() is not None or time.monotonic() > end:
                raise RuntimeError("uvicorn does not come up") from problem
            time.sleep(0.05)


def _show(yardstick: float, connections: int, title: str, side: Side) -> None:
    parts = ", ".join(f"{name} {side.each(name) / yardstick:.0f}" for name in side.spent if name)
    rate, median, units = len(side.times) / side.wall, side.median * 1e6, side.all / yardstick
    rest = f" ({parts})" if parts else ""
    print(f"{title:<34}{connections:>10}{rate:>9.0f}{median:>8.0f}{'':>8}   {units:.0f}{rest}")


def main() -> int:
    """Print the comparison, with a platform of its own."""
    seconds = number(__doc__, "seconds", SECONDS)
    yardstick = unit()
    with Platform() as platform:
        node = platform.start_node()
        print(f"one unit: {yardstick * 1e6:.2f} us of CPU\n")
        print(f"{'work':<34}{'in flight':>10}{'req/s':>9}{'p50 us':>8}{'':>8}   CPU in units for each request")
        report(yardstick, platform, node.pid, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
