"""
What storage holds and what people write: msgpack values and JSON.

Raw bytes become text by ``surrogateescape``, so that what is no UTF-8 comes back as the same bytes after an edit.

Source: reference ``http-tools-sdk.md`` section B.3.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..errors import LocalProtocolError, UndecodableError
from ..wire.frames import pack, unpack
from .exits import Refused, WrongValue


def plain(value: Any) -> Any:
    """A value as it came from the wire, as JSON knows it: text, lists, maps with keys of one kind."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        made = {plain(key): plain(item) for key, item in value.items()}
        # JSON sorts its keys: numbers by value if there are only numbers, else everything as text.
        if all(type(key) is int for key in made):
            return made
        return {str(key): item for key, item in made.items()}
    return value


def decode(blob: bytes, what: str) -> Any:
    """
    A stored object's value.

    :param what: names the object in a complaint.
    :raises Refused: it is no msgpack value.
    """
    try:
        return plain(unpack(blob))
    except UndecodableError as problem:
        raise Refused(f"{what} is damaged in storage: {problem.reason}") from problem


def encode(value: Any, what: str) -> bytes:
    """
    A value as it is stored.

    :raises WrongValue: it has no msgpack form (a number of more than 64 bits).
    """
    try:
        return pack(value)
    except LocalProtocolError as problem:
        raise WrongValue(f"{what} {problem.reason}") from problem


def parse(text: str, what: str) -> Any:
    """
    JSON written by a person.

    :raises WrongValue: it is none; the complaint names line and column.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}, column {problem.colno}"
        raise WrongValue(f"{what} is not JSON: {problem.msg} ({where})") from problem
    except ValueError as problem:
        raise WrongValue(f"{what} is not JSON: {problem}") from problem
    except RecursionError as problem:
        raise WrongValue(f"{what} is not usable JSON: it nests too deep") from problem


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def load(source: str, what: str) -> Any:
    """
    JSON from a file, or written out in the option itself.

    :raises WrongValue: no such file, not readable, or not JSON.
    """
    if source.lstrip()[:1] in ("{", "["):
        return parse(source, what)
    try:
        with open(os.path.expanduser(source), encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as problem:
        raise WrongValue(f"{what}: cannot read {source!r}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise WrongValue(f"{what}: {source!r} is not UTF-8 text") from problem
    return parse(text, f"{what} {source!r}")


def mapping(value: Any, what: str) -> dict[str, Any]:
    """
    The value, if it is a map.

    :raises WrongValue: it is not.
    """
    if not isinstance(value, dict):
        raise WrongValue(f"{what} must be a map, not {_KINDS.get(type(value), 'this')}")
    return value


_KINDS: dict[type, str] = {
    list: "a list", str: "a text", int: "a number", float: "a number", bool: "a truth value", type(None): "null",
}  # fmt: skip
