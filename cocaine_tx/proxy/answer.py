"""
A worker's answer, or the proxy's own, as HTTP/1 bytes; no transport, no clock.

An exchange makes one `Answer` for each request. It calls `Answer.head` with the worker's status and headers,
`Answer.chunk` with every later chunk, `Answer.end` when the channel closes, and writes what each returns. When
`Answer.done` is true the client has all it will get, and `Answer.ending` says what becomes of its connection. That is
as soon as the client knows it (RFC 9112 section 6.3), whatever the worker does afterwards: with the head where there
can be no body, or with the last byte of the promised length. `Answer.complete` does all at once. An error after
`Answer.begun` has become true cannot be told to the client any more: its connection is aborted, unless it has all.

What the worker says about its own connection (RFC 9110 section 7.6.1) ends here; how the body is framed is decided
here: by the worker's ``Content-Length`` if it gave one, else chunked, else by closing the connection.

Source: RFC 9112 sections 4, 6, 7.1 and 9; RFC 9110 sections 6.6.1, 7.6.1 and 8.6; reference ``http-tools-sdk.md``
section 0.1 for ``X-Cocaine-HTTP-Proto-Version``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from email.utils import formatdate
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from ..errors import HttpFormatError, LocalProtocolError
from ..wire.http import unpack_head
from .request import Fields, RequestHead

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_LENGTH = re.compile(rb"[0-9]{1,19}")
_APPLICATION = b"x-cocaine-application"
_PROTO = b"x-cocaine-http-proto-version"
_HOP_BY_HOP = (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
#: So many heads are remembered, of so many bytes at most.
_REMEMBERED, _SIZE = 1024, 1024
_SPECIAL = frozenset((*_HOP_BY_HOP, b"content-length", b"date", _PROTO))


@lru_cache(maxsize=2)
def http_date(seconds: int) -> bytes:
    """The value of ``Date`` for whole seconds since the epoch; cheap within the same second."""
    return formatdate(seconds, usegmt=True).encode("ascii")


class Ending(Enum):
    """What becomes of the client's connection when the answer is done."""

    KEEP = auto()
    CLOSE = auto()  #: the client has its answer, but no other will follow
    ABORT = auto()  #: the answer broke off; a reset is the only way to say so


class _Framing(Enum):
    UNDECIDED = auto()
    BODILESS = auto()
    LENGTH = auto()
    CHUNKED = auto()
    CLOSE = auto()
    TUNNEL = auto()


class Shape(NamedTuple):
    """
    A head without its date and the proxy's own lines, and what it means for the rest of the answer.

    :ivar said: status line and the worker's headers.
    :ivar date: the worker's own, if it gave one.
    :ivar framed: the lines that frame the body, and the end of the head.
    :ivar length: of the body, where it is framed so.
    :ivar whole: no body follows.
    """

    status: int
    said: bytes
    date: bytes | None
    framed: bytes
    framing: _Framing
    length: int
    keep_alive: bool
    lingers: bool
    whole: bool


