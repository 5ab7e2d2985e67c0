"""Discovery: what is announced, what is heard, and what must not deafen anybody."""

import errno
import socket

import msgpack
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from cocaine_tx.errors import UndecodableError
from cocaine_tx.interfaces import ICluster, IClusterListener
from cocaine_tx.locator.multicast import Group, MulticastCluster, announcement, heard
from cocaine_tx.locator.predefined import PredefinedCluster


@implementer(IClusterListener)
class Listener:
    def __init__(self):
        self.log = []
        self.heard = Deferred()

    def link(self, label, endpoints):
        self.log.append(("link", label, tuple(endpoints)))
        if not self.heard.called:
            self.heard.callback(None)

    def drop(self, label):
        self.log.append(("drop", label))


class FakeSocket:
    def __init__(self):
        self.sent = []
        self.options = []
        self.trouble = None

    def setsockopt(self, *option):
        if self.trouble and (self.trouble.errno != errno.EADDRINUSE or option[1] == socket.IP_ADD_MEMBERSHIP):
            raise self.trouble
        self.options.append(option)

    def sendto(self, data, where):
        self.sent.append((data, where))


class FakePort:
    def __init__(self, handle):
        self.handle = handle

    def getHandle(self):
        return self.handle

    def stopListening(self):
        self.handle.closed = True


class FakeReactor(Clock):
    def __init__(self):
        super().__init__()
        self.socket = FakeSocket()
        self.opened = []

    def listenMulticast(self, port, protocol, **settings):
        self.opened.append((port, settings["interface"]))
        return FakePort(self.socket)


