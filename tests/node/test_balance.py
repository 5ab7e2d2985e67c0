"""The balancing rules as tables: every rule and every number of the reference's sections 3.1, 5.3 to 5.6 and 5.10."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.balance import (
    Admission,
    Assign,
    Backoff,
    Pick,
    Publicity,
    Seal,
    Spawn,
    View,
    Wait,
    admission,
    assignment,
    backed_off,
    next_event,
    plan,
    publicity,
)
from cocaine_tx.node.profile import Profile


@dataclass(frozen=True)
class Worker:
    name: str
    load: int = 0


def profile(**keys: object) -> Profile:
    return Profile.from_dict({key.replace("_", "-"): value for key, value in keys.items()})


def workers(*loads: int) -> tuple[Worker, ...]:
    return tuple(Worker(f"w{number}", load) for number, load in enumerate(loads))


def view(loads: tuple[int, ...] = (), size: int | None = None, queued: int = 0, **rest: object) -> View[Worker]:
    """A pool whose active workers have these loads; of ``size`` workers in all."""
    active = workers(*loads)
    return View(len(loads) if size is None else size, active, sum(loads), queued, **rest)  # type: ignore[arg-type]


class AdmissionTests(SynchronousTestCase):
    def test_table(self) -> None:
        """A queue takes what its limit says; without one, what the full pool could take at once."""
        queue = profile(queue_limit=100)
        none = profile(queue_limit=0, pool_limit=2, concurrency=3)
        for which, queued, load, verdict in (
            (queue, 0, 0, Admission.ADMIT),
            (queue, 99, 100, Admission.ADMIT),
            (queue, 100, 0, Admission.REJECT),
            (queue, 101, 0, Admission.REJECT),
            # A burst while the first worker starts is kept, up to the capacity of the whole pool.
            (none, 0, 0, Admission.ADMIT),
            (none, 5, 0, Admission.ADMIT),
            (none, 6, 0, Admission.REJECT),
            (none, 1, 4, Admission.ADMIT),
            (none, 2, 4, Admission.REJECT),
            (none, 0, 6, Admission.REJECT),
            (none, 0, 9, Admission.REJECT),
        ):
            self.assertIs(admission(which, queued, load), verdict, (queued, load))


class NextEventTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Order of arrival, unless the profile says adaptive and the oldest has waited too long."""
        for policy, age, verdict in (
            ("fifo", 0.0, Pick.OLDEST),
            ("fifo", 1e6, Pick.OLDEST),
            ("adaptive", 0.0, Pick.OLDEST),
            ("adaptive", 0.5, Pick.OLDEST),
            ("adaptive", 0.501, Pick.NEWEST),
        ):
            self.assertIs(next_event(profile(queue_policy=policy, queue_age_limit=0.5), age), verdict, (policy, age))


class AssignmentTests(SynchronousTestCase):
    def test_table(self) -> None:
        """The least laden worker with room gets the event; the first of equals."""
        for loads, expected in (
            ((), None),
            ((0,), "w0"),
            ((2, 1, 1), "w1"),
            ((9, 10), "w0"),
            ((10, 10), None),
            ((11,), None),
            ((3, 3, 3), "w0"),
        ):
            verdict = assignment(workers(*loads), 10)
            self.assertEqual(verdict.worker.name if isinstance(verdict, Assign) else None, expected, loads)


