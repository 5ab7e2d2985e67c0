"""
What idle keep-alive connections cost: ``python -m bench.soak_idle [COUNT]`` (10,000).

Each has been answered one request and stays; printed is the growth of the proxy's resident memory for each.
"""

from __future__ import annotations

import sys

from .crowd import answers, gather, latencies, raise_limit, resident
from .processes import ROOT, Platform
from .words import number

PROFILE = '{"pool-limit": 1, "concurrency": 1000, "queue-limit": 20000}'
ASK = b"GET /hello/http/ HTTP/1.1\r\nHost: a\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"


def main() -> int:
    """The exit status says whether a connection costs less than 10 KB."""
    wanted = number(__doc__, "count", 10_000)
    count = min(raise_limit(wanted), wanted)
    with Platform() as platform:
        platform.start_node()
        platform.run_app("hello", ROOT / "examples" / "hello", PROFILE)
        proxy = platform.start_proxy()
        latencies(platform.http, "/hello/http/", 2000)
        before = resident(proxy.pid)
        crowd = []
        try:
            while len(crowd) < count:
                some = gather(platform.http, min(200, count - len(crowd)), ASK)
                crowd += some
                if answers(some) != len(some):
                    print("not every connection was answered")
                    return 1
            each = (resident(proxy.pid) - before) / len(crowd)
        finally:
            for client in crowd:
                client.close()
    print(f"{len(crowd)} idle connections (of {wanted} wanted): {each:.1f} KB of the proxy's memory each")
    return not each < 10


if __name__ == "__main__":
    sys.exit(main())
