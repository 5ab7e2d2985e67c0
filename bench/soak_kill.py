"""
Many requests while workers are killed every second: every request must get one well-formed answer, and its own.

    python -m bench.soak_kill [--requests 100000] [--connections 64] [--seconds 360] [--profile JSON]
    python -m bench.soak_kill --url http://127.0.0.1:8080/hello/http/ --node PID

Without ``--url`` it starts a platform of its own with ``examples/hello`` and four workers, or what ``--profile`` says;
with ``{"pool-limit": 1}`` each kill leaves nobody. The app must answer with the ``name`` of the query in its body.
``--node`` is the node's process: its children are the workers, of which the oldest is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from .processes import ROOT, Platform

PROFILE = '{"pool-limit": 4, "pool-min": 4, "concurrency": 100, "queue-limit": 1000}'


def oldest_worker(node: int, app: str) -> int | None:
    """The node's child that has run that app for longest."""
    found = []
    for task in Path(f"/proc/{node}/task").iterdir():
        for pid in (task / "children").read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"--app" in words and words[words.index(b"--app") + 1] == app.encode():
                found.append((Path(f"/proc/{pid}").stat().st_ctime, int(pid)))
    return min(found)[1] if found else None


class Soak:
    """
    :ivar outcomes: statuses, and ``wrong`` (another's body, or a malformed answer) and ``lost`` (no answer).
    """

    def __init__(self, url: str, requests: int, seconds: float) -> None:
        self.parts = urlsplit(url)
        self.over = time.monotonic() + seconds
        self.left = requests
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.killed = 0

    async def lane(self, number: int) -> None:
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while self.left > 0 and time.monotonic() < self.over:
            self.left -= 1
            name = f"n{number}x{self.left}"
            try:
                if reader is None or writer is None:
                    reader, writer = await asyncio.open_connection(self.parts.hostname, self.parts.port)
                writer.write(f"GET {self.parts.path}?name={name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                status, body, keep = await asyncio.wait_for(self.answer(reader), 60)
            except (TimeoutError, OSError, asyncio.IncompleteReadError):
                self.outcomes["lost"] += 1
                reader = None
                continue
            except ValueError:
                self.outcomes["wrong"] += 1
                reader = None
                continue
            good = status != 200 or name.encode() in body
            self.outcomes[str(status) if good else "wrong"] += 1
            if not keep:
                writer.close()
                reader = None

    async def answer(self, reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 "):
            raise ValueError(head)
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        if b"content-length" in fields:
            body = await reader.readexactly(int(fields[b"content-length"]))
        else:
            body = b""
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readexactly(2)
        return int(head[9:12]), body, fields.get(b"connection") != b"close"

    async def killer(self, node: int) -> None:
        while True:
            await asyncio.sleep(1)
            try:
                pid = oldest_worker(node, self.parts.path.split("/")[1])
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                    self.killed += 1
            except OSError:
                pass  # it was quicker

    async def run(self, node: int, connections: int) -> None:
        killer = asyncio.create_task(self.killer(node))
        await asyncio.gather(*(self.lane(number) for number in range(connections)))
        killer.cancel()


def soak(url: str, node: int, requests: int, connections: int, seconds: float) -> bool:
    """Run it and print what came of it; whether every request was answered well."""
    run = Soak(url, requests, seconds)
    begun = time.monotonic()
    asyncio.run(run.run(node, connections))
    took = time.monotonic() - begun
    answered = sum(run.outcomes.values())
    print(f"{answered} requests in {took:.0f} s; {run.killed} workers killed; answers: {dict(run.outcomes)}")
    return run.outcomes["200"] == requests


def main() -> int:
    """The exit status says whether every request was answered with 200 and its own body."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", help="an app that runs already")
    parser.add_argument("--node", type=int, help="the process of its node")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--profile", metavar="JSON", default=PROFILE, help="of the app, without --url")
    parser.add_argument("--seconds", type=float, default=360.0, help="give up after so long")
    given = parser.parse_args()
    size = given.requests, given.connections, given.seconds
    if given.url:
        return not soak(given.url, given.node, *size)
    with Platform() as platform:
        node = platform.start_node()
        platform.run_app("hello", ROOT / "examples" / "hello", given.profile)
        platform.start_proxy()
        good = soak(f"http://127.0.0.1:{platform.http}/hello/http/", node.pid, *size)
        for log in platform.folder.glob("*.log") if not good else ():
            print("".join(log.read_text().splitlines(True)[-40:]), file=sys.stderr)
    return not good


if __name__ == "__main__":
    sys.exit(main())