class AutomaticPlanTests(SynchronousTestCase):
    def test_with_queue(self) -> None:
        """The target is the queue divided by the threshold (5 by default), at least 1, at most the pool's limit."""
        full = (10,) * 5
        for loads, size, queued, verdict in (
            ((), 0, 1, Spawn(1)),        # first request: 1 worker
            ((), 1, 1, Wait()),          # it is starting
            ((), 1, 9, Wait()),          # 9 // 5 = 1
            ((), 1, 10, Spawn(1)),       # queue 10: target 2
            ((), 2, 50, Spawn(8)),       # queue 50: target 10
            ((), 0, 100, Spawn(10)),     # never above the limit
            ((), 10, 100, Wait()),
            (full, 5, 29, Wait()),       # a saturated pool of 5 does not grow until 30 wait
            (full, 5, 30, Spawn(1)),
            ((1, 0, 0), 3, 0, Wait()),   # never shrinks
            ((), 0, 0, Spawn(1)),        # the last worker crashed: one is kept
            ((1,), 3, 20, Spawn(1)),     # leaving ones count until they are gone
        ):  # fmt: skip
            self.assertEqual(plan(profile(), view(loads, size, queued)), verdict, (loads, size, queued))

    def test_without_queue(self) -> None:
        """With queue-limit 0 the pool grows by what the free places lack."""
        none = profile(queue_limit=0, pool_limit=4, concurrency=2)
        for loads, size, queued, verdict in (
            ((), 0, 0, Spawn(1)),
            ((), 0, 1, Spawn(1)),
            ((), 0, 3, Spawn(2)),
            ((), 0, 8, Spawn(4)),
            ((), 0, 80, Spawn(4)),
            ((), 1, 2, Wait()),
            ((), 1, 3, Spawn(1)),
            ((2,), 1, 1, Spawn(1)),
            ((1,), 1, 1, Wait()),
            ((2, 2), 2, 0, Wait()),
            ((2, 2), 2, 5, Spawn(2)),
            ((2, 2, 2, 2), 4, 5, Wait()),
        ):
            self.assertEqual(plan(none, view(loads, size, queued)), verdict, (loads, size, queued))

    def test_no_one_asked_yet(self) -> None:
        """A started app has no worker until the first event, unless pool-min asks for some."""
        self.assertEqual(plan(profile(), view(served=False)), Wait())
        self.assertEqual(plan(profile(pool_min=3), view(served=False)), Spawn(3))
        self.assertEqual(plan(profile(pool_min=3), view((0,), 2, served=False)), Spawn(1))
        self.assertEqual(plan(profile(queue_limit=0, pool_min=2), view(served=False)), Spawn(2))

    def test_idle_workers_may_all_leave(self) -> None:
        """With an idle-timeout a pool may fall to pool-min, and is back with the first event."""
        idle = profile(idle_timeout=5)
        self.assertEqual(plan(idle, view()), Wait())
        self.assertEqual(plan(idle, view(queued=1)), Spawn(1))
        self.assertEqual(plan(profile(idle_timeout=5, pool_min=2), view((0,))), Spawn(1))


class ManualPlanTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Control keeps the number asked for, within 1 and the pool's limit, whatever the queue says."""
        for loads, size, queued, manual, verdict in (
            ((), 0, 0, 3, Spawn(3)),
            ((), 0, 0, 99, Spawn(10)),
            ((0,), 1, 100, 1, Wait()),
            ((0, 0), 4, 0, 3, Wait()),           # two are starting: wait for them before any is sealed
            ((), 4, 0, 2, Wait()),
            ((5, 0, 3), 3, 0, 3, Wait()),
            ((5, 0, 3), 3, 0, 1, Seal(("w1", "w2"))),
            ((5, 0, 3), 3, 0, 2, Seal(("w1",))),
            ((1, 1, 1), 3, 0, 2, Seal(("w0",))),  # ties: the oldest
            ((0, 0), 4, 0, 1, Seal(("w0",))),     # two leave already
            ((5, 0, 3), 3, 0, 0, Wait()),         # back to automatic: stays as it is
            ((5, 0, 3), 3, 0, -1, Wait()),
        ):  # fmt: skip
            got = plan(profile(), view(loads, size, queued, manual=manual))
            if isinstance(got, Seal):
                got = Seal(tuple(worker.name for worker in got.workers))  # type: ignore[type-var]
            self.assertEqual(got, verdict, (loads, size, manual))

    def test_manual_before_first_event(self) -> None:
        """Control starts workers for an app that nobody has asked yet."""
        self.assertEqual(plan(profile(), view(served=False, manual=2)), Spawn(2))


