"""
All the channels of one connection: bytes in, events out; calls in, bytes out. No socket, no clock.

`Session.receive` returns the events that some bytes mean; each is ``(channel, message, args, headers)``. A channel that
the peer opens comes as its first event, with the `Slot` as the message. When the peer breaks the protocol the events
before that are still returned and `Session.broken` says what was wrong: the connection must then be closed.

A channel's state is that after all the bytes received, while its events are still being delivered: who wants to know
what the peer has said looks at the messages, not at ``receiving``.

A channel leaves the table when both of its directions have ended. The session's own messages (ping, revoke) come as
channels of their own whose receivers know what to do, so that they take effect in the order in which they were sent.

This is the hot path of every daemon. It is written for few calls and few objects: a frame costs one tuple beside its
own values, and no function of ours is called for the frames in the middle of a stream.

Source: reference ``protocol-v12.md`` sections 3, 4 and 20.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from ..errors import CocaineError, ConnectionGone, DispatchError, RemoteProtocolError, RevokedChannel, from_wire
from . import idl
from .channel import NOBODY, Channel, Receiver, error_of, is_error
from .flow import FLOW, Flow, Out, append
from .frames import NO_HEADERS, ZERO_TRACE, FrameDecoder, Limits, Packed, pack_headers, undecodable
from .headers import UNTRACED, HeaderDecoder, Headers, Latest, trace_of, window_of, without_trace
from .idl import CHOKE, CHUNK, CREDIT, LAST, STREAMING, VOID, Message, Slot

Event = tuple[Channel, Message | Slot, tuple[Any, ...], Headers]

_NO_TRACE: Headers = tuple((name, value) for _, name, value in UNTRACED)
#: Highest channel id a peer may open, so that there are always ids left above it for us.
_HIGHEST = 2**64 - 2**32


class Strangers(Enum):
    """What to do with a frame for a channel that is not in the table, or not open in that direction."""

    #: A server's rule: the connection ends.
    REVOKED = "revoked"
    #: A client's rule: a late answer is dropped.
    IGNORED = "ignored"


class Session:
    """
    One connection's channels.

    :param root: what the peer may open; None when it may open nothing.
    :param acceptor: receives the first message of every channel that the peer opens.
    :param strangers: the rule for frames that fit no open channel.
    :param tail: end of every frame that belongs to no trace (`ZERO_TRACE` in the original runtime's manner).
    :ivar limits: what the peer may make us keep.
    :ivar wake: called when there is something to send and there was nothing.
    :ivar broken: why the connection must be closed, once the peer has broken the protocol.
    :ivar congested: set by the connection while the peer does not take what we send; sources should hold on.
    :ivar ended: nothing can be opened any more; set by the connection that closes.
    :ivar kin: the peer is known to be one of ours. A client that gives a call a window says so of that call alone.
    :ivar revocation: the peer's word for taking a call back, if it has one.
    :ivar connection: whoever carries this session; the session itself never looks at it.
    """

    __slots__ = (
        "_acceptor", "_channels", "_decoder", "_headers", "_last", "_opened_by", "_opening", "_out", "_root",
        "_strangers", "_tail", "broken", "congested", "connection", "ended", "kin", "limits", "revocation",
        "wake",
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
        self.limits = limits
        self._decoder = FrameDecoder(limits)
        self._headers = HeaderDecoder(limits.headers)
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._out: Out = []
        self._opening = Latest(self._ends)
        self._opened_by = Latest(self._accepted)
        self.wake: Callable[[], None] = _nothing
        self.broken: RemoteProtocolError | None = None
        self.congested = False
        self.ended = False
        self.kin = False
        self.revocation: Slot | None = None
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
        frame = None
        try:
            for frame in self._decoder.feed(data):
                if frame.__class__ is not tuple or len(frame) < 3:
                    raise RemoteProtocolError("a frame is not an array of at least three elements")
                if len(frame) == 4:
                    number, kind, args, entries = frame
                else:
                    number, kind, args = frame[:3]
                    entries = frame[3] if len(frame) > 3 else None
                if number.__class__ is not int or kind.__class__ is not int or args.__class__ is not tuple:
                    raise RemoteProtocolError("a frame is not [channel, type, args]")
                headers: Headers = ()
                if entries is not None:
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
                    if kind == LAST.id and channel.receiving is STREAMING:
                        self._last_chunks(channel, args, headers, events)
                    elif self._stray(channel, kind, args):
                        events.append((channel, CREDIT, args, headers))
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
        if frame is not None:
            self._decoder.unfinished = 0
        return events

    def _opened(self, number: int, kind: int, args: tuple[Any, ...], headers: Headers) -> Event | None:
        """The first frame of a channel; None when it needs no event."""
        if kind == CREDIT.id and number <= self._last:
            # The stream ended while the credit was on its way.
            return None
        if number <= self._last or number < 1:
            if self._strangers is Strangers.IGNORED:
                return None
            raise RevokedChannel(f"channel {number} has ended or was never opened")
        if self._root is None:
            if self._strangers is Strangers.IGNORED:
                return None
            raise RevokedChannel(f"the peer may not open channel {number}")
        if number > _HIGHEST:
            raise RevokedChannel(f"channel {number} leaves no numbers for others")
        if len(self._channels) >= self.limits.channels:
            raise DispatchError(f"more than {self.limits.channels} channels are open")
        slot = self._root.slots.get(kind)
        if slot is None:
            slot = idl.SESSION_SLOTS.get(kind)
            if slot is None:
                raise DispatchError(f"slot {kind} not found")
            args = slot.check(args)
            acceptor = self._session_message(slot, args)
        else:
            args = slot.check(args)
            acceptor = self._acceptor
        self._last = number
        tail, kin = self._tail, self.kin
        if headers:
            tail, windowed = self._opened_by.of(headers)
            kin = kin or windowed
        channel = Channel(self, number, slot, slot.upstream, slot.downstream, acceptor, tail, kin)
        if slot.upstream or slot.downstream:
            self._channels[number] = channel
        return (channel, slot, args, headers)

    def _last_chunks(self, channel: Channel, args: tuple[Any, ...], headers: Headers, events: list[Event]) -> None:
        """Several chunks and the end at once; receivers never know."""
        if len(args) > FLOW:
            raise DispatchError(f"more than {FLOW} last chunks")
        for data in args:
            if data.__class__ is not bytes:
                raise DispatchError("a last chunk is not raw")
            events.append((channel, CHUNK, (data,), headers))
        events.append((channel, CHOKE, (), headers))
        channel.receiving = VOID
        if not channel.sending:
            del self._channels[channel.number]

    def _session_message(self, slot: Slot, args: tuple[Any, ...]) -> Receiver:
        """Who deals with a ping or a revoke; a revoked channel is off the table at once."""
        if slot is idl.PING_SLOT:
            return _Acknowledged(None, None)
        number, pair = args
        if len(pair) < 2 or pair[0].__class__ is not int or pair[1].__class__ is not int:
            raise DispatchError("revoke takes [channel, [category, code]]")
        channel = self._channels.pop(number, None)
        if channel is not None:
            channel.sending = channel.receiving = VOID
        return _Acknowledged(channel, from_wire(pair[0], pair[1]))

    def _stray(self, channel: Channel, kind: int, args: tuple[Any, ...]) -> bool:
        """A frame that does not fit the channel's state; True for a credit, which fits any."""
        if kind == CREDIT.id and args and args[0].__class__ is int and args[0] >= 0:
            return True
        if channel.receiving or self._strangers is Strangers.REVOKED:
            raise (
                DispatchError(f"message {kind} does not belong to {channel.slot.name}")
                if channel.receiving
                else RevokedChannel(f"channel {channel.number} has ended")
            )
        return False

    def open(self, slot: Slot, args: tuple[Any, ...], receiver: Receiver, headers: Headers = ()) -> Channel:
        """
        Start a conversation of ours.

        :raises LocalProtocolError: an argument has no wire form.
        :raises ConnectionGone: the connection has ended or is ending.
        """
        if self.ended:
            raise ConnectionGone()
        number = self._last + 1
        first = later = self._tail
        if headers:
            first, later = self._opening.of(headers)
        self.emit(number, slot.id, args, first)
        self._last = number
        channel = Channel(self, number, slot, slot.downstream, slot.upstream, receiver, later, self.kin)
        if slot.upstream or slot.downstream:
            self._channels[number] = channel
        return channel

    def revoke(self, channel: Channel, error: CocaineError) -> None:
        """Take a call of ours back; nothing, where the peer has no word for it. Channels call this."""
        if self.revocation is not None and not self.ended:
            self.open(self.revocation, (channel.number, error.pair), NOBODY)

    def _later(self, headers: Headers) -> bytes:
        """The end of a channel's frames after its first, which had these headers."""
        trace = trace_of(headers)
        return self._tail if trace is None else pack_headers(trace.headers())

    def _accepted(self, headers: Headers) -> tuple[bytes, bool]:
        """The end of our frames on a channel that a peer has opened with these, and whether it gave a window."""
        return self._later(headers), window_of(headers) is not None

    def _ends(self, headers: Headers) -> tuple[bytes, bytes]:
        """The ends of a channel's first frame and of its later ones."""
        later = self._later(headers)
        if later is self._tail and later is ZERO_TRACE:
            headers = _NO_TRACE + without_trace(headers)
        return pack_headers(headers), later

    def emit(self, number: int, kind: int, args: tuple[Any, ...], tail: bytes) -> None:
        """Append one frame to what is to be sent. Channels call this."""
        out = self._out
        if not out:
            self.wake()
        append(out, number, kind, args, tail)

    def flow(self, number: int, tail: bytes) -> Flow:
        """A place among what is to be sent where a stream gathers its chunks. Channels call this."""
        if not self._out:
            self.wake()
        flow = Flow(number, tail)
        self._out.append(flow)
        return flow

    def take(self) -> bytes:
        """Everything to be sent, once."""
        if not self._out:
            return b""
        parts, self._out = self._out, []
        out: Out = []
        for part in parts:
            if part.__class__ is Flow:
                part.leave(out)
            else:
                out.append(part)
        return b"".join(out)  # type: ignore[arg-type]

    def forget(self, channel: Channel) -> None:
        """A channel has ended both ways. Channels call this."""
        self._channels.pop(channel.number, None)

    def neglect(self, channel: Channel) -> None:
        """Nobody waits for the channel's answer any more. Channels call this."""
        if self._strangers is Strangers.IGNORED:
            channel.receiving = VOID
            self._channels.pop(channel.number, None)

    def lose_unfinished(self) -> list[Channel]:
        """
        The peer says no more: channels on which it had yet to end end now, and so do streams that only it could stop.

        Those on which just our answer is missing stay. Returns the others, in the order of their opening.
        """
        self.ended = True
        lost = [
            channel
            for channel in self._channels.values()
            if channel.receiving or (channel.sending is STREAMING and not channel.slot.downstream)
        ]
        for channel in lost:
            channel.sending = channel.receiving = VOID
            del self._channels[channel.number]
        return lost

    def lose(self) -> list[Channel]:
        """The connection is gone: every channel ends. Returns those that were open, in the order of their opening."""
        self.ended = True
        self._decoder.end()
        open_channels = list(self._channels.values())
        self._channels.clear()
        self._out.clear()
        for channel in open_channels:
            channel.sending = channel.receiving = VOID
        return open_channels


class _Acknowledged:
    """Answers a ping, or a revoke once the revoked channel's receiver has been told."""

    __slots__ = ("_channel", "_error")

    def __init__(self, channel: Channel | None, error: CocaineError | None) -> None:
        self._channel = channel
        self._error = error

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        channel.value(())
        revoked = self._channel
        if revoked is not None and self._error is not None:
            receiver = revoked.receiver
            revoked.abandon()
            receiver.lost(revoked, self._error)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        pass


def _nothing() -> None:
    """Nobody has to be woken."""


def serving(root: idl.Protocol, acceptor: Receiver, limits: Limits = Limits()) -> Session:
    """A service's end: the peer opens channels and is held to the rules; frames end in the runtime's manner."""
    return Session(root, acceptor, Strangers.REVOKED, ZERO_TRACE, limits)


def dialing(limits: Limits = Limits()) -> Session:
    """A client's end: only we open channels; what comes for others is dropped."""
    return Session(None, NOBODY, Strangers.IGNORED, NO_HEADERS, limits)


__all__ = [
    "NOBODY", "Channel", "Event", "Packed", "Receiver", "Session", "Strangers", "dialing", "error_of", "is_error",
    "serving",
]  # fmt: skip
