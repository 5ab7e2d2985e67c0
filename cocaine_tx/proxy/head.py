"""
The grammar of a request head: which bytes may be one, and which fields are in it.

Called by `cocaine_tx.proxy.parser`. A head is taken only if one regular expression describes it from the first byte to
the last, and llhttp, by way of httptools, agrees when it splits the fields. httptools was taken because it is C and a
second, independent reader: what passes here has passed both. It is shown the fields behind a request line of our own,
since it refuses methods that are not on its list.

A head that is not complete, or not sound, is looked at line by line by `scan`, so that a fault is answered at the first
byte that makes it certain, whatever has arrived of the rest; so the answer cannot depend on how the bytes were split.

Source: RFC 9112 sections 2.2, 3 and 5; RFC 3986 for the target, plus ``\\ ^ ` { | }``, which browsers send unescaped.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from .request import Fields, Limits, Refused

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_LINE = rb"(" + _TOKEN + rb") ([!$-;=?-~]++) HTTP/(1\.[01])\r\n"
_FIELD = _TOKEN + rb":[\t -~\x80-\xff]*+\r\n"

HEAD = re.compile(_LINE + rb"((?:" + _FIELD + rb")*+\r\n)")
"""A whole head: method, target, version, and the fields up to and with the empty line."""

FIELD = re.compile(_FIELD)
_REQUEST_LINE = re.compile(_LINE)
_OTHER_VERSION = re.compile(_TOKEN + rb" [^ ]+ HTTP/[0-9]\.[0-9]\r\n")
_NO_VERSION = re.compile(_TOKEN + rb" [^ ]+\r\n")
_ILLEGAL = re.compile(rb"[^\t\r\n -~\x80-\xff]|\r(?=[^\n])")

_BARE_LF = Refused(400, "a line ends in LF without CR")
_BARE_CR = Refused(400, "CR without LF")
_CONTROL = Refused(400, "a control character")
_LONG_LINE = Refused(414, "the request line is too long")
_LONG_FIELD = Refused(431, "a header line, or the head as a whole, is too long")
_MANY_FIELDS = Refused(431, "too many header lines")


def take_line(data: bytes, at: int, room: int, too_long: Refused, clean: int = 0) -> bytes | Refused | None:
    """
    The line that begins at ``at``, with its CRLF; None while it is incomplete and nothing is wrong with it so far.

    :param room: how many bytes the line may have; more is answered with ``too_long`` before the line has ended.
    :param clean: how many bytes of it have been looked at before, so that a line sent byte by byte costs no more than
        one sent at once.
    """
    limit = at + max(room, 0)
    fresh = at + max(clean - 1, 0)  # a CR at the end was not judged yet
    end = data.find(b"\n", fresh, limit)
    illegal = _ILLEGAL.search(data, fresh, end + 1 if end >= 0 else limit)
    if illegal is not None:
        return _BARE_CR if illegal[0] == b"\r" else _CONTROL
    if end < 0:
        return too_long if len(data) >= limit else None
    line = data[at : end + 1]
    return line if line.endswith(b"\r\n") else _BARE_LF


class Progress(NamedTuple):
    """
    How far `scan` has come in a head.

    :ivar offset: where, from the beginning of the head, the first incomplete line begins.
    :ivar number: how many lines lie before it.
    :ivar clean: how many bytes of it have been looked at.
    """

    offset: int
    number: int
    clean: int


START = Progress(0, 0, 0)


def scan(data: bytes, at: int, progress: Progress, limits: Limits) -> Progress | Refused:
    """Look for the first fault in a head that begins at ``at`` and may be incomplete; begin with `START`."""
    offset, number, clean = progress
    while True:
        start = at + offset
        if limits.headers < number and data[start : start + 1] not in (b"", b"\r"):
            return _MANY_FIELDS
        room, too_long = (limits.field, _LONG_FIELD) if number else (limits.line, _LONG_LINE)
        line = take_line(data, start, min(room, limits.head - offset), too_long, clean)
        if line is None:
            return Progress(offset, number, len(data) - start)
        if isinstance(line, Refused):
            return line
        if number and line == b"\r\n":
            return Progress(offset, number, 0)
        fault = _field_fault(line) if number else _line_fault(line)
        if fault is not None:
            return fault
        offset += len(line)
        number += 1
        clean = 0


def _line_fault(line: bytes) -> Refused | None:
    if _REQUEST_LINE.fullmatch(line):
        return None
    if _OTHER_VERSION.fullmatch(line) and not line.endswith((b"HTTP/1.0\r\n", b"HTTP/1.1\r\n")):
        return Refused(505, "the versions spoken here are HTTP/1.0 and HTTP/1.1")
    if _NO_VERSION.fullmatch(line):
        return Refused(400, "the request line names no version")
    return Refused(400, "the request line is malformed")


def _field_fault(line: bytes) -> Refused | None:
    if FIELD.fullmatch(line):
        return None
    if line[0] in b" \t":
        return Refused(400, "a header line is folded")
    return Refused(400, "a header line is malformed")


class _Fields:
    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: Fields = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name, value.rstrip(b" \t")))


def fields_of(block: bytes) -> Fields | Refused:
    """The fields of a block that `HEAD` has matched, in llhttp's reading."""
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(b"GET / HTTP/1.1\r\n" + block)
    except httptools.HttpParserUpgrade:
        pass  # a word on how to read what follows; the fields are complete
    except httptools.HttpParserError as error:
        return Refused(400, str(error))
    return fields.pairs
