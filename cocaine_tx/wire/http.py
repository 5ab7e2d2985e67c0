"""
How HTTP travels inside channel chunks: the packing convention between every proxy and every worker.

A request is one chunk, ``[method, uri, version, [[name, value], ...], body]``; the first chunk of an answer is
``[status, [[name, value], ...]]``, and every later chunk is body, unpacked. Everything is old-spec raw on the way out,
and text, raw or bin on the way in. The proxy packs requests and unpacks heads; the worker SDK does the reverse. This
module alone knows the order of the elements.

What is packed for the other side of HTTP (`pack_head`, `unpack_head`) is checked for characters that would let a header
value begin a new line; the request side has been through the proxy's parser.

Source: reference ``http-tools-sdk.md`` section 0.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgpack

from ..errors import HttpFormatError

Text = str | bytes
Pairs = Iterable[tuple[Text, Text]] | Mapping[Text, Text]
Headers = list[tuple[bytes, bytes]]

# One packer for the process: its buffer is reused, and a bound method costs a third of `msgpack.packb`.
_pack = msgpack.Packer(use_bin_type=False).pack

_TOKENS = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")
_FORBIDDEN = re.compile(rb"[^\t -~\x80-\xff]")

_LINE = "request line"

#: Apps repeat themselves: so many heads, packed up to this size, are remembered.
_REMEMBERED, _SIZE = 256, 1024
_heads: dict[tuple[object, ...], bytes] = {}


class PackedRequest(NamedTuple):
    """
    A request as a worker gets it; every part is the bytes the client sent.

    ``version`` is ``b"1.0"`` or ``b"1.1"``; ``uri`` is path and query and always begins with ``/`` (or is ``*``).
    """

    method: bytes
    uri: bytes
    version: bytes
    headers: Headers
    body: bytes


def pack_request(method: Text, uri: Text, version: Text, headers: Pairs, body: Text = b"") -> bytes:
    """The one chunk that carries a request; the body is its last element and is there even when empty."""
    if type(headers) is not list:
        headers = list(headers.items() if isinstance(headers, Mapping) else headers)
    return _packed((method, uri, version, headers, body))


def unpack_request(chunk: bytes) -> PackedRequest:
    """
    Read a request back; a body that is absent (four elements) is empty, and ``HTTP/1.1`` is taken for ``1.1``.

    :raises HttpFormatError: the chunk is not a request.
    """
    parts = _unpacked(chunk, "request")
    if not isinstance(parts, list) or not 4 <= len(parts) <= 5:
        raise HttpFormatError("a request is an array of method, uri, version, headers and body")
    method, uri, version = _raw(parts[0], _LINE), _raw(parts[1], _LINE), _raw(parts[2], _LINE)
    body = _raw(parts[4], "body") if len(parts) == 5 else b""
    return PackedRequest(method, uri, version.removeprefix(b"HTTP/"), _pairs(parts[3]), body)


def pack_head(status: int, headers: Pairs) -> bytes:
    """
    The first chunk of an answer.

    :param status: 100 to 599.
    :param headers: pairs or a map, text or bytes; text outside latin-1 goes out as UTF-8. Numbers are written out.
    :raises HttpFormatError: a status out of range, or a name or value that HTTP cannot carry on one line.
    """
    key = _key(status, headers)
    head = _heads.get(key) if key is not None else None
    if head is None:
        head = _packed((_status(status), _checked(_pairs(headers))))
        if key is not None and len(head) <= _SIZE:
            if len(_heads) >= _REMEMBERED:
                _heads.clear()
            _heads[key] = head
    return head


def unpack_head(chunk: bytes) -> tuple[int, Headers]:
    """
    The status and the headers, in the worker's order, of the first chunk of an answer.

    :raises HttpFormatError: the chunk is not a head, or it holds what must not reach an HTTP client.
    """
    parts = _unpacked(chunk, "head")
    if not isinstance(parts, list) or len(parts) != 2:
        raise HttpFormatError("an answer begins with an array of status and headers")
    return _status(parts[0]), _checked(_pairs(parts[1]))


def _key(status: int, headers: Pairs) -> tuple[object, ...] | None:
    """What a head is remembered by; None for one that equals another without being the same (14 and 14.0)."""
    if type(headers) is not list or type(status) is not int:
        return None
    key = (status, *headers)
    try:
        hash(key)
        for _, value in headers:
            if type(value) is not str and type(value) is not int:
                return None
    except (TypeError, ValueError):
        return None
    return key


def _packed(value: object) -> bytes:
    try:
        packed: bytes = _pack(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise HttpFormatError(f"these values cannot be packed: {error}") from error
    return packed


def _unpacked(chunk: bytes, what: str) -> object:
    try:
        # The chunk's own length bounds every array, map and string in it.
        return msgpack.unpackb(chunk, raw=True, use_list=True)
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise HttpFormatError(f"the {what} is not msgpack: {error}") from error


def _raw(value: object, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return _encoded(value)
    raise HttpFormatError(f"the {what} holds {type(value).__name__} where text belongs")


def _encoded(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def _pairs(container: object) -> Headers:
    entries: Iterable[object]
    if type(container) is list:  # what the wire brings; asking an abstract class first would double the cost
        try:
            usual = [(name, value) for name, value in container if type(name) is bytes and type(value) is bytes]
        except (TypeError, ValueError):
            usual = []
        if len(usual) == len(container):
            return usual
        entries = container
    elif isinstance(container, Mapping):
        entries = container.items()
    elif isinstance(container, Iterable) and not isinstance(container, str | bytes):
        entries = container
    else:
        raise HttpFormatError("headers are pairs of name and value, or a map")
    pairs: Headers = []
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise HttpFormatError("a header is a pair of name and value")
        name, value = entry
        if type(value) is int:  # many a worker gives Content-Length as a number
            value = b"%d" % value
        if type(name) is not bytes or type(value) is not bytes:
            name, value = _raw(name, "header name"), _raw(value, "header value")
        pairs.append((name, value))
    return pairs


def _checked(headers: Headers) -> Headers:
    # Two searches over everything joined cost less than two for each header; who is to blame is found out only then.
    if not headers:
        return headers
    names, values = zip(*headers, strict=True)
    if b"" in names or not _TOKENS.fullmatch(b"".join(names)):
        culprit = next(name for name in names if not name or not _TOKENS.fullmatch(name))
        raise HttpFormatError(f"{culprit[:100]!r} cannot be a header name")
    if _FORBIDDEN.search(b"".join(values)):
        culprit = next(name for name, value in headers if _FORBIDDEN.search(value))
        raise HttpFormatError(f"the value of header {culprit.decode('ascii')} holds a control character")
    return headers


def _status(value: object) -> int:
    if type(value) is not int or not 100 <= value <= 599:
        raise HttpFormatError(f"the status must be a number from 100 to 599, not {str(value)[:40]}")
    return value
