"""
The header list of a frame: an HPACK-like table on msgpack values.

`HeaderDecoder` reads whatever peers send, one instance for each direction of each connection, entries strictly in order
since each may shift the table. We never send compressed entries: the original Python client decodes lazily, in the
order in which the application reads, so a stored entry would break it.

Source: reference ``protocol-v12.md`` section 6 (RFC 7541 for the idea of the table).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import HeaderError, InvalidArgument

T = TypeVar("T")
Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

TRACE_ID = b"trace_id"
SPAN_ID = b"span_id"
PARENT_ID = b"parent_id"
TRACE_BIT = b"trace_bit"
REQUEST_TIMEOUT = b"request_timeout"
AUTHORIZATION = b"authorization"
#: Ours: bytes of the answer that may be on their way before the caller grants more; 8 bytes, little-endian. Only sent
#: to peers that have said that they know `idl.CREDIT`.
WINDOW = b"x-cocaine-window"
#: Ours: a call that may be carried out only once; only sent to gateways, which say by the key `KNOWS_ONCE` of what they
#: answer to ``info`` that they know it.
ONCE = b"x-cocaine-once"
ONCE_HEADER: Header = (ONCE, b"1")
KNOWS_ONCE = b"once"
#: Key of our announcements' extra map: this node knows windows and credits.
KNOWS_CREDITS = "x-cocaine-credits"
LOCATOR_EXTRA = b"x-cocaine-locator-extra"

_ZERO = bytes(8)

#: The dynamic table's budget in bytes, and what an entry costs beside its name and value.
TABLE_SIZE = 4096
ENTRY_COST = 32

_NAMES = (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|"
    ":status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|"
    "accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|"
    "content-disposition|content-encoding|content-language|content-length|content-location|content-range|content-type|"
    "cookie|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|"
    "last-modified|link|location|max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|"
    "server|set-cookie|strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)


def _static_table() -> tuple[Header, ...]:
    entries: list[Header] = []
    for text in _NAMES.split("|"):
        name, _, value = text.encode("ascii").partition(b"=")
        entries.append((name, value))
    entries += [(b"", b"")] * 18
    entries += [(name, _ZERO) for name in (TRACE_ID, SPAN_ID, PARENT_ID)]
    return tuple(entries)


#: Entry ``i`` of the specification is ``STATIC_TABLE[i - 1]``; there are 82.
STATIC_TABLE = _static_table()
_STATIC = len(STATIC_TABLE)

#: What the original runtime sends with every frame that no trace belongs to, as the decoder yields it.
UNTRACED = ((False, TRACE_ID, _ZERO), (False, SPAN_ID, _ZERO), (False, PARENT_ID, _ZERO))


class HeaderDecoder:
    """
    One direction's table of one connection.

    :param limit: most bytes of one frame's headers, each counted as in the table: its name, its value and `ENTRY_COST`.
    """

    __slots__ = ("_dynamic", "_latest", "_limit", "_meaning", "_size")

    def __init__(self, limit: int = 65536) -> None:
        self._dynamic: deque[Header] = deque()
        self._size = 0
        self._limit = limit
        self._latest: Any = ()
        self._meaning: Headers = ()

    def decode(self, entries: Iterable[Any]) -> Headers:
        """
        The headers of one frame, in the order sent; the table changes on the way.

        :raises HeaderError: an entry of a wrong shape, an index out of range, or more bytes than the limit.
        """
        # Many a client says the same with every call; literals that are not stored mean the same every time.
        if entries == self._latest:
            for entry in entries:
                if entry[0] is not False:  # zero equals it
                    break
            else:
                return self._meaning
        headers: list[Header] = []
        total = 0
        plain = True
        for entry in entries:
            if entry.__class__ is int:
                header = self._entry(entry)
                plain = False
            elif entry.__class__ is tuple and len(entry) == 3:
                store, name, value = entry
                if store.__class__ is not bool or value.__class__ is not bytes:
                    raise HeaderError("a header is not [store, name, value]")
                if name.__class__ is int:
                    name = self._entry(name)[0]
                    plain = False
                elif name.__class__ is not bytes:
                    raise HeaderError("a header's name is neither an index nor text")
                header = (name, value)
                if store:
                    self._store(header)
                    plain = False
            else:
                raise HeaderError("a header is neither an index nor a triple")
            total += ENTRY_COST + len(header[0]) + len(header[1])
            if total > self._limit:
                raise HeaderError(f"headers are larger than {self._limit} bytes")
            headers.append(header)
        meaning = tuple(headers)
        if plain:
            self._latest, self._meaning = entries, meaning
        return meaning

    def _entry(self, index: int) -> Header:
        if 1 <= index <= _STATIC:
            return STATIC_TABLE[index - 1]
        place = index - _STATIC - 1
        if 0 <= place < len(self._dynamic):
            return self._dynamic[place]
        raise HeaderError(f"no header has the index {index}")

    def _store(self, header: Header) -> None:
        cost = ENTRY_COST + len(header[0]) + len(header[1])
        while self._dynamic and self._size + cost > TABLE_SIZE:
            name, value = self._dynamic.pop()
            self._size -= ENTRY_COST + len(name) + len(value)
        if cost <= TABLE_SIZE:
            self._dynamic.appendleft(header)
            self._size += cost


@dataclass(frozen=True, slots=True)
class Trace:
    """One request's ids (reference ``protocol-v12.md`` section 7); all are in 1 .. 2**63 - 2, the parent may be 0."""

    trace_id: int
    span_id: int
    parent_id: int = 0

    def headers(self) -> Headers:
        """The three headers, little-endian."""
        return (
            (TRACE_ID, self.trace_id.to_bytes(8, "little")),
            (SPAN_ID, self.span_id.to_bytes(8, "little")),
            (PARENT_ID, self.parent_id.to_bytes(8, "little")),
        )


