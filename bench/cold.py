"""
The cold start: from an app without workers to its first answer, and what each further worker costs in memory.

Run by ``make bench`` as a section, or by hand: ``python -m bench.cold``. The same app is measured twice, with and
without ``"warm": true``; beside it stand a Python that does nothing and one that imports the SDK, in the same minutes,
since a start of a process is what differs most between machines and moments.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import load
from .processes import Platform, descendants, rss
from .yardstick import unit

FOLDER = Path(__file__).resolve().parent / "apps" / "ours"
#: Starts of each kind; they take turns, so that a bad moment of the machine spoils none alone.
ROUNDS = 25
#: Workers whose memory is looked at.
CROWD = 8
#: Workers go as soon as they have nothing to do, and the next start is from zero.
PROFILE: dict[str, Any] = {
    "pool-limit": CROWD, "concurrency": 1, "queue-limit": 100, "grow-threshold": 1, "spawn-timeout": 30,
    "handshake-timeout": 30, "idle-timeout": 0.05,
}  # fmt: skip
PATIENCE = 30.0


def main() -> int:
    """Print the table."""
    yardstick = unit()
    print(f"one unit: {yardstick * 1e6:.2f} us of CPU\n")
    report(yardstick)
    return 0


def report(yardstick: float) -> None:
    """The section."""
    with Platform() as platform:
        node = platform.start_node().pid
        _cold(platform, node, yardstick)
        print(f"\n{'memory of each of ' + str(CROWD) + ' workers':<44}{'Pss kB':>8}{'private':>9}")
        for name, warm in (("plain", False), ("warm", True)):
            _crowd(platform, node, name, warm)


def _cold(platform: Platform, node: int, yardstick: float) -> None:
    ports = {name: _start(platform, name, warm, PROFILE) for name, warm in (("plain", False), ("warm", True))}
    templates = set(descendants(node))
    times: dict[str, list[float]] = {"warm": [], "plain": [], "pass": [], "sdk": []}
    for _ in range(ROUNDS):
        for name, port in ports.items():
            _until(lambda: templates.issuperset(descendants(node)))
            times[name] += asyncio.run(load.echo(port, "echo", b"x" * 100, 1, 1))
        times["pass"].append(_python("pass"))
        times["sdk"].append(_python("import cocaine_tx.worker"))
    for name in ports:
        platform.tool("app", "stop", "-n", name)
    _until(lambda: not descendants(node))
    print(f"{'cold start':<44}{'p50 ms':>8}{'best':>8}{'worst':>8}   p50 in units")
    for name, title in (
        ("warm", "first answer, fork of a warm template"), ("plain", "first answer, plain worker"),
        ("pass", 'python -c "pass"'), ("sdk", 'python -c "import cocaine_tx.worker"'),
    ):  # fmt: skip
        found = sorted(times[name])
        middle = found[len(found) // 2]
        figures = "".join(f"{seconds * 1e3:>8.1f}" for seconds in (middle, found[0], found[-1]))
        print(f"{title:<44}{figures}   {middle / yardstick:.0f}")


def _crowd(platform: Platform, node: int, name: str, warm: bool) -> None:
    """The mean of as many workers, each of which has answered."""
    port = _start(platform, name, warm, {**PROFILE, "idle-timeout": 600})
    templates = set(descendants(node))
    while len(workers := set(descendants(node)) - templates) < CROWD:
        asyncio.run(load.echo(port, "echo", b"x" * 100, 400, 8 * CROWD))
    pss, private = (sum(map(look, workers)) // CROWD for look in (rss, private_memory))
    print(f"{name + ' workers':<44}{pss:>8}{private:>9}")
    for template in templates:
        print(f"{'and the template they are forked from':<44}{rss(template):>8}{private_memory(template):>9}")
    platform.tool("app", "stop", "-n", name)
    _until(lambda: not descendants(node))


def _start(platform: Platform, name: str, warm: bool, profile: dict[str, Any]) -> int:
    """Upload and start the app; its port."""
    path = platform.folder / f"{name}.json"
    path.write_text(json.dumps({"slave": "main.py", "warm": warm}))
    platform.tool("profile", "upload", "-n", name, "-r", json.dumps(profile))
    platform.tool("app", "upload", str(FOLDER), "-n", name, "--manifest", str(path))
    platform.tool("app", "start", "-n", name, "-r", name)
    found = json.loads(platform.tool("locate", "-n", name))
    return int(found["endpoints"][0].rpartition(":")[2])


def private_memory(pid: int) -> int:
    """Kilobytes that nobody shares: what its end gives back."""
    kilobytes = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_"):
            kilobytes += int(line.split()[1])
    return kilobytes


def _python(program: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - begun


def _until(told: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not told():
        if time.monotonic() > end:
            raise TimeoutError("the workers do not go")
        time.sleep(0.02)  # looking at /proc, from outside the reactor


if __name__ == "__main__":
    sys.exit(main())
