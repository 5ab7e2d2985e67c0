"""
Peak memory of every process for a long upload and a long download: ``python -m bench.soak_stream [MEGABYTES]`` (1024).
"""

from __future__ import annotations

import socket
import sys
import time

from .crowd import family, resident
from .processes import ROOT, Platform
from .words import number

PROFILE = '{"pool-limit": 1, "concurrency": 10}'
#: What the kernel calls the highest resident memory.
PEAK = "VmHWM"
PIECE = bytes(1 << 20)


def upload(port: int, megabytes: int) -> bytes:
    """Send so much; the answer."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        size = megabytes << 20
        client.sendall(
            b"POST /upload/http/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        )
        for _ in range(megabytes):
            client.sendall(PIECE)
        got = b""
        while data := client.recv(65536):
            got += data
        return got


def download(port: int, megabytes: int) -> int:
    """Ask for so much; how many bytes came."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(b"GET /big/http/?%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % (megabytes << 20))
        size = 0
        while data := client.recv(1 << 20):
            size += len(data)
        return size


def main() -> int:
    """The exit status says whether all arrived and every process stayed below 150 MB."""
    megabytes = number(__doc__, "megabytes", 1024)
    with Platform() as platform:
        node = platform.start_node()
        platform.run_app("upload", ROOT / "examples" / "upload", PROFILE)
        platform.run_app("big", ROOT / "bench" / "apps" / "big", PROFILE)
        proxy = platform.start_proxy()
        begun = time.monotonic()
        up = upload(platform.http, megabytes)
        between = time.monotonic()
        down = download(platform.http, megabytes)
        end = time.monotonic()
        good = b"%d bytes" % (megabytes << 20) in up and down >= megabytes << 20
        print(f"{megabytes} MB up in {between - begun:.1f} s, down in {end - between:.1f} s, complete: {good}")
        peaks = {"proxy": [proxy.pid], "node": [node.pid], "its children": family(node.pid)[1:]}
        for title, pids in peaks.items():
            print(f"{title}: at most {', '.join(str(resident(pid, PEAK) // 1024) for pid in pids)} MB")
        highest = max(resident(pid, PEAK) for pids in peaks.values() for pid in pids) / 1024
    return not (good and highest < 150)


if __name__ == "__main__":
    sys.exit(main())
