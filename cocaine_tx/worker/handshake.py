"""
What a WebSocket's offer must be, and what becomes of it.

Source: RFC 6455, section 4.2.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING

from twisted.logger import Logger

from .web import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from .conversation import Conversation, Receive, Send

#: Bytes of a message that are taken unless told otherwise.
MESSAGE_LIMIT = 16 * 1024 * 1024
#: Seconds between pings unless told otherwise; less than the proxy gives a silent connection (``timeouts.keep-alive``).
PING_INTERVAL = 20.0

#: Joined to the client's key it makes the answer (section 1.3).
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to an offer that is none, or cannot be taken."""

    status: int
    why: str
    headers: tuple[tuple[str, str], ...] = ()


def offers_websocket(request: HttpRequest) -> bool:
    """Whether the client wants to speak WebSocket; whether it may is not asked."""
    if request.method != "GET" or request.version != "1.1":
        return False
    return "websocket" in [name.strip() for name in request.upgrade.lower().split(",")]


def refusal_of(request: HttpRequest) -> Refusal | None:
    """What is wrong with an offer, if anything is."""
    if request.headers.get_all("sec-websocket-version") != ["13"]:
        spoken = ("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")
        return Refusal(426, "WebSocket version 13 is spoken", spoken)
    keys = request.headers.get_all("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(400, "Sec-WebSocket-Key is not one of 16 bytes")
    return None


def _is_key(key: str) -> bool:
    try:
        return len(b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def subprotocols(request: HttpRequest) -> list[str]:
    """What the client offers to speak inside, what it likes best first."""
    offered = ",".join(request.headers.get_all("sec-websocket-protocol")).split(",")
    return [name for name in map(str.strip, offered) if name]


class WebSockets:
    """
    Those of one application in this worker.

    :param limit: bytes of a message that a client may send.
    :param ping: seconds between pings.
    """

    _log = Logger()

    def __init__(self, limit: int, ping: float) -> None:
        self._limit, self._ping = limit, ping
        self._running: set[Conversation] = set()
        self._leaving = False

    async def serve(
        self, request: HttpRequest, response: HttpResponse, call: Callable[[Receive, Send], Awaitable[None]]
    ) -> None:
        """
        One WebSocket, from its offer to the end of the application's call.

        :param call: calls the application.
        :raises BaseException: what it has raised.
        """
        made = refusal_of(request) or self._made(request, response)
        if isinstance(made, Refusal):
            response.write_head(made.status, [*made.headers, ("Content-Type", "text/plain")])
            response.write(made.why + "\n")
            return
        self._running.add(made)
        try:
            await made.run(call)
        finally:
            self._running.discard(made)

    def _made(self, request: HttpRequest, response: HttpResponse) -> Conversation | Refusal:
        if self._leaving:
            return Refusal(503, "the worker has to end", (("Retry-After", "1"),))
        if request.raw.ended:
            # The proxy keeps an offer's request open for an app that has asked for it.
            self._log.error('no WebSocket without "http-streaming": true in the manifest of the application')
            return Refusal(501, "the application does not take WebSockets")
        try:
            import wsproto  # noqa: F401 - an extra
        except ImportError:
            self._log.error("no WebSocket without wsproto: pip install 'cocaine_tx[asgi]'")
            return Refusal(501, "the application does not take WebSockets")
        from .conversation import Conversation
        from .websocket import WebSocket

        accept = b64encode(sha1(request.headers["sec-websocket-key"].encode("ascii") + _GUID).digest())
        shake = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept.decode("ascii"))]
        socket = WebSocket(request, response, self._limit, self._ping)
        return Conversation(socket, response, shake, subprotocols(request))

    def leave(self) -> None:
        """The worker has to end: every client is told, and no more are taken."""
        self._leaving = True
        for conversation in list(self._running):
            conversation.leave()
