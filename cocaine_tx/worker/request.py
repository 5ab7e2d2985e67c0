"""
What a client sends with an event, as its handler reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import CocaineError, LocalProtocolError, Overloaded
from ..wire.headers import Headers, Trace, trace_of
from ..wire.session import Channel
from .waiting import native

#: What each chunk costs beside its bytes, so that a flood of empty chunks counts too.
_CHUNK_COST = 64
#: Most bytes that `Request.body` gathers unless told otherwise.
BODY_LIMIT = 64 * 1024 * 1024
#: Bytes up to which small chunks are joined while they wait, where their bounds mean nothing.
_JOINED = 4096


class Request:
    """
    The client's side of an event: ``async for chunk in request``, or `read`.

    What waits to be read is bounded: a full buffer stops the node's sending until the handler has read half of it.
    Everything that waits returns a Deferred (in an asyncio task: a future); await it or add callbacks to it.

    :ivar event: the event's name.
    :ivar headers: pairs of name and value (bytes) that came with the event, those of its trace included.
    :ivar window: bytes that the client sends before it waits for us to have read some; 0: it never waits.
    :ivar joins: it is one string of bytes: small chunks that wait become larger ones.
    """

    __slots__ = (
        "_buffer", "_channel", "_chunks", "_clock", "_deadline", "_end", "_ended", "_held", "_read", "_reader",
        "_size", "event", "headers", "joins", "window",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        event: str,
        headers: Headers,
        clock: IReactorTime,
        buffer: int,
        timeout: float | None = None,
        window: int = 0,
    ) -> None:
        self.event = event
        self.headers = headers
        self._channel = channel
        self._clock = clock
        self._buffer = buffer
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._held = False
        self._read = 0
        self.window = window
        self.joins = False
        self._reader: Deferred[bytes | None] | None = None
        self._ended = False
        self._end: CocaineError | None = None
        self._deadline = None if timeout is None else clock.seconds() + timeout

    def __repr__(self) -> str:
        return f"<request {self.event} on {self._channel!r}>"

    @property
    def trace(self) -> Trace | None:
        """The ids under which the client wants this request to be known."""
        return trace_of(self.headers)

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting, in the reactor's seconds; None when it did not say."""
        return self._deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, never below zero; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock.seconds())

    @property
    def ended(self) -> bool:
        """The client has said its last, or the request was broken off; chunks of it may still wait to be read."""
        return self._ended

    def read(self) -> Awaitable[bytes | None]:
        """
        The next chunk; None after the client's last, again and again.

        Fails with the client's error, or with `ConnectionGone`, when the request was broken off.

        :raises LocalProtocolError: somebody is reading already.
        """
        done: Deferred[bytes | None] = Deferred(self._unread)
        if self._chunks:
            done.callback(self.pop())
            return done
        if self._ended:
            if self._end is None:
                done.callback(None)
            else:
                done.errback(self._end)
            return done
        if self._reader is not None:
            raise LocalProtocolError("the request is being read already")
        self._reader = done
        return native(done)

    def body(self, limit: int = BODY_LIMIT) -> Awaitable[bytes]:
        """
        Everything the client sends, joined.

        Fails as `read` does, and with `Overloaded` when there are more than ``limit`` bytes.
        """
        return native(Deferred.fromCoroutine(self._gathered(limit)))

    async def _gathered(self, limit: int) -> bytes:
        chunks, size = [], 0
        while (chunk := await self.read()) is not None:
            size += len(chunk)
            if size > limit:
                raise Overloaded(f"the request is larger than {limit} bytes")
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def __aiter__(self) -> Request:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    # -- called by the invocation that owns this request

    def feed(self, chunk: bytes) -> None:
        """A chunk arrived."""
        reader = self._reader
        if reader is not None:
            self._reader = None
            if self.window:
                self._grant(len(chunk))
            reader.callback(chunk)
            return
        chunks = self._chunks
        if self.joins and chunks and len(chunks[-1]) + len(chunk) <= _JOINED:
            chunks[-1] += chunk
            self._size += len(chunk)
        else:
            chunks.append(chunk)
            self._size += len(chunk) + _CHUNK_COST
        if self._size > self._buffer and not self._held:
            self._held = True
            self._channel.session.connection.hold(self)

    def pop(self) -> bytes:
        """The oldest chunk that waits; there must be one."""
        chunk = self._chunks.popleft()
        self._size -= len(chunk) + _CHUNK_COST
        if self.window:
            self._grant(len(chunk))
        if self._held and self._size <= self._buffer // 2:
            self._release()
        return chunk

    def _grant(self, size: int) -> None:
        """So much has been read; half a window at a time is told to the client, which may send as much again."""
        self._read += size
        if self._read * 2 >= self.window:
            if not self._ended:
                self._channel.credit(self._read)
            self._read = 0

    def push_back(self, chunk: bytes) -> None:
        """A chunk that was taken is to be read again, first."""
        self._chunks.appendleft(chunk)
        self._size += len(chunk) + _CHUNK_COST

    def end(self, error: CocaineError | None) -> None:
        """The client has said its last (no error), or the request was broken off."""
        if self._ended and self._end is None and error is None:
            return
        self._ended = True
        self._end = error
        if error is not None:
            self.drop()
        reader, self._reader = self._reader, None
        if reader is not None:
            if error is None:
                reader.callback(None)
            else:
                reader.errback(error)

    def call_later(self, seconds: float, act: Callable[[], None]) -> IDelayedCall:
        """A timer on the clock that the deadline is measured by."""
        return self._clock.callLater(seconds, act)

    def drop(self) -> None:
        """Nobody will read what waits."""
        self._chunks.clear()
        self._size = 0
        if self._held:
            self._release()

    def _release(self) -> None:
        self._held = False
        self._channel.session.connection.release(self)

    def _unread(self, _: Deferred[Any]) -> None:
        self._reader = None