class Answer:
    """
    Owns how far the answer to one request has come.

    :param method: of the request; to ``HEAD`` no body goes out.
    :param version: of the request; HTTP/1.0 gets no chunks and no interim answers.
    :param keep_alive: the connection may serve another request after this one.
    :param upgrade: what the client offered to switch to; empty forbids 101.
    :param date: tells the value of ``Date`` when the answer begins, if the worker gives none.
    """

    __slots__ = (
        "_date", "_excess", "_framing", "_keep_alive", "_lingers", "_method", "_remaining", "_upgrade", "_version",
        "done",
    )  # fmt: skip

    def __init__(
        self, method: bytes, version: bytes, keep_alive: bool, upgrade: bytes, date: Callable[[], bytes]
    ) -> None:
        self._method, self._version, self._upgrade = method, version, upgrade
        self._keep_alive = keep_alive
        self._date = date
        self._framing = _Framing.UNDECIDED
        self._remaining = 0
        self._excess = self._lingers = False
        self.done = False

    @classmethod
    def to(cls, head: RequestHead, date: Callable[[], bytes]) -> Answer:
        """The answer to a request as the parser told of it."""
        return cls(head.method, head.version, head.keep_alive, head.upgrade, date)

    @property
    def kind(self) -> tuple[bool, bytes, bool, bytes]:
        """What a `shape` depends on beside the worker's head."""
        return (self._method == b"HEAD", self._version, self._keep_alive, self._upgrade)

    @property
    def begun(self) -> bool:
        """The client has a status line; no other can follow."""
        return self._framing is not _Framing.UNDECIDED

    @property
    def tunnel(self) -> bool:
        """The worker has switched protocols: from here on bytes pass both ways as they are."""
        return self._framing is _Framing.TUNNEL

    @property
    def ending(self) -> Ending:
        """Final once `done`; before, what an error or a lost worker would mean now."""
        short = self._framing is _Framing.LENGTH and self._remaining > 0
        if self.begun and (short or not self.done):
            return Ending.ABORT
        return Ending.KEEP if self._keep_alive and not self._excess else Ending.CLOSE

    def last(self) -> None:
        """No further request will be read; said to the client if the head is still to come."""
        self._keep_alive = False

    def head(
        self, status: int, headers: Fields, extra: Fields | None = None, reason: bytes = b"", size: int | None = None
    ) -> bytes:
        """
        The head of the answer. An interim status (1xx but 101) leaves the answer still to `begin`.

        :param headers: the worker's, checked by `cocaine_tx.wire.http.unpack_head`.
        :param extra: the proxy's own, appended.
        :param reason: in place of the standard phrase.
        :param size: of the body, where all of it is known and the worker did not say.
        :raises HttpFormatError: the worker's head cannot be put into HTTP; nothing has been sent.
        """
        if self.begun:
            raise LocalProtocolError("an answer has one head")
        if 100 <= status < 200 and status != 101:
            lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d %b\r\n" % (status, reason)]
            lines += [b"%b: %b\r\n" % pair for pair in headers if pair[0].lower() not in _SPECIAL]
            return b"".join([*lines, b"\r\n"]) if self._version == b"1.1" else b""
        own = b"".join([b"%b: %b\r\n" % pair for pair in extra]) if extra else b""
        return self.dress(self.shape(status, headers, reason, size), own)

    def shape(
        self, status: int, headers: Fields, reason: bytes = b"", size: int | None = None, ours: Container[bytes] = ()
    ) -> Shape:
        """
        All of a final head but what differs from one answer to the next.

        It is the same for every answer to the same method, version and wish to keep the connection, and no upgrade.

        :param ours: names, in lower case, for which only the proxy speaks.
        :raises HttpFormatError: the worker's head cannot be put into HTTP.
        """
        standard = None if reason else _STATUS_LINES.get(status)
        lines = [standard or b"HTTP/1.1 %d %b\r\n" % (status, reason)]
        special: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            lower = name.lower()
            if lower in _SPECIAL:
                special.setdefault(lower, []).append(value)
            elif lower not in ours:
                lines.append(b"%b: %b\r\n" % (name, value))
        if b"connection" in special:
            lines[1:] = _not_named(lines[1:], special[b"connection"])
        lingers = self._proto(lines, special.get(_PROTO, ()))
        date = special.get(b"date")
        framed: list[bytes] = []
        framing, length, keep_alive = self._frame(status, framed, special, size)
        framed.append(b"\r\n")
        whole = framing is _Framing.BODILESS or (framing is _Framing.LENGTH and not length)
        return Shape(
            status, b"".join(lines), date[0] if date else None, b"".join(framed), framing, length, keep_alive, lingers,
            whole,
        )  # fmt: skip

    def dress(self, shape: Shape, own: bytes = b"") -> bytes:
        """The head in that shape, with the proxy's own lines; the answer has begun."""
        if self._framing is not _Framing.UNDECIDED:
            raise LocalProtocolError("an answer has one head")
        _, said, date, framed, self._framing, self._remaining, self._keep_alive, self._lingers, self.done = shape
        return b"%b%bDate: %b\r\n%b" % (said, own, date or self._date(), framed)

    def chunk(self, data: bytes) -> bytes:
        """What to write for one chunk of the worker's; an empty one ends the body if the worker said so in its head."""
        if self._framing is _Framing.UNDECIDED:
            raise LocalProtocolError("the head comes first")
        if self.done:
            return b""
        if not data:
            return self.end() if self._lingers else b""
        if self._framing is _Framing.CHUNKED:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._framing is _Framing.LENGTH:
            if len(data) > self._remaining:
                self._excess = True
                data = data[: self._remaining]
            self._remaining -= len(data)
            self.done = not self._remaining
            return data
        return data

    def end(self) -> bytes:
        """
        What to write when the worker's channel has closed; `done` from here on.

        :raises HttpFormatError: there was no head.
        """
        if self._framing is _Framing.UNDECIDED:
            raise HttpFormatError("the worker closed the channel before it sent a head")
        if self.done:
            return b""
        self.done = True
        return b"0\r\n\r\n" if self._framing is _Framing.CHUNKED else b""

    def complete(
        self, status: int, headers: Fields, body: bytes, extra: Fields | None = None, reason: bytes = b""
    ) -> bytes:
        """Head, body and end in one, when the whole answer is there; HTTP/1.0 connections live on this way."""
        return self.head(status, headers, extra, reason, len(body)) + self.chunk(body) + self.end()

    def _proto(self, lines: list[bytes], values: Iterable[bytes]) -> bool:
        versions = set(values)
        if not versions:
            return False
        if versions not in ({b"1.0"}, {b"1.1"}):
            raise HttpFormatError("X-Cocaine-HTTP-Proto-Version is neither 1.0 nor 1.1")
        (version,) = versions
        lines.append(b"X-Cocaine-HTTP-Proto-Version: %b\r\n" % version)
        return version == b"1.1"

    def _frame(
        self, status: int, lines: list[bytes], special: dict[bytes, list[bytes]], size: int | None
    ) -> tuple[_Framing, int, bool]:
        """How the body is framed, its length if it is known, and whether the connection lives on."""
        if status == 101:
            if not self._upgrade:
                raise HttpFormatError("the worker switched protocols though the client did not ask for it")
            protocols = b", ".join(special.get(b"upgrade", ())) or self._upgrade
            lines.append(b"Connection: upgrade\r\nUpgrade: %b\r\n" % protocols)
            return _Framing.TUNNEL, 0, False
        length = _length(special.get(b"content-length", ()))
        bodiless = self._method == b"HEAD" or status in (204, 205, 304)
        if status == 205:
            length = 0
        elif length is None and not bodiless:
            length = size
        if length is not None and status != 204:
            lines.append(b"Content-Length: %d\r\n" % length)
        keep_alive = self._keep_alive
        if bodiless:
            framing, length = _Framing.BODILESS, 0
        elif length is not None:
            framing = _Framing.LENGTH
        elif self._version == b"1.1":
            lines.append(b"Transfer-Encoding: chunked\r\n")
            framing = _Framing.CHUNKED
        else:
            keep_alive = False
            framing = _Framing.CLOSE
        if not keep_alive:
            lines.append(b"Connection: close\r\n")
        elif self._version == b"1.0":
            lines.append(b"Connection: keep-alive\r\n")
        return framing, length or 0, keep_alive


