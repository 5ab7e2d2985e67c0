"""
Which application and event a request is for, and what of it the worker gets to see. Pure.

By headers: ``X-Cocaine-Service`` and ``X-Cocaine-Event``, or in its place ``X-Cocaine-Handle``, which old nginx
configurations set; everything is forwarded as received. Else by host name, if a suffix is configured. Else by path,
``/app/event/rest``: the two segments are taken off, and the two headers are put in their place. ``/ping`` is the
proxy's own, if nothing else fits.

Source: reference ``http-tools-sdk.md`` sections A.2 and A.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from .request import Fields, RequestHead

_SERVICE, _EVENT, _HANDLE = b"x-cocaine-service", b"x-cocaine-event", b"x-cocaine-handle"
_ROUTING = frozenset((_SERVICE, _EVENT, _HANDLE))
_PATH = re.compile(rb"/([^/?]+)/([^/?]+)(.*)")
_PORT = re.compile(rb":[0-9]*$")
_LABEL = re.compile(rb"[a-z0-9_\-]+")


class Route(NamedTuple):
    """
    Where a request goes.

    :ivar uri: what the worker sees of the target; begins with ``/`` or is ``*``.
    :ivar headers: what the worker sees of the headers.
    """

    app: str
    event: str
    uri: bytes
    headers: Fields


@dataclass(frozen=True, slots=True)
class HostSuffix:
    """``app.SUFFIX`` is ``app``; ``suffix`` is lower case and begins with a dot, ``event`` is what is asked of it."""

    suffix: bytes
    event: str = "http"


class Verdict(Enum):
    """A request that goes to no application."""

    PING = auto()  #: the proxy is asked for its health
    NOWHERE = auto()  #: 404
    AMBIGUOUS = auto()  #: 400: routing headers that contradict themselves


def route(head: RequestHead, by_host: HostSuffix | None = None) -> Route | Verdict:
    """Where the request goes."""
    found: dict[bytes, bytes] = {}
    for name, value in head.headers:
        # The length is looked at first since most names are not near.
        if 15 <= len(name) <= 17 and (lower := name.lower()) in _ROUTING and found.setdefault(lower, value) != value:
            return Verdict.AMBIGUOUS
    service, event = found.get(_SERVICE), found.get(_EVENT, found.get(_HANDLE))
    if service is not None and event is not None:
        return _named(service, event, head.target, head.headers)
    if by_host is not None and (app := _host_label(head.host, by_host.suffix)) is not None:
        return Route(app, by_host.event, head.target, head.headers)
    match = _PATH.fullmatch(head.target)
    if match is not None:
        app_part, event_part, rest = match.groups()
        kept = [pair for pair in head.headers if pair[0].lower() not in _ROUTING]
        kept += [(b"X-Cocaine-Service", app_part), (b"X-Cocaine-Event", event_part)]
        return _named(app_part, event_part, rest if rest.startswith(b"/") else b"/" + rest, kept)
    return Verdict.PING if head.target.partition(b"?")[0] == b"/ping" else Verdict.NOWHERE


def _named(app: bytes, event: bytes, uri: bytes, headers: Fields) -> Route | Verdict:
    try:
        names = app.decode("utf-8"), event.decode("utf-8")
    except UnicodeDecodeError:
        return Verdict.NOWHERE
    return Route(*names, uri, headers) if all(names) else Verdict.NOWHERE


def _host_label(host: bytes, suffix: bytes) -> str | None:
    name = _PORT.sub(b"", host.lower()).removesuffix(b".")
    label = name.removesuffix(suffix)
    return label.decode("ascii") if label != name and _LABEL.fullmatch(label) else None
