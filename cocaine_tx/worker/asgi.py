"""
ASGI 3 applications as handlers: each request is an asyncio task.

::

    from cocaine_tx.worker.asgi import asgi

    worker.on("http", asgi(application))

The application's lifespan is that of its worker (`cocaine_tx.worker.lifespan`). Make one handler of an application; it
can be given to several events. WebSockets (`cocaine_tx.worker.handshake`) need wsproto, and in the manifest
``"http-streaming": true``.

Source: the ASGI specification, HTTP connection scope, version 2.3, and WebSocket connection scope, version 2.4.
"""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

from ..errors import CocaineError
from .handshake import MESSAGE_LIMIT, PING_INTERVAL, WebSockets, offers_websocket, subprotocols
from .lifespan import Application, Lifespan
from .web import HttpHandler, HttpRequest, HttpResponse


def asgi(
    application: Application, *, message_limit: int = MESSAGE_LIMIT, ping_interval: float = PING_INTERVAL
) -> HttpHandler:
    """
    A handler that calls an ASGI application.

    :param message_limit: bytes of a WebSocket's message; a client that sends more is closed with 1009.
    :param ping_interval: seconds between pings to a WebSocket's client; one that is silent for three of them has gone.
    """
    websockets = WebSockets(message_limit, ping_interval)
    lifespan = Lifespan(application, websockets.leave)

    async def serve(request: HttpRequest, response: HttpResponse) -> None:
        await lifespan.ready()
        told = scope(request, lifespan.state)
        if b"upgrade" in dict(told["headers"]) and offers_websocket(request):
            told = websocket_scope(told, subprotocols(request))
            await websockets.serve(request, response, lambda receive, send: application(told, receive, send))
            return
        exchange = _Exchange(request, response)
        await application(told, exchange.receive, exchange.send)
        if not response.closed:
            # Closing it now would pass off a part for the whole.
            raise RuntimeError("the application has returned before its answer was complete")

    return HttpHandler(serve, "asyncio", lifespan)


def scope(request: HttpRequest, state: dict[str, Any]) -> dict[str, Any]:
    """The request as ASGI describes it, with its own copy of what the lifespan has left for it."""
    address = request.headers.get("x-real-ip")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.version,
        "method": request.method.upper(),
        "scheme": request.headers.get("x-forwarded-proto") or "http",
        "path": unquote(request.path),
        "raw_path": request.path.encode("latin-1"),
        "query_string": request.query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers],
        "client": (address, 0) if address else None,
        "server": None,
        "state": state.copy(),
    }


def websocket_scope(told: dict[str, Any], offered: list[str]) -> dict[str, Any]:
    """The request as ASGI describes one that offers a WebSocket, whose client would speak one of some protocols."""
    del told["method"]
    return {
        **told,
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "wss" if told["scheme"] in ("https", "wss") else "ws",
        "subprotocols": offered,
        "extensions": {"websocket.http.response": {}},
    }


class _Exchange:
    """One call of the application: its ``receive`` and ``send``."""

    def __init__(self, request: HttpRequest, response: HttpResponse) -> None:
        self._request = request
        self._response = response
        self._read = False
        self._over = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._read:
            # The end of the answer; a client that leaves before it has the task cancelled.
            await self._over.wait()
            return {"type": "http.disconnect"}
        try:
            piece = await self._request.read()
        except CocaineError:
            self._read = True
            self._over.set()
            return {"type": "http.disconnect"}
        self._read = piece is None
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    async def send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            await self._response.write_head(message["status"], list(message.get("headers", ())))
        elif kind == "http.response.body":
            body = message.get("body", b"")
            if body:
                await self._response.write(body)
            if not message.get("more_body", False):
                self._response.close()
                self._over.set()
        else:
            raise ValueError(f"an HTTP application cannot send {kind!r}")
