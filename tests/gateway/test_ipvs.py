"""The kernel's gateway: what is in the table as nodes come and go, and across restarts."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cocaine_tx.errors import ConfigError
from cocaine_tx.gateway.ipvs import CLAIM, DRAIN, KEEP, LOOK, IpvsGateway, Place
from cocaine_tx.gateway.kernel import Destination, Virtual
from cocaine_tx.interfaces import IGateway, ServiceInfo
from cocaine_tx.testing.kernel import MemoryKernel
from cocaine_tx.wire.protocols import APP

GRAPH = APP.graph()
PLACE = Place(("10.0.1.1",), (30000, 30003), "rr")
FOREIGN = ("10.0.1.1", 80)


def at(*places):
    return ServiceInfo(places, 1, GRAPH)


N1, N2, N3 = ("10.0.0.1", 5), ("10.0.0.2", 5), ("10.0.0.3", 5)


class Ipvs(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.kernel = MemoryKernel()
        self.kernel.table[FOREIGN] = Virtual("wlc", {N1: Destination(1)})
        self.gateway = self.make()

    def make(self, place=PLACE):
        gateway = IpvsGateway(self.kernel, self.clock, place)
        verifyObject(IGateway, gateway)
        self.successResultOf(gateway.start())
        self.settle()
        return gateway

    def settle(self):
        self.clock.advance(0)
        self.clock.advance(0)

    def run_for(self, seconds):
        for _ in range(int(seconds / LOOK) + 1):
            self.clock.advance(LOOK)
            self.settle()

    def consume(self, uuid, name, *places, session="s", **extra):
        self.gateway.consume(session, uuid, name, at(*places), extra)
        self.settle()

    def weights(self, port=30000, host="10.0.1.1"):
        virtual = self.kernel.table.get((host, port))
        return None if virtual is None else {to[0]: what.weight for to, what in virtual.destinations.items()}

    def test_one_address(self):
        """Clients get one address, and the nodes are behind it."""
        self.assertIsNone(self.gateway.resolve("app"))
        self.consume("u1", "app", N1)
        self.consume("u2", "app", N2, **{"x-cocaine-weight": 3})
        self.assertEqual(self.gateway.resolve("app").endpoints, (("10.0.1.1", 30000),))
        self.assertEqual(self.weights(), {"10.0.0.1": 1, "10.0.0.2": 3})
        self.assertEqual(self.kernel.table["10.0.1.1", 30000].scheduler, "rr")

    def test_same_answer(self):
        """The address does not change as nodes come and go, so that its packed form is used again."""
        self.consume("u1", "app", N1)
        before = self.gateway.resolve("app")
        self.consume("u2", "app", N2)
        self.assertIs(self.gateway.resolve("app"), before)

    def test_leaving(self):
        """A node that goes gets nothing new at once, and is gone when its flows have ended."""
        self.consume("u1", "app", N1)
        self.consume("u2", "app", N2)
        self.kernel.flow(("10.0.1.1", 30000), N1, 2)
        self.gateway.forget("s", "u1")
        self.settle()
        self.assertEqual(self.weights(), {"10.0.0.1": 0, "10.0.0.2": 1})
        self.run_for(20)
        self.assertEqual(self.weights(), {"10.0.0.1": 0, "10.0.0.2": 1})
        self.kernel.flow(("10.0.1.1", 30000), N1, 0)
        self.run_for(LOOK)
        self.assertEqual(self.weights(), {"10.0.0.2": 1})

    def test_endless_flow(self):
        """A flow that does not end is cut when the time for it is over."""
        self.consume("u1", "app", N1)
        self.consume("u2", "app", N2)
        self.kernel.flow(("10.0.1.1", 30000), N1, 2)
        self.gateway.withdraw("s", "u1", "app")
        self.run_for(DRAIN + LOOK)
        self.assertEqual(self.weights(), {"10.0.0.2": 1})

    def test_back(self):
        """A node that comes back while it drains is used again."""
        self.consume("u1", "app", N1)
        self.gateway.withdraw("s", "u1", "app")
        self.settle()
        self.assertIsNone(self.gateway.resolve("app"))
        self.consume("u1", "app", N1, session="s2")
        self.assertEqual(self.weights(), {"10.0.0.1": 1})
        self.gateway.forget("s", "u1")
        self.run_for(DRAIN + LOOK)
        self.assertEqual(self.weights(), {"10.0.0.1": 1})
        self.assertIsNotNone(self.gateway.resolve("app"))

    def test_moved(self):
        """A node that answers elsewhere is reached there; the old place drains."""
        self.consume("u1", "app", N1)
        self.consume("u1", "app", N3)
        self.assertEqual(self.weights(), {"10.0.0.1": 0, "10.0.0.3": 1})

    def test_foreign_untouched(self):
        """What others have in the table is never touched."""
        self.consume("u1", "app", N1)
        self.run_for(CLAIM + DRAIN)
        self.assertEqual(self.kernel.table[FOREIGN], Virtual("wlc", {N1: Destination(1)}))
        self.assertFalse([operation for operation in self.kernel.log if operation.at == FOREIGN])

    def test_restart(self):
        """A restart touches nothing that is still so, and takes away what is not when its time is over."""
        self.consume("u1", "app", N1)
        self.consume("u2", "app", N2)
        self.consume("u3", "other", N3)
        self.successResultOf(self.gateway.stop())
        self.kernel.log.clear()
        self.gateway = self.make()
        # The services come in another order, and one does not come at all.
        self.consume("u3", "third", ("10.0.0.9", 9))
        self.consume("u1", "app", N1)
        self.assertEqual(self.gateway.resolve("app").endpoints, (("10.0.1.1", 30000),))
        self.assertEqual(self.gateway.resolve("third").endpoints, (("10.0.1.1", 30002),))
        self.assertEqual(self.weights(), {"10.0.0.1": 1, "10.0.0.2": 1})
        self.assertEqual({operation.at[1] for operation in self.kernel.log}, {30002})
        self.kernel.flow(("10.0.1.1", 30001), N3, 1)
        self.run_for(CLAIM)
        self.assertEqual(self.weights(), {"10.0.0.1": 1})
        self.assertEqual(self.weights(30001), {"10.0.0.3": 0})
        self.kernel.flow(("10.0.1.1", 30001), N3, 0)
        self.run_for(LOOK)
        self.assertIsNone(self.weights(30001))

    def test_somebody_else(self):
        """What somebody has taken out of the table is put back."""
        self.consume("u1", "app", N1)
        del self.kernel.table["10.0.1.1", 30000]
        self.run_for(70)
        self.assertEqual(self.weights(), {"10.0.0.1": 1})

    def test_ports(self):
        """When there are no more ports a service is left out, and ports come back in time."""
        for number in range(4):
            self.consume("u1", f"app{number}", ("10.0.0.1", 100 + number))
        self.assertIsNone(self.gateway.resolve("app3"))
        self.gateway.withdraw("s", "u1", "app0")
        self.run_for(KEEP + DRAIN + 70)
        self.consume("u1", "app3", ("10.0.0.1", 103))
        self.assertIsNotNone(self.gateway.resolve("app3"))

    def test_two_families(self):
        """A node is behind the address of its own family."""
        self.gateway = self.make(Place(("10.0.1.1", "fd00::1", "10.0.1.2"), (30000, 30010)))
        self.consume("u1", "app", N1, ("fd00::2", 6), ("10.9.9.9", 7))
        self.assertEqual(self.gateway.resolve("app").endpoints, (("10.0.1.1", 30000), ("fd00::1", 30000)))
        self.assertEqual(self.weights(), {"10.0.0.1": 1})
        self.assertEqual(self.weights(host="fd00::1"), {"fd00::2": 1})

    def test_other_cluster(self):
        """Nodes of another cluster are not used."""
        self.consume("u1", "app", N1, **{"x-cocaine-cluster": "b"})
        self.assertIsNone(self.gateway.resolve("app"))

    def test_unusable_places(self):
        """Without an address or ports the gateway says so before it starts."""
        for place in (Place(("0.0.0.0",), (1, 2)), Place((), (1, 2)), Place(("10.0.1.1",), (0, 0))):
            self.assertRaises(ConfigError, IpvsGateway, self.kernel, self.clock, place)
