"""
One HTTP client: bytes from the transport to requests, and answers back, one after another.

The parser tells what has arrived, an `Exchange` deals with each request, and this class owns what lies between: order,
keep-alive, time limits, pressure, and how a connection ends. Time limits stand in the door's `Deadlines`; a connection
is entered again only when a limit comes nearer, so a request on a busy connection costs no timer.

Source: RFC 9112 section 9.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, cast

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure as Reason
from zope.interface import implementer

from ..rpc.connection import tune
from .access import Entry
from .answer import Answer, Ending
from .door import Door
from .doubt import Doubt
from .exchange import Exchange
from .failure import Failure, refused
from .noted import Known
from .outbox import Outbox
from .parser import RequestParser
from .request import Body, End, Event, Refused, RequestHead
from .secure import half_of, part

#: Seconds in which a client may still read the last answer while what it sends is dropped.
LINGER = 2.0
#: Seconds in which a client is still answered when the proxy is to end: what it has sent may be on its way.
GRACE = 1.0

Pages = Callable[[RequestHead], Failure | None]


@implementer(IHalfCloseableProtocol)
class HttpConnection(Protocol):
    """
    :param door: what all connections share.
    :param pages: answers of our own by request, in place of the apps.
    :ivar outbox: what it is given.
    :ivar half_closed: the client will send no more.
    :ivar watch: its limits of time.
    """

    def __init__(self, door: Door, pages: Pages | None = None) -> None:
        self.door = door
        self.pages = pages
        self.outbox = Outbox(self)
        self.half_closed = False
        self._parser = RequestParser(door.terms.parser)
        self._exchange: Exchange | None = None
        self._telling = False
        self._request_read = False  # the request being answered has been read to its end
        self._in_head = False
        self._in_request = False
        self._tunnel = False
        self._closing = False  # nothing more is read
        self._lingering = False  # its half ends when it has taken what waits
        self._gone = False
        self._doubt: Doubt | None = None
        self._client: str | None = None
        self._known: Known | None = None
        self._holders: set[object] | None = None
        self._client_due = inf
        self.watch = door.deadlines.watch(self)

    # -- reading

    def connectionMade(self) -> None:
        door = self.door
        tune(self.transport)
        door.connections.add(self)
        door.meters.accepted += 1
        door.meters.active += 1
        self.outbox.open(self.transport)
        self._within(door.terms.head)

    def dataReceived(self, data: bytes) -> None:
        if self._tunnel:
            if self._exchange is not None:
                self._exchange.tunnelled(data)
        elif not self._closing:
            self._told(self._parser.feed(data))

    def _told(self, events: list[Event]) -> None:
        self._telling = True
        parser = self._parser
        while True:
            for event in events:
                kind = event.__class__
                if kind is RequestHead:
                    self._begin(cast(RequestHead, event))
                elif kind is Body:
                    self._client_due = self.door.clock.seconds() + self.door.terms.body
                    if self._exchange is not None:
                        self._exchange.body(cast(Body, event).data)
                elif kind is End:
                    self._client_due = inf
                    self._in_request = False
                    self._request_read = True
                    if self._exchange is not None:
                        self._exchange.end()
                else:
                    self._refused(cast(Refused, event))
                if self._closing:
                    break  # what follows is nobody's
            if self._exchange is None and self._request_read and not self._closing:
                self._request_read = False
                events = parser.next()
                if events:
                    continue
            break
        self._telling = False
        if self._exchange is None and self.half_closed and not self._closing:
            for event in parser.eof():
                self._refused(cast(Refused, event))
            if not self._closing:
                self._close()
        if self._closing or self._tunnel:
            return
        if self._exchange is None:
            self._await_head()
        if parser.waiting:
            self.hold(self)
        elif self._holders:
            self.release(self)

    def _begin(self, head: RequestHead) -> None:
        now = self.door.clock.seconds()
        self._in_head = False
        self._in_request = True
        if head.length != 0:
            self._within(self.door.terms.body)
        self._exchange = exchange = Exchange(self, head, now)
        exchange.begin()

    def _await_head(self) -> None:
        """No request is being answered: the client may be silent for a while, but not inside a head."""
        if self._request_read or self._in_request or self._exchange is not None:
            return
        terms = self.door.terms
        if not self._parser.idle:
            if not self._in_head:
                self._in_head = True
                self._within(terms.head)
        elif self._client_due == inf:
            self._within(GRACE if self.door.draining else terms.keep_alive)

    def _refused(self, verdict: Refused) -> None:
        if self._exchange is not None:
            self._exchange.refused(verdict)
        elif self._in_request:
            self._linger()  # it has had its answer
        else:
            self._reply(verdict)

    def _reply(self, verdict: Refused) -> None:
        """An answer to what never became a request; the last one."""
        door, own = self.door, refused(verdict)
        answer = Answer(verdict.method, b"1.1", False, b"", door.date).complete(own.status, own.headers, own.body)
        self.outbox.say(answer)
        sent = len(answer)
        door.meters.answered("", own.status, 0.0, sent)
        door.log.add(Entry(self.client, door.wall(), None, own.status, sent, 0.0, b"-", "", "", verdict.reason))
        self._linger()

    def readConnectionLost(self) -> None:
        """The client sends no more, but may still read."""
        self.half_closed = True
        if self._closing:
            cast(Any, self.transport).loseConnection()
        elif self._tunnel:
            if self._exchange is not None:
                self._exchange.tunnelled(b"")
        elif self._exchange is None or not self._request_read:
            self._told(self._parser.eof())
        elif self._exchange.head.version == b"1.1":
            self._doubt = Doubt(self.door.clock, self.outbox.interrupt, self._exchange)

    def writeConnectionLost(self) -> None:
        """We have said that we write no more."""

    def connectionLost(self, reason: Reason = connectionDone) -> None:
        self._closing = self._gone = True
        self.watch.forget()
        if self._doubt is not None:
            self._doubt.settle()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.deserted()
        self.door.left(self)
        self.outbox.close()
        self._doubt = None  # it would keep us, with a read's worth of bytes, until the collector comes

    def read(self, head: RequestHead) -> Known:
        """What a request's head means to us; the parser gives the same one again when a client repeats itself."""
        known, terms = self._known, self.door.terms
        if known is None or known.head is not head or known.terms is not terms:
            known = self._known = Known.of(head, terms, self.door.notes)
        return known

    @property
    def last_request(self) -> bool:
        """No other request will be read behind the one being answered."""
        return (self.door.draining or self.half_closed) and not self._parser.waiting

    @property
    def client(self) -> str:
        """The client's address, for the log."""
        if self._client is None:
            peer = cast(Any, self.transport).getPeer()
            self._client = str(getattr(peer, "host", None) or "-")
        return self._client

    # -- writing

    def relieved(self) -> None:
        """The client has taken what was said so far."""
        if self._exchange is not None:
            self._exchange.relieved()

    def drained(self) -> None:
        """The same, after it has kept us waiting."""
        if self._exchange is not None:
            self._exchange.relieved()
        elif self._closing:
            (self._linger if self._lingering else self._close)()

    def answered(self, exchange: Exchange) -> None:
        """The exchange has said everything it had to say."""
        self.outbox.flush()
        exchange.settle()
        self._exchange = None
        if self._holders:
            self._holders.clear()
            cast(Any, self.transport).resumeProducing()
        ending = exchange.answer.ending
        if ending is Ending.ABORT:
            self.abort()
        elif ending is Ending.KEEP:
            # What is left of the body is read and dropped; then comes the next request.
            if not self._telling:
                self._told([])
        elif self._request_read and not self._parser.waiting and not self._tunnel:
            self._close()
        else:
            self._linger()

    # -- pressure

    def hold(self, holder: object) -> None:
        """Do not read from the client until every holder has released it."""
        if self._holders is None:
            self._holders = set()
        if not self._holders and not self._closing:
            cast(Any, self.transport).pauseProducing()
        self._holders.add(holder)

    def release(self, holder: object) -> None:
        """The holder can take data again."""
        holders = self._holders
        if holders and holder in holders:
            holders.discard(holder)
            if not holders and not self._closing:
                if self._client_due != inf:
                    self._client_due = self.door.clock.seconds() + self.door.terms.body
                cast(Any, self.transport).resumeProducing()

    def enter_tunnel(self) -> None:
        """The app has switched protocols: from here on bytes pass as they are."""
        self._tunnel = True
        self._client_due = inf
        rest = self._parser.rest()
        self.release(self)
        if rest and self._exchange is not None:
            self._exchange.tunnelled(rest)

    # -- time

    def _within(self, seconds: float) -> None:
        """By then the client must have done the next thing."""
        now = self.door.clock.seconds()
        self._client_due = now + seconds
        self.watch.expect(self._client_due, now)

    def timed(self) -> None:
        """The nearest limit that was watched has come; it may have moved meanwhile."""
        self.watch.due = inf
        now = self.door.clock.seconds()
        if self._holders and self._client_due <= now:
            self._client_due = now + self.door.terms.body  # its silence is our doing
        if self.outbox.due <= now:
            self.abort("the client takes nothing")
        elif self._exchange is not None and self._exchange.due <= now:
            self._exchange.expire(now)
        elif self._client_due <= now:
            self._late()
        if not self._gone:
            due = min(self._client_due, self.outbox.due, self._exchange.due if self._exchange is not None else inf)
            if due != inf:
                self.watch.expect(due, now)

    def _late(self) -> None:
        """The client is too slow."""
        self._client_due = inf
        if self._closing:
            part(self.transport)
        elif self._exchange is not None:
            self._exchange.refused(Refused(408, "the body did not arrive in time"))
        elif self._in_head:
            self._reply(Refused(408, "the head did not arrive in time", self._parser.method))
        else:
            self._close()

    # -- the end

    def drain(self) -> None:
        """Only what is under way is taken."""
        if self._exchange is None and not self._closing and self._parser.idle:
            self._within(min(self._client_due - self.door.clock.seconds(), GRACE))

    def _close(self) -> None:
        """Send what was said, then end the connection."""
        self._stop_reading_requests()
        cast(Any, self.transport).loseConnection()
        if self.outbox.due == inf and self.outbox.secure:
            self._within(self.door.terms.write)  # its end is a dialogue

    def _linger(self) -> None:
        """The same while the client may still be sending: closing at once would reset it before it has read."""
        half = half_of(self.transport)
        if half is None or self.half_closed:
            self._close()
            return
        self._stop_reading_requests()
        self._lingering = self.outbox.due != inf
        if not self._lingering:
            half()
            self._within(LINGER)

    def _stop_reading_requests(self) -> None:
        self.outbox.finish()
        self._closing = True
        self._client_due = inf
        if self._holders:
            self._holders.clear()
            cast(Any, self.transport).resumeProducing()

    def abort(self, why: str = "") -> None:
        """End the connection now, with a reset; the log says why."""
        self._closing, self._client_due, self.outbox.due = True, inf, inf  # it is gone only a turn later
        if self._exchange is not None:
            self._exchange.error = self._exchange.error or why
        cast(Any, self.transport).abortConnection()
