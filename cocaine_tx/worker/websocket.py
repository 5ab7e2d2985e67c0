"""
One WebSocket: messages from a client and to it, until one of both ends it.

`cocaine_tx.worker.handshake` makes them, and `cocaine_tx.worker.conversation` has an ASGI application use them. Frames
are wsproto's business, a well kept library that does no I/O of its own; this module is imported when the first
WebSocket comes. Nothing is compressed: wsproto inflates without a bound, and loses its place when a ping comes amid a
message in parts.

Source: RFC 6455, sections 5 to 7.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage

from ..errors import CocaineError
from .waiting import READY
from .web import HeadersLike, HttpRequest, HttpResponse

#: Seconds that a client has to answer our close.
CLOSING = 5.0
#: There was no close (RFC 6455, section 7.4.1); never sent.
ABNORMAL = 1006
#: A message has more bytes than are taken.
_TOO_BIG = 1009
#: Bytes of messages that wait to be read before the client is made to wait.
_WAITING = 65536
#: What each message costs beside its bytes.
_MESSAGE_COST = 64
#: Pieces of messages that are taken before others have their turn; one read can bring thousands.
_TURN = 100
#: Intervals without a word from a client that is pinged in each; in the next it has gone.
_MISSED = 2


class WebSocket:
    """
    The connection behind an offer; `open` takes it.

    :param limit: bytes of a message that the client may send.
    :param ping: seconds between pings.
    :ivar reader: listens to the client, and is done when it has said its last; None before the offer is taken.
    :ivar ended: fires with code and reason when no message can be sent any more. Some may still wait to be read.
    """

    def __init__(self, request: HttpRequest, response: HttpResponse, limit: int, ping: float) -> None:
        self._request, self._response = request, response
        self._limit, self._ping = limit, ping
        self._wire = Connection(ConnectionType.SERVER)
        self._loop = asyncio.get_running_loop()
        self.reader: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._listening = False
        self._missed = 0
        self._parts = bytearray()
        self._inbox: deque[str | bytes] = deque()
        self._size = 0
        self._came, self._room = asyncio.Event(), asyncio.Event()
        self.ended: asyncio.Future[tuple[int, str]] = self._loop.create_future()

    @property
    def opened(self) -> bool:
        """The offer has been taken."""
        return self.reader is not None

    def open(self, headers: HeadersLike) -> Awaitable[None]:
        """
        Take the offer.

        :param headers: of the switch of protocols.
        :raises HttpFormatError: HTTP cannot carry them.
        """
        said = self._response.write_head(101, headers)
        self.reader = self._loop.create_task(self._listen())
        self._timer = self._loop.call_later(self._ping, self._tick)
        return said

    async def read(self) -> str | bytes | None:
        """The next message of the client; None after the last, again and again."""
        while not self._inbox:
            if self.ended.done():
                return None
            self._came.clear()
            await self._came.wait()
        message = self._inbox.popleft()
        self._size -= len(message) + _MESSAGE_COST
        if self._size <= _WAITING // 2:
            self._room.set()
        return message

    def write(self, message: str | bytes) -> Awaitable[None]:
        """A message of ours, not after the end. Fires when the client has taken enough of what was written."""
        return self._say(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    def close(self, code: int, reason: str) -> Awaitable[None]:
        """Say our last. The client has `CLOSING` seconds to agree; what it says meanwhile is not kept."""
        said = self._say(CloseConnection(code, reason))
        self.end(code, reason)
        self._unset()
        self._timer = self._loop.call_later(CLOSING, self._hang_up)
        return said

    def end(self, code: int = ABNORMAL, reason: str = "") -> None:
        """It is over, unless it was already; nobody is told but whoever waits here."""
        if self.ended.done():
            return
        self.ended.set_result((code, reason))
        self._came.set()
        self._room.set()

    def hang_up(self) -> None:
        """Listen no more."""
        self._unset()
        self._hang_up()

    def _hang_up(self) -> None:
        if self.reader is not None:
            self.reader.cancel()

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self, event: Event) -> Awaitable[None]:
        data = self._wire.send(event)
        return READY if self._response.closed else self._response.write(bytes(data))

    async def _listen(self) -> None:
        try:
            while True:
                self._listening = True
                piece = await self._request.read()
                self._listening, self._missed = False, 0
                if piece is None:
                    return
                self._wire.receive_data(piece)
                # Asked for one by one: what has to wait stays packed.
                for number, event in enumerate(self._wire.events()):
                    if await self._took(event):
                        return
                    if number % _TURN == _TURN - 1:
                        await asyncio.sleep(0)
        except CocaineError:
            return
        finally:
            self._listening = False
            self.end()
            if not self._response.closed:
                self._response.close()

    async def _took(self, event: Event) -> bool:
        """Something came. True if it was the last."""
        if isinstance(event, CloseConnection):
            if self._wire.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
                # The client's own; or it has broken the rules, and is told how.
                self.end(int(event.code), event.reason or "")
                self._say(event.response())
            return True
        if self.ended.done():
            return False
        if isinstance(event, Ping):
            await self._say(event.response())
        elif isinstance(event, Message):
            if len(self._parts) + _size_of(event.data) > self._limit:
                self.close(_TOO_BIG, f"a message has at most {self._limit} bytes")
                return True
            message = self._joined(event.data, event.message_finished)
            if message is not None:
                await self._keep(message)
        return False

    def _joined(self, data: str | bytes, last: bool) -> str | bytes | None:
        """The message that this piece completes."""
        parts = self._parts
        if not parts and last:
            return data
        parts += data.encode() if isinstance(data, str) else data
        if not last:
            return None
        whole = bytes(parts)
        parts.clear()
        return whole.decode() if isinstance(data, str) else whole

    async def _keep(self, message: str | bytes) -> None:
        self._inbox.append(message)
        self._size += len(message) + _MESSAGE_COST
        self._came.set()
        if self._size > _WAITING:
            self._room.clear()
            await self._room.wait()

    def _tick(self) -> None:
        """Fronts cut off who is silent, and not every client that has gone says so."""
        if self.ended.done():
            return
        if self._listening and not self._response.raw.unsent:
            self._missed += 1
        if self._missed > _MISSED:
            self.end()
            self._response.raw.unlimit()
            self._response.error(408, "the client of the WebSocket does not answer")
            self._hang_up()
            return
        self._timer = self._loop.call_later(self._ping, self._tick)
        self._say(Ping())


def _size_of(data: str | bytes) -> int:
    return len(data) if isinstance(data, bytes) or data.isascii() else len(data.encode())
