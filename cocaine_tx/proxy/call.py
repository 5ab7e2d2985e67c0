"""
One request's way to the app: a connection, a channel on it, another try where that is safe, and pressure.

An `cocaine_tx.proxy.exchange.Exchange` makes one when it knows the app. The call asks the app's pool for a connection,
opens a channel, and tells the exchange what the app says: chunks, the end, or what went wrong when no further try is
allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cocaine_tx.errors import AppStopped, CocaineError, Unreachable
from cocaine_tx.proxy.retry import repeatable
from cocaine_tx.proxy.upstream import Pool, Upstream
from cocaine_tx.wire.headers import Headers
from cocaine_tx.wire.idl import CHOKE, CHUNK, CREDIT, Message, Slot
from cocaine_tx.wire.session import Channel, error_of

if TYPE_CHECKING:
    from cocaine_tx.proxy.exchange import Exchange

#: Times the buffer's limit that may wait for a slow client while others share its connection to the app.
_SHARED = 4


class Call:
    """
    :param exchange: whose request this is.
    :param pool: of the app.
    :param event: what is asked of it.
    :param headers: of the wire.
    :param packed: the request; all of it, unless it is `streamed`.
    :ivar answered: the app has said something.
    """

    __slots__ = (
        "_channel",
        "_event",
        "_exchange",
        "_headers",
        "_held",
        "_packed",
        "_pool",
        "_seating",
        "_streamed",
        "_taken",
        "_tried",
        "_tries",
        "_upstream",
        "_window",
        "answered",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, pool: Pool, event: str, headers: Headers, packed: bytes) -> None:
        self._exchange = exchange
        self._pool = pool
        self._event = event
        self._headers = headers
        self._packed = packed
        self._upstream: Upstream | None = None
        self._channel: Channel | None = None
        self._tried: tuple[Upstream, ...] = ()
        self._tries = 0
        self._seating = True
        self._streamed = False
        self._held = False
        self._window = 0
        self._taken = 0
        self.answered = False

    def send(self) -> None:
        """Send the request, which is complete."""
        self._seating = True
        self._pool.seat(self, self._tried)

    def stream(self) -> None:
        """Send only the head, on a connection of its own; the exchange is told when the rest can follow."""
        self._streamed = True
        self._pool.seat_alone(self)

    def offered(self, upstream: Upstream) -> None:
        """The pool has a connection for us."""
        if not self._seating:
            if upstream.aside:
                self._pool.finished(upstream)
            return
        self._seating = False
        self._upstream = upstream
        headers = self._headers
        if upstream.windows:
            door = self._exchange.http.door
            self._window, self._taken = door.terms.buffer, 0
            headers += door.window
        try:
            channel = upstream.remote.open("enqueue", self._event, receiver=self, headers=headers)
        except CocaineError as problem:
            self._failed(Unreachable(problem.reason))
            return
        self._channel = channel
        channel.chunk(self._packed)
        if self._streamed:
            self._exchange.opened(channel, self._window)
        else:
            channel.choke()

    def unserved(self, error: CocaineError) -> None:
        """There is no connection."""
        if self._seating:
            self._seating = False
            self._failed(error)

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if channel is not self._channel:
            return
        if message is CHUNK:
            self.answered = True
            self._exchange.chunk(args)
            if self._window and self._channel is not None and args:
                self._taken += len(args[0])
                if self._taken * 4 >= self._window and not self._slow:
                    self._grant()
        elif message is CHOKE:
            self._exchange.close()
        elif message is CREDIT:
            self._exchange.credited(args[0])
        else:
            self._channel = None
            channel.choke()
            self._failed(error_of(args))

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if channel is self._channel:
            self._channel = None
            self._failed(reason)

    def _failed(self, error: CocaineError) -> None:
        """Try again, or tell the exchange."""
        exchange, upstream = self._exchange, self._upstream
        self._let_go()
        if repeatable(error, exchange.head.method, self.answered, not self._streamed):
            if upstream is not None:
                self._tried += (upstream,)
                if upstream.connection.gone or isinstance(error, AppStopped):
                    self._pool.set_aside(upstream)  # a new one is resolved anew
            self._tries += 1
            door = exchange.http.door
            if self._tries < door.terms.attempts and exchange.has_time() and door.budget.spend():
                door.meters.retries += 1
                self._upstream = None
                self.send()
                return
        exchange.failed(error)

    # -- pressure

    @property
    def _slow(self) -> bool:
        """So much waits for the client that the app gets no more credit for now."""
        return self._exchange.http.waiting * 4 > self._window

    def _grant(self) -> None:
        taken, self._taken = self._taken, 0
        if self._channel is not None and taken:
            self._channel.credit(taken)

    def press(self) -> bool:
        """
        Something waits for the client: see to it that nobody else waits with it.

        :return: the app is kept from speaking; its silence is our doing.
        """
        upstream = self._upstream
        if upstream is None or self._held:
            return self._held
        if self._window:
            # The app stops by itself for want of credit.
            return self._slow
        http = self._exchange.http
        limit = http.door.terms.buffer
        if http.waiting <= limit:
            return False
        self._pool.set_aside(upstream)
        # Whoever shares the connection gets a chance to finish first.
        if len(upstream.session) <= 1 or http.waiting > _SHARED * limit:
            self._held = True
            upstream.connection.hold(self)
        return self._held

    def relieve(self) -> bool:
        """The client has taken everything; whether the app was kept from speaking until now."""
        if self._window:
            self._grant()
            return True
        if not self._held or self._upstream is None:
            return False
        self._held = False
        self._upstream.connection.release(self)
        return True

    # -- the end

    def finish(self) -> None:
        """The answer is complete; what the app does afterwards is its own business."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.choke()
            channel.abandon()
        self._let_go()

    def leave(self, error: CocaineError) -> None:
        """Nothing more is wanted from the app; it is told so as far as it can be told."""
        if self._seating:
            self._seating = False
            self._pool.leave(self)
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.fail(error)
            channel.abandon()
            upstream = self._upstream
            if upstream is not None and upstream.aside and len(upstream.session) <= 1:
                upstream.remote.close()  # what it would still send is wanted by nobody
        self._let_go()

    def _let_go(self) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        if self._held:
            self._held = False
            upstream.connection.release(self)
        if upstream.aside:
            self._pool.finished(upstream)
