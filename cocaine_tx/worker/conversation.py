"""
An ASGI application's call for one WebSocket: its ``receive`` and ``send``, from the offer to the end of both.

`cocaine_tx.worker.handshake` runs one for each offer that can be taken.

Source: the ASGI specification, WebSocket connection scope, version 2.4, with its extension ``websocket.http.response``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from .web import HttpResponse
from .websocket import CLOSING, WebSocket

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

#: Seconds that an application may go on when its WebSocket has ended; then it is cancelled.
AFTERWARDS = 30.0
#: The code of a worker that has to end ("service restart" of IANA's registry).
_RESTART = 1012


class ClientGone(ConnectionError):
    """What is sent does not reach the client any more. (An OSError, as ASGI wants.)"""


class Conversation:
    """
    :param response: the answer to the offer, which may be another than to take it.
    :param shake: headers that take the offer, without what the application adds.
    :param protocols: what the client would speak inside.
    """

    _log = Logger()

    def __init__(
        self, socket: WebSocket, response: HttpResponse, shake: list[tuple[str, str]], protocols: list[str]
    ) -> None:
        self._socket, self._response = socket, response
        self._shake, self._protocols = shake, protocols
        self._told = self._over = self._cancelled = self._leaving = False

    async def receive(self) -> dict[str, Any]:
        """``websocket.connect``, the client's messages, then ``websocket.disconnect`` again and again."""
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        message = None if self._over else await self._socket.read()
        if message is None:
            code, reason = self._socket.ended.result()
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    async def send(self, message: dict[str, Any]) -> None:
        """
        Fires when the client has taken enough of what was sent.

        :raises ClientGone: the WebSocket has ended, and not by the application.
        :raises RuntimeError: the application has ended it.
        :raises ValueError: there is no such message, or not now.
        """
        kind = message["type"]
        if self._over:
            raise RuntimeError(f"the application has ended the WebSocket and cannot send {kind!r} any more")
        if self._socket.ended.done():
            raise ClientGone("the WebSocket has ended")
        if not self._socket.opened:
            await self._answer(kind, message)
        elif kind == "websocket.send":
            data = message.get("bytes")
            await self._socket.write(message["text"] if data is None else data)
        elif kind == "websocket.close":
            said = self._socket.close(message.get("code", 1000), message.get("reason") or "")
            self._over = True
            await said
        else:
            raise ValueError(f"an application cannot send {kind!r} into an open WebSocket")

    async def _answer(self, kind: str, message: dict[str, Any]) -> None:
        """What the application says to the offer."""
        response = self._response
        if kind == "websocket.accept" and not response.headed:
            await self._accept(message.get("subprotocol"), list(message.get("headers") or ()))
        elif kind == "websocket.close" and not response.headed:
            response.write_head(403, [("Content-Length", 0)])
            self._deny()
        elif kind == "websocket.http.response.start":
            await response.write_head(message["status"], list(message.get("headers") or ()))
        elif kind == "websocket.http.response.body" and response.headed:
            if message.get("body"):
                await response.write(message["body"])
            if not message.get("more_body", False):
                self._deny()
        else:
            raise ValueError(f"an application cannot send {kind!r} now")

    async def _accept(self, protocol: str | None, more: list[tuple[Any, Any]]) -> None:
        if protocol is not None and protocol not in self._protocols:
            raise ValueError(f"the client has not offered the subprotocol {protocol!r}")
        chosen = [] if protocol is None else [("Sec-WebSocket-Protocol", protocol)]
        said = self._socket.open(self._shake + chosen + more)
        if self._leaving:
            self.leave()
        await said

    def _deny(self) -> None:
        self._response.close()
        self._over = True
        self._socket.end()

    def leave(self) -> None:
        """The worker has to end, and so has its client's connection: at once, or when it has begun."""
        self._leaving = True
        if self._socket.opened and not self._socket.ended.done():
            self._socket.close(_RESTART, "the worker has to end")

    async def run(self, call: Callable[[Receive, Send], Awaitable[None]]) -> None:
        """
        Call the application, and see both it and its client off.

        :param call: calls it.
        :raises BaseException: what it has raised.
        :raises RuntimeError: it has not answered the offer.
        """
        socket, problems = self._socket, list[BaseException]()

        async def contained() -> None:
            # A task would let some of them end the loop.
            try:
                await call(self.receive, self.send)
            except asyncio.CancelledError:
                raise
            except BaseException as problem:
                problems.append(problem)

        task = asyncio.ensure_future(contained())
        try:
            while not (task.done() or socket.ended.done()):
                await self._wait({task, socket.ended}, None)
            if not task.done():
                await self._last_things(task)
            elif socket.opened and not socket.ended.done():
                socket.close(1011 if problems else 1000, "")
            if socket.reader is not None and not socket.reader.done():
                await self._wait({socket.reader}, None)
        finally:
            task.cancel()
            socket.hang_up()
        if problems and not isinstance(problems[0], ClientGone):
            if self._cancelled:
                # Nobody asks for the end of what has been cancelled.
                self._log.failure("the application failed when its client had gone", Failure(problems[0]))  # type: ignore[no-untyped-call]
            raise problems[0]
        if not self._response.closed:
            raise RuntimeError("the application has returned before it answered the offer")

    async def _last_things(self, task: asyncio.Future[None]) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + AFTERWARDS
        while not task.done() and (left := until - clock()) > 0:
            await self._wait({task}, left)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLOSING)

    async def _wait(self, futures: set[asyncio.Future[Any]], seconds: float | None) -> None:
        """For the first of them; or for the news, the first time, that the client has gone."""
        try:
            await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if self._cancelled:
                raise
            # The application may do its last things. Who is cancelled twice has no time for them.
            self._cancelled = True
            self._socket.end()
