"""
How nodes learn of one another: by a list in the configuration.

`multicast` is the other way. Both are `ICluster`: they tell a listener again and again what they know, and leave it to
the links to find out what is so.

Source: reference ``node-engine.md`` section 7.3. The original took the list's keys for uuids, which nobody can know
beforehand; here they are labels, and a link learns the uuid from its node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from ..interfaces import Endpoint, ICluster, IClusterListener


@implementer(ICluster)
class PredefinedCluster:
    """
    Nodes by label, each at one address.

    Names are looked up whenever a link is made, so that a node may move.

    :param interval: seconds between tellings.
    """

    def __init__(self, clock: IReactorTime, nodes: Mapping[str, Endpoint], interval: float = 5.0) -> None:
        self._clock = clock
        self._nodes = dict(nodes)
        self._interval = interval
        self._heard: IClusterListener | None = None
        self._call: IDelayedCall | None = None

    def start(
        self, self_uuid: str, endpoints: Callable[[], Sequence[Endpoint]], heard: IClusterListener | None
    ) -> None:
        self._heard = heard
        if heard is not None:
            self._tell()

    def _tell(self) -> None:
        heard = self._heard
        if heard is None:
            return
        self._call = self._clock.callLater(self._interval, self._tell)
        for label, endpoint in self._nodes.items():
            heard.link(label, (endpoint,))

    def stop(self) -> Deferred[None]:
        self._heard = None
        if self._call is not None:
            self._call.cancel()
            self._call = None
        return succeed(None)