class Latest(Generic[T]):
    """
    What headers mean, read once for as long as the same ones come, as they do with most calls of a client: in the very
    same tuple from one connection's `HeaderDecoder`, in an equal one from another's.

    :param read: makes the meaning; if it raises, nothing is remembered.
    """

    __slots__ = ("_headers", "_meaning", "_read")
    _meaning: T

    def __init__(self, read: Callable[[Headers], T]) -> None:
        self._read = read
        self._headers: Headers | None = None

    def of(self, headers: Headers) -> T:
        """The meaning."""
        if headers is not self._headers and headers != self._headers:
            self._meaning = self._read(headers)
            self._headers = headers
        return self._meaning


def find(headers: Headers, name: bytes) -> bytes | None:
    """The first value under that name."""
    for key, value in headers:
        if key == name:
            return value
    return None


def trace_of(headers: Headers) -> Trace | None:
    """
    The trace a request belongs to, or None.

    Untraced, half-traced and malformed ids all mean None: a broken trace is no reason to refuse work.
    """
    if not headers or find(headers, TRACE_ID) is None:
        return None
    ids = [find(headers, name) for name in (TRACE_ID, SPAN_ID, PARENT_ID)]
    if any(value is None or len(value) != 8 for value in ids):
        return None
    trace, span, parent = (int.from_bytes(value, "little") for value in ids if value is not None)
    return Trace(trace, span, parent) if trace and span else None


def without_trace(headers: Headers) -> Headers:
    """The headers a request carries beside its trace ids: those that travel with an ``invoke``."""
    return tuple(header for header in headers if header[0] not in (TRACE_ID, SPAN_ID, PARENT_ID))


def timeout_of(headers: Headers) -> float | None:
    """
    Seconds the caller gives its request by ``request_timeout``, or None when it does not say.

    :raises InvalidArgument: the value is not 8 bytes.
    """
    value = find(headers, REQUEST_TIMEOUT)
    if value is None:
        return None
    if len(value) != 8:
        raise InvalidArgument("header request_timeout must be 8 bytes: milliseconds, little-endian")
    return int.from_bytes(value, "little") / 1000.0


def window_of(headers: Headers) -> int | None:
    """Bytes the caller lets be on their way, or None when it does not say, or not in 8 bytes."""
    value = find(headers, WINDOW)
    return int.from_bytes(value, "little") if value is not None and len(value) == 8 else None


def window_header(size: int) -> Header:
    """``x-cocaine-window`` for that many bytes."""
    return (WINDOW, size.to_bytes(8, "little"))


def timeout_header(seconds: float) -> Header:
    """``request_timeout`` for that many seconds, never less than a millisecond."""
    return (REQUEST_TIMEOUT, min(max(1, round(seconds * 1000)), 2**64 - 1).to_bytes(8, "little"))
