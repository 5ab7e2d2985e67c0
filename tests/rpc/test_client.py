"""The calling side: who is tried, in which order, how often, and what callers are told."""

from __future__ import annotations

import socket

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cocaine_tx.errors import ConnectionGone, LocalProtocolError, NotFound, RemoteProtocolError, ServiceNotFound
from cocaine_tx.rpc.client import FIRST_PAUSE, RESOLVE_TIMEOUT, Dialer, ServiceClient, endpoint_to, service_info
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.network import Network
from cocaine_tx.wire.protocols import LOCATOR, STORAGE


class ClientTests(SynchronousTestCase):
    """A client, two locators and a storage on a network in memory."""

    def setUp(self) -> None:
        self.network = Network()
        self.asked: list[tuple[str, bytes]] = []
        self.places: list = [(b"10.0.0.8", 5000)]
        self.reads: list[Deferred] = []
        self.storage = self.serve("10.0.0.8", 5000, Dispatch(STORAGE, {"read": self.read}))
        for address in ("10.0.0.1", "10.0.0.2"):
            self.locate(address)
        host = self.network.host("10.0.0.9")
        self.dialer = Dialer(host, Turn(host))
        self.client = ServiceClient(self.dialer, [("10.0.0.1", 10053), ("10.0.0.2", 10053)], "storage")

    def locate(self, address: str) -> None:
        self.serve(address, 10053, Dispatch(LOCATOR, {
            "resolve": lambda headers, name, seed=None: self.resolve(address, name),
        }))  # fmt: skip

    def serve(self, address: str, port: int, dispatch: Dispatch):
        host = self.network.host(address)
        factory = ServiceFactory(dispatch, Hospitality(Turn(host), host))
        host.listenTCP(port, factory)
        return factory

    def resolve(self, address: str, name: bytes):
        self.asked.append((address, name))
        if name != b"storage":
            raise ServiceNotFound()
        return (tuple(self.places), 1, STORAGE.graph())

    def read(self, headers, collection, key):
        waiting: Deferred = Deferred()
        self.reads.append(waiting)
        return waiting

    def settle(self, seconds: float = 0) -> None:
        self.network.advance(seconds)
        for _ in range(50):
            self.network.advance(0)

    def test_call(self) -> None:
        """A call finds its service, connects and is answered; the next one uses the same connection."""
        first = self.client.call("read", "c", "k")
        self.settle()
        second = self.client.call("read", "c", "k")
        self.settle()
        for waiting in self.reads:
            waiting.callback((b"blob",))
        self.settle()
        self.assertEqual([self.successResultOf(answer) for answer in (first, second)], [(b"blob",)] * 2)
        self.assertEqual(self.asked, [("10.0.0.1", b"storage")])
        self.assertEqual(len(self.storage.connections), 1)

    def test_one_attempt_for_all(self) -> None:
        """Callers at the same time share one attempt."""
        answers = [self.client.remote() for _ in range(5)]
        self.settle()
        self.assertEqual(len({id(self.successResultOf(answer)) for answer in answers}), 1)
        self.assertEqual(len(self.asked), 1)

    def test_next_endpoint(self) -> None:
        """An address that refuses, or never answers, is followed by the next one; order is preference."""
        self.places = [(b"10.0.0.7", 1), (b"10.0.0.6", 2), (b"10.0.0.8", 5000)]
        self.network.host("10.0.0.7")
        answer = self.client.remote()
        for _ in range(12):
            self.settle(1)
        self.successResultOf(answer)
        self.assertEqual(len(self.storage.connections), 1)

    def test_next_locator(self) -> None:
        """The same goes for locators."""
        self.network.kill("10.0.0.1")
        answer = self.client.remote()
        for _ in range(12):
            self.settle(1)
        self.successResultOf(answer)
        self.assertEqual(self.asked, [("10.0.0.2", b"storage")])

    def test_unknown_service(self) -> None:
        """Who asks for what nobody serves is told just that; the locator's connection is not kept."""
        answer = ServiceClient(self.dialer, [("10.0.0.1", 10053)], "nothing").call("read", "c", "k")
        self.settle()
        self.failureResultOf(answer, ServiceNotFound)

    def test_nobody_there(self) -> None:
        """When no address answers, the error names the service and the addresses."""
        self.places = [(b"10.0.0.7", 1)]
        self.network.host("10.0.0.7")
        answer = self.client.remote()
        for _ in range(7):
            self.settle(1)
        reason = self.failureResultOf(answer, ConnectionGone).value.reason
        self.assertIn("storage", reason)
        self.assertIn("10.0.0.7:1", reason)
        self.places = []
        answer = self.client.remote()
        self.settle(FIRST_PAUSE)
        self.assertIn("no address", self.failureResultOf(answer, ConnectionGone).value.reason)

    def test_silent_locator(self) -> None:
        """A locator that takes the question and never answers has its time."""
        self.resolve = lambda address, name: Deferred()
        answer = self.client.remote()
        self.settle()
        self.settle(RESOLVE_TIMEOUT)
        self.failureResultOf(answer, TimeoutError)

    def test_back_off(self) -> None:
        """After failures attempts are paced, each pause twice the one before, to a limit; success ends that."""
        places, self.places = self.places, []
        pauses = []
        for _ in range(10):
            answer = self.client.remote()
            self.settle()
            waited = 0.0
            before = len(self.asked)
            while not answer.called and waited < 60:
                self.settle(0.1)
                waited += 0.1
            self.failureResultOf(answer, ConnectionGone)
            self.assertLessEqual(len(self.asked) - before, 1)
            pauses.append(waited)
        for waited, wanted in zip(pauses, (0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10), strict=True):
            self.assertLess(abs(waited - wanted), 0.15)
        self.places = places
        answer = self.client.remote()
        self.settle(10)
        self.settle()
        self.successResultOf(answer)
        self.network.kill("10.0.0.8")
        self.settle()
        self.places = []
        self.failureResultOf(self.at_once(self.client.remote()), ConnectionGone)

    def at_once(self, answer: Deferred) -> Deferred:
        self.settle()
        return answer

    def test_lost_and_found(self) -> None:
        """When the connection dies every open call fails once and none is repeated; the next call reconnects."""
        answers = [self.client.call("read", "c", "k") for _ in range(3)]
        failures: list = []
        for answer in answers:
            answer.addErrback(failures.append)
        self.settle()
        self.storage.close_all()
        self.settle()
        self.assertEqual([failure.check(ConnectionGone) for failure in failures], [ConnectionGone] * 3)
        self.assertEqual(len(self.reads), 3)
        again = self.client.call("read", "c", "k")
        self.settle()
        self.reads[-1].callback((b"blob",))
        self.settle()
        self.assertEqual(self.successResultOf(again), (b"blob",))
        self.assertEqual(len(self.asked), 2)

    def test_ending_connection(self) -> None:
        """A connection that is about to end is not used for a new call."""
        remote = self.client.remote()
        self.settle()
        self.successResultOf(remote).connection.session.ended = True
        again = self.client.remote()
        self.settle()
        self.assertIsNot(self.successResultOf(again), self.successResultOf(self.client.remote()).connection)
        self.assertEqual(len(self.asked), 2)

    def test_lost_interest(self) -> None:
        """Who gives up waiting leaves the attempt to the others, also when giving up in answer to its success."""
        first, second, third = (self.client.remote() for _ in range(3))
        second.cancel()
        first.addCallback(lambda _: third.cancel())
        fourth = self.client.remote()
        self.settle()
        self.failureResultOf(second, CancelledError)
        self.failureResultOf(third, CancelledError)
        self.successResultOf(fourth)
        self.assertEqual(len(self.asked), 1)

    def test_closed_while_connecting(self) -> None:
        """Closing gives up the attempt, whatever it is at, and tells who waits; a later call starts anew at once."""
        for steps in range(12):
            self.setUp()
            self.places = [(b"10.0.0.7", 1), *self.places]
            self.network.host("10.0.0.7")
            answer = self.client.remote()
            for _ in range(steps):
                self.network.advance(0.5)
            if answer.called:
                break
            self.client.close()
            self.failureResultOf(answer, ConnectionGone)
            for _ in range(20):
                self.settle(1)
            self.assertEqual(len(self.storage.connections), 0, steps)
            self.places = self.places[1:]
            again = self.client.remote()
            self.settle()
            self.successResultOf(again)
        self.successResultOf(answer)

    def test_closed(self) -> None:
        """Closing disconnects; open calls fail; a later call connects anew."""
        answer = self.client.call("read", "c", "k")
        self.settle()
        self.client.close()
        self.settle()
        self.failureResultOf(answer, ConnectionGone)
        self.assertEqual(len(self.storage.connections), 0)
        self.client.close()
        again = self.client.remote()
        self.settle()
        self.successResultOf(again)

    def test_errors_pass(self) -> None:
        """An error answered fails its call and leaves the connection to the others."""
        answer = self.client.call("read", "c", "k")
        self.settle()
        self.reads[0].errback(NotFound())
        self.settle()
        self.failureResultOf(answer, NotFound)
        self.failureResultOf(self.client.call("reed"), LocalProtocolError)
        self.assertEqual(len(self.storage.connections), 1)


