"""
What a caller holds while it waits: one answer, or a stream of chunks.

`Reply` receives a call's one answer into a Deferred. `Stream` receives chunks for whoever reads them one after another,
and stops reading the peer while its buffer is full.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred

from ..errors import CocaineError, InvalidArguments, LocalProtocolError
from ..wire.headers import Headers
from ..wire.idl import CHUNK, CREDIT, VALUE, Message, Slot
from ..wire.session import Channel, error_of


class Reply:
    """
    Receives the one answer of a call.

    :ivar answer: fires with the tuple of the answer's arguments, or fails with the error answered.
        Cancelling it drops whatever comes later.
    :ivar channel: the call's, once it is open; set by whoever opened it.
    """

    __slots__ = ("answer", "channel")

    def __init__(self) -> None:
        self.answer: Deferred[tuple[Any, ...]] = Deferred(self._cancelled)
        self.channel: Channel | None = None

    def _cancelled(self, _: Deferred[tuple[Any, ...]]) -> None:
        """The call cannot be taken back; its answer finds nobody."""
        if self.channel is not None:
            self.channel.abandon()

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if self.answer.called or message is CREDIT:
            return
        if message is VALUE or message.name in ("value", "write", "close"):
            self.answer.callback(args)
        else:
            self.answer.errback(error_of(args))

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if not self.answer.called:
            self.answer.errback(reason)


#: Bytes a stream keeps for its reader before it stops reading the peer.
BUFFER = 1024 * 1024
#: What each chunk costs beside its bytes, so that a flood of empty chunks counts too.
_CHUNK_COST = 64


class Stream:
    """
    A stream for one reader at a time: ``async for arguments in stream``, or `read`.

    Items are the tuple of each message's arguments (one element for byte streams).

    :ivar headers: those of the latest message.
    """

    def __init__(self, buffer: int = BUFFER) -> None:
        self.channel: Channel | None = None
        self.headers: Headers = ()
        self._limit = buffer
        self._items: deque[tuple[Any, ...]] = deque()
        self._size = 0
        self._end: CocaineError | None = None
        self._ended = False
        self._reader: Deferred[tuple[Any, ...] | None] | None = None

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if self._ended:
            return
        self.channel = channel
        self.headers = headers
        if message is CHUNK or message.name == "write":
            if self._reader is not None:
                reader, self._reader = self._reader, None
                reader.callback(args)
                return
            self._items.append(args)
            self._size += _cost(args)
            if self._size > self._limit:
                channel.session.connection.hold(self)
        elif message.name == "error":
            self._finish(error_of(args))
        elif message is not CREDIT:
            self._finish(None)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self._finish(reason)

    def _finish(self, error: CocaineError | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._end = error
        if self.channel is not None:
            # Nothing more comes here: whoever reads slowly delays nobody else any longer.
            self.channel.session.connection.release(self)
        if self._reader is not None:
            reader, self._reader = self._reader, None
            if error is None:
                reader.callback(None)
            else:
                reader.errback(error)

    def read(self) -> Deferred[tuple[Any, ...] | None]:
        """
        The next message's arguments; None after the regular end, again and again.

        Fails with the error that ended the stream. Cancelling leaves the stream as it is.

        :raises LocalProtocolError: somebody is reading already.
        """
        done: Deferred[tuple[Any, ...] | None] = Deferred(self._unread)
        if self._items:
            args = self._items.popleft()
            self._size -= _cost(args)
            if self._size <= self._limit // 2 and self.channel is not None:
                self.channel.session.connection.release(self)
            done.callback(args)
        elif self._ended:
            if self._end is None:
                done.callback(None)
            else:
                done.errback(self._end)
        elif self._reader is not None:
            raise LocalProtocolError("the stream is being read already")
        else:
            self._reader = done
        return done

    def _unread(self, _: Deferred[tuple[Any, ...] | None]) -> None:
        self._reader = None

    def close(self) -> None:
        """The reader has gone: drop what waits and whatever comes."""
        self._items.clear()
        self._size = 0
        if self.channel is not None:
            self.channel.session.connection.release(self)
            self.channel.abandon()
        self._finish(None)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> tuple[Any, ...]:
        args = await self.read()
        if args is None:
            raise StopAsyncIteration
        return args


def _cost(args: tuple[Any, ...]) -> int:
    return _CHUNK_COST + sum(len(arg) for arg in args if arg.__class__ is bytes)


def payload(args: tuple[Any, ...]) -> bytes:
    """
    The bytes of a chunk.

    :raises InvalidArguments: it carries none.
    """
    if not args or args[0].__class__ is not bytes:
        raise InvalidArguments("a chunk is not one raw value")
    data: bytes = args[0]
    return data