class Shapes(dict[tuple[bytes, tuple[bool, bytes, bool, bytes], bytes], Shape]):
    """Apps repeat themselves: heads as they came, with `Answer.kind`, and what became of them."""

    __slots__ = ()

    def head(self, packed: bytes, answer: Answer, own: bytes, header: bytes) -> tuple[int, bytes]:
        """
        The status and the bytes of a head as a worker has packed it.

        :param own: the proxy's own lines, for a final one: of the application's name and of the request's id.
        :param header: the name of the latter, in lower case; a worker that repeats it is not heard.
        :raises HttpFormatError: it is none, or cannot be put into HTTP.
        """
        shape = self.get((packed, answer.kind, header))
        if shape is None:
            status, headers = unpack_head(packed)
            if 100 <= status < 200 and status != 101:
                return status, answer.head(status, headers)
            shape = answer.shape(status, headers, ours=(_APPLICATION, header))
            if len(packed) <= _SIZE:
                if len(self) >= _REMEMBERED:
                    self.clear()
                self[packed, answer.kind, header] = shape
        return shape.status, answer.dress(shape, own)


def _length(values: Iterable[bytes]) -> int | None:
    lengths = set(values)
    if not lengths:
        return None
    if len(lengths) > 1:
        raise HttpFormatError("the worker gave more than one Content-Length")
    (length,) = lengths
    if not _LENGTH.fullmatch(length):
        raise HttpFormatError("the worker's Content-Length is not a length")
    return int(length)


def _not_named(lines: list[bytes], connection: list[bytes]) -> list[bytes]:
    """The header lines whose names ``Connection`` does not list."""
    named = {option.strip(b" \t") for option in b",".join(connection).lower().split(b",")}
    return [line for line in lines if line[: line.index(b":")].lower() not in named]
