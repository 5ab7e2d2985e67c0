"""
HTTP load on one address, and the CPU that the processes behind it spend on it.

    python -m bench.proxy http://127.0.0.1:8080/hello/http/ --connections 64 --seconds 5 --pids 100,101,102
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from urllib.parse import urlsplit


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it has been answered; answers must carry their length or be chunked."""

    def __init__(self, request: bytes, times: list[float], until: float) -> None:
        self.request, self.times, self.until = request, times, until
        self.data = b""
        self.failed = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.begun = time.perf_counter()
        if self.begun > self.until:
            self.transport.close()
            return
        self.transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            if len(body) < int(lower[at + 15 :].split(b"\r\n", 1)[0]):
                return
        elif not body.endswith(b"0\r\n\r\n"):
            return
        self.failed += not head.startswith(b"HTTP/1.1 200")
        self.data = b""
        self.times.append(time.perf_counter() - self.begun)
        self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += time.perf_counter() < self.until
        if not self.done.done():
            self.done.set_result(None)


async def load(url: str, connections: int, seconds: float) -> tuple[list[float], int]:
    """Durations of all answers, and how many were not 200 or not whole."""
    parts = urlsplit(url)
    lines = [f"GET {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}", "User-Agent: bench", "Accept: */*", "", ""]
    request = "\r\n".join(lines).encode()
    times: list[float] = []
    until = time.perf_counter() + seconds
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(request, times, until), parts.hostname, parts.port))[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.done for client in clients))
    return times, sum(client.failed for client in clients)


def cpu(pid: int) -> float:
    """Seconds of CPU a process has spent."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(url: str, connections: int, seconds: float, pids: list[int]) -> str:
    """One line: requests per second, median and worst percent, and microseconds of CPU per request and process."""
    asyncio.run(load(url, connections, 0.5))
    before = [cpu(pid) for pid in pids]
    begun = time.perf_counter()
    times, failed = asyncio.run(load(url, connections, seconds))
    took = time.perf_counter() - begun
    spent = [(cpu(pid) - old) / len(times) * 1e6 for pid, old in zip(pids, before, strict=True)]
    times.sort()
    return (
        f"{connections:4d} connections: {len(times) / took:8.0f} requests/s, "
        f"median {times[len(times) // 2] * 1e6:.0f} us, "
        f"99 % {times[len(times) * 99 // 100] * 1e6:.0f} us, {failed} failed, "
        f"CPU per request {' + '.join(f'{each:.0f}' for each in spent)} = {sum(spent):.0f} us"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--pids", default="", help="with commas: the processes whose CPU is counted")
    given = parser.parse_args()
    print(measure(given.url, given.connections, given.seconds, [int(pid) for pid in given.pids.split(",") if pid]))


if __name__ == "__main__":
    main()
