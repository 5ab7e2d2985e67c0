"""
Whether slow clients delay a fast one: ``python -m bench.soak_slow [COUNT]`` (5,000).

A third of the slow ones has sent half a head, a third half a body, and a third reads nothing of a long answer. Before
they all stand still, the beginnings of those answers have to be brought: some hundred megabytes, which take CPU that
the fast client would have had. So it is measured four times: alone, while they come, among them when nothing moves any
more, and alone again, since the machine may have become slower for reasons of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from .crowd import family, gather, latencies, raise_limit, resident
from .processes import ROOT, Platform, cpu
from .words import number

PROFILE = '{"pool-limit": 1, "concurrency": 10000, "queue-limit": 20000}'
HALF_HEAD = b"GET /hello/http/ HTTP/1.1\r\nHos"
HALF_BODY = b"POST /hello/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n" + bytes(1000)
UNREAD = b"GET /big/http/?4000000 HTTP/1.1\r\nHost: a\r\n\r\n"
#: Seconds that nobody is to be cut off while the fast one is measured, and that the answers may take to stand still.
PATIENT, SETTLING = 600, 120.0
#: Requests, and in how many of them an answering worker that still has something to do is sure to be seen at it.
COUNT, GLANCE = 2000, 500
#: Seconds of CPU, in so many requests, that are none to speak of: heartbeats go on.
STILL = 0.005


def main() -> int:
    """
    The exit status says whether the aims were met.

    When nothing moves any more the fast client's median is at most 1.3 times and its 99th part twice what it is alone;
    before that the 99th part stays below 50 ms.
    """
    wanted = number(__doc__, "count", 5_000)
    count = min(raise_limit(wanted), wanted)
    with Platform() as platform:
        node = platform.start_node()
        platform.run_app("hello", ROOT / "examples" / "hello", PROFILE)
        platform.run_app("big", ROOT / "bench" / "apps" / "big", PROFILE)
        proxy = platform.start_proxy(timeouts=dict.fromkeys(("request", "head", "body", "write", "chunk"), PATIENT))

        def fast(requests: int = COUNT) -> list[float]:
            return latencies(platform.http, "/hello/http/", requests)

        fast(1000)
        alone = fast()
        others = set(family(node.pid))
        with ExitStack() as crowd:
            for say in (HALF_HEAD, HALF_BODY, UNREAD):
                for client in gather(platform.http, count // 3, say):
                    crowd.enter_context(client)
            begun = time.monotonic()
            during = _until_still(fast, lambda: sum(map(cpu, set(family(node.pid)) - others)))
            took = time.monotonic() - begun
            settled = fast()
            memory = resident(proxy.pid) // 1024
        time.sleep(3)  # they all leave
        again = fast()
    _tell("alone", alone)
    _tell(f"while the answers of {count // 3} come, {took:.0f} s", during)
    _tell(f"among {count // 3 * 3} slow ones", settled)
    _tell("alone again", again)
    print(f"the proxy's memory among them: {memory} MB")
    (median, high), *more = (_parts(one) for one in (settled, alone, again))
    calm = median < 1.3 * max(one[0] for one in more) and high < 2 * max(one[1] for one in more)
    return not (calm and _parts(during)[1] < 0.05)


def _until_still(fast: Callable[[int], list[float]], used: Callable[[], float]) -> list[float]:
    """What the fast client sees until those who answer the slow ones use no CPU to speak of."""
    seen: list[float] = []
    end = time.monotonic() + SETTLING
    before, now = -1.0, used()
    while now > before + STILL or not now:
        if time.monotonic() > end:
            raise TimeoutError(f"the answers still move after {SETTLING:.0f} s")
        seen += fast(GLANCE)
        before, now = now, used()
    return sorted(seen)


def _parts(took: list[float]) -> tuple[float, float]:
    """The median and the 99th part."""
    return took[len(took) // 2], took[len(took) * 99 // 100]


def _tell(title: str, took: list[float]) -> None:
    p50, p99 = _parts(took)
    print(f"a fast client {title}: median {p50 * 1e6:.0f} us, 99% {p99 * 1e6:.0f} us, worst {took[-1] * 1e6:.0f} us")


if __name__ == "__main__":
    sys.exit(main())
