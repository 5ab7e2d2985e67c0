"""
A link's life as a table: which state, what may happen in it, what follows.

The machine decides; `uplink.Uplink` is its core and does the acts. An attempt or a timer exists in the state that it
belongs to and in no other. Peers, clocks and discovery have their own time, so every input is declared in every state.

Source: reference ``node-engine.md`` section 7.5, with back-off for each node and a clean-up tied to the session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

#: Seconds until the first snapshot must be there, once it has been asked for; and until it may be asked for.
GREETING, ADMISSION = 5.0, 60.0
#: Seconds between questions whether the node is still there.
PULSE = 1.0


class Life(Protocol):
    """What happens to a link."""

    def dial(self) -> None:
        "From the collection, or the clock: connect now."

    def reached(self) -> None:
        "From the network: the node's locator has been connected to."

    def refused(self) -> None:
        "From the network: it cannot be connected to."

    def admitted(self) -> None:
        "From the collection: the snapshot may be asked for."

    def greeted(self) -> None:
        "From the node: the snapshot has come, and the node may be linked to."

    def pulse(self) -> None:
        "From the clock: look whether the node still answers."

    def broken(self) -> None:
        "From the node or the clock: closed, lost, silent or out of its mind."

    def close(self) -> None:
        "From the collection: it is not wanted any more."


class Body(Protocol):
    """What the machine makes a link do; `uplink.Uplink` is the one."""

    wanted: bool

    def timer(self, seconds: float, fire: Callable[[], None]) -> IDelayedCall:
        "A running timer."

    def pause(self) -> float:
        "Seconds until the next attempt; longer each time."

    def attempt(self) -> Deferred[None]:
        "Connect; tells `Life.reached` or `Life.refused`."

    def queue(self) -> None:
        "Wait for a turn to ask for the snapshot; tells `Life.admitted`."

    def greet(self) -> None:
        "Ask for the snapshot."

    def standing(self) -> None:
        "The link stands."

    def look(self) -> None:
        "See whether the node has answered, and ask again."

    def hang_up(self) -> None:
        "End the connection and forget all that came by it."


@dataclass(frozen=True, slots=True)
class Attempt:
    """Being connected."""

    connecting: Deferred[None]

    def leave(self) -> None:
        """A late success finds nobody."""
        self.connecting.cancel()


class Timed:
    """A state with a timer of its own."""

    __slots__ = ("call",)

    def __init__(self, call: IDelayedCall) -> None:
        self.call = call

    def leave(self) -> None:
        """The timer ends with the state."""
        if self.call.active():
            self.call.cancel()


def _attempt(life: Life, body: Body) -> Attempt:
    return Attempt(body.attempt())


def _greeting(life: Life, body: Body) -> Timed:
    return Timed(body.timer(ADMISSION, life.broken))


def _live(life: Life, body: Body) -> Timed:
    return Timed(body.timer(PULSE, life.pulse))


def _waiting(life: Life, body: Body) -> Timed:
    return Timed(body.timer(body.pause(), life.dial))


_builder = TypeMachineBuilder(Life, Body)  # type: ignore[type-abstract]

idle = _builder.state("idle")
connecting = _builder.state("connecting", _attempt)
greeting = _builder.state("greeting", _greeting)
live = _builder.state("live", _live)
waiting = _builder.state("waiting", _waiting)
closed = _builder.state("closed")


def _reach(life: Life, body: Body, data: Attempt) -> None:
    body.queue()


def _admit(life: Life, body: Body, data: Timed) -> None:
    data.call.reset(GREETING)
    body.greet()


def _stand(life: Life, body: Body, data: Timed) -> None:
    data.leave()
    body.standing()


def _look(life: Life, body: Body, data: Timed) -> None:
    data.call = body.timer(PULSE, life.pulse)
    body.look()


def _redial(life: Life, body: Body, data: Timed) -> None:
    data.leave()


def _lose(life: Life, body: Body, data: Timed) -> None:
    data.leave()
    body.hang_up()
    if not body.wanted:
        life.close()


def _give_up(life: Life, body: Body, data: Attempt | Timed) -> None:
    data.leave()
    body.hang_up()


def _hang_up(life: Life, body: Body) -> None:
    body.hang_up()


idle.upon(Life.dial).to(connecting).returns(None)
idle.upon(Life.close).to(closed).returns(None)

connecting.upon(Life.reached).to(greeting)(_reach)
connecting.upon(Life.refused).to(waiting).returns(None)
connecting.upon(Life.close).to(closed)(_give_up)

greeting.upon(Life.admitted).loop()(_admit)
greeting.upon(Life.greeted).to(live)(_stand)
greeting.upon(Life.broken).to(waiting)(_lose)
greeting.upon(Life.close).to(closed)(_give_up)

live.upon(Life.pulse).loop()(_look)
live.upon(Life.broken).to(waiting)(_lose)
live.upon(Life.close).to(closed)(_give_up)

waiting.upon(Life.dial).to(connecting)(_redial)
waiting.upon(Life.close).to(closed)(_redial)

# A connection made in the moment of closing has nobody to serve.
closed.upon(Life.reached).loop()(_hang_up)

#: What changes nothing: the network, the node and the collection each have their own time.
for _state, _inputs in (
    (connecting, (Life.dial, Life.admitted, Life.greeted, Life.pulse, Life.broken)),
    (greeting, (Life.dial, Life.reached, Life.refused, Life.pulse)),
    (live, (Life.dial, Life.reached, Life.refused, Life.admitted, Life.greeted)),
    (waiting, (Life.reached, Life.refused, Life.admitted, Life.greeted, Life.pulse, Life.broken)),
):
    for _input in _inputs:
        _state.upon(_input, nodata=True).loop().returns(None)
for _input in (Life.reached, Life.refused, Life.admitted, Life.greeted, Life.pulse, Life.broken):
    idle.upon(_input).loop().returns(None)
for _input in (Life.dial, Life.refused, Life.admitted, Life.greeted, Life.pulse, Life.broken, Life.close):
    closed.upon(_input).loop().returns(None)

begin_life = _builder.build()


def state_of(life: Life) -> str:
    """The state's name."""
    name: str = life.__automat_transitioner__._state.name  # type: ignore[attr-defined]
    return name
