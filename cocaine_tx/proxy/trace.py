"""
Who a request is: its id, and its place in a trace, between HTTP and the wire.

A request keeps the id it brings and gets one otherwise. It is traced if its ``traceparent`` says so, or by chance; only
then do trace ids travel on every frame, for they cost everybody on the way.

Source: W3C Trace Context sections 3.2 and 3.3; reference ``protocol-v12.md`` section 7, ``http-tools-sdk.md`` A.2.
"""

from __future__ import annotations

import re
from random import getrandbits, random
from typing import NamedTuple

from ..wire.headers import TRACE_BIT, Headers, Trace

#: A later version may have more behind its flags; ours has not, and ff is none.
_TRACEPARENT = re.compile(rb"(?!ff|00-.{53})[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
_LARGEST = 2**63 - 2
#: Longest id taken from a client; a longer one is cut.
ID_LIMIT = 128


class Identity(NamedTuple):
    """
    :ivar id: as in the access log and the answer.
    :ivar headers: for the wire; empty if the request is not traced.
    :ivar response: the value of ``traceresponse``, empty if the client did not ask.
    """

    id: bytes
    headers: Headers
    response: bytes

    def fields(self, header: bytes) -> list[tuple[bytes, bytes]]:
        """
        What an answer of the proxy's own says of its request.

        :param header: that carries the id.
        """
        id = (header, self.id)
        return [id, (b"traceresponse", self.response)] if self.response else [id]


def identify(given: bytes | None, traceparent: bytes | None, chance: float) -> Identity:
    """
    :param given: the id that the client brought.
    :param traceparent: the client's header.
    :param chance: of being traced when the client does not say, 0 to 1.
    """
    id = given[:ID_LIMIT] if given else b"%016x" % getrandbits(63)
    if traceparent is not None and (match := _TRACEPARENT.fullmatch(traceparent)):
        trace_text, parent_text, flags = match.groups()
        # The wire has room for half of W3C's id; the random half is the right one.
        trace, parent = _bounded(int(trace_text[16:], 16)), _bounded(int(parent_text, 16))
        if int(trace_text, 16) and int(parent_text, 16):
            span = getrandbits(62) + 1
            sampled = int(flags, 16) & 1
            headers = (*Trace(trace, span, parent).headers(), (TRACE_BIT, b"%d" % sampled))
            return Identity(id, headers, b"00-%b-%016x-%02x" % (trace_text, span, sampled))
    if chance and random() < chance:
        trace = _bounded(int(id[:16], 16)) if _HEX.match(id) else getrandbits(62) + 1
        return Identity(id, (*Trace(trace, trace).headers(), (TRACE_BIT, b"1")), b"")
    return Identity(id, (), b"")


def _bounded(number: int) -> int:
    """A number as the wire's ids are: 1 to 2**63 - 2."""
    return min(max(number & (2**63 - 1), 1), _LARGEST)
