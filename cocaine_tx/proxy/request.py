"""
A request as the proxy's parser tells of it: the events, the limits, and what the head's fields mean.

`RequestHead`, `Body`, `End` and `Refused` are what `cocaine_tx.proxy.parser.RequestParser` hands out. `interpret` takes
a request line and fields that are already well formed and decides where the body ends, which host is meant, and whether
the connection lives on; everything on which two servers in a row might disagree is refused rather than mended.

Source: RFC 9112 sections 3, 6 and 9; RFC 9110 sections 4.2, 7.2, 7.8 and 10.1.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything a client may send; bytes, unless it says otherwise. Lines count with their CRLF."""

    line: int = 8192  #: request line: 414
    field: int = 16384  #: one header line: 431
    head: int = 65536  #: request line and all header lines: 431
    headers: int = 100  #: number of header lines, or of trailer lines: 431
    body: int = 4 << 30  #: body without its framing: 413
    chunk_line: int = 1024  #: one chunk-size line with its extensions: 400
    extensions: int = 16384  #: chunk extensions of one body together: 400
    trailers: int = 8192  #: trailer section, which is checked and dropped: 431
    pending: int = 262144  #: what may wait behind a request that is still being answered


class RequestHead(NamedTuple):
    """
    A request whose head is complete and sound. A tuple, since making one costs a fifth of a frozen dataclass.

    :ivar target: origin-form, path and query, beginning with ``/``; or ``*``. An absolute-form target is reduced to it.
    :ivar version: ``b"1.0"`` or ``b"1.1"``.
    :ivar headers: every field as received, in order, names in the client's own case, values without outer blanks.
    :ivar host: the authority asked for, ``host[:port]``; empty only in HTTP/1.0.
    :ivar length: bytes of body to come; None when it is chunked.
    :ivar keep_alive: another request may follow on this connection.
    :ivar expect_continue: the client waits for ``100 Continue`` before it sends the body.
    :ivar upgrade: the protocols the client offers to switch to, as in ``Upgrade``; empty when it does not. ``h2c`` is
        not among them: many clients offer it with every request, and RFC 9113 section 3.1 has given it up.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: Fields
    host: bytes
    length: int | None
    keep_alive: bool
    expect_continue: bool
    upgrade: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """Some of the body, never empty, free of framing."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The request is complete; the parser rests until it is asked for the next."""


@dataclass(frozen=True, slots=True)
class Refused:
    """
    The last event of a connection: nothing after this point can be trusted.

    :ivar status: what to answer (400, 413, 414, 417, 431, 501, 505), after the answers owed to earlier requests.
    :ivar reason: one sentence for the log and the body of that answer.
    :ivar method: ``b"HEAD"`` if so much of the request line was sound: the answer has no body then.
    """

    status: int
    reason: str
    method: bytes = b"GET"


Event = RequestHead | Body | End | Refused

