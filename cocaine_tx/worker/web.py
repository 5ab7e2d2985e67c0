"""
HTTP for handlers: requests unpacked, answers packed.

`http` wraps a handler that is then given an `HttpRequest` and an `HttpResponse`. A body that comes in pieces (an
upload passed on as it arrives) is read with ``async for``; a small one is there as ``request.body``.

Source: reference ``http-tools-sdk.md`` section 0.1.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import succeed

from ..errors import WORKER, LocalProtocolError
from ..wire.headers import Trace
from ..wire.http import pack_head, unpack_request
from .blocking import BlockingRequest, BlockingResponse
from .request import BODY_LIMIT, Request
from .response import Response, as_bytes
from .running import Handler, Kind, Span

#: Bytes of a body that travel in one frame.
PART = 256 * 1024

#: A map or pairs; values may be numbers.
HeadersLike = Mapping[str, Any] | Iterable[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class HttpHandler:
    """
    A handler that speaks HTTP; `Worker.on` knows what to do with it.

    :ivar run: how it must be run, or None for how it looks.
    :ivar span: begins and ends with the worker, if anything does.
    """

    handler: Handler
    run: Kind | None = None
    span: Span | None = None


def http(handler: Handler) -> HttpHandler:
    """
    Let a handler speak HTTP::

        @worker.on("http")
        @http
        async def hello(request, response):
            response.write_head(200, [("Content-Type", "text/plain")])
            response.write(b"hello")
    """
    return HttpHandler(handler)


class HttpHeaders:
    """A request's headers as text (latin-1), in their order; names are found whatever their case."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of that name."""
        wanted = name.lower()
        for key, value in self.pairs:
            if key.lower() == wanted:
                return value
        return default

    def get_all(self, name: str) -> list[str]:
        """Every value of that name."""
        wanted = name.lower()
        return [value for key, value in self.pairs if key.lower() == wanted]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"HttpHeaders({self.pairs!r})"


class HttpRequest:
    """
    An HTTP request.

    One that offers an ``Upgrade`` has no body. What its client sends behind the switch of protocols is read in the same
    way once ``101`` has been written.

    :ivar method: such as ``"GET"``.
    :ivar uri: path and query as the proxy passed them.
    :ivar version: ``"1.0"`` or ``"1.1"``.
    :ivar body: what came with the head: all of it, unless the body is streamed.
    :ivar raw: the event underneath.
    :raises HttpFormatError: the first chunk is not a request.
    """

    __slots__ = ("_headers", "_offers", "_pairs", "_response", "_taken", "body", "method", "raw", "uri", "version")

    def __init__(self, raw: Request, response: HttpResponse | None = None) -> None:
        method, uri, version, self._pairs, self.body = unpack_request(raw.pop())
        self.method = method.decode("latin-1")
        self.uri = uri.decode("latin-1")
        self.version = version.decode("latin-1")
        self.raw = raw
        raw.joins = True
        self._headers: HttpHeaders | None = None
        self._offers: bool | None = None
        self._response = response
        self._taken = not self.body

    def __repr__(self) -> str:
        return f"<{self.method} {self.uri} on {self.raw!r}>"

    #: What a blocking handler gets instead; set below.
    blocking: type[BlockingHttpRequest]

    @property
    def headers(self) -> HttpHeaders:
        """The HTTP headers."""
        if self._headers is None:
            self._headers = HttpHeaders(self._pairs)
        return self._headers

    @property
    def path(self) -> str:
        """The address without its query."""
        return self.uri.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the question mark, as it came."""
        return self.uri.partition("?")[2]

    @property
    def event(self) -> str:
        """The event's name."""
        return self.raw.event

    @property
    def trace(self) -> Trace | None:
        """The ids of the client's request."""
        return self.raw.trace

    @property
    def deadline(self) -> float | None:
        """When the client stops waiting, in the reactor's seconds."""
        return self.raw.deadline

    @property
    def remaining(self) -> float | None:
        """Seconds until then."""
        return self.raw.remaining

    @property
    def upgrade(self) -> str:
        """The protocols that the client offers to switch to; empty when it does not, or sends a body."""
        headers = self.headers
        if "x-cocaine-http-streaming" in headers:
            return ""
        options = ",".join(headers.get_all("connection")).lower().split(",")
        return ", ".join(headers.get_all("upgrade")) if "upgrade" in map(str.strip, options) else ""

    @property
    def _complete(self) -> bool:
        """Nothing is to come, though the client's side is open: it waits for our answer to its offer of an upgrade."""
        if self._offers is None:
            self._offers = not self.raw.ended and bool(self.upgrade)
        return self._offers and not self.raw.ended and not (self._response is not None and self._response.switched)

    def read(self) -> Awaitable[bytes | None]:
        """The next piece of the body, beginning with `body`; None after the last. Fails as `Request.read` does."""
        if not self._taken:
            self._taken = True
            return succeed(self.body)
        return succeed(None) if self._complete else self.raw.read()

    def read_all(self, limit: int = BODY_LIMIT) -> Awaitable[bytes]:
        """The whole body, joined. Fails with `Overloaded` when there are more than ``limit`` bytes."""
        if not self._taken:
            self._taken = True
            self.raw.push_back(self.body)
        return succeed(b"") if self._complete else self.raw.body(limit)

    def __aiter__(self) -> HttpRequest:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.read()
        if piece is None:
            raise StopAsyncIteration
        return piece


