"""Who gets the next event: everyone in turn, or of a quick app one for a while."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.favour import PATIENCE, SPAN, Favour
from cocaine_tx.node.seats import Seats

QUICK, SLOW = PATIENCE / 50, PATIENCE * 5


class FavourTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.seats: Seats[str] = Seats(10)
        self.favour = Favour(self.seats)

    def take(self, count: int) -> str:
        """The workers that so many events go to."""
        return "".join(self.favour.take(self.now) or "-" for _ in range(count))

    def end(self, workers: str, seconds: float) -> None:
        """They have each done an event in that time."""
        for worker in workers:
            self.favour.ended(worker, seconds, self.now)
            self.seats.release(worker)

    def serve(self, count: int, seconds: float) -> str:
        """So many events one after the other; who had them."""
        served = ""
        for _ in range(count):
            worker = self.take(1)
            self.now += seconds
            self.end(worker, seconds)
            served += worker
        return served

    def seated(self, workers: str, seconds: float) -> None:
        """These workers, of an app that has taken that long for each of a hundred events."""
        for worker in workers:
            self.seats.add(worker)
        self.serve(100, seconds)
        self.now += SPAN

    def test_unknown(self) -> None:
        """Before anything is known of an app, its workers are served in turn, and full ones not at all."""
        self.assertIsNone(self.favour.take(self.now))
        for worker in "abc":
            self.seats.add(worker)
        self.assertEqual(self.take(31), "abc" * 10 + "-")

    def test_slow(self) -> None:
        """Events that take their time are spread."""
        self.seated("abc", SLOW)
        self.assertEqual(Counter(self.take(6)), Counter("aabbcc"))

    def test_quick(self) -> None:
        """Events that take next to nothing go to the same worker until it is full, then to the next."""
        self.seated("abc", QUICK)
        taken = self.take(31)
        self.assertEqual([len(set(taken[at : at + 10])) for at in (0, 10, 20)], [1, 1, 1])
        self.assertEqual(Counter(taken), Counter("abc" * 10 + "-"))

    def test_few(self) -> None:
        """A crowd that needs two workers of five meets the same two for a while, and all of them in the long run."""
        self.seated("abcde", QUICK)
        met = []
        for _ in range(200):
            taken = self.take(15)
            self.now += QUICK * 15
            self.end(taken, QUICK * 15)
            met.append(frozenset(taken))
        self.assertEqual({len(workers) for workers in met}, {2})
        self.assertLess(sum(met[at] != met[at + 1] for at in range(199)), 199 * QUICK * 15 / SPAN + 1)
        self.assertEqual(frozenset().union(*met), frozenset("abcde"))

    def test_one_after_the_other(self) -> None:
        """A quick app's lone client meets the same worker again; no worker stays the favourite for ever."""
        self.seated("abc", QUICK)
        self.assertEqual(len(set(self.serve(10, QUICK))), 1)
        share = Counter(self.serve(3000, QUICK))
        self.assertEqual(set(share), set("abc"))
        self.assertLess(max(share.values()), 1.5 * min(share.values()))

    def test_patience(self) -> None:
        """The favourite gets no more than it does in the time that an event may wait."""
        self.seated("ab", PATIENCE / 4)
        taken = self.take(4)
        self.assertEqual(len(set(taken)), 1)
        self.assertNotEqual(self.take(1), taken[0])

    def test_stuck(self) -> None:
        """A favourite that has not ended anything lately gets nothing more, however quick the others were."""
        self.seated("ab", QUICK)
        stuck = self.take(2)
        self.assertEqual(len(set(stuck)), 1)
        self.now += PATIENCE
        self.assertEqual(self.take(1), "ab".replace(stuck[0], ""))

    def test_rested(self) -> None:
        """A favourite that had nothing to do for a while is still the favourite."""
        self.seated("ab", QUICK)
        served = self.serve(1, QUICK)
        self.now += PATIENCE * 2
        self.assertEqual(self.take(2), served * 2)

    def test_some_slow(self) -> None:
        """An app with one slow event in ten is not quick; one that has become quick is found out."""
        self.seated("ab", QUICK)
        for _ in range(50):
            self.serve(9, QUICK)
            self.serve(1, 0.1)
        self.now += SPAN
        self.assertEqual(Counter(self.take(2)), Counter("ab"))
        self.end("ab", 0.1)
        self.serve(300, QUICK)
        self.now += SPAN
        self.assertEqual(len(set(self.take(5))), 1)

    def test_gone(self) -> None:
        """A favourite that has left is replaced, and its last events may end later."""
        self.seated("ab", QUICK)
        gone = self.take(1)
        self.seats.remove(gone)
        other = "ab".replace(gone, "")
        self.assertEqual(self.take(2), other * 2)
        self.end(gone, QUICK)
        self.assertEqual(self.seats.total, 2)
