"""The directory as those see it who follow it."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import InvalidArgument
from cocaine_tx.interfaces import ServiceInfo
from cocaine_tx.locator.directory import Directory, wire_form

GRAPH = {0: ["read", {}, {0: ["value", {}], 1: ["error", {}]}]}


def info(port: int) -> ServiceInfo:
    return ServiceInfo((("127.0.0.1", port),), 1, GRAPH)


def gone(port: int) -> ServiceInfo:
    return ServiceInfo((), 1, GRAPH)


class DirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Directory(restricted=["logging"])
        self.heard: list[Mapping[str, ServiceInfo]] = []

    def test_lookup(self) -> None:
        """A service is found while it is offered."""
        self.directory.add("storage", info(1))
        self.directory.add("app", info(2))
        self.assertEqual((list(self.directory), len(self.directory)), (["app", "storage"], 2))
        self.assertEqual(self.directory.find("app"), info(2))
        self.directory.remove("app")
        self.assertIsNone(self.directory.find("app"))
        self.assertNotIn("app", self.directory)

    def test_duplicate(self) -> None:
        """A second service of a name is refused, and the first one survives."""
        self.directory.add("storage", info(1))
        self.directory.follow("peer", self.heard.append)
        error = self.assertRaises(InvalidArgument, self.directory.add, "storage", info(2))
        self.assertEqual((error.pair, error.reason), ((12, 22), "service 'storage' already exists"))
        self.assertEqual((self.directory.find("storage"), len(self.heard)), (info(1), 1))

    def test_follow(self) -> None:
        """A peer gets the whole directory, perhaps empty, then each change; a removal keeps version and graph."""
        self.directory.follow("peer", self.heard.append)
        self.directory.add("app", info(2))
        self.directory.move("app", info(3))
        self.directory.move("app", info(3))
        self.directory.remove("app")
        self.directory.remove("app")
        self.assertEqual(self.heard, [{}, {"app": info(2)}, {"app": info(3)}, {"app": gone(3)}])
        self.directory.add("app", info(4))
        later: list[Mapping[str, ServiceInfo]] = []
        self.directory.follow("other", later.append)
        self.assertEqual(later, [{"app": info(4)}])

    def test_unannounced(self) -> None:
        """Peers never hear of the locator and of restricted services; the own gateway misses the locator only."""
        observed: list[Mapping[str, ServiceInfo]] = []
        self.directory.add("locator", info(1))
        self.directory.add("logging", info(2))
        self.directory.follow("peer", self.heard.append)
        end = self.directory.observe(observed.append)
        self.directory.move("logging", info(3))
        self.directory.remove("locator")
        self.directory.remove("logging")
        self.assertEqual(self.heard, [{}])
        self.assertEqual(observed, [{"logging": info(2)}, {"logging": info(3)}, {"logging": gone(3)}])
        end()
        end()
        self.directory.add("app", info(4))
        self.assertEqual(len(observed), 3)

    def test_fast_reconnect(self) -> None:
        """A peer that is back before its old stream was noticed dead keeps its new one."""
        end_old = self.directory.follow("peer", self.heard.append)
        newer: list[Mapping[str, ServiceInfo]] = []
        end_new = self.directory.follow("peer", newer.append)
        end_old()
        self.directory.add("app", info(1))
        self.assertEqual((self.heard, newer), ([{}], [{}, {"app": info(1)}]))
        end_new()
        self.directory.remove("app")
        self.assertEqual((len(newer), self.directory.peers()), (2, ()))

    def test_changes_within_changes(self) -> None:
        """All hear of changes in the order in which they were made, also when one follower causes another."""
        def undo(change: Mapping[str, ServiceInfo]) -> None:
            if "app" in change and change["app"].endpoints:
                self.directory.remove("app")

        self.directory.follow("first", undo)
        self.directory.follow("second", self.heard.append)
        self.directory.add("app", info(1))
        self.assertEqual(self.heard, [{}, {"app": info(1)}, {"app": gone(1)}])

    def test_leaving_within_a_change(self) -> None:
        """A follower that ends another one's following during a change is obeyed at once."""
        ends: list[object] = []
        self.directory.follow("first", lambda change: ends and ends[0]())  # type: ignore[operator]
        ends.append(self.directory.follow("second", self.heard.append))
        self.directory.add("app", info(1))
        self.assertEqual(self.heard, [{}])

    def test_wire_form(self) -> None:
        """The shape captured from the original."""
        self.assertEqual(
            wire_form({"echo": info(10379), "old": gone(1)}),
            {"echo": [[["127.0.0.1", 10379]], 1, GRAPH], "old": [[], 1, GRAPH]},
        )
