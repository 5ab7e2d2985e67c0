"""A worker's life: every input in every state, and timers that exist in their state and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.lifecycle import Cause, Life, Timer, begin_life, state_of

INPUTS = (
    "spawn", "started", "unstartable", "handshaken", "beat", "resigned", "disconnected", "exited", "expired", "silent",
    "drained", "seal", "retire",
)  # fmt: skip
#: Seconds of each limit.
LIMITS = {"spawn": 1, "handshake": 5, "heartbeat": 30, "seal": 60, "terminate": 10, "last-words": 2, "comfort": 3}
#: How to get into a state, and the limits whose timers run in it.
WAYS: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "preparation": ((), []),
    "spawning": (("spawn",), ["spawn"]),
    "handshaking": (("spawn", "started"), ["handshake"]),
    "active": (("spawn", "started", "handshaken"), ["comfort", "heartbeat"]),
    "sealing": (("spawn", "started", "handshaken", "seal"), ["comfort", "heartbeat", "seal"]),
    "terminating": (("spawn", "started", "handshaken", "retire"), ["terminate"]),
    "leaving": (("spawn", "started", "handshaken", "retire", "resigned"), ["last-words"]),
    "departing": (("spawn", "started", "handshaken", "exited"), ["last-words"]),
    "dead": (("spawn", "expired"), []),
}

#: What changes something: state, input, next state, what the worker is made to do. Everything else changes nothing.
TABLE: dict[tuple[str, str], tuple[str, list[Any]]] = {
    ("preparation", "spawn"): ("spawning", []),
    ("spawning", "started"): ("handshaking", []),
    ("spawning", "handshaken"): ("active", ["activated"]),
    ("spawning", "expired"): ("dead", [("bury", Cause.SPAWN_TIMEOUT)]),
    ("spawning", "unstartable"): ("dead", [("bury", Cause.SPAWN_FAILED)]),
    ("spawning", "exited"): ("dead", [("bury", Cause.EXITED)]),
    ("spawning", "seal"): ("dead", [("bury", None)]),
    ("spawning", "retire"): ("dead", [("bury", None)]),
    ("handshaking", "handshaken"): ("active", ["activated"]),
    ("handshaking", "expired"): ("dead", [("bury", Cause.HANDSHAKE_TIMEOUT)]),
    ("handshaking", "unstartable"): ("dead", [("bury", Cause.SPAWN_FAILED)]),
    ("handshaking", "exited"): ("dead", [("bury", Cause.EXITED)]),
    ("handshaking", "seal"): ("dead", [("bury", None)]),
    ("handshaking", "retire"): ("dead", [("bury", None)]),
    ("active", "beat"): ("active", []),
    ("active", "seal"): ("sealing", ["deactivated"]),
    ("active", "retire"): ("terminating", ["deactivated", ("dismiss", None)]),
    ("active", "exited"): ("departing", ["deactivated"]),
    ("active", "silent"): ("dead", ["deactivated", ("bury", Cause.HEARTBEAT_TIMEOUT)]),
    ("active", "resigned"): ("dead", ["deactivated", ("bury", Cause.SUICIDE)]),
    ("active", "disconnected"): ("dead", ["deactivated", ("bury", Cause.DISCONNECTED)]),
    ("sealing", "beat"): ("sealing", []),
    ("sealing", "drained"): ("terminating", ["deactivated", ("dismiss", Cause.SEALED)]),
    ("sealing", "expired"): ("terminating", ["deactivated", ("dismiss", Cause.SEAL_TIMEOUT)]),
    ("sealing", "retire"): ("terminating", ["deactivated", ("dismiss", None)]),
    ("sealing", "exited"): ("departing", ["deactivated"]),
    ("sealing", "silent"): ("dead", ["deactivated", ("bury", Cause.HEARTBEAT_TIMEOUT)]),
    ("sealing", "resigned"): ("dead", ["deactivated", ("bury", Cause.SUICIDE)]),
    ("sealing", "disconnected"): ("dead", ["deactivated", ("bury", Cause.DISCONNECTED)]),
    ("terminating", "resigned"): ("leaving", ["part"]),
    ("terminating", "disconnected"): ("leaving", ["part"]),
    ("terminating", "expired"): ("dead", [("bury", None)]),
    ("terminating", "exited"): ("departing", []),
    ("leaving", "exited"): ("dead", [("bury", None)]),
    ("leaving", "expired"): ("dead", [("bury", None)]),
    ("departing", "disconnected"): ("dead", [("bury", Cause.EXITED)]),
    ("departing", "expired"): ("dead", [("bury", Cause.EXITED)]),
}


class RecordingBody:
    """Does nothing and remembers what it was made to do."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.acts: list[Any] = []
        self.limits: dict[object, str] = {}
        self.busy = True
        self.held = False
        self.comforts = 0

    def timer(self, limit: str, fire: Callable[[], None]) -> Timer:
        before = set(self.clock.getDelayedCalls())
        made = Timer(self.clock, LIMITS[limit], fire)
        for call in set(self.clock.getDelayedCalls()) - before:
            self.limits[call] = limit
        return made

    def running(self) -> list[str]:
        """The limits that run now."""
        return sorted(self.limits.get(call, "restarted") for call in self.clock.getDelayedCalls())

    def excused(self) -> bool:
        return self.held

    def comfort(self) -> None:
        self.comforts += 1

    def activated(self) -> None:
        self.acts.append("activated")

    def deactivated(self) -> None:
        self.acts.append("deactivated")

    def idle(self) -> bool:
        return not self.busy

    def dismiss(self, cause: Cause | None) -> None:
        self.acts.append(("dismiss", cause))

    def part(self) -> None:
        self.acts.append("part")

    def bury(self, cause: Cause | None) -> None:
        self.acts.append(("bury", cause))


