r"""
The corpus: raw requests, each with what must come of it.

A file of ``corpus/*.http`` is a remark, the bytes, and the outcome::

    # Why this is here.
    POST / HTTP/1.1\r\n
    Host: a\r\n
    Content-Length: 2\r\n
    \r\n
    hi
    =>
    accept POST / 1.1 keep-alive length 2
    body hi
    end

Line breaks in the file are not part of the bytes; ``\r \n \t \0 \\ \xNN`` are escapes and ``\{9000 a}`` is 9000 times
``a``. The outcome has a line for each event, in order:

* ``accept METHOD TARGET VERSION keep-alive|close none|chunked|length N [continue] [upgrade NAME]``
* ``header NAME: VALUE``: one that must be among those of the request
* ``body DATA``: all of it
* ``end``
* ``refuse STATUS``, or ``wait`` if the bytes are the beginning of something that may yet be sound
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cocaine_tx.proxy.parser import RequestParser
from cocaine_tx.proxy.request import Body, End, Event, Refused, RequestHead

FOLDER = Path(__file__).parent / "corpus"
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|\{(\d+) ([^}]+)\}|([rnt0\\]))")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


@dataclass(frozen=True, slots=True)
class Case:
    """One raw request, or several in a row."""

    name: str
    raw: bytes
    outcome: list[str]

    @property
    def refused(self) -> int | None:
        """The status it is refused with."""
        last = self.outcome[-1]
        return int(last.split()[1]) if last.startswith("refuse ") else None


def load() -> list[Case]:
    """The whole corpus, by name."""
    return [_read(path) for path in sorted(FOLDER.glob("*.http"))]


def _read(path: Path) -> Case:
    lines = [line for line in path.read_bytes().decode("latin-1").split("\n") if line and not line.startswith("#")]
    split = lines.index("=>")
    raw = _unescaped("".join(lines[:split]))
    return Case(path.stem, raw, [_unescaped(line).decode("latin-1") for line in lines[split + 1 :]])


def _unescaped(text: str) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        byte, count, unit, plain = match.groups()
        if byte:
            return bytes([int(byte, 16)])
        return _unescaped(unit.decode("latin-1")) * int(count) if count else _PLAIN[plain]

    return _ESCAPE.sub(one, text.encode("latin-1"))


def told(parser: RequestParser, pieces: Iterable[bytes]) -> list[Event]:
    """Every event of these bytes, the next request being asked for as soon as one has ended; bodies in one piece."""
    events: list[Event] = []
    for piece in pieces:
        new = parser.feed(piece)
        while new:
            for event in new:
                if isinstance(event, Body) and isinstance(events[-1], Body):
                    events[-1] = Body(events[-1].data + event.data)
                else:
                    events.append(event)
            new = parser.next() if isinstance(new[-1], End) else []
    return events


def outcome(events: list[Event]) -> list[str]:
    """Events in the words of the corpus, without ``header`` and ``wait``."""
    return [_words(event) for event in events]


def _words(event: Event) -> str:
    if isinstance(event, Refused):
        return f"refuse {event.status}"
    if isinstance(event, Body):
        return "body " + event.data.decode("latin-1")
    if isinstance(event, End):
        return "end"
    return _head(event)


def _head(head: RequestHead) -> str:
    length = "chunked" if head.length is None else f"length {head.length}" if head.length else "none"
    words = [part.decode("latin-1") for part in (head.method, head.target, head.version)]
    words += ["keep-alive" if head.keep_alive else "close", length]
    words += ["continue"] * head.expect_continue
    words += ["upgrade " + head.upgrade.decode("latin-1")] * bool(head.upgrade)
    return " ".join(["accept", *words])
