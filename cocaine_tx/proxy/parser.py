"""
Bytes of one client connection in, request events out; no transport, no clock.

The connection calls three things. `RequestParser.feed` with whatever has arrived gives the events of the request being
read: `RequestHead`, any number of `Body`, `End`. After `End` the parser rests: what arrives waits, unread, until
`RequestParser.next` asks for the following request, so that a connection answers in order and holds no more than one
read's worth of pipelined requests. A connection pauses its transport while `RequestParser.waiting` is above zero.
`Refused` is the last event of all; the requests before it have been told of and are still to be answered.

`RequestParser.rest` turns the connection into a tunnel after a ``101``. At the end of input `RequestParser.eof` says
what is left to say.

Source: RFC 9112; the fields by `cocaine_tx.proxy.head`, their meaning by `cocaine_tx.proxy.request`.
"""

from __future__ import annotations

from enum import Enum, auto

from ..errors import LocalProtocolError
from .chunked import ChunkedBody
from .head import HEAD, START, fields_of, scan
from .request import Body, End, Event, Limits, Refused, RequestHead, interpret

_END = End()
#: Clients repeat themselves: a head that is byte for byte the one before, and no longer than this, means the same.
_REMEMBERED = 2048


class _Stage(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNKED = auto()
    RESTING = auto()
    OVER = auto()


class RequestParser:
    """Owns the bytes of one connection that have not become events yet."""

    __slots__ = (
        "_at", "_chunks", "_data", "_known", "_known_head", "_limits", "_ordinary", "_persists", "_remaining",
        "_scanned", "_skipped", "_stage",
    )  # fmt: skip

    _known_head: RequestHead | None

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits = limits or Limits()
        self._ordinary = min(limits.line, limits.field, limits.head)  # a head this small can break none of the three
        self._data, self._at = b"", 0
        self._stage = _Stage.HEAD
        self._scanned = START
        self._skipped = False
        self._remaining = 0
        self._chunks: ChunkedBody | None = None
        self._persists = True
        self._known, self._known_head = b"", None

    @property
    def idle(self) -> bool:
        """No byte of a next request has arrived: an end of input here is no fault."""
        return self._stage in (_Stage.HEAD, _Stage.OVER) and self._at == len(self._data)

    @property
    def waiting(self) -> int:
        """Bytes that have arrived behind a request that has ended; they are read when `next` is called."""
        return len(self._data) - self._at if self._stage is _Stage.RESTING else 0

    @property
    def method(self) -> bytes:
        """As `Refused.method` has it for a head that is not complete."""
        return b"HEAD" if self._stage is _Stage.HEAD and self._data.startswith(b"HEAD ", self._at) else b"GET"

    def feed(self, data: bytes) -> list[Event]:
        """
        The events these bytes complete; none after `Refused`.

        :raises LocalProtocolError: the caller goes on reading while more than ``limits.pending`` bytes wait.
        """
        if self._stage is _Stage.OVER:
            return []
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0
        if self._stage is not _Stage.RESTING:
            return self._advance()
        if not self._persists:
            self._data = b""
        if len(self._data) > self._limits.pending:
            raise LocalProtocolError("the connection reads on while earlier requests are unanswered")
        return []

    def next(self) -> list[Event]:
        """
        Begin the request after the one that has ended, with what has arrived of it; nothing after a last request.

        :raises LocalProtocolError: the request before has not ended.
        """
        if self._stage is _Stage.OVER:
            return []
        if self._stage is not _Stage.RESTING:
            raise LocalProtocolError("the next request begins when this one has ended")
        if not self._persists:
            self.rest()
            return []
        self._stage = _Stage.HEAD
        self._skipped = False
        return self._advance() if self._at < len(self._data) else []

    def rest(self) -> bytes:
        """What has arrived behind the last request, as it is; the parser is done with the connection."""
        rest = self._data[self._at :]
        self._data, self._at = b"", 0
        self._stage = _Stage.OVER
        return rest

    def eof(self) -> list[Event]:
        """The client sends no more: `Refused` if it stopped inside a request, otherwise nothing."""
        if self._stage in (_Stage.OVER, _Stage.RESTING) or self.idle:
            return []
        events: list[Event] = []
        self._refuse(Refused(400, "the connection ended inside a request"), events)
        return events

    def _advance(self) -> list[Event]:
        events: list[Event] = []
        if self._stage is _Stage.HEAD:
            self._read_head(events)
        if self._stage is _Stage.SIZED:
            self._read_sized(events)
        elif self._stage is _Stage.CHUNKED:
            self._read_chunks(events)
        return events

    def _read_head(self, events: list[Event]) -> None:
        data, limits = self._data, self._limits
        if not self._skipped and data.startswith(b"\r\n", self._at):
            # One empty line before a request is forgiven: old clients send it behind a body (RFC 9112 section 2.2).
            self._at += 2
            self._skipped = True
        at = self._at
        end = data.find(b"\r\n\r\n", at + max(self._scanned.offset - 2, 0)) + 4
        if self._known and end - at == len(self._known) and data.startswith(self._known, at):
            self._at = end
            self._scanned = START
            assert self._known_head is not None
            return self._begin(self._known_head, events)
        match = HEAD.fullmatch(data, at, end) if end >= 4 else None
        if match is None or end - at > self._ordinary or match[4].count(b"\r\n") > limits.headers:
            scanned = scan(data, at, self._scanned, limits)
            if isinstance(scanned, Refused):
                return self._refuse(scanned, events)
            self._scanned = scanned
            if end < 4:
                return None
            if match is None:  # the two descriptions of a head disagree
                return self._refuse(Refused(400, "the head is malformed"), events)
        assert match is not None
        method, target, version, block = match.groups()
        fields = fields_of(block)
        head = fields if isinstance(fields, Refused) else interpret(method, target, version, fields, limits)
        if isinstance(head, Refused):
            return self._refuse(head, events)
        if end - at <= _REMEMBERED:
            self._known, self._known_head = data[at:end], head
        self._at = end
        self._scanned = START
        self._begin(head, events)
        return None

    def _begin(self, head: RequestHead, events: list[Event]) -> None:
        events.append(head)
        self._persists = head.keep_alive or bool(head.upgrade)
        if head.length is None:
            self._chunks = ChunkedBody(self._limits)
            self._stage = _Stage.CHUNKED
        elif head.length:
            self._remaining = head.length
            self._stage = _Stage.SIZED
        else:
            self._end(events)

    def _read_sized(self, events: list[Event]) -> None:
        data, at = self._data, self._at
        piece = data if not at and len(data) <= self._remaining else data[at : at + self._remaining]
        if piece:
            events.append(Body(piece))
            self._at += len(piece)
            self._remaining -= len(piece)
        if not self._remaining:
            self._end(events)

    def _read_chunks(self, events: list[Event]) -> None:
        assert self._chunks is not None
        pieces: list[bytes] = []
        reached = self._chunks.take(self._data, self._at, pieces)
        if pieces:
            events.append(Body(b"".join(pieces)))
        if isinstance(reached, Refused):
            return self._refuse(reached, events)
        self._at = reached
        if self._chunks.done:
            self._end(events)
        return None

    def _end(self, events: list[Event]) -> None:
        events.append(_END)
        self._chunks = None
        self._stage = _Stage.RESTING
        if not self._persists:
            self._data, self._at = b"", 0

    def _refuse(self, refused: Refused, events: list[Event]) -> None:
        events.append(refused if self.method == b"GET" else Refused(refused.status, refused.reason, self.method))
        self.rest()
