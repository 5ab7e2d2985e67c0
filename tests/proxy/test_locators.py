"""The proxy's line to its locators, when one of them is not what it should be."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import Unreachable
from cocaine_tx.interfaces import ServiceInfo
from cocaine_tx.proxy.locators import Locators
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.network import Network
from cocaine_tx.wire.protocols import APP, LOCATOR

FIRST, SECOND, PROXY = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class Locator:
    """One that answers, until it is frozen: then it takes connections and says nothing."""

    def __init__(self, network: Network, turn: Turn, address: str) -> None:
        self.frozen = False
        self.asked = 0
        self.address = address
        host = network.host(address)
        dispatch = Dispatch(
            LOCATOR,
            {"resolve": self._resolve, "cluster": self._cluster},
            {"routing": lambda channel, headers, uid: None},
        )
        host.listenTCP(10053, ServiceFactory(dispatch, Hospitality(turn, host)), interface=address)

    def _resolve(self, headers: Any, name: bytes, seed: bytes = b"") -> Any:
        self.asked += 1
        return Deferred() if self.frozen else ([[self.address, 7]], APP.version, APP.graph())

    def _cluster(self, headers: Any) -> Any:
        return Deferred() if self.frozen else ({},)


class LocatorsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        turn = Turn(self.network)
        self.first, self.second = (Locator(self.network, turn, place) for place in (FIRST, SECOND))
        dialer = Dialer(self.network.host(PROXY), turn)
        self.locators = Locators(dialer, [(FIRST, 10053), (SECOND, 10053)], 5.0)
        self.addCleanup(self.locators.stop)

    def run_for(self, seconds: float) -> None:
        for _ in range(int(seconds * 4) + 1):
            self.network.advance(0.25)

    def resolve(self, seconds: float = 0.0) -> Any:
        """Where the app is said to be, after so many seconds at most; None if nothing is said by then."""
        found: list[Any] = []
        Deferred.fromCoroutine(self.locators.resolve("app")).addBoth(found.append)
        self.run_for(seconds)
        if not found:
            return None
        return found[0].endpoints[0][0] if isinstance(found[0], ServiceInfo) else found[0].value

    def test_frozen(self) -> None:
        """A locator that takes connections and says nothing costs one wait; then the next one is asked, and stays."""
        self.first.frozen = True
        self.assertEqual(self.resolve(6), SECOND)
        for _ in range(5):
            self.assertEqual(self.resolve(), SECOND)
        self.assertEqual(self.first.asked, 1)
        self.assertTrue(self.locators.healthy)

    def test_frozen_under_way(self) -> None:
        """So does one that freezes while it is in use; whoever had asked it is answered by the other."""
        self.assertEqual(self.resolve(), FIRST)
        self.first.frozen = True
        found: list[Any] = []
        for _ in range(3):
            Deferred.fromCoroutine(self.locators.resolve("app")).addBoth(found.append)
            self.run_for(1)
        self.run_for(6)
        self.assertEqual([info.endpoints[0][0] for info in found], [SECOND] * 3)

    def test_all_frozen(self) -> None:
        """When none of them answers, it is said so in the time of two questions."""
        self.first.frozen = self.second.frozen = True
        self.assertIsInstance(self.resolve(11), Unreachable)
        self.assertFalse(self.locators.healthy)
        self.second.frozen = False
        self.assertEqual(self.resolve(6), SECOND)

    def test_check(self) -> None:
        """A proxy with one living locator is well."""
        self.first.frozen = True
        Deferred.fromCoroutine(self.locators.check())
        self.run_for(6)
        self.assertTrue(self.locators.healthy)

    def test_unreachable(self) -> None:
        """One whose host is gone without a word is not waited for again and again."""
        self.network.silent.add(FIRST)
        self.assertEqual(self.resolve(6), SECOND)
        for _ in range(3):
            self.network.kill(SECOND)
            self.second = Locator(self.network, Turn(self.network), SECOND)
            self.run_for(0)
            self.assertEqual(self.resolve(1), SECOND)

    def test_stopped_while_connecting(self) -> None:
        """A connection that comes when everything has been stopped is not kept."""
        Deferred.fromCoroutine(self.locators.resolve("app")).addErrback(lambda _: None)
        self.locators.stop()
        self.run_for(1)
        self.assertEqual(self.network.pipes, set())
