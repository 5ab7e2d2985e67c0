"""
All the channels of one connection: bytes in, events out; calls in, bytes out. No socket, no clock.

`Session.receive` returns the events that some bytes mean; each is ``(channel, message, args, headers)``. A channel that
the peer opens comes as its first event, with the `Slot` as the message. When the peer breaks the protocol the events
before that are still returned and `Session.broken` says what was wrong: the connection must then be closed.

A channel has two directions, each at a `State` of the protocol graph, `VOID` when ended. It leaves the table when both
have ended. Sending in a direction that has ended does nothing: whoever closes last cannot know what the other just did.

This is the hot path of every daemon. It is written for few calls and few objects: a frame costs one tuple beside its
own values, and no function of ours is called for the frames in the middle of a stream.

Source: reference ``protocol-v12.md`` sections 3, 4 and 20.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from ..errors import (
    CocaineError,
    DispatchError,
    LocalProtocolError,
    RemoteProtocolError,
    RevokedChannel,
    UndecodableError,
    from_wire,
)
from . import idl
from .frames import NO_HEADERS, ZERO_TRACE, FrameDecoder, Limits, pack, pack_headers, undecodable
from .headers import UNTRACED, HeaderDecoder, Headers, trace_of
from .idl import CHOKE, CHUNK, ERROR, PRIMITIVE, STREAMING, VALUE, VALUE_ERROR, VOID, Message, Slot, State

Event = tuple["Channel", Message | Slot, tuple[Any, ...], Headers]

#: Bytes from which a frame is not copied once more to get its headers.
_LARGE = 32768
_NO_TRACE: Headers = tuple((name, value) for _, name, value in UNTRACED)


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


class Strangers(Enum):
    """What to do with a frame for a channel that is not in the table, or not open in that direction."""

    #: A server's rule: the connection ends.
    REVOKED = "revoked"
    #: A client's rule: a late answer is dropped.
    IGNORED = "ignored"


class Channel:
    """
    One conversation. Rooms hold it, send with it, and set ``receiver`` to whom the peer's messages concern.

    :ivar number: its id on the connection.
    :ivar slot: the call that opened it.
    :ivar sending: what we may send now; `VOID` when our side has ended.
    :ivar receiving: what the peer may send now.
    """

    __slots__ = ("__weakref__", "number", "receiver", "receiving", "sending", "session", "slot", "tail")

    def __init__(
        self,
        session: Session,
        number: int,
        slot: Slot,
        sending: State,
        receiving: State,
        receiver: Receiver,
        tail: bytes,
    ) -> None:
        self.session = session
        self.number = number
        self.slot = slot
        self.sending = sending
        self.receiving = receiving
        self.receiver = receiver
        self.tail = tail

    def __repr__(self) -> str:
        return f"<channel {self.number} {self.slot.name}>"

    @property
    def open(self) -> bool:
        """At least one direction has not ended, and the connection is there."""
        return bool(self.sending or self.receiving)

    def chunk(self, data: bytes) -> None:
        """One piece of a stream."""
        if self.sending is STREAMING:
            self.session.emit(self.number, CHUNK.id, (data,), self.tail)
        elif self.sending:
            raise LocalProtocolError(f"{self.slot.name} is no stream")

    def choke(self) -> None:
        """The regular end of a stream."""
        if self.sending is STREAMING:
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
        if self.sending:
            following = message.next
            self.session.emit(self.number, message.id, args, self.tail)
            if following is not self.sending:
                self.sending = following
                if not following and not self.receiving:
                    self.session.forget(self)

    def _finish(self, message: Message, args: tuple[Any, ...]) -> None:
        self.session.emit(self.number, message.id, args, self.tail)
        self.sending = VOID
        if not self.receiving:
            self.session.forget(self)

    def abandon(self) -> None:
        """Expect nothing more; what still comes is dropped. Our own direction is not ended by this."""
        self.receiver = NOBODY


class Session:
    """
    One connection's channels.

    :param root: what the peer may open; None when it may open nothing.
    :param acceptor: receives the first message of every channel that the peer opens.
    :param strangers: the rule for frames that fit no open channel.
    :param tail: end of every frame that belongs to no trace (`ZERO_TRACE` in the original runtime's manner).
    :ivar wake: called when there is something to send and there was nothing.
    :ivar broken: why the connection must be closed, once the peer has broken the protocol.
    :ivar congested: set by the connection while the peer does not take what we send; sources should hold on.
    :ivar connection: whoever carries this session; the session itself never looks at it.
    """

    __slots__ = (
        "_acceptor", "_channels", "_decoder", "_headers", "_last", "_limits", "_out", "_root", "_strangers", "_tail",
        "broken", "congested", "connection", "wake",
    )  # fmt: skip

    def __init__(
        self,
        root: idl.Protocol | None,
        acceptor: Receiver = NOBODY,
        strangers: Strangers = Strangers.REVOKED,
        tail: bytes = ZERO_TRACE,
        limits: Limits = Limits(),
    ) -> None:
        self._root = root
        self._acceptor = acceptor
        self._strangers = strangers
        self._tail = tail
        self._limits = limits
        self._decoder = FrameDecoder(limits)
        self._headers = HeaderDecoder(limits.headers)
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._out: list[bytes | memoryview] = []
        self.wake: Callable[[], None] = _nothing
        self.broken: RemoteProtocolError | None = None
        self.congested = False
        self.connection: Any = None

    def __len__(self) -> int:
        """Channels with at least one open direction."""
        return len(self._channels)

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes mean. Never raises for what the peer sent; look at `broken` afterwards."""
        events: list[Event] = []
        if self.broken is not None:
            return events
        channels = self._channels
        try:
            for frame in self._decoder.feed(data):
                if frame.__class__ is not tuple or len(frame) < 3:
                    raise RemoteProtocolError("a frame is not an array of at least three elements")
                number, kind, args = frame[:3]
                if number.__class__ is not int or kind.__class__ is not int or args.__class__ is not tuple:
                    raise RemoteProtocolError("a frame is not [channel, type, args]")
                headers: Headers = ()
                if len(frame) > 3 and frame[3] is not None:
                    entries = frame[3]
                    if entries.__class__ is not tuple:
                        raise RemoteProtocolError("a frame's headers are not an array")
                    if entries and entries != UNTRACED:
                        headers = self._headers.decode(entries)
                channel = channels.get(number)
                if channel is None:
                    event = self._opened(number, kind, args, headers)
                    if event is not None:
                        events.append(event)
                    continue
                message = channel.receiving.get(kind)
                if message is None:
                    self._stray(channel, kind)
                    continue
                following = message.next
                if following is not channel.receiving:
                    channel.receiving = following
                    if not following and not channel.sending:
                        del channels[number]
                events.append((channel, message, args, headers))
        except RemoteProtocolError as problem:
            self.broken = problem
        except Exception as problem:
            # msgpack raises many kinds: FormatError, StackError, ValueError, TypeError for odd map keys.
            self.broken = undecodable(problem)
        return events

    def _opened(self, number: int, kind: int, args: tuple[Any, ...], headers: Headers) -> Event | None:
        """The first frame of a channel; None when it needs no event."""
        if number <= self._last or number < 1:
            if self._strangers is Strangers.IGNORED:
                return None
            raise RevokedChannel(f"channel {number} has ended or was never opened")
        if self._root is None:
            if self._strangers is Strangers.IGNORED:
                return None
            raise RevokedChannel(f"the peer may not open channel {number}")
        slot = self._root.slots.get(kind)
        if slot is None:
            self._control(number, kind, args)
            return None
        if len(self._channels) >= self._limits.channels:
            raise DispatchError(f"more than {self._limits.channels} channels are open")
        args = slot.check(args)
        self._last = number
        tail = self._tail
        if headers:
            trace = trace_of(headers)
            if trace is not None:
                tail = pack_headers(trace.headers())
        channel = Channel(self, number, slot, slot.upstream, slot.downstream, self._acceptor, tail)
        if slot.upstream or slot.downstream:
            self._channels[number] = channel
        return (channel, slot, args, headers)

    def _control(self, number: int, kind: int, args: tuple[Any, ...]) -> None:
        """Session messages (section 4.1): ping is answered, revoke ends a channel; the rest was never bound."""
        if kind == idl.REVOKE and len(args) >= 2 and args[0].__class__ is int:
            pair = args[1]
            if pair.__class__ is not tuple or len(pair) < 2 or any(part.__class__ is not int for part in pair[:2]):
                raise DispatchError("revoke takes [channel, [category, code]]")
            channel = self._channels.pop(args[0], None)
            if channel is not None:
                channel.sending = channel.receiving = VOID
                channel.receiver.lost(channel, from_wire(pair[0], pair[1]))
        elif kind != idl.PING:
            raise DispatchError(f"slot {kind} not found")
        self._last = number
        self.emit(number, VALUE.id, (), self._tail)

    def _stray(self, channel: Channel, kind: int) -> None:
        """A frame that does not fit the channel's state."""
        if channel.receiving or self._strangers is Strangers.REVOKED:
            raise (
                DispatchError(f"message {kind} does not belong to {channel.slot.name}")
                if channel.receiving
                else RevokedChannel(f"channel {channel.number} has ended")
            )

    def open(self, slot: Slot, args: tuple[Any, ...], receiver: Receiver, headers: Headers = ()) -> Channel:
        """
        Start a conversation of ours.

        :raises LocalProtocolError: an argument has no wire form.
        """
        number = self._last + 1
        first = later = self._tail
        if headers:
            trace = trace_of(headers)
            if trace is not None:
                later = pack_headers(trace.headers())
            elif later is ZERO_TRACE:
                headers = _NO_TRACE + headers
            first = pack_headers(headers)
        self.emit(number, slot.id, args, first)
        self._last = number
        channel = Channel(self, number, slot, slot.downstream, slot.upstream, receiver, later)
        if slot.upstream or slot.downstream:
            self._channels[number] = channel
        return channel

    def emit(self, number: int, kind: int, args: tuple[Any, ...], tail: bytes) -> None:
        """Append one frame to what is to be sent. Channels call this."""
        out = self._out
        if not out:
            self.wake()
        if args.__class__ is Packed:
            out.append(b"\x94" + pack(number) + pack(kind) + args.blob + tail)
            return
        frame = pack((number, kind, args))
        if len(frame) < _LARGE:
            # Three elements become four by their first byte; the headers are packed already.
            out.append(b"\x94" + frame[1:] + tail)
        else:
            out += (b"\x94", memoryview(frame)[1:], tail)

    def take(self) -> bytes:
        """Everything to be sent, once."""
        out = self._out
        if not out:
            return b""
        data = b"".join(out)
        out.clear()
        return data

    def forget(self, channel: Channel) -> None:
        """A channel has ended both ways. Channels call this."""
        self._channels.pop(channel.number, None)

    def lose(self) -> list[Channel]:
        """The connection is gone: every channel ends. Returns those that were open, in the order of their opening."""
        open_channels = list(self._channels.values())
        self._channels.clear()
        self._out.clear()
        for channel in open_channels:
            channel.sending = channel.receiving = VOID
        return open_channels


class Packed(tuple[Any, ...]):
    """Arguments that are msgpack already, for answers that repeat; an empty tuple to everybody else."""

    blob: bytes

    def __new__(cls, args: tuple[Any, ...]) -> Packed:
        made = super().__new__(cls)
        made.blob = pack(args)
        return made


def _nothing() -> None:
    """Nobody has to be woken."""


def serving(root: idl.Protocol, acceptor: Receiver, limits: Limits = Limits()) -> Session:
    """A service's end: the peer opens channels and is held to the rules; frames end in the runtime's manner."""
    return Session(root, acceptor, Strangers.REVOKED, ZERO_TRACE, limits)


def dialing(limits: Limits = Limits()) -> Session:
    """A client's end: only we open channels; what comes for others is dropped."""
    return Session(None, NOBODY, Strangers.IGNORED, NO_HEADERS, limits)


def error_of(args: tuple[Any, ...]) -> CocaineError:
    """
    The error that an error message's arguments carry: ``[[category, code], reason]``, reason optional.

    Malformed arguments become an error too: the stream has ended either way.
    """
    try:
        pair = args[0]
        category, code = pair[0], pair[1]
        reason = args[1] if len(args) > 1 else b""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        return from_wire(int(category), int(code), text)
    except (IndexError, TypeError, ValueError, KeyError):
        return UndecodableError("the peer sent an error that cannot be read")


def is_error(args: tuple[Any, ...]) -> bool:
    """Whether the arguments are those of an error message, so that another peer may be given them as they are."""
    if not args or args[0].__class__ is not tuple or len(args[0]) < 2:
        return False
    category, code = args[0][:2]
    return category.__class__ is int and code.__class__ is int and (len(args) < 2 or args[1].__class__ is bytes)
