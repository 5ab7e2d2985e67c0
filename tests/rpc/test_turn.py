"""The end of a reactor turn."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.rpc.turn import Turn


class TurnTests(SynchronousTestCase):
    """What is left for the end of the turn is done there, in order, once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turn = Turn(self.clock)
        self.played: list = []

    def note(self, what):
        return lambda: self.played.append(what)

    def test_order(self) -> None:
        """Acts are played in the order asked for, and not before the turn ends; the reactor is asked once."""
        for number in range(5):
            self.turn.call(self.note(number))
        self.assertEqual((self.played, len(self.clock.getDelayedCalls())), ([], 1))
        self.clock.advance(0)
        self.assertEqual((self.played, self.clock.getDelayedCalls()), ([0, 1, 2, 3, 4], []))

    def test_again(self) -> None:
        """The next turn is asked for anew."""
        for number in range(3):
            self.turn.call(self.note(number))
            self.clock.advance(0)
        self.assertEqual(self.played, [0, 1, 2])

    def test_act_asks_for_another(self) -> None:
        """What an act asks for is done in the same turn, after those that were asked for before."""
        self.turn.call(lambda: self.turn.call(self.note("second")))
        self.turn.call(self.note("first"))
        self.clock.advance(0)
        self.assertEqual(self.played, ["first", "second"])

    def test_faulty_act(self) -> None:
        """An act that fails does not keep the others from being played."""
        self.turn.call(lambda: 1 / 0)
        self.turn.call(self.note("after"))
        self.clock.advance(0)
        self.assertEqual(self.played, ["after"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.turn.call(self.note("later"))
        self.clock.advance(0)
        self.assertEqual(self.played, ["after", "later"])

    def test_endless(self) -> None:
        """Acts that ask for acts for ever let the reactor look at its sockets in between."""

        def again() -> None:
            self.played.append(1)
            self.turn.call(again)

        reactor = Asked()
        self.turn = Turn(reactor)
        self.turn.call(again)
        for _ in range(3):
            count = len(self.played)
            (act,) = reactor.due
            reactor.due.clear()
            act()
            self.assertTrue(count < len(self.played) < count + 1000)


class Asked:
    """A clock on which things become due, and nothing happens by itself."""

    def __init__(self) -> None:
        self.due: list = []

    def callLater(self, delay, act) -> None:
        self.due.append(act)
