"""Very many connections to one proxy, and what its processes weigh: for the soaks."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

from .processes import descendants
from .visitors import Visitors

#: A process needs a few files beside its connections.
SPARE = 200


def raise_limit(wanted: int) -> int:
    """Let this process and those it starts open so many connections; how many it may have, perhaps fewer."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted + SPARE:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + SPARE, wanted + SPARE))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            return hard - SPARE
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + SPARE, hard))
    return wanted


def gather(port: int, count: int, say: bytes) -> list[socket.socket]:
    """So many clients, each of which has said something and reads nothing."""
    crowd = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), 30)
        crowd.append(client)
        client.sendall(say)
    return crowd


def answers(crowd: list[socket.socket]) -> int:
    """How many of them get the beginning of a good answer within 30 seconds each."""
    good = 0
    for client in crowd:
        client.settimeout(30)
        good += client.recv(65536).startswith(b"HTTP/1.1 200 ")
    return good


def resident(pid: int, what: str = "VmRSS") -> int:
    """Kilobytes of resident memory of a process, now, or at its highest (``VmHWM``); 0 when it has gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(what + ":")), 0)


def family(pid: int) -> list[int]:
    """A process and all it has started."""
    return [pid, *descendants(pid)]


def latencies(port: int, path: str, count: int) -> list[float]:
    """Seconds that each of so many requests took, one behind another on one connection, sorted."""
    visitor = Visitors(port, path, 1)
    try:
        return sorted(visitor.ask(count))
    finally:
        visitor.leave()
