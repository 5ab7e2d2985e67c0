"""
A worker's life as a table: which state, what may happen in it, what follows.

The machine decides; `Worker` in `workers` is its core and does the acts. Timers are the states' own data: a timer
exists in the state that it limits and in no other. Processes die, sockets close and peers say things whenever they
like, so every input is declared in every state.

Source: reference ``node-engine.md`` section 5.7, with its [bug] marks mended: TERM before KILL, the process group, a
late "started" that finds nobody, an end that is noticed when the process ends and not when its socket does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Cause(Enum):
    """Why a worker ends: ``(slave error code, text, whether it counts as a crash)``. Codes are category 0x53FF's."""

    SPAWN_TIMEOUT = (1, "spawn timeout", True)
    SPAWN_FAILED = (5, "the program could not be started", True)
    HANDSHAKE_TIMEOUT = (4, "activation timeout", True)
    SEAL_TIMEOUT = (6, "seal timeout", False)
    HEARTBEAT_TIMEOUT = (8, "heartbeat timeout", True)
    DISCONNECTED = (10, "control IPC error", True)
    EXITED = (10, "the process has ended", True)
    STOPPED = (11, "overseer is shutting down", False)
    SUICIDE = (12, "committed suicide", True)
    IDLE = (13, "slave is idle", False)
    SEALED = (14, "slave is sealing", False)

    @property
    def code(self) -> int:
        return self.value[0]

    @property
    def text(self) -> str:
        return self.value[1]

    @property
    def crash(self) -> bool:
        return self.value[2]


class Life(Protocol):
    """What happens to a worker."""

    def spawn(self) -> None:
        "From the pool: its program is being started."

    def started(self) -> None:
        "From the isolate: the program runs."

    def unstartable(self) -> None:
        "From the isolate: it cannot be started."

    def handshaken(self) -> None:
        "From the worker: it has connected and said who it is."

    def beat(self) -> None:
        "From the worker: a heartbeat."

    def resigned(self) -> None:
        "From the worker: terminate, asked for or not."

    def disconnected(self) -> None:
        "From the worker: its socket has closed."

    def exited(self) -> None:
        "From the isolate: the process has ended and been reaped."

    def expired(self) -> None:
        "From the clock: the state's time is over."

    def silent(self) -> None:
        "From the clock: no heartbeat for too long."

    def drained(self) -> None:
        "From the pool: its last channel has ended."

    def seal(self) -> None:
        "From the pool: no new events, leave when those you have are done."

    def retire(self) -> None:
        "From the pool: terminate now."


class Body(Protocol):
    """What the machine makes a worker do; `workers.Worker` is the one."""

    def timer(self, limit: str, fire: Callable[[], None]) -> Timer:
        "A running timer of one of the profile's limits."

    def excused(self) -> bool:
        "Its silence is our own doing."

    def comfort(self) -> None:
        "Time to say that we are there, should it not be heard just now."

    def activated(self) -> None:
        "The pool may use it."

    def deactivated(self) -> None:
        "The pool must not use it any more."

    def idle(self) -> bool:
        "It has no open channel."

    def dismiss(self, cause: Cause | None) -> None:
        "Say terminate to it; None: for the reason the pool gave."

    def part(self) -> None:
        "It agrees to go: cut its connection, and let its process end by itself."

    def bury(self, cause: Cause | None) -> None:
        "Cut its connection, end its process, tell the pool. None: it was asked to go."


