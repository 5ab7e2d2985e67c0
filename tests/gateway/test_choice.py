"""Which node gets the next request."""

from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.gateway.choice import Rules, Standing, choose

RULES = Rules()


class Choosing(SynchronousTestCase):
    def setUp(self):
        self.random = Random(5).random

    def nodes(self, *loads, since=-1000.0):
        return [Standing(since, in_flight=load) for load in loads]

    def shares(self, nodes, now=0.0, tried=(), heaviest=1.0, count=4000):
        counted = Counter(
            nodes.index(choose(nodes, tried, now, RULES, self.random, heaviest)) for _ in range(count)
        )
        return [counted[place] / count for place in range(len(nodes))]

    def near(self, value, expected, distance):
        self.assertLess(abs(value - expected), distance)

    def test_nobody(self):
        """Without nodes there is no choice, and when all were tried there is none either."""
        self.assertIsNone(choose([], (), 0.0, RULES, self.random))
        nodes = self.nodes(0, 0)
        self.assertIsNone(choose(nodes, nodes, 0.0, RULES, self.random))

    def test_even(self):
        """Equal nodes get equal shares."""
        for share in self.shares(self.nodes(0, 0, 0, 0)):
            self.near(share, 0.25, 0.04)

    def test_less_laden(self):
        """The busiest node gets a request only when it is drawn twice."""
        shares = self.shares(self.nodes(9, 1, 1, 1))
        self.near(shares[0], 1 / 16, 0.03)

    def test_tried(self):
        """A node that was tried is not asked again."""
        nodes = self.nodes(0, 0, 0)
        self.assertEqual(self.shares(nodes, tried=nodes[:2]), [0, 0, 1])

    def test_weight(self):
        """Idle nodes are drawn by their weights."""
        nodes = [Standing(-1000.0, weight=weight) for weight in (1.0, 3.0)]
        shares = self.shares(nodes, heaviest=3.0)
        self.assertGreater(shares[1], 0.6)
        self.assertLess(shares[1], 0.9)

    def test_slow_start(self):
        """A node that has just joined gets little, and its full share in the end."""
        nodes = [*self.nodes(0, 0, 0), Standing(0.0)]
        first, middle, last = (self.shares(nodes, now)[3] for now in (0.1, 5.0, 10.0))
        self.assertLess(first, 0.08)
        self.assertLess(first, middle)
        self.assertLess(middle, last)
        self.near(last, 0.25, 0.04)

    def test_all_new(self):
        """Where all nodes are new, somebody is chosen all the same."""
        nodes = self.nodes(0, 0, since=0.0)
        self.assertIsNotNone(choose(nodes, (), 0.0, RULES, self.random))

    def test_ejected(self):
        """A node that fails again and again is left out for a while, longer each time, and comes back slowly."""
        node, other = nodes = self.nodes(0, 0)
        results = [node.failed(100.0, RULES) for _ in range(RULES.eject_after)]
        self.assertEqual(results, [False] * (RULES.eject_after - 1) + [True])
        self.assertEqual(self.shares(nodes, 105.0), [0, 1])
        self.assertLess(self.shares(nodes, 110.1)[0], 0.1)
        for _ in range(RULES.eject_after):
            node.failed(120.0, RULES)
        self.assertEqual(node.until, 140.0)
        node.succeeded(140.0)
        for _ in range(RULES.eject_after - 1):
            self.assertFalse(node.failed(150.0, RULES))

    def test_quiet(self):
        """A node that has requests and says nothing is avoided, unless all are like that."""
        node, other = nodes = self.nodes(0, 0)
        node.took(10.0)
        self.assertGreater(self.shares(nodes, 10.5)[0], 0.1)
        self.assertEqual(self.shares(nodes, 11.5), [0, 1])
        other.took(10.0)
        self.assertGreater(self.shares(nodes, 11.5)[0], 0.9)
        node.succeeded(11.5)
        self.assertGreater(self.shares(nodes, 11.6)[0], 0.9)

    def test_all_ejected(self):
        """When all are out, the least laden gets the request after all."""
        nodes = self.nodes(3, 1, 2)
        for node in nodes:
            node.until = 10.0
        self.assertEqual(self.shares(nodes, 0.0), [0, 1, 0])
