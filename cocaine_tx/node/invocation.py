"""
One accepted event, from the client's ``enqueue`` to its end.

An `Invocation` joins the client's channel and the worker's: what one says is said to the other, unread but for its
type, and nobody else is in the data path. It ends once, for whatever reason, and tells its keeper.

Source: reference ``node-engine.md`` sections 5.3 and 5.5. Not `rpc.relay.Relay` with a callback beside it: this is the
hot path of a node, and one object for each request does both.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import CocaineError, ConnectionGone, DeadlineError, Discarded, InvalidArguments, InvocationTimeout
from ..wire.headers import REQUEST_TIMEOUT, Headers, timeout_header
from ..wire.idl import CHUNK, CREDIT, ERROR, Message, Slot
from ..wire.protocols import INVOKE
from ..wire.session import Channel, Session, is_error
from .waiting import Room, Waiting


class Keeper(Protocol):
    """Who has invocations: the pool."""

    def over(self, invocation: Invocation) -> None:
        "It has ended, somehow."

    def answered(self, invocation: Invocation) -> None:
        "The worker has said its last and the client has not: it is half closed."


class Invocation:
    """
    An event on its way.

    :param near: the client's channel.
    :param arrived: the clock's time.
    :param deadline: the clock's time at which it is over.
    :param keeper: told of the end exactly once.
    :ivar far: the worker's channel; None before it has one.
    :ivar assigned: the clock's time of its assignment, 0 before.
    :ivar bin: where `Deadlines` keeps it.
    :ivar worker: whom it was assigned to.
    :ivar unwanted: a worker was at it when its client went away or its time was over.
    """

    __slots__ = (
        "_waiting", "arrived", "assigned", "bin", "deadline", "event", "far", "headers", "keeper", "near", "unwanted",
        "worker",
    )  # fmt: skip

    def __init__(
        self, near: Channel, event: bytes, headers: Headers, arrived: float, deadline: float, keeper: Keeper
    ) -> None:
        self.near = near
        self.event = event
        self.headers = headers
        self.arrived = arrived
        self.deadline = deadline
        self.keeper: Keeper | None = keeper
        self.far: Channel | None = None
        self.worker: Any = None
        self.assigned = self.bin = 0.0
        self.unwanted = False
        self._waiting: Waiting | None = None

    # -- while it waits

    def wait(self, room: Room) -> None:
        """There is no worker for it yet; again for another room."""
        waiting = self._waiting
        if waiting is None:
            size = len(self.event) + sum(len(name) + len(value) for name, value in self.headers)
            self.near.receiver = self._waiting = Waiting(self, room, size)
        else:
            waiting.move(room)

    def withdraw(self) -> None:
        """The client does not want it any more."""
        self.near.abandon()
        self._end()

    def reject(self, error: CocaineError) -> None:
        """It will not be served: tell the client."""
        self.near.abandon()
        self.near.fail(error)
        self._end()

    # -- when it has a worker

    def assign(self, worker: Any, session: Session, now: float) -> None:
        """
        Hand it to a worker: invoke, then what the client has sent so far, in order.

        :raises ConnectionGone: the worker's connection has ended; nothing has changed.
        """
        waiting = self._waiting
        headers = self.headers
        if waiting is not None and headers:
            headers = _remaining(headers, self.deadline - now)
        if headers and not session.kin:
            headers = self.near.unlimited(headers)
        far = session.open(INVOKE, (self.event,), self, headers)
        self.far = far
        self.worker = worker
        self.assigned = now
        self.near.receiver = self
        if waiting is not None:
            self._waiting = None
            waiting.replay(far)
            waiting.clear()

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        near, far = self.near, self.far
        assert far is not None
        sink = far if channel is near else near
        if message is CHUNK:
            # Whatever stands behind the bytes is not part of the protocol and may not be sendable.
            if not args or args[0].__class__ is not bytes:
                self._malformed(channel)
                return
            sink.chunk(args[0])
        elif message is CREDIT:
            # Sent only to peers that know it: to others it would be a breach of the protocol, and end a connection that
            # many requests share.
            sink.credit(args[0])
        else:
            if message is not ERROR:
                sink.choke()
            elif is_error(args):
                sink.forward(ERROR, (args[0][:2], *args[1:2]))
            else:
                self._malformed(channel)
                return
            if not far.receiving:
                if not near.receiving:
                    self._end()
                    return
                if sink is near and self.keeper is not None:
                    self.keeper.answered(self)
        if sink.session.congested:
            sink.session.connection.delay(channel.session.connection)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        far = self.far
        assert far is not None
        if channel is self.near:
            self.unwanted = bool(far.receiving)
            far.cancel(reason)
        else:
            # The original's words: the pair of its connection's end, and what that means for the client.
            self.near.fail(
                ConnectionGone(Discarded.default_reason) if isinstance(reason, ConnectionGone) else reason
            )
        self._end()

    @property
    def sides(self) -> tuple[int, int]:
        """Directions still open, as ``info`` counts them: towards the worker, and back."""
        far = self.far
        return (0, 0) if far is None else (1 if far.sending else 0, 1 if far.receiving else 0)

    # -- ends that others decide on

    def expire(self) -> None:
        """Its time is over."""
        if self.far is None:
            self.reject(DeadlineError())
        else:
            self.unwanted = bool(self.far.receiving)
            self._stop(InvocationTimeout(Discarded.default_reason), InvocationTimeout())

    def _malformed(self, channel: Channel) -> None:
        error = InvalidArguments("a message of the stream is malformed")
        self._stop(error, error)
        channel.session.connection.close()

    def _stop(self, near: CocaineError, far: CocaineError) -> None:
        """Each peer that still waits gets its error; whatever comes later is dropped."""
        if self.keeper is not None and self.far is not None:
            self.far.cancel(far)
            self.near.fail(near)
            self._end()

    def _end(self) -> None:
        keeper, self.keeper = self.keeper, None
        if keeper is None:
            return
        self.near.abandon()
        if self.far is not None:
            self.far.abandon()
        if self._waiting is not None:
            self._waiting.clear()
        keeper.over(self)


def _remaining(headers: Headers, seconds: float) -> Headers:
    """The request's headers with the time that is left of what the client gave it, if the client said."""
    return tuple(timeout_header(seconds) if header[0] == REQUEST_TIMEOUT else header for header in headers)
