"""
One conversation inside a connection, as rooms hold it: what may still be said either way, and who listens.

A channel has two directions, each at a `State` of the protocol graph, `VOID` when ended. Sending in a direction that
has ended does nothing: whoever closes last cannot know what the other just did. Its `Session` packs what it says.

Source: reference ``protocol-v12.md`` sections 3 and 5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CocaineError, LocalProtocolError, UndecodableError, from_wire
from .flow import FLOW, Flow
from .headers import WINDOW, Headers, window_of
from .idl import (
    CHOKE,
    CHUNK,
    CREDIT,
    ERROR,
    PRIMITIVE,
    STREAMING,
    UNLIMITED,
    VALUE,
    VALUE_ERROR,
    VOID,
    Message,
    Slot,
    State,
)

if TYPE_CHECKING:
    from .session import Session


class Receiver(Protocol):
    """What a channel delivers to. Called by the connection, never by the session."""

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        """A message arrived."""

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """The connection ended, or the peer revoked the channel; nothing more will come or go."""


class _Nobody:
    """Receives what nobody waits for any more."""

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        pass

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        pass


NOBODY: Receiver = _Nobody()


class Channel:
    """
    One conversation. Rooms hold it, send with it, and set ``receiver`` to whom the peer's messages concern.

    :ivar number: its id on the connection.
    :ivar slot: the call that opened it.
    :ivar sending: what we may send now; `VOID` when our side has ended.
    :ivar receiving: what the peer may send now.
    :ivar tail: end of every frame sent: the packed headers. Set it to `frames.pack_headers` of others.
    :ivar kin: the peer knows what is ours beside the protocol: credits, and last chunks.
    """

    __slots__ = ("__weakref__", "_flow", "kin", "number", "receiver", "receiving", "sending", "session", "slot", "tail")

    def __init__(
        self,
        session: Session,
        number: int,
        slot: Slot,
        sending: State,
        receiving: State,
        receiver: Receiver,
        tail: bytes,
        kin: bool = False,
    ) -> None:
        self.session = session
        self.number = number
        self.slot = slot
        self.sending = sending
        self.receiving = receiving
        self.receiver = receiver
        self.tail = tail
        self.kin = kin
        self._flow: Flow | None = None

    def __repr__(self) -> str:
        return f"<channel {self.number} {self.slot.name}>"

    @property
    def open(self) -> bool:
        """At least one direction has not ended, and the connection is there."""
        return bool(self.sending or self.receiving)

    def chunk(self, data: bytes) -> None:
        """One piece of a stream."""
        if self.sending is STREAMING:
            if not self.kin or data.__class__ is not bytes:
                # What may have no wire form is packed at once, while whoever says it can hear of that.
                self._flow = None
                self.session.emit(self.number, CHUNK.id, (data,), self.tail)
                return
            flow = self._flow
            if flow is None or flow.chunks is None or len(flow.chunks) >= FLOW:
                self._flow = flow = self.session.flow(self.number, self.tail)
            flow.chunks.append(data)  # type: ignore[union-attr]
        elif self.sending:
            raise LocalProtocolError(f"{self.slot.name} is no stream")

    def choke(self) -> None:
        """The regular end of a stream."""
        if self.sending is STREAMING:
            flow = self._flow
            if flow is not None and flow.chunks is not None:
                flow.ended = True
                self._ended()
            else:
                self._finish(CHOKE, ())
        elif self.sending:
            raise LocalProtocolError(f"{self.slot.name} is no stream")

    def value(self, args: tuple[Any, ...]) -> None:
        """The one answer of a call."""
        if self.sending is PRIMITIVE:
            self._finish(VALUE, args)
        elif self.sending:
            raise LocalProtocolError(f"{self.slot.name} is answered by a stream")

    def fail(self, error: CocaineError) -> None:
        """The irregular end of a stream or a call: the error's pair and reason."""
        if self.sending is STREAMING:
            self._finish(ERROR, (error.pair, error.reason))
        elif self.sending is PRIMITIVE:
            self._finish(VALUE_ERROR, (error.pair, error.reason))
        elif self.sending:
            self.send("error", error.pair, error.reason)

    def cancel(self, error: CocaineError) -> None:
        """
        Want nothing more of a call of ours, and say so as far as the protocol lets us.

        A request that is still being sent ends with the error. One that is complete is revoked, if the peer knows how
        (runtimes of 0.12.3 and workers of others do not); otherwise it is left alone.
        """
        if self.sending:
            self.fail(error)
        elif self.receiving:
            self.session.revoke(self, error)

    def send(self, name: str, *args: Any) -> None:
        """
        Any message by its name in the graph.

        :raises LocalProtocolError: the protocol has no such message here.
        """
        if not self.sending:
            return
        message = self.sending.named(name)
        if message is None:
            raise LocalProtocolError(f"{self.slot.name}: cannot send {name!r} now")
        self.forward(message, args)

    def forward(self, message: Message, args: tuple[Any, ...]) -> None:
        """A message of the state we are in, as it came from a channel of the same protocol. Relays call this."""
        if self.kin and message is CHUNK and len(args) == 1:
            self.chunk(args[0])
        elif self.kin and message is CHOKE:
            self.choke()
        elif self.sending:
            self._flow = None  # what follows may not get before it
            following = message.next
            self.session.emit(self.number, message.id, args, self.tail)
            if following is not self.sending:
                self.sending = following
                if not following and not self.receiving:
                    self.session.forget(self)

    def credit(self, size: int) -> None:
        """Let so many more bytes be on their way to us; only to peers that have agreed on it."""
        if self.kin and (self.sending or self.receiving):
            self.session.emit(self.number, CREDIT.id, (size,), self.tail)

    def unlimited(self, headers: Headers) -> Headers:
        """
        The headers of a call that came here and goes on to a peer that knows no windows.

        Whoever gave it one is told not to wait for credits, which will not come.
        """
        if window_of(headers) is None:
            return headers
        self.credit(UNLIMITED)
        return tuple(header for header in headers if header[0] != WINDOW)

    def _finish(self, message: Message, args: tuple[Any, ...]) -> None:
        self.session.emit(self.number, message.id, args, self.tail)
        self._ended()

    def _ended(self) -> None:
        self.sending = VOID
        if not self.receiving:
            self.session.forget(self)
        elif self.receiver is NOBODY:
            self.session.neglect(self)

    def abandon(self) -> None:
        """Expect nothing more; what still comes is dropped. Our own direction is not ended by this."""
        self.receiver = NOBODY
        if self.receiving and not self.sending:
            self.session.neglect(self)


def error_of(args: tuple[Any, ...]) -> CocaineError:
    """
    The error that an error message's arguments carry: ``[[category, code], reason]``, reason optional.

    Malformed arguments become an error too: the stream has ended either way.
    """
    pair = args[0] if args else None
    if not isinstance(pair, tuple) or len(pair) < 2 or pair[0].__class__ is not int or pair[1].__class__ is not int:
        return UndecodableError("the peer sent an error that cannot be read")
    reason = args[1] if len(args) > 1 else b""
    return from_wire(pair[0], pair[1], reason.decode("utf-8", "replace") if isinstance(reason, bytes) else "")


def is_error(args: tuple[Any, ...]) -> bool:
    """Whether the arguments are those of an error message, so that another peer may be given them as they are."""
    if not args or args[0].__class__ is not tuple or len(args[0]) < 2:
        return False
    category, code = args[0][:2]
    return category.__class__ is int and code.__class__ is int and (len(args) < 2 or args[1].__class__ is bytes)
