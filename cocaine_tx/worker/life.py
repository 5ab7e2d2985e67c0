"""
The life of a worker from its handshake to its exit, as a machine.

It decides; what it wants done it tells `Deeds`. Its one timer is the same for all states that wait for something: how
long running handlers, and then the node, are waited for.

Source: reference ``protocol-v12.md`` section 20.4.
"""

from __future__ import annotations

from typing import Protocol

from automat import TypeMachineBuilder

#: What we say when we leave of our own accord (the Node framework's code for a regular end).
LEAVING = (1, b"the worker has been told to exit")


class Life(Protocol):
    """What may happen to a worker."""

    def terminated(self, code: int, reason: bytes) -> None:
        """The node wants us to stop, and to hear the same words when we have."""

    def signalled(self) -> None:
        """The operating system wants us to stop."""

    def emptied(self) -> None:
        """No handler is running."""

    def overdue(self) -> None:
        """The timer has fired."""

    def silent(self) -> None:
        """The node does not answer heartbeats."""

    def lost(self) -> None:
        """The connection has ended."""


class Deeds:
    """
    What a life does; each is one act.

    :ivar words: what the node said when it wanted us to stop.
    """

    words: tuple[int, bytes] = LEAVING

    def refuse(self) -> None:
        """Take no more events."""
        raise NotImplementedError

    def look(self) -> None:
        """Say ``emptied`` now if no handler is running."""
        raise NotImplementedError

    def wait_for_handlers(self) -> None:
        """Set the timer to what running handlers may take."""
        raise NotImplementedError

    def wait_for_node(self) -> None:
        """Set the timer to what the node may take to see us off."""
        raise NotImplementedError

    def cut_handlers(self) -> None:
        """Cancel what still runs; its clients are told."""
        raise NotImplementedError

    def say_terminate(self, code: int, reason: bytes) -> None:
        """Tell the node that we go."""
        raise NotImplementedError

    def close(self) -> None:
        """End the connection after what was said."""
        raise NotImplementedError

    def abort(self) -> None:
        """End the connection now."""
        raise NotImplementedError

    def end(self) -> None:
        """It is over: let the process exit."""
        raise NotImplementedError


_builder = TypeMachineBuilder(Life, Deeds)

serving = _builder.state("serving")
#: Told to stop by a signal: the node knows nothing of it and goes on sending, so we serve until nothing is running.
leaving = _builder.state("leaving")
#: Told to stop by the node: what runs may end.
draining = _builder.state("draining")
#: We have said that we go; the node closes.
parting = _builder.state("parting")
#: We have answered the node's terminate and closed.
closing = _builder.state("closing")
ended = _builder.state("ended")


@serving.upon(Life.terminated).to(draining)
@leaving.upon(Life.terminated).to(draining)
def told(life: Life, deeds: Deeds, code: int, reason: bytes) -> None:
    deeds.words = (code, reason)
    deeds.refuse()
    deeds.wait_for_handlers()
    deeds.look()


@serving.upon(Life.signalled).to(leaving)
def leave(life: Life, deeds: Deeds) -> None:
    deeds.wait_for_handlers()
    deeds.look()


@draining.upon(Life.emptied).to(closing)
def drained(life: Life, deeds: Deeds) -> None:
    deeds.say_terminate(*deeds.words)
    deeds.close()
    deeds.wait_for_node()


@draining.upon(Life.overdue).to(closing)
def out_of_patience(life: Life, deeds: Deeds) -> None:
    deeds.cut_handlers()
    deeds.say_terminate(*deeds.words)
    deeds.close()
    deeds.wait_for_node()


@leaving.upon(Life.emptied).to(parting)
def left(life: Life, deeds: Deeds) -> None:
    deeds.refuse()
    deeds.say_terminate(*LEAVING)
    deeds.wait_for_node()


@leaving.upon(Life.overdue).to(parting)
def left_late(life: Life, deeds: Deeds) -> None:
    deeds.refuse()
    deeds.cut_handlers()
    deeds.say_terminate(*LEAVING)
    deeds.wait_for_node()


@parting.upon(Life.terminated).to(closing)
def seen_off(life: Life, deeds: Deeds, code: int, reason: bytes) -> None:
    deeds.close()
    deeds.wait_for_node()


@parting.upon(Life.overdue).to(closing)
def not_seen_off(life: Life, deeds: Deeds) -> None:
    deeds.close()
    deeds.wait_for_node()


@closing.upon(Life.overdue).to(ended)
def node_stuck(life: Life, deeds: Deeds) -> None:
    deeds.abort()
    deeds.end()


for _state in (serving, leaving, draining, parting, closing):

    @_state.upon(Life.lost).to(ended)
    def cut_off(life: Life, deeds: Deeds) -> None:
        deeds.end()


for _state in (serving, leaving, draining, parting):

    @_state.upon(Life.silent).to(ended)
    def disowned(life: Life, deeds: Deeds) -> None:
        deeds.abort()
        deeds.end()


for _state, _inputs in (
    (serving, (Life.emptied, Life.overdue)),
    (leaving, (Life.signalled,)),
    (draining, (Life.terminated, Life.signalled)),
    (parting, (Life.signalled, Life.emptied)),
    (closing, (Life.terminated, Life.signalled, Life.emptied, Life.silent)),
    (ended, (Life.terminated, Life.signalled, Life.emptied, Life.overdue, Life.silent, Life.lost)),
):
    for _input in _inputs:
        _state.upon(_input).loop().returns(None)

#: Makes a `Life` around its deeds.
begin_life = _builder.build()