class HttpResponse:
    """
    The answer to an HTTP request: one head, any pieces of body, one end.

    A body without a head gets ``200``; so does a handler that returns without a word.

    :ivar headed: the head has been written.
    :ivar switched: it was ``101``: what follows is no HTTP.
    """

    __slots__ = ("headed", "raw", "switched")

    def __init__(self, raw: Response) -> None:
        self.raw = raw
        self.headed = self.switched = False

    #: What a blocking handler gets instead; set below.
    blocking: type[BlockingHttpResponse]

    @property
    def closed(self) -> bool:
        """Nothing more can be said."""
        return self.raw.closed

    def write_head(self, status: int, headers: HeadersLike = ()) -> Awaitable[None]:
        """
        Status and headers: pairs, or a map.

        :raises LocalProtocolError: there has been a head already.
        :raises HttpFormatError: HTTP cannot carry them.
        """
        if self.headed:
            raise LocalProtocolError("the head of the response has been written already")
        head = pack_head(status, headers)  # type: ignore[arg-type]
        self.headed = True
        self.switched = status == 101
        return self.raw.write(head)

    def write(self, data: bytes | str) -> Awaitable[None]:
        """A piece of the body, of any size; see `Response.write`."""
        if not self.headed:
            self.write_head(200)
        if data.__class__ is not bytes:
            data = as_bytes(data)
        if len(data) <= PART:
            return self.raw.write(data)
        # A node has a limit for frames, and a client one for what is on its way.
        for begin in range(0, len(data), PART):
            said = self.raw.write(data[begin : begin + PART])
        return said

    def close(self) -> None:
        """The regular end."""
        if not self.headed and not self.raw.closed:
            self.write_head(200)
        self.raw.close()

    def error(self, code: int, reason: str, category: int = WORKER) -> None:
        """The irregular end: the proxy answers 500, or breaks off when the head has been sent."""
        self.raw.error(code, reason, category)


class BlockingHttpRequest(BlockingRequest[HttpRequest]):
    """`HttpRequest` for a thread."""

    #: What came with the head, as in `HttpRequest`; the raw event's method of that name is `read_all` here.
    body: bytes  # type: ignore[assignment]

    def __init__(self, request: HttpRequest, calls: Any) -> None:
        super().__init__(request, calls)
        self.method = request.method
        self.uri = request.uri
        self.path = request.path
        self.query = request.query
        self.version = request.version
        self.body = request.body

    @property
    def upgrade(self) -> str:
        """The protocols that the client offers to switch to."""
        return self._request.upgrade  # type: ignore[no-any-return]

    def read_all(self, limit: int = BODY_LIMIT) -> bytes:
        """The whole body, joined."""
        return self._calls.wait(self._request.read_all, limit)  # type: ignore[no-any-return]


class BlockingHttpResponse(BlockingResponse[HttpResponse]):
    """`HttpResponse` for a thread."""

    def write_head(self, status: int, headers: HeadersLike = ()) -> None:
        """Status and headers."""
        self._calls.wait(self._response.write_head, status, headers)


HttpRequest.blocking = BlockingHttpRequest
HttpResponse.blocking = BlockingHttpResponse


def adapt(request: Request, response: Response) -> tuple[HttpRequest, HttpResponse]:
    """The HTTP faces of an event whose first chunk is there."""
    answer = HttpResponse(response)
    return HttpRequest(request, answer), answer