class BackoffPlanTests(SynchronousTestCase):
    def test_nobody_active(self) -> None:
        """While no worker is active, a back-off holds back every start, also a manual one."""
        for pause in (Backoff(1.0, booted=True), Backoff(32.0, booted=False)):
            self.assertEqual(plan(profile(), view(queued=50, backoff=pause)), Wait())
            self.assertEqual(plan(profile(), view(manual=3, backoff=pause)), Wait())

    def test_healthy_pool(self) -> None:
        """One crash in a pool of ten does not stop its growth: it goes on, one start at a time."""
        pause = Backoff(32.0, booted=True)
        nine = (10,) * 9
        self.assertEqual(plan(profile(), view(nine, queued=60, backoff=pause)), Spawn(1))
        self.assertEqual(plan(profile(), view(nine[:5], queued=60, backoff=pause)), Spawn(1))
        self.assertEqual(plan(profile(), view(nine[:5], 6, queued=60, backoff=pause, starting=1)), Wait())

    def test_new_workers_do_not_boot(self) -> None:
        """A worker that died before it was active pauses all starts: the next would do the same."""
        self.assertEqual(plan(profile(), view((10,) * 5, queued=60, backoff=Backoff(1.0, booted=False))), Wait())

    def test_sealing(self) -> None:
        """Manual sealing happens during any back-off."""
        for booted in (True, False):
            got = plan(profile(), view((1, 0), manual=1, backoff=Backoff(32.0, booted=booted)))
            self.assertEqual(got, Seal((Worker("w1", 0),)))


@dataclass(frozen=True)
class Mortal:
    """A worker that was started then, active since then, and has perhaps answered."""

    born: float
    active_since: float | None = None
    answered: bool = False


