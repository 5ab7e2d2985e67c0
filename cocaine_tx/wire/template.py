"""
What a node and the template of a warm app say to one another, each message one datagram of a UNIX socket.

A template is a worker's program that has imported everything and now waits to be forked: each fork is a worker. The
node's orders name a worker by a number of its own choosing; no process number travels, for a number can be somebody
else's by the time it is read. Descriptors travel beside the bytes (``SCM_RIGHTS``): with `Fork` the pipe the worker
prints to, with `Forked` a pidfd of the worker.

msgpack arrays, the kind first; text that is not UTF-8 by ``surrogateescape``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import msgpack

from ..errors import UndecodableError

#: Longest datagram in bytes; below what Linux grants a socket's buffer without being asked.
LARGEST = 96 * 1024


@dataclass(frozen=True, slots=True)
class Fork:
    """Node to template: a new worker. ``arguments`` and ``environment`` replace the template's where they differ."""

    number: int
    arguments: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reap:
    """Node to template: this worker has ended; take its status and tell it."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Template to node: everything is imported."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """Template to node: this app cannot be forked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Forked:
    """Template to node: this worker runs."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Template to node: this worker could not be made."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Template to node: how this worker ended. ``status`` is its exit status, or a signal's number below zero."""

    number: int
    status: int


Order = Fork | Reap
Report = Ready | Unfit | Forked | Failed | Ended

_ORDERS: tuple[type[Any], ...] = (Fork, Reap)
_REPORTS: tuple[type[Any], ...] = (Ready, Unfit, Forked, Failed, Ended)
_KINDS = {"int": int, "str": str, "Mapping[str, str]": dict}


def pack_order(order: Order) -> bytes:
    return _pack(_ORDERS, order)


def pack_report(report: Report) -> bytes:
    return _pack(_REPORTS, report)


def unpack_order(data: bytes) -> Order:
    """:raises UndecodableError: it is none."""
    order: Order = _unpack(_ORDERS, data)
    return order


def unpack_report(data: bytes) -> Report:
    """:raises UndecodableError: it is none. It comes from an app's process, which may say anything."""
    report: Report = _unpack(_REPORTS, data)
    return report


def _pack(kinds: tuple[type[Any], ...], message: Any) -> bytes:
    values = (getattr(message, field.name) for field in fields(message))
    packed: bytes = msgpack.packb([kinds.index(type(message)), *values], unicode_errors="surrogateescape")
    return packed


def _unpack(kinds: tuple[type[Any], ...], data: bytes) -> Any:
    try:
        kind, *values = msgpack.unpackb(data, unicode_errors="surrogateescape", max_ext_len=0)
        made = kinds[kind]
        if [type(value) for value in values] == [_KINDS[str(field.type)] for field in fields(made)]:
            return made(*values)
    except Exception as problem:
        raise UndecodableError(f"not a message of a template: {problem}") from problem
    raise UndecodableError(f"not a message of a template: {made.__name__} with {values!r:.100}")
