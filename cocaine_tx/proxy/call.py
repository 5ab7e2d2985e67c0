"""
One request's way to the app: a connection, a channel on it, another try where that is safe, and pressure.

An `cocaine_tx.proxy.exchange.Exchange` makes one when it knows the app. The call asks the app's pool for a connection,
opens a channel, and tells the exchange what the app says: chunks, the end, or what went wrong when no further try is
allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import AppStopped, CocaineError, ConnectionGone, Unreachable
from ..wire.headers import ONCE_HEADER, Headers
from ..wire.idl import CHOKE, CHUNK, CREDIT, UNLIMITED, Message, Slot
from ..wire.session import Channel, error_of
from .retry import IDEMPOTENT, repeatable
from .upstream import Pool, Upstream

if TYPE_CHECKING:
    from .exchange import Exchange
    from .upload import Upload

#: Times the buffer's limit that may wait for a slow client while others share its connection to the app.
_SHARED = 4


class Call:
    """
    :param exchange: whose request this is.
    :param pool: of the app.
    :param event: what is asked of it.
    :param packed: the request; all of it, unless it is `streamed`.
    :param upload: how its body travels; None: it has none.
    :ivar answered: the app has said something.
    """

    __slots__ = (
        "_channel", "_event", "_exchange", "_held", "_packed", "_pool", "_seating", "_streamed", "_tried",
        "_tries", "_ungranted", "_upload", "_upstream", "_windowed", "answered",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, pool: Pool, event: str, packed: bytes, upload: Upload | None) -> None:
        self._exchange = exchange
        self._pool = pool
        self._event = event
        self._packed = packed
        self._upload = upload
        self._upstream: Upstream | None = None
        self._channel: Channel | None = None
        self._tried: tuple[Upstream, ...] = ()
        self._tries = 0
        self._seating = True
        self._streamed = False
        self._held = False
        self._windowed = False
        self._ungranted = 0
        self.answered = False

    def send(self) -> None:
        """Send the request, which is complete."""
        self._seating = True
        self._pool.seat(self, self._tried)

    def stream(self) -> None:
        """Send only the head; the exchange is told when the rest can follow. Without windows it travels alone."""
        self._seating = self._streamed = True
        if self._pool.windows:
            self._pool.seat(self, self._tried)
        else:
            self._pool.seat_alone(self)

    def offered(self, upstream: Upstream) -> None:
        """The pool has a connection for us."""
        if not self._seating:
            if upstream.aside:
                self._pool.finished(upstream)
            return
        self._seating = False
        self._upstream = upstream
        self._windowed = upstream.windows
        headers = self._exchange.headers(upstream.windows)
        if upstream.once and self._exchange.head.method not in IDEMPOTENT:
            headers += (ONCE_HEADER,)
        try:
            channel = upstream.remote.open("enqueue", self._event, receiver=self, headers=headers)
        except CocaineError as problem:
            self._failed(Unreachable(problem.reason))
            return
        self._channel = channel
        channel.chunk(self._packed)
        if self._streamed:
            self._exchange.opened(channel)
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
        elif message is CREDIT:
            if args[0] >= UNLIMITED:  # the worker knows no windows
                self._windowed = False
            self._exchange.credited(args[0])
        elif message is CHOKE:
            self._exchange.close()
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
        if upstream is not None:
            if isinstance(error, AppStopped):
                self._pool.renew()
            elif upstream.connection.over:
                self._pool.set_aside(upstream)
        whole = self._upload is None or not self._upload.given
        if repeatable(error, exchange.head.method, self.answered, whole):
            if upstream is not None:
                self._tried += (upstream,)
            self._tries += 1
            door = exchange.http.door
            if self._tries < door.terms.attempts and exchange.has_time() and door.budget.spend():
                door.meters.retries += 1
                self._upstream = None
                self._again()
                return
        exchange.failed(error)

    def _again(self) -> None:
        if self._streamed and self._upload is not None:
            self._upload.withdrawn()
            self.stream()
        else:
            self.send()

    @property
    def reached(self) -> bool:
        """There is such an app: a connection to it was offered."""
        return self._upstream is not None or bool(self._tried)

    # -- pressure

    def took(self, size: int) -> None:
        """So much of an answer has come and goes on to the client."""
        exchange = self._exchange
        http = exchange.http
        if self._windowed:
            heeded = self._ungranted <= exchange.window
            self._ungranted += size
            if heeded:
                return
        if http.outbox.waiting > http.door.terms.buffer:
            self._press()

    def _press(self) -> None:
        """The client is slow: nobody else shall wait with it."""
        upstream = self._upstream
        if upstream is None or self._held:
            return
        self._pool.set_aside(upstream)
        http = self._exchange.http
        # Whoever shares the connection gets a chance to finish first.
        if len(upstream.session) <= 1 or http.outbox.waiting > _SHARED * http.door.terms.buffer:
            self._held = True
            upstream.connection.hold(self)

    def relieve(self) -> None:
        """The client has taken everything so far."""
        if self._held and self._upstream is not None:
            self._held = False
            self._upstream.connection.release(self)
        channel = self._channel
        if channel is not None and self._windowed and self._ungranted * 2 >= self._exchange.window:
            channel.credit(self._ungranted)
            self._ungranted = 0

    # -- the end

    def finish(self) -> None:
        """The answer is complete; what the app does afterwards is its own business."""
        channel, self._channel = self._channel, None
        if channel is not None:
            if channel.sending:  # a close would tell the app that it has all of the request
                channel.fail(ConnectionGone("the answer has ended, and the rest of its request is dropped"))
            if self._windowed and channel.receiving:
                channel.credit(UNLIMITED)  # what it still says is dropped; nothing will be taken that it could wait for
            channel.abandon()
        self._let_go()

    def leave(self, error: CocaineError) -> None:
        """Nothing more is wanted from the app; it is told so as far as it can be told."""
        if self._seating:
            self._seating = False
            self._pool.leave(self)
        channel, self._channel = self._channel, None
        if channel is not None and channel.open:  # else it is counted no more, and whoever is has a request of its own
            upstream = self._upstream
            alone = upstream is not None and upstream.aside and len(upstream.session) == 1
            channel.cancel(error)
            channel.abandon()
            if upstream is not None and alone:
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
