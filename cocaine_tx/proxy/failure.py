"""
The answers the proxy gives in its own name: what went wrong, as a status, a few headers and a line of text.

Called by the exchange and the connection, which hand the result to `cocaine_tx.proxy.answer.Answer.complete`.
``X-Error-Generated-By`` tells an operator, and nginx, that the proxy and not the application is speaking.

Source: reference ``http-tools-sdk.md`` section A.2 (the table of situations) as merged in A.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from ..errors import CocaineError, QueueFull, ServiceNotFound
from .request import Fields, Refused
from .route import Verdict

_UNPRINTABLE = re.compile(rb"[^\t -~\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Failure:
    """What `Answer.complete` needs; ``reason`` is empty where the standard phrase will do."""

    status: int
    text: str
    reason: bytes = b""
    headers: Fields = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return self.text.encode("utf-8", "replace") + b"\n"


def error_answer(status: int, text: str, app: str = "", reason: bytes = b"", retry_after: int = 0) -> Failure:
    """
    An error answer.

    :param app: the application asked for, if it is known by then.
    :param retry_after: seconds after which another try is worth it; 0 says nothing.
    """
    headers: Fields = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"X-Error-Generated-By", b"cocaine_tx"),
    ]
    if app:
        headers.append((b"X-Cocaine-Application", printable(app)))
    if retry_after:
        headers.append((b"Retry-After", b"%d" % retry_after))
    return Failure(status, text, _UNPRINTABLE.sub(b" ", reason), headers)


def printable(app: str) -> bytes:
    """An application's name as a header can carry it."""
    return _UNPRINTABLE.sub(b"?", app.encode("utf-8", "replace"))


@lru_cache(maxsize=512)
def application_line(app: str) -> bytes:
    """The header line by which every answer of an application names it."""
    return b"X-Cocaine-Application: %b\r\n" % printable(app)


def not_routed() -> Failure:
    """No application could be found in the request."""
    return error_answer(404, "Invalid url")


#: What is said instead of an app, where none was found.
UNROUTED = {
    Verdict.NOWHERE: not_routed(),
    Verdict.AMBIGUOUS: error_answer(400, "the routing headers contradict themselves"),
}


def refused(verdict: Refused) -> Failure:
    """The request broke the rules of HTTP, or a limit."""
    return error_answer(verdict.status, verdict.reason)


def failed(
    error: CocaineError, app: str, request_id: str, queue_full_status: int = 500, retry_after: int = 1
) -> Failure:
    """
    The application, or the way to it, failed before the client had a status line.

    :param request_id: as in the access log.
    :param queue_full_status: 500 as the originals answer, or 503 for an nginx that should try its next upstream.
    :param retry_after: seconds, told when a queue is full.
    """
    if isinstance(error, ServiceNotFound):
        return error_answer(503, f"current application {app} is unavailable", app, b"No Such Application")
    text = f"UID {request_id}: application `{app}` error: {error}"
    if isinstance(error, QueueFull):
        return error_answer(queue_full_status, text, app, retry_after=retry_after)
    # A status below 500 on an error class speaks of the caller of a service; here the caller is the proxy.
    return error_answer(max(error.http_status, 500), text, app)