_MEANINGFUL = frozenset((b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"))
_ABSOLUTE = re.compile(rb"(https?)://([^/?]*)([/?].*)?", re.IGNORECASE)
_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_CODING = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_LARGEST = 2**63 - 1


def interpret(method: bytes, target: bytes, version: bytes, fields: Fields, limits: Limits) -> RequestHead | Refused:
    """What a well-formed head asks for, or why it is refused."""
    seen: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        lower = name.lower()
        if lower in _MEANINGFUL:
            seen.setdefault(lower, []).append(value)
    host = _host(method, target, version, seen.get(b"host", []))
    if isinstance(host, Refused):
        return host
    length = _length(version, seen, limits.body)
    if isinstance(length, Refused):
        return length
    if target[0] != 0x2F:
        target = _origin_form(method, target)
    modern = version == b"1.1"
    keep_alive, expect_continue, upgrade = modern, False, b""
    if b"connection" in seen:
        options = _list(seen[b"connection"])
        keep_alive = b"close" not in options and (modern or b"keep-alive" in options)
        if modern and b"upgrade" in options:
            upgrade = _offered(seen.get(b"upgrade", []))
    if modern and b"expect" in seen:
        expected = set(_list(seen[b"expect"]))
        if expected - {b"100-continue"}:
            return Refused(417, "the only expectation that can be met is 100-continue")
        expect_continue = length != 0 and bool(expected)
    return RequestHead(method, target, version, fields, host, length, keep_alive, expect_continue, upgrade)


def _list(values: list[bytes]) -> list[bytes]:
    """The members of a comma-separated field, over all its lines, in lower case."""
    return [member for part in b",".join(values).lower().split(b",") if (member := part.strip(b" \t"))]


def _offered(values: list[bytes]) -> bytes:
    offers = [offer.strip(b" \t") for offer in b",".join(values).split(b",")]
    return b", ".join([offer for offer in offers if offer and offer.lower() != b"h2c"])


def _host(method: bytes, target: bytes, version: bytes, hosts: list[bytes]) -> bytes | Refused:
    if method == b"CONNECT":
        return Refused(501, "CONNECT is not for this server")
    if len(hosts) > 1:
        return Refused(400, "Host is given more than once")
    if hosts:
        if not _valid_host(hosts[0]):
            return Refused(400, "Host is malformed")
    elif version == b"1.1":
        return Refused(400, "Host is missing")
    host = hosts[0] if hosts else b""
    if target[0] == 0x2F:
        return host
    if target == b"*":
        return host if method == b"OPTIONS" else Refused(400, "only OPTIONS may ask for *")
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return Refused(400, "the request target is neither a path nor an http URI")
    scheme, authority, _ = absolute.groups()
    if not _valid_host(authority):
        return Refused(400, "the authority in the request target is malformed")
    if hosts and _plain(scheme, authority) != _plain(scheme, host):
        return Refused(400, "Host and the request target disagree")
    return authority


@lru_cache(maxsize=1024)
def _valid_host(host: bytes) -> bool:
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    address, port = match.groups()
    if port and int(port) > 65535:
        return False
    if address is not None:
        try:
            IPv6Address(address.decode("ascii"))
        except AddressValueError:
            return False
    return True


def _plain(scheme: bytes, authority: bytes) -> bytes:
    """The authority in the one spelling that can be compared (RFC 9110 section 4.2.3)."""
    default = b":443" if scheme.lower() == b"https" else b":80"
    return authority.lower().removesuffix(default).removesuffix(b":")


def _origin_form(method: bytes, target: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:  # the asterisk
        return target
    rest: bytes | None = absolute[3]
    if rest is None:
        return b"*" if method == b"OPTIONS" else b"/"
    return rest if rest[0] == 0x2F else b"/" + rest


def _length(version: bytes, seen: dict[bytes, list[bytes]], most: int) -> int | Refused | None:
    """Where the body ends (RFC 9112 section 6.3); None is chunked."""
    lengths = seen.get(b"content-length")
    codings = seen.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            return Refused(400, "Content-Length and Transfer-Encoding exclude each other")
        if version == b"1.0":
            return Refused(400, "HTTP/1.0 knows no Transfer-Encoding")
        return _coding(codings)
    if lengths is None:
        return 0
    if len(lengths) > 1:
        return Refused(400, "Content-Length is given more than once")
    if not _LENGTH.fullmatch(lengths[0]) or (length := int(lengths[0])) > _LARGEST:
        return Refused(400, "Content-Length is not a length")
    return length if length <= most else Refused(413, f"a body may have at most {most} bytes")


def _coding(values: list[bytes]) -> Refused | None:
    if len(values) == 1 and values[0].lower() == b"chunked":
        return None
    codings = [part.strip(b" \t").lower() for part in b",".join(values).split(b",")]
    # Without chunked at the end nobody can tell where the body ends: 400 before 501 (RFC 9112 section 6.3, item 4).
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1 or not all(map(_CODING.fullmatch, codings)):
        return Refused(400, "Transfer-Encoding does not end in one plain chunked")
    return Refused(501, "the only transfer coding is chunked")
