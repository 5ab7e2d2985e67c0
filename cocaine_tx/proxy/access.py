"""
The access log: one line for every request, in the combined form or as JSON.

Lines gather and leave together, a few times a second, in a thread: a disk that is slow must not delay requests. When it
is so slow that `LIMIT` bytes wait, lines are dropped and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from time import gmtime, strftime
from typing import NamedTuple

from twisted.logger import Logger

from .request import RequestHead

#: Seconds from the first line of a batch until it is written.
PAUSE = 0.25
#: Bytes of lines that may wait.
LIMIT = 8 * 2**20

_UNSAFE = re.compile(r'[^ !#-\[\]-~]')


class Entry(NamedTuple):
    """
    One request that has ended. A tuple, since making one costs a fifth of a frozen dataclass.

    :ivar when: seconds since the epoch.
    :ivar seconds: from its head to the end of its answer.
    :ivar error: what went wrong, for people; empty if nothing did.
    """

    client: str
    when: float
    head: RequestHead | None
    status: int
    sent: int
    seconds: float
    id: bytes
    app: str
    event: str
    error: str


Form = Callable[[Entry], str]


def combined(entry: Entry) -> str:
    """As Apache and nginx write it."""
    line, rest = _words(entry.head)
    return f'{entry.client} - - [{_clock(int(entry.when))}] "{line}" {entry.status} {entry.sent} {rest}'


def _words(head: RequestHead | None) -> tuple[str, str]:
    """The request line, and referer and agent."""
    if head is None:
        return "-", '"-" "-"'
    referer = agent = "-"
    for name, value in head.headers:
        if len(name) == 10 and name.lower() == b"user-agent":
            agent = _quoted(value)
        elif len(name) == 7 and name.lower() == b"referer":
            referer = _quoted(value)
    return _quoted(b"%b %b HTTP/%b" % (head.method, head.target, head.version)), f'"{referer}" "{agent}"'


def as_json(entry: Entry) -> str:
    """Everything that is known, a JSON object on one line."""
    head = entry.head
    shown: dict[str, object] = {
        "time": strftime("%Y-%m-%dT%H:%M:%S", gmtime(entry.when)) + f".{int(entry.when % 1 * 1000):03d}Z",
        "client": entry.client,
        "request_id": entry.id.decode("latin-1"),
        "status": entry.status,
        "bytes_sent": entry.sent,
        "duration": round(entry.seconds, 6),
        "service": entry.app,
        "event": entry.event,
    }
    if head is not None:
        shown |= {
            "method": head.method.decode("latin-1"),
            "uri": head.target.decode("latin-1"),
            "version": head.version.decode("latin-1"),
            "host": head.host.decode("latin-1"),
        }
    if entry.error:
        shown["error"] = entry.error
    return json.dumps(shown)


FORMS: dict[str, Form | None] = {"combined": combined, "json": as_json, "none": None}

_last = (-1, "")


def _clock(seconds: int) -> str:
    global _last
    if _last[0] != seconds:
        _last = (seconds, strftime("%d/%b/%Y:%H:%M:%S +0000", gmtime(seconds)))
    return _last[1]


def _quoted(raw: bytes) -> str:
    text = raw.decode("latin-1")
    return _UNSAFE.sub(lambda match: f"\\x{ord(match[0]):02x}", text) if _UNSAFE.search(text) else text


class AccessLog:
    """
    :param form: makes the line; None writes nothing.
    :param later: ``later(seconds, act)`` runs it once after that time.
    :param write: takes a batch of lines, each with its end; calls back when it can take another.
    :ivar dropped: lines that were not written; the daemon's log tells.
    """

    _log = Logger()

    def __init__(
        self,
        form: Form | None,
        later: Callable[[float, Callable[[], None]], object],
        write: Callable[[str, Callable[[], None]], None],
    ) -> None:
        self.form = form
        self.dropped = self._told = 0
        self._later = later
        self._write = write
        self._lines: list[str] = []
        self._size = 0
        self._busy = False

    def add(self, entry: Entry) -> None:
        """A request has ended."""
        if self.form is None:
            return
        line = self.form(entry)
        if self._size > LIMIT:
            self.dropped += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if not self._busy:
            self._busy = True
            self._later(PAUSE, self.flush)

    def flush(self) -> None:
        """Write what has gathered."""
        self._busy = bool(self._lines)
        if self.dropped > self._told:
            self._log.warn("{count} lines of the access log are lost: it is slow", count=self.dropped - self._told)
            self._told = self.dropped
        if self._lines:
            self._lines.append("")
            batch = "\n".join(self._lines)
            self._lines.clear()
            self._size = 0
            self._write(batch, self._written)

    def _written(self) -> None:
        self._busy = bool(self._lines)
        if self._lines:
            self._later(PAUSE, self.flush)
