"""
One request on its way through a gateway: a node is chosen, asked, and left for another while that is safe.

What the client sends is kept until the node's first answer, so that it can be said again elsewhere. With that answer
the choice is final, and the two channels are joined by `rpc.relay.Relay`: nobody of this room is in the data path then.

It is safe to go elsewhere while the node has not answered at all, or has answered that it did not take the request. A
request that its caller marks (`ONCE`) is not sent elsewhere when a node that had taken it is lost.

Source: reference ``node-engine.md`` section 8.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..errors import (
    AppStopped,
    CocaineError,
    ConnectionGone,
    DeadlineError,
    InvalidArguments,
    NotRunning,
    QueueFull,
)
from ..rpc.client import Remote
from ..rpc.relay import Relay
from ..wire.headers import ONCE, REQUEST_TIMEOUT, Headers, find, timeout_header
from ..wire.idl import CHUNK, CREDIT, ERROR, Message, Slot
from ..wire.session import Channel, error_of, is_error
from .offer import Offer, Seeker

#: What a kept message costs beside its bytes, so that a flood of empty chunks counts too.
MESSAGE_COST = 64
#: Answers by which a node says that it did not take the request.
REFUSALS = (QueueFull, NotRunning, AppStopped)


class Errand:
    """
    A request.

    :param near: the client's channel.
    :param args: the event and, perhaps, the tag.
    :param deadline: the clock's time at which it is over; None when the client did not say.
    :param limit: bytes kept for another try.
    :param ended: called once, at the end.
    :ivar bin: where `rpc.deadlines.Deadlines` keeps it.
    """

    __slots__ = (
        "_args", "_credit", "_deadline", "_ended", "_far", "_headers", "_held", "_kept", "_limit", "_near", "_offer",
        "_once", "_relay", "_replay", "_seeker", "_size", "_tried", "_waiting", "bin",
    )  # fmt: skip

    def __init__(
        self,
        seeker: Seeker,
        near: Channel,
        headers: Headers,
        args: tuple[Any, ...],
        deadline: float | None,
        limit: int,
        ended: Callable[[Errand], None],
    ) -> None:
        self._seeker = seeker
        self._near = near
        self._once = find(headers, ONCE) is not None
        self._headers = tuple(header for header in headers if header[0] != ONCE) if self._once else headers
        self._args = args
        self._deadline = deadline
        self._limit = limit
        self._ended: Callable[[Errand], None] | None = ended
        self._kept: list[tuple[Message, tuple[Any, ...]]] = []
        self._size = 0
        self._held = False
        self._replay = True
        self._tried: list[Offer] = []
        self._offer: Offer | None = None
        self._far: Channel | None = None
        self._relay: Relay | None = None
        self._waiting: Deferred[None] | None = None
        self._credit = 0
        self.bin = 0.0
        near.receiver = self

    def start(self) -> None:
        """Choose the first node."""
        self._seek(NotRunning(f"no node runs {self._seeker.name} now"))

    # -- choosing

    def _seek(self, problem: CocaineError) -> None:
        """Ask the next node; the problem is what the client is told if there is none."""
        offer = self._seeker.choose(self._tried)
        if offer is None and self._tried and isinstance(problem, ConnectionGone):
            # The only node there is may have been lost with an old connection only; a new one tells.
            offer = self._seeker.choose(())
        if offer is None or len(self._tried) >= self._seeker.rules.tries:
            self._refuse(problem)
            return
        self._tried.append(offer)
        self._offer = offer
        offer.took(self._seeker.clock.seconds())
        line = offer.lines.ready()
        if line is not None:
            self._send(line)
            return
        self._waiting = offer.lines.line().addCallbacks(self._connected, self._unreachable)

    def _connected(self, line: Remote) -> None:
        self._waiting = None
        self._send(line)

    def _unreachable(self, failure: Failure) -> None:
        self._waiting = None
        problem = failure.value
        if isinstance(problem, CancelledError):
            return
        self._fail_offer()
        self._seek(problem if isinstance(problem, CocaineError) else ConnectionGone(str(problem)))

    def _send(self, line: Remote) -> None:
        offer = self._offer
        line.connection.session.kin = offer is not None and offer.credits
        headers = self._remaining()
        if not line.connection.session.kin:
            headers = self._near.unlimited(headers)
        try:
            far = line.open("enqueue", *self._args, receiver=self, headers=headers)
        except CocaineError as problem:
            self._fail_offer()
            self._seek(problem)
            return
        self._far = far
        for message, args in self._kept:
            far.forward(message, args)
        if self._credit:
            far.credit(self._credit)
        if self._held:
            self._held = False
            self._near.session.connection.release(self)
        if not self._replay:
            self._kept.clear()

    def _remaining(self) -> Headers:
        """The request's headers; after the first try its timeout is what is left of it."""
        if self._deadline is None or len(self._tried) < 2:
            return self._headers
        left = timeout_header(self._deadline - self._seeker.clock.seconds())
        return (*(header for header in self._headers if header[0] != REQUEST_TIMEOUT), left)

    def _give_back(self) -> None:
        """The chosen node has this request no more."""
        offer, self._offer = self._offer, None
        if offer is not None:
            offer.in_flight -= 1
            offer.lines.ended()

    def _fail_offer(self) -> None:
        if self._offer is not None:
            self._seeker.failed(self._offer)
        self._far = None
        self._give_back()

    # -- before the answer

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if channel is self._near:
            self._said(message, args)
        elif channel is self._far:
            self._answered(channel, message, args, headers)

    def _said(self, message: Message | Slot, args: tuple[Any, ...]) -> None:
        """From the client."""
        if message is CREDIT:
            # It is for the answer, whoever gives that.
            self._credit += args[0]
            if self._far is not None:
                self._far.credit(args[0])
            return
        assert isinstance(message, Message)
        if message is CHUNK:
            if not args or args[0].__class__ is not bytes:
                self._malformed()
                return
            self._size += len(args[0])
        elif message is ERROR:
            if not is_error(args):
                self._malformed()
                return
            # The client has given up: nobody's time is to be spent on it again.
            self._replay = False
        self._size += MESSAGE_COST
        far = self._far
        if self._size > self._limit:
            self._replay = False
            if far is not None:
                self._kept.clear()
            elif not self._held:
                # Nobody has it yet: the client waits until there is a line.
                self._held = True
                self._near.session.connection.hold(self)
        if self._replay or far is None:
            self._kept.append((message, args))
        if far is not None:
            far.forward(message, args)
            if far.session.congested:
                far.session.connection.delay(self._near.session.connection)

    def _answered(self, far: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        """The node's first word."""
        if message is CREDIT:
            self._near.credit(args[0])
            return
        if message is ERROR and is_error(args):
            error = error_of(args)
            if isinstance(error, REFUSALS) and self._replay:
                if not isinstance(error, QueueFull) and self._offer is not None:
                    self._seeker.failed(self._offer)
                far.abandon()
                far.fail(error)
                self._far = None
                self._give_back()
                self._seek(error)
                return
        if self._offer is not None:
            self._offer.succeeded(self._seeker.clock.seconds())
        self._kept.clear()
        self._relay = Relay(self._near, far, self._relayed, _lost)
        self._relay.received(far, message, args, headers)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if channel is self._near:
            if self._far is not None:
                self._far.cancel(reason)
                self._far.abandon()
            self._end()
        elif channel is self._far:
            self._fail_offer()
            if self._replay and not self._once:
                self._seek(reason)
            else:
                self._refuse(_lost(reason))

    def _malformed(self) -> None:
        error = InvalidArguments("a message of the stream is malformed")
        connection = self._near.session.connection
        if self._far is not None:
            self._far.abandon()
            self._far.fail(error)
        self._refuse(error)
        connection.close()

    # -- the end

    def _relayed(self, relay: Relay) -> None:
        self._end()

    def late(self) -> None:
        """The deadline has passed and the node has not said so."""
        error = DeadlineError()
        if self._relay is not None:
            self._relay.stop(error, error)
            return
        if self._far is not None:
            self._far.cancel(error)
            self._far.abandon()
        self._refuse(error)

    def _refuse(self, error: CocaineError) -> None:
        self._near.abandon()
        self._near.fail(error)
        self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._kept.clear()
        if self._held:
            self._held = False
            self._near.session.connection.release(self)
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.cancel()
        self._give_back()
        ended(self)


def _lost(error: CocaineError) -> CocaineError:
    """What a client is told whose node was lost after it had begun to answer."""
    return ConnectionGone(f"relay: the node was lost with the request: {error.reason}")
