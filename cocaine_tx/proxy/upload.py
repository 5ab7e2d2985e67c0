"""
How the body of one request gets to the app: whole, in parts, or not at all.

Every exchange whose request has more than a head makes one. A body of a known size that fits is gathered and sent
*whole*. Anything else depends on what the app takes, which is asked once and remembered by its pool: *streamed* behind
the head on a connection of its own, or refused as too large. An upgrade becomes a *tunnel* the same way.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

from ..errors import CocaineError
from ..wire.session import Channel
from .answer import Answer
from .failure import Failure, error_answer
from .gathering import Gathering
from .request import RequestHead
from .upstream import Pool

if TYPE_CHECKING:
    from .exchange import Exchange

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: What the worker sees on a request whose body follows in parts.
_STREAMED = (b"X-Cocaine-HTTP-Streaming", b"1")


class Way(Enum):
    """How the body travels."""

    ASKING = auto()  #: the app has not said yet what it takes
    WHOLE = auto()
    STREAMED = auto()
    TUNNEL = auto()
    REFUSED = auto()


class Upload:
    """
    :param exchange: whose request this is.
    :param pool: of the app.
    :param limit: largest body that is sent whole.
    :ivar way: how it travels.
    :ivar given: some of it has been given to an app, and is here no more.
    """

    __slots__ = (
        "_channel", "_continued", "_ended", "_exchange", "_gathering", "_head", "_limit", "_pool", "_room", "given",
        "way",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, pool: Pool, head: RequestHead, limit: int) -> None:
        self._exchange = exchange
        self._pool = pool
        self._head = head
        self._limit = limit
        self._gathering = Gathering(exchange.http.door, limit)
        self._ended = False
        self._continued = False
        self._channel: Channel | None = None
        self._room: float = 0
        self.way = Way.ASKING
        self.given = False

    def begin(self) -> None:
        """The head has arrived: choose the way."""
        head = self._head
        if head.length is not None and 0 < head.length <= self._limit:
            self._choose(False)
        elif self._pool.streams is not None:
            self._choose(self._pool.streams)
        else:
            self._exchange.http.hold(self)
            self._pool.ask(self._told, self._unanswered)

    def _unanswered(self, error: CocaineError) -> None:
        if not self._exchange.over:
            self.way = Way.REFUSED
            self._gathering.release()
            self._exchange.http.release(self)
            self._exchange.failed(error)

    def _told(self, streams: bool) -> None:
        if not self._exchange.over:
            self._choose(streams)
            if self.way is not Way.STREAMED:
                self._exchange.http.release(self)

    def _choose(self, streams: bool) -> None:
        head = self._head
        if streams and head.upgrade and head.length == 0:
            self.way = Way.TUNNEL
            self._exchange.send_alone([], tunnel=True)
            return
        if head.upgrade:
            # The app has not asked for it, so the worker's 101 would be an error; HTTP goes on as it is.
            exchange = self._exchange
            exchange.answer = Answer(head.method, head.version, head.keep_alive, b"", exchange.http.door.date)
        if streams and head.length != 0 and (head.length is None or head.length > self._limit):
            self.way = Way.STREAMED
            self._exchange.http.hold(self)
            self._exchange.send_alone([_STREAMED], tunnel=False)
            return
        self.way = Way.WHOLE
        if (head.length is not None and head.length > self._limit) or self._gathering.excess:
            self._refuse(self._too_large())
            return
        self._go_on()
        if self._ended:
            self._send()

    def _go_on(self) -> None:
        if self._head.expect_continue and not self._continued and not self._gathering.size and not self._ended:
            self._continued = True
            self._exchange.http.outbox.say(_CONTINUE)

    def _too_large(self) -> Failure:
        return error_answer(413, f"the application takes bodies of at most {self._limit} bytes")

    def _refuse(self, answer: Failure) -> None:
        self.way = Way.REFUSED
        self._gathering.release()
        self._exchange.reply(answer)

    def take(self, data: bytes) -> None:
        """Some of the body has arrived."""
        channel = self._channel
        if channel is not None:
            self.given = True
            channel.chunk(data)
            self._room -= len(data)
            if self._room <= 0:
                self._exchange.http.hold(self)
            if channel.session.congested:
                channel.session.connection.delay(self._exchange.http)
            return
        if self.way is Way.REFUSED:
            return
        full = self._gathering.add(data)
        if self.way is Way.WHOLE and self._gathering.excess:
            self._refuse(self._too_large())
        elif full is not None:
            self._refuse(full)

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        if self.way is Way.WHOLE:
            self._send()
        elif self.way is Way.STREAMED and self._channel is not None:
            self._channel.choke()

    def _send(self) -> None:
        self._exchange.send(self._gathering.whole(), self._exchange.http.door.clock.seconds())

    def opened(self, channel: Channel, room: float) -> None:
        """
        The head is on its way to the app; now the rest.

        :param room: bytes that may be sent before the app grants more.
        """
        self._channel = channel
        self._room = room
        if self.way is Way.TUNNEL:
            return
        self._go_on()
        self._exchange.http.release(self)
        for part in self._gathering.parts():
            self.take(part)
        if self._ended:
            channel.choke()

    def withdrawn(self) -> None:
        """The app has not taken the head, which goes to another one; the rest waits."""
        self._channel = None
        if self.way is Way.STREAMED:
            self._exchange.http.hold(self)

    def credited(self, size: int) -> None:
        """The app has read so much."""
        self._room += size
        if self._room > 0:
            self._exchange.http.release(self)

    def release(self) -> None:
        """The request has come to its end."""
        self._gathering.release()

    @property
    def waiting(self) -> bool:
        """The rest of the body is still to come from the client."""
        return self._channel is not None and not self._ended and self._room > 0

    def headed(self, tunnel: bool) -> None:
        """The app's answer has begun; only now it is known whether it takes the upgrade."""
        if self.way is Way.TUNNEL and not tunnel and self._channel is not None:
            self._channel.choke()

    def tunnelled(self, data: bytes) -> None:
        """Bytes of the protocol that was switched to; empty is their end."""
        if self._channel is None:
            return
        if data:
            self.take(data)
        else:
            self._channel.choke()
