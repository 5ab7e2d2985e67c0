"""
Whether slow clients delay a fast one: ``python -m bench.soak_slow [COUNT]`` (5,000).

A third of the slow ones has sent half a head, a third half a body, and a third reads nothing of a long answer; printed
is what a fast client sees before them and among them.
"""

from __future__ import annotations

import sys

from .crowd import gather, latencies, raise_limit
from .processes import ROOT, Platform

PROFILE = '{"pool-limit": 1, "concurrency": 10000, "queue-limit": 20000}'
SLOW = (
    b"GET /hello/http/ HTTP/1.1\r\nHos",
    b"POST /hello/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n" + bytes(1000),
    b"GET /big/http/?4000000 HTTP/1.1\r\nHost: a\r\n\r\n",
)


def main() -> int:
    """The exit status says whether the fast client's median stays below twice its own and its 99th part below 50 ms."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    count = min(raise_limit(wanted), wanted)
    with Platform() as platform:
        platform.start_node()
        platform.run_app("hello", ROOT / "examples" / "hello", PROFILE)
        platform.run_app("big", ROOT / "bench" / "apps" / "big", PROFILE)
        # Nobody is to be cut off while the fast one is measured.
        patient = {"head": 120, "body": 120, "write": 120, "chunk": 120}
        platform.start_proxy(timeouts=patient)
        latencies(platform.http, "/hello/http/", 1000)
        alone = latencies(platform.http, "/hello/http/", 2000)
        crowd = []
        try:
            for say in SLOW:
                crowd += gather(platform.http, count // len(SLOW), say)
            among = latencies(platform.http, "/hello/http/", 2000)
        finally:
            for client in crowd:
                client.close()
    for title, took in (("alone", alone), (f"among {len(crowd)} slow ones", among)):
        p50, p99, worst = (took[int(len(took) * part)] * 1e6 for part in (0.5, 0.99, 0.9999))
        print(f"a fast client {title}: median {p50:.0f} us, 99% {p99:.0f} us, worst {worst:.0f} us")
    return not (among[1000] < 2 * alone[1000] and among[1980] < 0.05)


if __name__ == "__main__":
    sys.exit(main())
