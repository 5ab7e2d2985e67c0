"""Announcements of nodes, read."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import RemoteProtocolError
from cocaine_tx.locator.news import news_of
from cocaine_tx.wire.frames import pack, unpack
from cocaine_tx.wire.protocols import APP


def announced(graph: Any) -> tuple[Any, ...]:
    """The arguments of a write that announces one service with that graph, as they arrive."""
    value: tuple[Any, ...] = unpack(pack(("node", {"app": ((("10.0.0.1", 1),), 1, graph)})))
    return value


class NewsTests(SynchronousTestCase):
    def test_one_graph(self) -> None:
        """Equal graphs of many services are kept once."""
        first, second = (news_of(announced(APP.graph()), ()).services["app"] for _ in range(2))
        self.assertEqual(first.graph, unpack(pack(APP.graph())))
        self.assertIs(first.graph, second.graph)

    def test_deep_graph(self) -> None:
        """Graphs so deep that Python cannot compare them are at most the node's breach of the protocol."""
        deep: Any = None
        for _ in range(1015):
            deep = {0: deep}
        for _ in range(2):
            try:
                self.assertIn("app", news_of(announced(deep), ()).services)
            except RemoteProtocolError:
                pass
