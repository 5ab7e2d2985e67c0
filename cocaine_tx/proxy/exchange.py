"""
One request and its answer: from the head the client sent to the last byte it gets.

The client's `cocaine_tx.proxy.connection.HttpConnection` makes one for each request and tells it what arrives; a
`cocaine_tx.proxy.call.Call` brings it to the app and tells what the app says. It ends in exactly one of three ways: an
answer of the app's, an answer of our own, or a connection that breaks off.

Source: reference ``http-tools-sdk.md`` sections 0.1, A.2 and A.6.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Any

from ..errors import CocaineError, ConnectionGone, HttpFormatError, InvocationTimeout
from ..wire.headers import Headers
from ..wire.http import pack_request
from ..wire.session import Channel
from .access import Entry
from .answer import Answer, Ending, Shapes
from .call import Call
from .failure import UNROUTED, Failure, application_line, failed, not_routed, refused
from .jsonrpc import asked
from .noted import Noted
from .request import Fields, Refused, RequestHead
from .route import Route, Verdict
from .switchboard import Caller
from .trace import Identity, identify
from .upload import Upload

if TYPE_CHECKING:
    from .connection import HttpConnection

#: Seconds that a switched connection may live as far as the node is concerned.
_TUNNEL_TIME = 86400.0
#: As nginx writes it in the log: the client did not wait.
_CLIENT_GONE = 499

_shapes = Shapes()
_LATE = Refused(408, "the request did not arrive in time")


class Exchange:
    """
    :param http: the client's connection.
    :param head: the request's.
    :param now: the clock's time.
    :ivar answer: what the client gets.
    :ivar due: the clock's time by which the app must say something.
    :ivar complete: the whole request has arrived.
    :ivar over: it has come to its end.
    :ivar window: bytes either way that its call lets be on their way; 0: it has no window.
    """

    __slots__ = (
        "_added", "_call", "_caller", "_dropped", "_identity", "_own", "_pace", "_route", "_sent_before",
        "_started", "_status", "_total", "_tunnel", "_until", "_upload", "_wire", "answer", "complete", "due", "error",
        "head", "http", "over", "window",
    )  # fmt: skip

    def __init__(self, http: HttpConnection, head: RequestHead, now: float) -> None:
        door = http.door
        self.http = http
        self.head = head
        self.answer = Answer.to(head, door.date)
        self.complete = self.over = False
        self.due = inf
        self.window = 0
        self.error = ""
        self._started = now
        self._total = self._pace = 0.0
        self._until = inf
        self._status = 0
        self._own: Failure | None = None
        self._dropped = 0
        self._route: Route | None = None
        self._identity: Identity | None = None
        self._upload: Upload | None = None
        self._call: Call | None = None
        self._caller: Caller | None = None
        self._wire: Headers = ()  # beside the deadline
        self._added: Fields = []
        self._tunnel = False
        self._sent_before = http.outbox.sent

    # -- the request

    def begin(self) -> None:
        """Look where it goes, and what is to become of its body."""
        door, head = self.http.door, self.head
        door.meters.running += 1
        if self.http.pages is not None:
            return self._answer_ourselves(self.http.pages(head) or not_routed())
        known = self.http.read(head)
        where, noted = known.where, known.noted
        self._until = self._started + known.total
        if head.length != 0:
            self.due = self._until  # the app's own time begins later
            self.http.watch.expect(self.due, self._started)
        if door.terms.services and asked(head, where is Verdict.NOWHERE):
            self._identify("", noted)
            self._caller = Caller(self, self._wire)
            return self._caller.begin()
        if isinstance(where, Verdict):
            if where is Verdict.PING:
                return self._answer_ourselves(Failure(200, "OK") if door.healthy else Failure(503, "Failed"))
            self._identify("", noted)
            return self._answer_ourselves(UNROUTED[where])
        door.budget.earn()
        if noted.sticky is not None:
            where = where._replace(app=door.upstreams.locators.member(where.app, noted.sticky))
        self._identify(where.app, noted)
        self._route = where
        self._total, self._pace = known.total, known.pace
        if head.length != 0 or head.upgrade:
            self._upload = Upload(self, door.upstreams.pool(where.app), head, door.terms.inline)
            self._upload.begin()
        return None

    def _identify(self, app: str, noted: Noted) -> None:
        """The request gets its name, and what travels with its call."""
        door = self.http.door
        self._identity = identity = identify(noted.id, noted.traceparent, door.terms.tracing_chance_of(app))
        self._wire = noted.mapped + identity.headers
        # With it the app can write the same id into its own log.
        self._added = [] if noted.id else [(door.request_header, identity.id)]

    def body(self, data: bytes) -> None:
        """Some of the body has arrived."""
        self.http.door.meters.received += len(data)
        if self.over:
            return
        if self._upload is not None:
            self._upload.take(data)
            if self._call is not None:
                self.due = min(self._until, self.http.door.clock.seconds() + self._pace)
        elif self._caller is not None:
            self._caller.take(data)
        elif self._own is not None:
            self._dropped += len(data)
            if self._dropped > self.http.door.terms.inline:
                self.reply(self._own)

    def end(self) -> None:
        """The request is complete."""
        self.complete = True
        if self._own is not None:
            self.reply(self._own)
        elif self._upload is not None:
            self._upload.end()
            if self.answer.done:
                self._finish()
        elif self._caller is not None:
            self.due = inf  # it has limits of its own
            self._caller.end()
        else:
            self.send(b"", self._started)

    def refused(self, verdict: Refused) -> None:
        """The rest of the request cannot be understood."""
        self._leave(ConnectionGone("the HTTP client broke the protocol"))
        self.error = verdict.reason
        self.answer.last()
        self.reply(refused(verdict))

    def _answer_ourselves(self, answer: Failure) -> None:
        """At the end of the request, unless the client had better not send the rest."""
        self._own = answer
        head = self.head
        if head.expect_continue or (head.length or 0) > self.http.door.terms.inline:
            self.reply(answer)

    # -- to the app

    def send(self, body: bytes, now: float) -> None:
        """The whole request is there. The upload calls this, if there is one."""
        assert self._route is not None
        call = self._called(self._route.headers + self._added, body)
        self._wait(now)
        if body:
            self._total = min(self._total, ceil(self._until - now))
        call.send()

    def send_alone(self, extra: Fields, tunnel: bool) -> None:
        """Only the head goes out; the upload sends the rest."""
        assert self._route is not None
        self._tunnel = tunnel
        call = self._called(self._route.headers + self._added + extra, b"")
        self._wait(self.http.door.clock.seconds())
        call.stream()

    def headers(self, windows: bool) -> Headers:
        """What goes along with the call on the wire."""
        door = self.http.door
        door.promised -= self.window  # of the try before
        self.window = door.window if windows else 0
        door.promised += self.window
        return door.call_headers(_TUNNEL_TIME if self._tunnel else self._total, self.window) + self._wire

    def _called(self, headers: Fields, body: bytes) -> Call:
        head, where = self.head, self._route
        assert where is not None
        # Only now: while a body comes, a pool that nobody else needs is given up.
        pool = self.http.door.upstreams.pool(where.app)
        packed = pack_request(head.method, where.uri, head.version, headers, body)
        self._call = call = Call(self, pool, where.event, packed, self._upload)
        return call

    def _wait(self, now: float) -> None:
        """From now the app has its time."""
        self.due = min(self._until, now + self._pace)
        self.http.watch.expect(self.due, now)

    def has_time(self) -> bool:
        """Another try may still succeed; it is given what is left of the time, in whole seconds."""
        now = self.http.door.clock.seconds()
        self._total = min(self._total, ceil(self._until - now))
        return bool(now < self.due)

    def opened(self, channel: Channel) -> None:
        """The head has been sent; the rest can follow, as much as the window allows if there is one."""
        if self._upload is not None:
            self._upload.opened(channel, self.window or inf)

    def credited(self, size: int) -> None:
        """The app has room for more."""
        if self._upload is not None and not self.over:
            self._upload.credited(size)

    def tunnelled(self, data: bytes) -> None:
        """The client's bytes after a switch of protocols; empty: it sends no more."""
        if self._upload is not None:
            self._upload.tunnelled(data)
            self._wait(self.http.door.clock.seconds())

    # -- from the app

    def chunk(self, args: tuple[Any, ...]) -> None:
        """A chunk of the answer; the first is its head."""
        if not args or args[0].__class__ is not bytes:
            return self._malformed("a chunk of the application's answer is not raw")
        answer, http = self.answer, self.http
        self.due = min(self._until, http.door.clock.seconds() + self._pace)
        if not answer.begun:
            return self._head(args[0])
        out = answer.chunk(args[0])
        if out:
            http.outbox.say(out)
        return self._took(len(args[0]))

    def _head(self, packed: bytes) -> None:
        http, answer = self.http, self.answer
        if http.last_request:
            answer.last()
        try:
            status, said = _shapes.head(packed, answer, self._extra(), http.door.terms.request_header)
        except HttpFormatError as problem:
            return self._malformed(problem.reason)
        http.outbox.say(said)
        if answer.begun:
            self._status = status
            if self._upload is not None:
                self._upload.headed(answer.tunnel)
            if answer.tunnel:
                self._until, self._pace = inf, max(self._pace, http.door.terms.keep_alive)
                http.enter_tunnel()
        return self._took(len(packed))

    def _took(self, size: int) -> None:
        """The app has said so much, and perhaps all that the client will get."""
        call = self._call
        if not self.answer.done:
            if call is not None:
                call.took(size)
        elif self.complete:
            if self.head.method == b"HEAD":
                self._leave(ConnectionGone("the HTTP client wants the head alone"))
            self._finish()
        elif call is not None:  # it reads on; what it still says is dropped
            call.took(size)
            call.relieve()

    def close(self) -> None:
        """The app has said everything."""
        try:
            out = self.answer.end()
        except HttpFormatError as problem:
            return self._malformed(problem.reason)
        if out:
            self.http.outbox.say(out)
        return self._finish()

    def _malformed(self, reason: str) -> None:
        error = HttpFormatError(reason)
        self._leave(error)
        self.failed(error)

    def failed(self, error: CocaineError) -> None:
        """The app, or the way to it, has failed for good."""
        if isinstance(error, InvocationTimeout) and self._lacking:
            return self.refused(_LATE)
        self.error = str(error)
        where, identity = self._route, self._identity
        app = where.app if where is not None else ""
        id = identity.id.decode("latin-1") if identity is not None else ""
        return self.reply(failed(error, app, id, self.http.door.terms.queue_full_status))

    @property
    def _lacking(self) -> bool:
        """It is the client who has not sent the rest of the request, though it could."""
        return not self.complete and (self._call is None or (self._upload is not None and self._upload.waiting))

    def relieved(self) -> None:
        """The client has taken everything."""
        if self._call is not None:
            self._call.relieve()

    # -- the end

    def expire(self, now: float) -> None:
        """The app's time is over, unless it is the client who keeps it from speaking, or there is no request yet."""
        if now >= self._until and self._lacking:
            return self.refused(_LATE)
        if now < self._until and (self.http.outbox.waiting or (self._upload is not None and self._upload.waiting)):
            return self._wait(now)
        error = InvocationTimeout("Timed out while waiting for the application")
        self._leave(error)
        self.failed(error)

    def deserted(self) -> None:
        """The client has gone."""
        if self.over:
            return
        self.http.door.meters.disconnections += 1
        self._leave(ConnectionGone("the HTTP client has gone"))
        self.error = self.error or "the client has gone"
        self._status = self._status or _CLIENT_GONE
        self.over = True
        self.settle()

    def _leave(self, error: CocaineError) -> None:
        if self._call is not None:
            self._call.leave(error)
        if self._caller is not None:
            self._caller.leave()

    def reply(self, own: Failure) -> None:
        """An answer of our own; if there is another already, that one breaks off."""
        if self.over:
            return
        answer = self.answer
        if not answer.begun:
            if not self.complete or self.http.last_request:
                answer.last()
            self._status = own.status
            said = [] if self._identity is None else self._identity.fields(self.http.door.request_header)
            self.http.outbox.say(answer.complete(own.status, own.headers, own.body, said, own.reason))
        self._finish()

    def _finish(self) -> None:
        if self.over:
            return
        self.over = True
        self.due = inf
        if self._call is not None:
            self._call.finish()
        self.http.answered(self)

    def _extra(self) -> bytes:
        """Our own lines in the head of an answer."""
        identity, where = self._identity, self._route
        assert identity is not None and where is not None
        extra = b"%b%b%b\r\n" % (application_line(where.app), self.http.door.request_line, identity.id)
        return extra + b"traceresponse: %b\r\n" % identity.response if identity.response else extra

    def settle(self) -> None:
        """Count it and write its line. The connection calls this when everything has been said."""
        door, where, identity = self.http.door, self._route, self._identity
        app, event = (where.app, where.event) if where is not None else ("", "")
        seconds = door.clock.seconds() - self._started
        sent = self.http.outbox.sent - self._sent_before
        meters = door.meters
        meters.running -= 1
        door.promised -= self.window
        if self.answer.begun and self.answer.ending is Ending.ABORT:
            meters.aborted += 1
        # Only names that lead somewhere are counted by name.
        known = app if self._call is not None and self._call.reached else ""
        for body in (self._upload, self._caller):
            if body is not None:
                body.release()
        self._call = self._upload = self._caller = None  # no cycle is left for the collector
        meters.answered(known, self._status, seconds, sent)
        if door.log.form is not None:
            id = identity.id if identity is not None else b"-"
            door.log.add(
                Entry(self.http.client, door.wall(), self.head, self._status, sent, seconds, id, app, event, self.error)
            )
