"""When a request may be sent once more, and how often."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import (
    AppStopped,
    CocaineError,
    ConnectionGone,
    DeadlineError,
    Discarded,
    HandlerFailed,
    InvocationTimeout,
    NotRunning,
    QueueFull,
    RemoteError,
    ServiceNotFound,
    Unreachable,
)
from cocaine_tx.proxy.retry import RESERVE, Budget, repeatable

UNDELIVERED = (AppStopped, NotRunning, QueueFull, Unreachable)
LOST = (ConnectionGone, Discarded)
FINAL = (DeadlineError, HandlerFailed, InvocationTimeout, ServiceNotFound)


class RepeatableTests(SynchronousTestCase):
    def may(self, method: bytes, answered: bool = False, whole: bool = True) -> set[type[CocaineError]]:
        errors = (*UNDELIVERED, *LOST, *FINAL)
        return {error for error in errors if repeatable(error(), method, answered, whole)}

    def test_methods(self) -> None:
        """What reached no worker is sent again; what may have reached one, only by methods that can be repeated."""
        for method in (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"):
            self.assertEqual(self.may(method), {*UNDELIVERED, *LOST})
        for method in (b"POST", b"PATCH", b"LOCK", b"get", b"MKCOL"):
            self.assertEqual(self.may(method), set(UNDELIVERED))

    def test_too_late(self) -> None:
        """Nothing is, once a byte was answered or a part of the request is gone."""
        self.assertEqual(self.may(b"GET", answered=True), set())
        self.assertEqual(self.may(b"GET", whole=False), set())

    def test_unknown(self) -> None:
        """An error that nobody knows is the app's, and final."""
        self.assertFalse(repeatable(RemoteError(42, 7), b"GET", False, True))


class BudgetTests(SynchronousTestCase):
    def spent(self, budget: Budget) -> int:
        count = 0
        while budget.spend():
            count += 1
        return count

    def test_storm(self) -> None:
        """When everything fails, the retries are a share of the requests, beside the reserve."""
        budget = Budget(0.2)
        retries = 0
        for _ in range(10_000):
            budget.earn()
            retries += budget.spend() + budget.spend()
        self.assertLess(retries, 0.2 * 10_000 + RESERVE + 1)

    def test_saved(self) -> None:
        """Good times are not saved up without end."""
        budget = Budget(0.5)
        for _ in range(10_000):
            budget.earn()
        self.assertLessEqual(self.spent(budget), RESERVE + 1)

    def test_reloaded(self) -> None:
        """A share of none is none at once, whatever had been saved; a share after none begins with the reserve."""
        budget = Budget(0.2)
        budget.share = 0.0
        budget.earn()
        self.assertEqual(self.spent(budget), 0)
        budget = Budget(0.0)
        self.assertEqual(self.spent(budget), 0)
        budget.share = 0.2
        self.assertTrue(budget.spend())
