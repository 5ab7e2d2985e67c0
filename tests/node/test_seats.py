"""Free seats: the same choice as the pure rule, found without looking at every worker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.seats import Seats


class SeatsTests(SynchronousTestCase):
    def test_in_turn(self) -> None:
        """Equal workers are served in turn, and full ones not at all."""
        seats: Seats[str] = Seats(2)
        self.assertIsNone(seats.take())
        for name in "abc":
            seats.add(name)
        self.assertEqual([seats.take() for _ in range(8)], ["a", "b", "c", "a", "b", "c", None, None])
        self.assertEqual((seats.total, len(seats), seats.load("a")), (6, 3, 2))
        seats.release("b")
        self.assertEqual([seats.take(), seats.take()], ["b", None])

    def test_latest(self) -> None:
        """Of equals the one that was busy last can be asked for, or one worker by name."""
        seats: Seats[str] = Seats(2)
        self.assertIsNone(seats.take_latest())
        for name in "abc":
            seats.add(name)
            seats.take()
        for name in "bac":
            seats.release(name)
        self.assertEqual([seats.take_latest() for _ in range(3)], ["c", "a", "b"])
        self.assertEqual([seats.take_with(name) for name in "aax"], [True, False, False])
        self.assertEqual((seats.take_latest(), seats.take_latest(), seats.take_latest()), ("b", "c", None))
        self.assertEqual(seats.total, 6)

    def test_gone(self) -> None:
        """A worker that has left is not chosen, and its channels may end later."""
        seats: Seats[str] = Seats(10)
        seats.add("a")
        seats.add("b")
        seats.take()
        self.assertEqual(seats.remove("a"), 1)
        self.assertEqual((seats.remove("a"), seats.total), (0, 0))
        seats.release("a")
        self.assertEqual((seats.take(), seats.total, len(seats)), ("b", 1, 1))

    def test_twice(self) -> None:
        """Seating a worker again changes nothing; a release too many neither."""
        seats: Seats[str] = Seats(10)
        seats.add("a")
        seats.take()
        seats.add("a")
        self.assertEqual(seats.load("a"), 1)
        seats.release("a")
        seats.release("a")
        self.assertEqual((seats.load("a"), seats.total), (0, 0))

    @given(st.integers(1, 4), st.lists(st.tuples(st.sampled_from("atlrx"), st.integers(0, 5)), max_size=200))
    def test_against_the_rule(self, concurrency: int, acts: list[tuple[str, int]]) -> None:
        """After any history a taken worker is one of the least laden with room, and the counts agree."""
        seats: Seats[int] = Seats(concurrency)
        loads: dict[int, int] = {}
        for act, worker in acts:
            if act == "a":
                seats.add(worker)
                loads.setdefault(worker, 0)
            elif act == "x":
                self.assertEqual(seats.remove(worker), loads.pop(worker, 0))
            elif act == "r":
                seats.release(worker)
                if loads.get(worker):
                    loads[worker] -= 1
            else:
                least = min(loads.values(), default=concurrency)
                taken = seats.take() if act == "t" else seats.take_latest()
                if least >= concurrency:
                    self.assertIsNone(taken)
                else:
                    assert taken is not None
                    self.assertEqual(loads[taken], least)
                    loads[taken] += 1
            self.assertEqual(seats.total, sum(loads.values()))