class Timer:
    """
    A time limit that is often put off: putting it off is an assignment, not a change of the reactor's heap.

    :param seconds: until it fires, from now and from every `restart`.
    """

    __slots__ = ("_call", "_clock", "_due", "_fire", "_seconds")

    def __init__(self, clock: IReactorTime, seconds: float, fire: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._fire = fire
        self._due = clock.seconds() + seconds
        self._call: IDelayedCall | None = clock.callLater(seconds, self._look)

    def restart(self) -> None:
        """The full time again, from now; also after it has fired."""
        self._due = self._clock.seconds() + self._seconds
        if self._call is None:
            self._call = self._clock.callLater(self._seconds, self._look)

    def cancel(self) -> None:
        """It will not fire."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _look(self) -> None:
        self._call = None
        left = self._due - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._fire()


@dataclass(frozen=True, slots=True)
class Limited:
    """A state that must not last."""

    limit: Timer

    def leave(self) -> None:
        """Its timer ends with it."""
        self.limit.cancel()


@dataclass(frozen=True, slots=True)
class Beating(Limited):
    """A state in which heartbeats are owed by both sides; ``limit`` is for the worker's, ``ours`` for ours."""

    ours: Timer

    def leave(self) -> None:
        self.limit.cancel()
        self.ours.cancel()


@dataclass(frozen=True, slots=True)
class Sealed(Beating):
    """Heartbeats are owed, and the whole must not last."""

    last: Timer

    def leave(self) -> None:
        self.limit.cancel()
        self.ours.cancel()
        self.last.cancel()


def _limited(limit: str) -> Callable[[Life, Body], Limited]:
    return lambda life, body: Limited(body.timer(limit, life.expired))


def _pulse(life: Life, body: Body) -> Timer:
    def look() -> None:
        if body.excused():
            timer.restart()
        else:
            life.silent()

    timer = body.timer("heartbeat", look)
    return timer


def _comforting(body: Body) -> Timer:
    def tick() -> None:
        body.comfort()
        timer.restart()

    timer = body.timer("comfort", tick)
    return timer


def _beating(life: Life, body: Body) -> Beating:
    return Beating(_pulse(life, body), _comforting(body))


def _sealed(life: Life, body: Body) -> Sealed:
    return Sealed(_pulse(life, body), _comforting(body), body.timer("seal", life.expired))


_builder = TypeMachineBuilder(Life, Body)  # type: ignore[type-abstract]

preparation = _builder.state("preparation")
spawning = _builder.state("spawning", _limited("spawn"))
handshaking = _builder.state("handshaking", _limited("handshake"))
active = _builder.state("active", _beating)
sealing = _builder.state("sealing", _sealed)
terminating = _builder.state("terminating", _limited("terminate"))
#: It agrees to go; its process is given a moment to end by itself.
leaving = _builder.state("leaving", _limited("last-words"))
#: The process has ended; what it wrote to its socket before is still being read.
departing = _builder.state("departing", _limited("last-words"))
dead = _builder.state("dead")


def _dies(cause: Cause | None) -> Callable[[Life, Body, Limited], None]:
    """The end of a worker that the pool does not use."""

    def end(life: Life, body: Body, data: Limited) -> None:
        data.leave()
        body.bury(cause)

    return end


def _falls(cause: Cause) -> Callable[[Life, Body, Limited], None]:
    """The end of a worker in use."""

    def end(life: Life, body: Body, data: Limited) -> None:
        data.leave()
        body.deactivated()
        body.bury(cause)

    return end


def _quit(life: Life, body: Body, data: Limited) -> None:
    """Out of use, and nothing to say."""
    data.leave()
    body.deactivated()


def _leave(life: Life, body: Body, data: Limited) -> None:
    data.leave()


def _part(life: Life, body: Body, data: Limited) -> None:
    data.leave()
    body.part()


def _join(life: Life, body: Body, data: Limited) -> None:
    data.leave()
    body.activated()


def _beat(life: Life, body: Body, data: Limited) -> None:
    data.limit.restart()


def _seal(life: Life, body: Body, data: Limited) -> None:
    data.leave()
    body.deactivated()
    if body.idle():
        life.drained()


def _dismiss(cause: Cause | None) -> Callable[[Life, Body, Limited], None]:
    def dismissing(life: Life, body: Body, data: Limited) -> None:
        data.leave()
        body.deactivated()
        body.dismiss(cause)

    return dismissing


preparation.upon(Life.spawn).to(spawning).returns(None)

spawning.upon(Life.started).to(handshaking)(_leave)
# The handshake may overtake the isolate's report (lesson 11).
spawning.upon(Life.handshaken).to(active)(_join)
spawning.upon(Life.expired).to(dead)(_dies(Cause.SPAWN_TIMEOUT))
spawning.upon(Life.unstartable).to(dead)(_dies(Cause.SPAWN_FAILED))
spawning.upon(Life.exited).to(dead)(_dies(Cause.EXITED))
spawning.upon(Life.seal).to(dead)(_dies(None))
spawning.upon(Life.retire).to(dead)(_dies(None))

handshaking.upon(Life.handshaken).to(active)(_join)
handshaking.upon(Life.expired).to(dead)(_dies(Cause.HANDSHAKE_TIMEOUT))
handshaking.upon(Life.unstartable).to(dead)(_dies(Cause.SPAWN_FAILED))
handshaking.upon(Life.exited).to(dead)(_dies(Cause.EXITED))
handshaking.upon(Life.seal).to(dead)(_dies(None))
handshaking.upon(Life.retire).to(dead)(_dies(None))

active.upon(Life.beat).loop()(_beat)
active.upon(Life.seal).to(sealing)(_seal)
active.upon(Life.retire).to(terminating)(_dismiss(None))
active.upon(Life.exited).to(departing)(_quit)
active.upon(Life.silent).to(dead)(_falls(Cause.HEARTBEAT_TIMEOUT))
active.upon(Life.resigned).to(dead)(_falls(Cause.SUICIDE))
active.upon(Life.disconnected).to(dead)(_falls(Cause.DISCONNECTED))

sealing.upon(Life.beat).loop()(_beat)
sealing.upon(Life.drained).to(terminating)(_dismiss(Cause.SEALED))
sealing.upon(Life.expired).to(terminating)(_dismiss(Cause.SEAL_TIMEOUT))
sealing.upon(Life.retire).to(terminating)(_dismiss(None))
sealing.upon(Life.exited).to(departing)(_quit)
sealing.upon(Life.silent).to(dead)(_falls(Cause.HEARTBEAT_TIMEOUT))
sealing.upon(Life.resigned).to(dead)(_falls(Cause.SUICIDE))
sealing.upon(Life.disconnected).to(dead)(_falls(Cause.DISCONNECTED))

# Whatever ends it now is what was asked for.
terminating.upon(Life.resigned).to(leaving)(_part)
terminating.upon(Life.disconnected).to(leaving)(_part)
terminating.upon(Life.expired).to(dead)(_dies(None))
terminating.upon(Life.exited).to(departing)(_leave)

leaving.upon(Life.exited).to(dead)(_dies(None))
leaving.upon(Life.expired).to(dead)(_dies(None))

# Its last answers may still be in the socket; they come before the end of the stream does.
departing.upon(Life.disconnected).to(dead)(_dies(Cause.EXITED))
departing.upon(Life.expired).to(dead)(_dies(Cause.EXITED))

#: What changes nothing, and why it may happen there at all: peers and processes have their own time.
for _state, _inputs in (
    (spawning, (Life.spawn, Life.beat, Life.resigned, Life.disconnected, Life.silent, Life.drained)),
    (handshaking, (Life.spawn, Life.started, Life.beat, Life.resigned, Life.disconnected, Life.silent, Life.drained)),
    (active, (Life.spawn, Life.started, Life.unstartable, Life.handshaken, Life.expired, Life.drained)),
    (sealing, (Life.spawn, Life.started, Life.unstartable, Life.handshaken, Life.seal)),
    (terminating, (Life.spawn, Life.started, Life.unstartable, Life.handshaken, Life.beat, Life.silent, Life.drained,
                   Life.seal, Life.retire)),
    (leaving, (Life.spawn, Life.started, Life.unstartable, Life.handshaken, Life.beat, Life.resigned,
               Life.disconnected, Life.silent, Life.drained, Life.seal, Life.retire)),
    (departing, (Life.spawn, Life.started, Life.unstartable, Life.handshaken, Life.beat, Life.resigned, Life.exited,
                 Life.silent, Life.drained, Life.seal, Life.retire)),
):  # fmt: skip
    for _input in _inputs:
        _state.upon(_input, nodata=True).loop().returns(None)
_ALL = (Life.spawn, Life.started, Life.unstartable, Life.handshaken, Life.beat, Life.resigned, Life.disconnected,
        Life.exited, Life.expired, Life.silent, Life.drained, Life.seal, Life.retire)  # fmt: skip
for _input in _ALL:
    dead.upon(_input).loop().returns(None)
for _input in _ALL[1:]:
    preparation.upon(_input).loop().returns(None)

#: ``begin_life(body)`` gives a worker in state preparation.
begin_life = _builder.build()


def state_of(life: object) -> str:
    """The state's name. Automat keeps it to itself; this is the one place that looks, for people's eyes only."""
    name: str = life.__automat_transitioner__._state.name  # type: ignore[attr-defined]
    return name
