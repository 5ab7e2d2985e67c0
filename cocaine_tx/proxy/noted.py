"""
What a request's head means to the proxy itself. Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from ..wire.headers import Headers
from .request import Fields, RequestHead
from .route import Route, Verdict, route
from .terms import Terms

#: Its body follows in parts, says the proxy of a request; a client that says so itself is not believed.
STREAMING = b"x-cocaine-http-streaming"


class Noted(NamedTuple):
    """
    Values of headers; None for those that are not there, the last of those that are there twice.

    :ivar id: the request's.
    :ivar sticky: chooses a member of a routing group.
    :ivar mapped: those that also travel as headers of the call.
    :ivar streaming: what is only for the proxy to say (`STREAMING`).
    """

    id: bytes | None = None
    traceparent: bytes | None = None
    sticky: bytes | None = None
    mapped: Headers = ()
    streaming: bytes | None = None


class Notes:
    """What to look for, under certain terms."""

    __slots__ = ("_lengths", "_names", "_terms")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        ours = (b"traceparent", STREAMING)
        self._names = frozenset((*ours, terms.request_header, terms.sticky_header)) | terms.mapped
        self._lengths = frozenset(map(len, self._names))

    def of(self, headers: Fields) -> Noted:
        """What a request's headers say."""
        names, lengths, terms = self._names, self._lengths, self._terms
        found: dict[bytes, bytes] = {}
        mapped: Headers = ()
        for name, value in headers:
            # The length is looked at first since most names are not near.
            if len(name) in lengths and (lower := name.lower()) in names:
                found[lower] = value
                if lower in terms.mapped:
                    mapped += ((lower, value),)
        id, sticky = found.get(terms.request_header), found.get(terms.sticky_header)
        return Noted(id, found.get(b"traceparent"), sticky, mapped, found.get(STREAMING))


class Known(NamedTuple):
    """
    A request's head, and what it means under these terms.

    :ivar total: seconds from the head to the end of the answer.
    :ivar pace: seconds from one part of the answer to the next.
    """

    head: RequestHead
    terms: Terms
    where: Route | Verdict
    noted: Noted
    total: float
    pace: float

    @classmethod
    def of(cls, head: RequestHead, terms: Terms, notes: Notes) -> Known:
        """Read it."""
        where, noted = route(head, terms.by_host), notes.of(head.headers)
        app, event = ("", "") if isinstance(where, Verdict) else (where.app, where.event)
        if noted.streaming is not None and isinstance(where, Route):
            where = where._replace(headers=[pair for pair in where.headers if pair[0].lower() != STREAMING])
        return cls(head, terms, where, noted, terms.request_time(app, event), terms.chunk_time(app, event))