def at(state: str) -> tuple[Life, RecordingBody]:
    """A worker that has come into that state, its acts so far forgotten."""
    body = RecordingBody()
    life = begin_life(body)
    for name in WAYS[state][0]:
        getattr(life, name)()
    body.acts.clear()
    return life, body


class TableTests(SynchronousTestCase):
    def test_every_pair(self) -> None:
        """Each input in each state leads where the table says, does that and nothing else, and timers follow."""
        for state in WAYS:
            for name in INPUTS:
                life, body = at(state)
                self.assertEqual((state_of(life), body.running()), (state, WAYS[state][1]))
                getattr(life, name)()
                following, acts = TABLE.get((state, name), (state, []))
                self.assertEqual((state_of(life), body.acts), (following, acts), f"{name} in {state}")
                self.assertEqual(body.running(), WAYS[following][1], f"timers after {name} in {state}")

    def test_first_end_wins(self) -> None:
        """Whatever happens to the dead happens to nobody: no second burial, no timer."""
        life, body = at("active")
        for name in ("disconnected", *INPUTS, *INPUTS):
            getattr(life, name)()
        self.assertEqual(body.acts, ["deactivated", ("bury", Cause.DISCONNECTED)])
        self.assertEqual(body.clock.getDelayedCalls(), [])

    def test_sealed_when_idle(self) -> None:
        """A worker with nothing to do leaves as soon as it is sealed."""
        life, body = at("active")
        body.busy = False
        life.seal()
        self.assertEqual(state_of(life), "terminating")
        self.assertEqual(body.acts, ["deactivated", "deactivated", ("dismiss", Cause.SEALED)])
        self.assertEqual(body.running(), ["terminate"])


class ClockTests(SynchronousTestCase):
    def test_each_limit(self) -> None:
        """A state that lasts too long ends a moment after its limit, not before."""
        for state, limit, act in (
            ("spawning", 1, ("bury", Cause.SPAWN_TIMEOUT)),
            ("handshaking", 5, ("bury", Cause.HANDSHAKE_TIMEOUT)),
            ("active", 30, ("bury", Cause.HEARTBEAT_TIMEOUT)),
            ("sealing", 30, ("bury", Cause.HEARTBEAT_TIMEOUT)),
            ("terminating", 10, ("bury", None)),
            ("leaving", 2, ("bury", None)),
            ("departing", 2, ("bury", Cause.EXITED)),
        ):
            life, body = at(state)
            body.clock.advance(limit - 0.01)
            self.assertEqual((state_of(life), body.acts), (state, []))
            body.clock.advance(0.02)
            self.assertEqual((state_of(life), body.acts[-1]), ("dead", act), state)
            self.assertEqual(body.clock.getDelayedCalls(), [])

    def test_heartbeats(self) -> None:
        """A worker that beats lives for ever; sealed, it lives as long as seal-timeout says."""
        life, body = at("active")
        for _ in range(100):
            body.clock.advance(29)
            life.beat()
        self.assertEqual(state_of(life), "active")
        life.seal()
        for _ in range(3):
            body.clock.advance(19)
            life.beat()
        self.assertEqual(state_of(life), "sealing")
        body.clock.advance(4)
        self.assertEqual((state_of(life), body.acts[-1]), ("terminating", ("dismiss", Cause.SEAL_TIMEOUT)))

    def test_excused(self) -> None:
        """Lesson 17: a worker whose socket we do not read is not called silent, and hears from us meanwhile."""
        life, body = at("active")
        body.held = True
        body.clock.pump([1] * 100)
        self.assertEqual((state_of(life), body.comforts), ("active", 33))
        body.held = False
        body.clock.pump([1] * 31)
        self.assertEqual(state_of(life), "dead")

    def test_timer(self) -> None:
        """Putting a timer off moves nothing in the reactor; cancelled, it is gone; fired, it can be used again."""
        clock, fired = Clock(), []
        timer = Timer(clock, 10, lambda: fired.append(clock.seconds()))
        (call,) = clock.getDelayedCalls()
        clock.advance(6)
        timer.restart()
        self.assertEqual(clock.getDelayedCalls(), [call])
        clock.advance(9)
        self.assertEqual(fired, [])
        clock.advance(1)
        self.assertEqual(fired, [16.0])
        timer.restart()
        timer.cancel()
        timer.cancel()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_crashes(self) -> None:
        """Ends that were asked for are not crashes; an end by the worker's own will is."""
        self.assertEqual(
            [cause.name for cause in Cause if not cause.crash], ["SEAL_TIMEOUT", "STOPPED", "IDLE", "SEALED"]
        )
        self.assertEqual((Cause.STOPPED.code, Cause.STOPPED.text), (11, "overseer is shutting down"))