class ShapeTests(SynchronousTestCase):
    """What locators may answer."""

    def test_service_info(self) -> None:
        """Endpoints in order, version, graph; anything more is ignored."""
        info = service_info((((b"::1", 1, b"more"), (b"10.0.0.1", 65535)), 3, {0: ()}, b"more"))
        self.assertEqual((info.endpoints, info.version, info.graph), ((("::1", 1), ("10.0.0.1", 65535)), 3, {0: ()}))

    def test_malformed(self) -> None:
        """Everything else is the locator's fault."""
        good = ((b"10.0.0.1", 1),)
        for args in (
            (), (good,), (good, 1), (5, 1, {}), ((5,), 1, {}), (((b"h",),), 1, {}), (((5, 1),), 1, {}),
            (good, b"v", {}), (((b"\xff", 1),), 1, {}), (((b"h", 0),), 1, {}), (((b"h", 65536),), 1, {}),
            (((b"h", -1),), 1, {}), (((b"h", b"x"),), 1, {}), (({},), 1, {}),
            (((b"h", float("inf")),), 1, {}), (None, 1, {}),
        ):  # fmt: skip
            self.assertRaises(RemoteProtocolError, service_info, args)

    def test_endpoints(self) -> None:
        """Literals are connected to directly, names are looked up."""
        kinds = [type(endpoint_to(None, (host, 1))).__name__ for host in ("127.0.0.1", "::1")]
        self.assertEqual(kinds, ["TCP4ClientEndpoint", "TCP6ClientEndpoint"])
        self.assertEqual(type(endpoint_to(reactor, ("localhost", 1))).__name__, "HostnameEndpoint")

    def test_patience(self) -> None:
        """An address is given as many seconds as the dialer was told."""
        host = MemoryReactorClock()
        connecting = Deferred.fromCoroutine(Dialer(host, Turn(host), timeout=2.5).connect([("127.0.0.1", 1)], STORAGE))
        self.assertEqual(host.tcpClients[0][3], 2.5)
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)


class LoopbackTests(TestCase):
    """Over real sockets."""

    timeout = 20

    async def test_first_endpoint_dead(self) -> None:
        """The first endpoint refuses, the second answers; a hundred calls at once get their own answers."""
        turn = Turn(reactor)
        storage = Dispatch(STORAGE, {"read": lambda headers, collection, key: (key,)})
        factory = ServiceFactory(storage, Hospitality(turn, reactor))
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        with socket.socket() as taken:
            # Bound and not listening: refuses for sure.
            taken.bind(("127.0.0.1", 0))
            places = [taken.getsockname(), ("127.0.0.1", port.getHost().port)]
            remote = await Dialer(reactor, turn).connect(places, STORAGE)
        ended: Deferred = Deferred()
        remote.connection.lost = lambda _: ended.callback(None)
        try:
            answers = await gatherResults([remote.call("read", "c", b"%d" % number) for number in range(100)])
            self.assertEqual(answers, [(b"%d" % number,) for number in range(100)])
            await remote.ping(5)
        finally:
            remote.close()
            await ended
