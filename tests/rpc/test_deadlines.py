"""Deadlines: nobody is over too early, nobody much too late, and thousands cost one timer."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.rpc.deadlines import FINEST, Deadlines, grain


class DeadlinesTests(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.floats(0.001, 1e5), st.booleans()), max_size=30))
    def test_in_time(self, plan: list[tuple[float, bool]]) -> None:
        """Each item is over once, at its deadline or at most a 64th of its time later; one that left, never."""
        clock = Clock()
        clock.advance(1e6)
        ended: dict[int, list[float]] = {}
        deadlines: Deadlines[int] = Deadlines(clock, lambda item: ended.setdefault(item, []).append(clock.seconds()))
        start = clock.seconds()
        bins = [deadlines.enter(item, start + time, grain(time)) for item, (time, _) in enumerate(plan)]
        for item, (_, leaves) in enumerate(plan):
            if leaves:
                deadlines.leave(item, bins[item])
        self.assertLessEqual(len(clock.getDelayedCalls()), 1)
        while clock.getDelayedCalls():
            clock.advance(max(0.0, clock.getDelayedCalls()[0].getTime() - clock.seconds()))
        for item, (time, leaves) in enumerate(plan):
            if leaves:
                self.assertNotIn(item, ended)
            else:
                (when,) = ended[item]
                self.assertGreaterEqual(when - start, time - 1e-6)
                self.assertLessEqual(when - start, time + max(FINEST, time / 64) + 1e-6)
        self.assertEqual(len(deadlines), 0)

    def test_few_bins(self) -> None:
        """A hundred thousand requests with a day each stand in one bin or two."""
        clock = Clock()
        deadlines: Deadlines[int] = Deadlines(clock, lambda item: None)
        bins = {deadlines.enter(item, clock.seconds() + 86400 + item / 1e5, grain(86400)) for item in range(100_000)}
        self.assertLessEqual(len(bins), 2)
        deadlines.stop()
        self.assertEqual((len(deadlines), clock.getDelayedCalls()), (0, []))

    def test_one_fault(self) -> None:
        """An item that cannot be ended does not keep the others from their ends."""
        clock, ended = Clock(), []

        def over(item: int) -> None:
            if item == 1:
                raise ValueError("no")
            ended.append(item)

        deadlines: Deadlines[int] = Deadlines(clock, over)
        for item in range(3):
            deadlines.enter(item, 1.0 + item, grain(1))
        clock.advance(1.1)
        clock.advance(5)
        self.assertEqual(ended, [0, 2])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_leaving_twice(self) -> None:
        """Whoever has left, or was over, may leave again."""
        clock = Clock()
        deadlines: Deadlines[str] = Deadlines(clock, lambda item: deadlines.leave(item, when))
        when = deadlines.enter("a", 1.0, grain(1))
        clock.advance(2)
        deadlines.leave("a", when)
        self.assertEqual(len(deadlines), 0)


class WatchTests(SynchronousTestCase):
    """A deadline that moves."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1e6)
        self.looked: list[float] = []
        self.start = self.clock.seconds()
        deadlines: Deadlines[str] = Deadlines(self.clock, lambda _: self.looked.append(self.clock.seconds()))
        self.watch = deadlines.watch("item")

    def expect(self, seconds: float) -> None:
        self.watch.expect(self.start + seconds, self.clock.seconds())

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds * 10):
            self.clock.advance(0.1)

    def test_nearer(self) -> None:
        """It is looked at when the nearest of the times given has come, and once."""
        self.expect(30)
        self.expect(10)
        self.expect(20)
        self.assertEqual(self.watch.due, self.start + 10)
        self.pass_time(40)
        (when,) = self.looked
        self.assertTrue(10 <= when - self.start <= 10.3, when - self.start)

    def test_left(self) -> None:
        """Of one that has left nobody hears; it may come back."""
        self.expect(10)
        self.watch.leave()
        self.watch.leave()
        self.pass_time(20)
        self.assertEqual(self.looked, [])
        self.expect(25)
        self.pass_time(6)
        self.assertEqual(len(self.looked), 1)

    def test_past(self) -> None:
        """An item that comes back with a time that has passed gets its turn again, after everybody else's."""
        rounds: list[str] = []

        def late(item: str) -> None:
            rounds.append(item)
            self.clock.callLater(0, rounds.append, "another")
            watch.due = inf
            if len(rounds) < 100:
                watch.expect(self.start + 10, self.clock.seconds())

        deadlines: Deadlines[str] = Deadlines(self.clock, late)
        watch = deadlines.watch("late")
        watch.expect(self.start + 10, self.start)
        self.clock.advance(11)
        self.assertEqual(rounds[:4], ["late", "another", "late", "another"])
