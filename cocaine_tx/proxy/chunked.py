"""
The chunked body of one request: framing out, bytes on; extensions and trailers are checked, counted and dropped.

Called by `cocaine_tx.proxy.parser`. Ours rather than llhttp's, because that would read on into the next request before
anybody has asked for it, and sets no limit to extensions and trailers.

Source: RFC 9112 section 7.1.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from .head import FIELD, take_line
from .request import Limits, Refused

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_EXTENSION = rb"[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16}+)((?:" + _EXTENSION + rb")*)\r\n")

_LONG_LINE = Refused(400, "a chunk-size line is too long")
_MALFORMED = Refused(400, "a chunk-size line is malformed")
_NO_CRLF = Refused(400, "a chunk is not followed by CRLF")
_EXTENSIONS = Refused(400, "too many chunk extensions")
_TRAILERS = Refused(431, "the trailer section is too large")
_TRAILER = Refused(400, "a trailer line is malformed")


class _Part(Enum):
    SIZE = auto()
    DATA = auto()
    CRLF = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedBody:
    """Owns where one chunked body stands. `done` once the last CRLF has been seen."""

    __slots__ = ("_extensions", "_limits", "_part", "_remaining", "_total", "_trailer_bytes", "_trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._part = _Part.SIZE
        self._remaining = self._total = self._extensions = self._trailer_bytes = self._trailers = 0

    @property
    def done(self) -> bool:
        return self._part is _Part.DONE

    def take(self, data: bytes, at: int, pieces: list[bytes]) -> int | Refused:
        """
        Read on from ``at``, appending body bytes to ``pieces``.

        :return: where reading stopped; what lies behind is to be offered again, with more, unless the body is `done`.
        """
        step: int | Refused | None
        while self._part is not _Part.DONE:
            if self._part is _Part.DATA:
                piece = data[at : at + self._remaining]
                if not piece:
                    return at
                pieces.append(piece)
                step = len(piece)
                self._remaining -= step
                if not self._remaining:
                    self._part = _Part.CRLF
            elif self._part is _Part.CRLF:
                step = self._crlf(data, at)
            elif self._part is _Part.SIZE:
                step = self._size(data, at)
            else:
                step = self._trailer(data, at)
            if step is None:
                return at
            if isinstance(step, Refused):
                return step
            at += step
        return at

    def _crlf(self, data: bytes, at: int) -> int | Refused | None:
        found = data[at : at + 2]
        if found == b"\r\n":
            self._part = _Part.SIZE
            return 2
        return None if found in (b"", b"\r") else _NO_CRLF

    def _size(self, data: bytes, at: int) -> int | Refused | None:
        line = take_line(data, at, self._limits.chunk_line, _LONG_LINE)
        if line is None or isinstance(line, Refused):
            return line
        match = _SIZE.fullmatch(line)
        if match is None:
            return _MALFORMED
        size = int(match[1], 16)
        self._total += size
        self._extensions += len(match[2])
        if size >= 2**63:
            return _MALFORMED
        if self._total > self._limits.body:
            return Refused(413, f"a body may have at most {self._limits.body} bytes")
        if self._extensions > self._limits.extensions:
            return _EXTENSIONS
        self._remaining = size
        self._part = _Part.DATA if size else _Part.TRAILERS
        return len(line)

    def _trailer(self, data: bytes, at: int) -> int | Refused | None:
        if self._trailers >= self._limits.headers and data[at : at + 1] not in (b"", b"\r"):
            return _TRAILERS
        line = take_line(data, at, self._limits.trailers - self._trailer_bytes, _TRAILERS)
        if line is None or isinstance(line, Refused):
            return line
        if line == b"\r\n":
            self._part = _Part.DONE
        elif not FIELD.fullmatch(line):
            return _TRAILER
        self._trailers += 1
        self._trailer_bytes += len(line)
        return len(line)
