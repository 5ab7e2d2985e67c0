"""
What operators are shown on an endpoint of their own: ``/ping``, ``/info`` and ``/metrics``. Not for the world.

Source: reference ``http-tools-sdk.md`` section A.2 (util server) and A.3 (monitoring).
"""

from __future__ import annotations

import json
from collections.abc import Callable

from .failure import Failure, not_routed
from .metrics import Totals
from .request import RequestHead

_JSON = [(b"Content-Type", b"application/json")]
_PROMETHEUS = [(b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")]


class Operations:
    """
    Answers about one proxy process, or several.

    :param totals: what they have counted.
    """

    def __init__(self, totals: Callable[[], Totals]) -> None:
        self._totals = totals

    def __call__(self, head: RequestHead) -> Failure:
        """The answer to one request."""
        if head.method not in (b"GET", b"HEAD"):
            return Failure(405, "only GET is known here", headers=[(b"Allow", b"GET, HEAD")])
        path, _, query = head.target.partition(b"?")
        totals = self._totals()
        meters, pools = totals.meters, totals.pools
        if path == b"/ping":
            return Failure(200, "OK") if totals.healthy else Failure(503, "Failed")
        if path == b"/info" or (path == b"/metrics" and query == b"format=json"):
            return Failure(200, json.dumps(meters.info(pools)), headers=_JSON)
        if path == b"/metrics":
            return Failure(200, meters.text(pools).rstrip("\n"), headers=_PROMETHEUS)
        return not_routed()