class BackedOffTests(SynchronousTestCase):
    def test_crash_loop(self) -> None:
        """A worker that dies at once is retried after 1, 2, 4 ... 32 and then always 32 seconds."""
        last, now, delays = Backoff(), 100.0, []
        for _ in range(9):
            last = backed_off(last, now, Mortal(now - 0.1))
            delays.append(last.delay)
            self.assertEqual(last.until, now + last.delay)
            now = last.until + 0.1
        self.assertEqual(delays, [1, 2, 4, 8, 16, 32, 32, 32, 32])

    def test_short_lives(self) -> None:
        """
        Becoming active is not enough; an answer is, or 32 seconds of life. Then the next is started at once.

        The answer was not looked at before, and a lone worker that served well and was killed again and again was kept
        away for up to 32 seconds.
        """
        last = Backoff(8.0, until=100.0, failed_at=92.0)
        for now, fallen, delay, until in (
            (132.0, Mortal(100.0, 100.5), 16.0, 148.0),              # 31.5 seconds and no answer
            (132.5, Mortal(100.0, 100.5), 0.0, 132.5),               # 32 seconds
            (132.0, Mortal(100.0, 100.5, answered=True), 0.0, 132.0),
            (101.0, Mortal(100.0, 100.5, answered=True), 0.0, 101.0),
            (100.6, Mortal(100.0, 100.5, answered=True), 0.0, 101.0),  # but starts are a second apart
        ):  # fmt: skip
            self.assertEqual(backed_off(last, now, fallen), Backoff(delay, until, now), (now, fallen))

    def test_answers_and_dies(self) -> None:
        """An app that dies of what it is asked, each time once it has answered something: one start a second."""
        last, born, starts = Backoff(), 100.0, []
        for _ in range(5):
            last = backed_off(last, born + 0.3, Mortal(born, born + 0.2, answered=True))
            born = last.until
            starts.append(born)
        self.assertEqual(starts, [101, 102, 103, 104, 105])

    def test_answer_resets(self) -> None:
        """The first failure to start after a worker that has answered pauses for a second, as the first of all did."""
        last = backed_off(Backoff(32.0, until=100.0, failed_at=68.0), 105.0, Mortal(100.0, 100.5, answered=True))
        self.assertEqual(backed_off(last, 105.2, Mortal(105.0)).delay, 1.0)

    def test_during_a_pause(self) -> None:
        """While others fail to start, the death of one that had answered does not bring the next try forward."""
        last = Backoff(8.0, until=100.0, failed_at=92.0)
        fallen = Mortal(50.0, 50.5, answered=True)
        self.assertEqual(backed_off(last, 95.0, fallen), Backoff(8.0, until=100.0, failed_at=95.0))

    def test_a_long_calm(self) -> None:
        """One that was started since the last crash and works proves the app sound; one from before proves nothing."""
        last = Backoff(8.0, until=100.0, failed_at=92.0)
        for now, other, delay in (
            (1000.0, Mortal(100.0, 101.0), 1.0),
            (120.0, Mortal(100.0, 101.0), 16.0),
            (120.0, Mortal(100.0, 101.0, answered=True), 1.0),
            (1000.0, Mortal(49.0, 50.0, answered=True), 16.0),
        ):
            self.assertEqual(backed_off(last, now, Mortal(now - 0.1), others=(other,)).delay, delay, (now, other))

    def test_dying_together(self) -> None:
        """Ten workers dying of one cause are one failure; the pause is not moved."""
        last = Backoff()
        for number in range(10):
            last = backed_off(last, 100.0 + number / 100, Mortal(98.0, 99.0))
        self.assertEqual((last.delay, last.until, last.booted), (1.0, 101.0, True))
        self.assertFalse(backed_off(last, 100.5, Mortal(100.4)).booted)

    def test_answering_and_dying_together(self) -> None:
        """Ten that had answered and die of one cause are all replaced at once."""
        last = Backoff(4.0, until=50.0, failed_at=46.0)
        for number in range(10):
            now = 100.0 + number / 100
            last = backed_off(last, now, Mortal(98.0, 99.0, answered=True))
            self.assertEqual((last.delay, last.until), (0.0, now))


class PublicityTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Offered from publish-on active workers on, withdrawn below unpublish-under."""
        plain, two = profile(), profile(publish_on=3, unpublish_under=2)
        for which, active, published, verdict in (
            (plain, 0, False, Publicity.PUBLISH),
            (plain, 0, True, Publicity.KEEP),
            (two, 0, False, Publicity.KEEP),
            (two, 2, False, Publicity.KEEP),
            (two, 3, False, Publicity.PUBLISH),
            (two, 2, True, Publicity.KEEP),
            (two, 1, True, Publicity.WITHDRAW),
            (two, 1, False, Publicity.KEEP),
            (two, 9, True, Publicity.KEEP),
        ):
            self.assertIs(publicity(which, active, published), verdict, (active, published))


class PlanPropertyTests(SynchronousTestCase):
    @given(
        st.lists(st.integers(0, 12), max_size=12), st.integers(0, 12), st.integers(0, 300), st.integers(-3, 30),
        st.booleans(), st.integers(1, 12), st.integers(0, 30), st.integers(0, 1),
    )  # fmt: skip
    def test_limits(
        self, loads: list[int], others: int, queued: int, manual: int, served: bool, limit: int, queue: int, least: int
    ) -> None:
        """Whatever is seen, the pool never passes its limit and no worker is sealed but in manual mode."""
        rules = profile(pool_limit=limit, queue_limit=queue, pool_min=least)
        seen = view(tuple(loads), len(loads) + others, queued, manual=manual, served=served)
        match plan(rules, seen):
            case Spawn(count):
                self.assertTrue(count > 0 and seen.size + count <= limit)
            case Seal(sealed):
                self.assertTrue(manual > 0 and len(seen.active) - len(sealed) == min(manual, limit))
