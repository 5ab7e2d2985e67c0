"""
One accepted event, from the client's ``enqueue`` to its end.

While it waits for a worker it keeps what the client sends, within a limit. Once assigned it replays that to the worker
and joins both channels; from then on nobody of this room is in the data path until the end.

Source: reference ``node-engine.md`` sections 5.3 and 5.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import (
    CocaineError,
    ConnectionGone,
    DeadlineError,
    Discarded,
    InvalidArguments,
    InvocationTimeout,
    Overloaded,
)
from ..rpc.relay import Relay
from ..wire.headers import Headers
from ..wire.idl import CHUNK, ERROR, Message, Slot
from ..wire.protocols import INVOKE
from ..wire.session import Channel, Session, is_error

#: What a buffered message costs beside its bytes, so that a flood of empty chunks counts too.
MESSAGE_COST = 64


class Invocation:
    """
    An event on its way.

    :param channel: the client's; we become its receiver.
    :param arrived: the clock's time.
    :param deadline: the clock's time at which it is over.
    :param limit: bytes kept for it while it waits.
    :param ended: called exactly once, at the end, whatever the end was.
    :ivar assigned: the clock's time of its assignment, 0 before.
    :ivar bin: where `Deadlines` keeps it.
    :ivar worker: whom it was assigned to.
    """

    __slots__ = (
        "_buffer", "_ended", "_kept", "_limit", "_relay", "_unwanted", "arrived", "assigned", "bin", "channel",
        "deadline", "event", "headers", "worker",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        event: bytes,
        headers: Headers,
        arrived: float,
        deadline: float,
        limit: int,
        ended: Callable[[Invocation], None],
    ) -> None:
        self.channel = channel
        self.event = event
        self.headers = headers
        self.arrived = arrived
        self.deadline = deadline
        self.assigned = 0.0
        self.bin = 0.0
        self.worker: Any = None
        self._limit = limit
        self._kept = 0
        self._buffer: list[tuple[Message, tuple[Any, ...]]] = []
        self._relay: Relay | None = None
        self._unwanted = False
        self._ended: Callable[[Invocation], None] | None = ended
        channel.receiver = self

    # -- while it waits

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CHUNK:
            if not args or args[0].__class__ is not bytes:
                self._refuse()
                return
            self._kept += len(args[0])
        elif message is ERROR:
            # The client has given up: no worker's time is to be spent on it, and it expects no answer.
            if not is_error(args):
                self._refuse()
                return
            channel.choke()
            self._end()
            return
        self._kept += MESSAGE_COST
        if self._kept > self._limit:
            self.reject(Overloaded(f"more than {self._limit} bytes wait for a worker"))
            return
        self._buffer.append((message, args))  # type: ignore[arg-type]

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        # The client has gone while its event waited: nobody's time is spent on it (lesson 9).
        self._end()

    def _refuse(self) -> None:
        self.reject(InvalidArguments("a message of the stream is malformed"))
        self.channel.session.connection.close()

    def reject(self, error: CocaineError) -> None:
        """It will not be served: tell the client."""
        self.channel.abandon()
        self.channel.fail(error)
        self._end()

    # -- when it has a worker

    def assign(self, worker: Any, session: Session, now: float) -> None:
        """Hand it to a worker: invoke, then what the client has sent so far, in order."""
        self.worker = worker
        self.assigned = now
        far = session.open(INVOKE, (self.event,), self, self.headers)
        for message, args in self._buffer:
            far.forward(message, args)
        self._buffer.clear()
        self._relay = Relay(self.channel, far, self._relayed, self._worker_lost)

    @property
    def unwanted(self) -> bool:
        """A worker was at it when its client went away or its time was over."""
        return self._unwanted or (self._relay is not None and self._relay.deserted)

    def _worker_lost(self, error: CocaineError) -> CocaineError:
        # The worker's error is the pair of its connection's end, in the original's words.
        if isinstance(error, ConnectionGone):
            return ConnectionGone(Discarded.default_reason)
        return error

    def _relayed(self, relay: Relay) -> None:
        self._end()

    def redirect(self, ended: Callable[[Invocation], None]) -> None:
        """Another pool has it now."""
        self._ended = ended

    @property
    def waiting(self) -> bool:
        """Nobody has it yet."""
        return self._relay is None

    @property
    def sides(self) -> tuple[int, int]:
        """Directions still open, as ``info`` counts them: towards the worker, and back."""
        if self._relay is None:
            return (0, 0)
        return (1 if self._relay.far.sending else 0, 1 if self._relay.far.receiving else 0)

    def expire(self) -> None:
        """Its time is over."""
        if self._relay is None:
            self.reject(DeadlineError())
        else:
            self._unwanted = True
            self._relay.stop(InvocationTimeout(Discarded.default_reason), InvocationTimeout())

    def cut(self, error: CocaineError) -> None:
        """The worker is cut off by us."""
        if self._relay is not None:
            self._relay.stop(error, error)

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            self._buffer.clear()
            ended(self)
