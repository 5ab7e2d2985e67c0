"""
JSON-RPC 2.0 as text: requests to calls of a service, and what a service says to JSON. Pure.

A call names ``service.method``; its ``params`` are the slot's arguments as an array, or an object of ``args`` and
``chunks``, the messages that follow. ``chunks`` may also stand beside ``params``. Text travels as raw in UTF-8; raw
that is no UTF-8 comes out with lone surrogates (``\\udc80`` to ``\\udcff``); going in again they are the same bytes.

Source: the JSON-RPC 2.0 specification; reference ``http-tools-sdk.md`` sections A.2 and A.3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from typing import Any, NamedTuple

from ..errors import (
    CocaineError,
    ConnectionGone,
    InvalidArguments,
    LocalProtocolError,
    RemoteProtocolError,
    ServiceNotFound,
    Unreachable,
)
from .request import RequestHead

PARSE, INVALID, UNKNOWN, PARAMS = -32700, -32600, -32601, -32602
#: Ours: the service answered an error; it cannot be reached; somebody broke the protocol; no answer in time; an answer
#: that is too large; anything else.
SERVICE, UNREACHABLE, PROTOCOL, LATE, LARGE, OTHER = -32000, -32001, -32002, -32003, -32004, -32099

#: Most calls of one request, and how deep a value may nest either way.
MOST, DEEPEST = 100, 64

#: Present, whatever its value, it makes a request JSON-RPC: as the original proxy.
MARK = b"x-cocaine-json-rpc"
_TYPES = frozenset((b"application/json-rpc", b"application/json", b"application/jsonrequest"))


class Call(NamedTuple):
    """
    One call.

    :ivar id: JSON text of the request's id; empty: a notification, which is not answered.
    :ivar chunks: messages that follow, each a name and arguments.
    """

    id: str
    service: str
    method: str
    args: tuple[Any, ...]
    chunks: tuple[tuple[str, tuple[Any, ...]], ...]


class Refusal(Exception):
    """A request, or a part of it, that cannot be a call, or a call that failed: an error's code and text."""

    def __init__(self, code: int, message: str, id: str = "null", data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.id, self.data = code, message, id, data

    def text(self, id: str) -> str:
        """The response to the request of that id."""
        error = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return f'{{"jsonrpc": "2.0", "id": {id}, "error": {json.dumps(error)}}}'


def asked(head: RequestHead, elsewhere: bool) -> bool:
    """
    Whether a request is meant as JSON-RPC.

    :param elsewhere: it leads to no application.
    """
    kind = b""
    for name, value in head.headers:
        if len(name) in (18, 12):
            lower = name.lower()
            if lower == MARK:
                return True
            if lower == b"content-type":
                kind = value
    return elsewhere and head.method == b"POST" and kind.partition(b";")[0].strip().lower() in _TYPES


def read(body: bytes) -> tuple[bool, list[Call | Refusal]]:
    """
    The calls of a request's body, and whether they are a batch.

    :raises Refusal: it is no JSON, or holds no call.
    """
    try:
        found = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise Refusal(PARSE, f"the body is no JSON: {problem}") from problem
    if not isinstance(found, list):
        return False, [_read_one(found)]
    if not found or len(found) > MOST:
        raise Refusal(INVALID, f"a batch has 1 to {MOST} calls")
    return True, [_read_one(one) for one in found]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _read_one(one: Any) -> Call | Refusal:
    id = ""
    try:
        if not isinstance(one, dict):
            raise Refusal(INVALID, "a call is an object")
        if "id" in one:
            given = one["id"]
            if isinstance(given, bool) or not isinstance(given, str | int | float | None):
                raise Refusal(INVALID, "id is a text, a number or null")
            if isinstance(given, float) and not isfinite(given):
                raise Refusal(INVALID, "id is too large a number")
            id = json.dumps(given)
        if one.get("jsonrpc") not in ("2.0", 2):
            raise Refusal(INVALID, 'jsonrpc is not "2.0"')
        method = one.get("method")
        if not isinstance(method, str):
            raise Refusal(INVALID, "method is not a text")
        service, _, name = method.rpartition(".")
        if not service or not name:
            raise Refusal(UNKNOWN, "method is not service.method")
        args, chunks = _parts(one.get("params"), one.get("chunks"))
        return Call(id, service, name, args, chunks)
    except Refusal as refusal:
        # What is no call cannot be a notification either.
        refusal.id = id or "null"
        return refusal


def _parts(params: Any, chunks: Any) -> tuple[tuple[Any, ...], tuple[tuple[str, tuple[Any, ...]], ...]]:
    if isinstance(params, dict):
        if params.keys() - {"args", "chunks"} or (chunks is not None and "chunks" in params):
            raise Refusal(PARAMS, "params as an object has args and chunks, and chunks are given once")
        params, chunks = params.get("args"), params.get("chunks", chunks)
    params = [] if params is None else params
    chunks = [] if chunks is None else chunks
    if not isinstance(params, list) or not isinstance(chunks, list):
        raise Refusal(PARAMS, "arguments and chunks are arrays")
    return tuple(_packable(arg, DEEPEST) for arg in params), tuple(_chunk(chunk) for chunk in chunks)


def _chunk(chunk: Any) -> tuple[str, tuple[Any, ...]]:
    """``[name, arguments]`` as the Tornado proxy took it, or ``{name: arguments}`` as the Rust proxy did."""
    if isinstance(chunk, dict) and len(chunk) == 1:
        chunk = list(*chunk.items())
    match chunk:
        case [str(name), list(args)]:
            return name, tuple(_packable(arg, DEEPEST) for arg in args)
    raise Refusal(PARAMS, "a chunk is [name, [arguments]] or {name: [arguments]}")


def _packable(value: Any, depth: int) -> Any:
    """A JSON value as the wire takes it."""
    if not depth:
        raise Refusal(PARAMS, "the arguments nest too deeply")
    if isinstance(value, str):
        try:
            return value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as problem:
            raise Refusal(PARAMS, "a text has a surrogate that stands for no byte") from problem
    if isinstance(value, list):
        return tuple(_packable(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return {_packable(key, depth): _packable(item, depth - 1) for key, item in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Refusal(PARAMS, "a number has more than 64 bits")
    return value


def text_of(args: Sequence[Any]) -> str:
    """
    What a service said in one message, as JSON: nothing is null, one value is itself, several are an array.

    :raises Refusal: it cannot be JSON.
    """
    value = args[0] if len(args) == 1 else list(args) or None
    return json.dumps(_plain(value, DEEPEST))


def _plain(value: Any, depth: int) -> Any:
    if not depth:
        raise Refusal(OTHER, "the answer nests too deeply")
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, list | tuple):
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return {_key(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, float):
        return value if isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)


def _key(key: Any) -> str:
    return key.decode("utf-8", "surrogateescape") if isinstance(key, bytes) else str(key)


def refusal_of(error: CocaineError) -> Refusal:
    """What went wrong with a call, in JSON-RPC's words; the platform's own numbers are in ``data``."""
    category, code = error.pair
    data = {"category": category, "code": code}
    if isinstance(error, InvalidArguments):
        return Refusal(PARAMS, error.reason, data=data)
    if isinstance(error, ServiceNotFound | Unreachable | ConnectionGone):
        return Refusal(UNREACHABLE, error.reason, data=data)
    if isinstance(error, LocalProtocolError | RemoteProtocolError):
        return Refusal(PROTOCOL, error.reason, data=data)
    return Refusal(SERVICE, error.reason, data=data)
