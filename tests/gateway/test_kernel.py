"""The plan for the kernel's table, and the tables that carry it out."""

from twisted.trial.unittest import SynchronousTestCase, TestCase

from cocaine_tx.gateway.kernel import (
    AddDestination,
    AddService,
    Destination,
    DropDestination,
    DropService,
    SetDestination,
    SetService,
    Virtual,
    applied,
    plan,
)
from cocaine_tx.testing.kernel import MemoryKernel, kernel_contract

AT, OTHER = ("10.0.1.1", 30000), ("10.0.1.1", 80)
A, B, C = ("10.0.0.1", 1), ("10.0.0.2", 1), ("10.0.0.3", 1)


def own(at):
    return at[1] >= 30000


def virtual(scheduler="wlc", **weights):
    return Virtual(scheduler, {{"a": A, "b": B, "c": C}[name]: Destination(weight) for name, weight in weights.items()})


class Plan(SynchronousTestCase):
    """What has to be done, as a table of cases."""

    def check(self, wanted, kernel, expected):
        self.assertEqual(plan(wanted, kernel, own), expected)
        after = applied(kernel, expected)
        self.assertEqual(plan(wanted, after, own), [])

    def test_nothing(self):
        """What is as wanted is not touched."""
        self.check({AT: virtual(a=1)}, {AT: virtual(a=1), OTHER: virtual(b=1)}, [])

    def test_new(self):
        """A service comes with its servers."""
        expected = [AddService(AT, "wlc"), AddDestination(AT, A, 1), AddDestination(AT, B, 2)]
        self.check({AT: virtual(a=1, b=2)}, {}, expected)

    def test_changed(self):
        """Servers are added before others are taken away."""
        self.check(
            {AT: virtual("rr", a=0, c=1)},
            {AT: virtual("wlc", a=1, b=1)},
            [AddDestination(AT, C, 1), SetService(AT, "rr"), SetDestination(AT, A, 0), DropDestination(AT, B)],
        )

    def test_foreign(self):
        """Others' services stay, ours that nobody wants go."""
        self.check({}, {AT: virtual(a=1), OTHER: virtual(b=1)}, [DropService(AT)])

    def test_flows_do_not_matter(self):
        """A destination with connections is the same destination."""
        self.check({AT: virtual(a=1)}, {AT: Virtual("wlc", {A: Destination(1, 17)})}, [])


class Memory(kernel_contract(MemoryKernel), TestCase):
    """The table in memory."""