class Announcing(SynchronousTestCase):
    def setUp(self):
        self.reactor = FakeReactor()
        self.listener = Listener()

    def start(self, endpoints=(("10.0.0.1", 10053),), listener="own", **settings):
        self.cluster = MulticastCluster(self.reactor, Group("239.0.100.53", **settings))
        verifyObject(ICluster, self.cluster)
        self.cluster.start("uuid-a", lambda: endpoints, self.listener if listener == "own" else listener)

    def test_payload(self):
        """The datagram is the original's, byte for byte."""
        self.assertEqual(
            announcement("uuid-a", [("10.0.0.1", 10053)]).hex(), "92a6757569642d619192a831302e302e302e31cd2745"
        )

    def test_interval(self):
        """A node is announced at once and every interval, until it stops."""
        self.start()
        self.reactor.advance(5)
        self.reactor.advance(5)
        self.assertEqual([where for _, where in self.reactor.socket.sent], [("239.0.100.53", 10053)] * 3)
        self.cluster.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertTrue(self.reactor.socket.closed)

    def test_no_address_yet(self):
        """Without an address nothing is said, and it is tried again."""
        endpoints = []
        self.start(endpoints)
        endpoints.append(("10.0.0.1", 1))
        self.reactor.advance(5)
        self.assertEqual(len(self.reactor.socket.sent), 1)

    def test_no_route(self):
        """A host without a multicast route starts all the same, and tries again."""
        self.reactor.socket.trouble = OSError(19, "No such device")
        self.start()
        self.reactor.advance(5)
        self.assertEqual(self.reactor.socket.sent, [])
        self.reactor.socket.trouble = None
        self.reactor.advance(5)
        self.assertEqual(len(self.reactor.socket.sent), 1)

    def test_interface_comes_back(self):
        """The group is entered again at every interval, and by a new socket after a failure: an interface forgets."""
        self.start()
        entered = (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.0.100.53") + bytes(4))
        for trouble, opened, said in ((OSError(98, "Address in use"), 1, 2), (OSError(19, "No such device"), 1, 2)):
            self.reactor.socket.trouble = trouble
            self.reactor.advance(5)
            self.assertEqual((len(self.reactor.opened), len(self.reactor.socket.sent)), (opened, said))
        self.reactor.socket.trouble = None
        self.reactor.socket.options.clear()
        self.reactor.advance(5)
        self.assertEqual((len(self.reactor.opened), len(self.reactor.socket.sent)), (2, 3))
        self.assertTrue(self.reactor.socket.closed)
        self.assertIn(entered, self.reactor.socket.options)
        self.reactor.socket.options.clear()
        self.reactor.advance(5)
        self.assertEqual(len(self.reactor.opened), 2)
        self.assertIn(entered, self.reactor.socket.options)

    def test_announce_only(self):
        """Who does not listen does not take the port."""
        self.start(listener=None)
        self.assertEqual(self.reactor.opened, [(0, "0.0.0.0")])
        self.cluster.received(announcement("uuid-b", [("10.0.0.2", 1)]))

    def test_garbage(self):
        """Garbage is dropped, and the next announcement is heard."""
        self.start()
        own = announcement("uuid-a", [("10.0.0.1", 1)])
        for datagram in (
            b"", b"\xc1", b"x" * 60000, msgpack.packb([1, 2]), msgpack.packb(["u", [["10.0.0.2"]]]), own,
            msgpack.packb(["u", [["host.example", 1]]]), msgpack.packb(["u", [["10.0.0.2", 0]]]),
            msgpack.packb(["u", [["10.0.0.2", "1"]]]), msgpack.packb(["", [["10.0.0.2", 1]]]),
            msgpack.packb(["u", [["10.0.0.2", 1]] * 100]), msgpack.packb(["u", []]), msgpack.packb({1: 2}),
            b"\xdd\xff\xff\xff\xff",
        ):  # fmt: skip
            self.cluster.received(datagram)
        self.assertEqual(self.listener.log, [])
        self.cluster.received(announcement("uuid-b", [("10.0.0.2", 1), ("fe80::1", 2)]))
        self.assertEqual(self.listener.log, [("link", "uuid-b", (("10.0.0.2", 1), ("fe80::1", 2)))])

    def test_listener_fails(self):
        """A fault of ours on one announcement does not deafen us."""
        self.start()
        self.listener.link = lambda label, endpoints: 1 / 0
        self.cluster.received(announcement("uuid-b", [("10.0.0.2", 1)]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_expiry(self):
        """A node is reported at every announcement, and dropped after three intervals of silence."""
        self.start()
        self.cluster.received(announcement("uuid-b", [("10.0.0.2", 1)]))
        self.reactor.advance(5)
        self.cluster.received(announcement("uuid-b", [("10.0.0.2", 1)]))
        for _ in range(2):
            self.reactor.advance(5)
        self.assertEqual([entry[0] for entry in self.listener.log], ["link", "link"])
        self.reactor.advance(5)
        self.assertEqual(self.listener.log[-1], ("drop", "uuid-b"))

    def test_original(self):
        """What the original says is understood."""
        said = bytes.fromhex("92a6757569642d619192a831302e302e302e31cd2745")
        self.assertEqual(heard(said), ("uuid-a", (("10.0.0.1", 10053),)))
        self.assertRaises(UndecodableError, heard, said + b"\x00")


class Predefined(SynchronousTestCase):
    def test_list(self):
        """Every node of the list is told again and again, by its label."""
        clock = Clock()
        listener = Listener()
        cluster = PredefinedCluster(clock, {"one": ("10.0.0.1", 1), "two": ("host.example", 2)}, 5)
        verifyObject(ICluster, cluster)
        cluster.start("uuid-a", tuple, listener)
        clock.advance(5)
        expected = [("link", "one", (("10.0.0.1", 1),)), ("link", "two", (("host.example", 2),))]
        self.assertEqual(listener.log, expected * 2)
        cluster.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_announce_only(self):
        """A node without a gateway has no use for a list."""
        clock = Clock()
        PredefinedCluster(clock, {"one": ("10.0.0.1", 1)}, 5).start("uuid-a", tuple, None)
        self.assertEqual(clock.getDelayedCalls(), [])


class RealSockets(TestCase):
    """Two nodes on this host hear one another, where the host can do multicast at all."""

    async def hear(self, address, interface):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        listener = Listener()
        group = Group(address, port, 0.05, interface, loopback=True, hops=0)
        ear, mouth = MulticastCluster(reactor, group), MulticastCluster(reactor, group)
        ear.start("uuid-ear", tuple, listener)
        mouth.start("uuid-mouth", lambda: (("10.0.0.1", 1),), None)
        try:
            if ear._port is None or mouth._complaint:
                raise SkipTest(f"impossible here: no multicast: {ear._complaint or mouth._complaint}")
            await listener.heard.addTimeout(5, reactor)
        finally:
            await ear.stop()
            await mouth.stop()
        self.assertEqual(listener.log[0], ("link", "uuid-mouth", (("10.0.0.1", 1),)))

    def test_ipv4(self):
        """By IPv4."""
        return Deferred.fromCoroutine(self.hear("239.0.100.53", "127.0.0.1"))

    def test_ipv6(self):
        """By IPv6."""
        if not socket.has_ipv6:
            raise SkipTest("no IPv6 here")
        return Deferred.fromCoroutine(self.hear("ff11::10:53", "lo"))
