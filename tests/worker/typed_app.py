"""An application whose author checks types: ``make lint`` runs mypy's strict mode on it, ``test_typed`` the app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from cocaine_tx.errors import NotFound
from cocaine_tx.worker import HttpRequest, HttpResponse, LogHandler, Request, Response, Service, Worker, http
from cocaine_tx.worker.asgi import asgi
from cocaine_tx.worker.blocking import BlockingRequest, BlockingResponse
from cocaine_tx.worker.web import BlockingHttpRequest, BlockingHttpResponse
from cocaine_tx.worker.wsgi import wsgi

worker = Worker()
storage = Service("storage")
records = LogHandler(attributes={"release": "7"})


@worker.on("http")
@http
async def mirror(request: HttpRequest, response: HttpResponse) -> None:
    kind = request.headers.get("content-type", "text/plain")
    body = await request.read_all(limit=1024)
    await response.write_head(200, {"Content-Type": kind, "Content-Length": len(body)})
    await response.write(body)


@worker.on("copy")
async def copy(request: Request, response: Response) -> None:
    async for chunk in request:
        await response.write(chunk)


@worker.on("later", run="deferred")
def later(request: Request, response: Response) -> Deferred[None]:
    return succeed(b"later").addCallback(response.write).addCallback(lambda _: None)


@worker.on("block")
def block(request: BlockingRequest[Request], response: BlockingResponse[Response]) -> None:
    for chunk in request:
        response.write(chunk.upper())


@worker.on("page")
@http
def page(request: BlockingHttpRequest, response: BlockingHttpResponse) -> None:
    response.write_head(200, [("Content-Type", "text/plain")])
    response.write(request.path + request.body.decode())


@worker.on("task", run="asyncio")
async def task(request: Request, response: Response) -> None:
    await asyncio.sleep(0)
    await response.write(b"slept")


@worker.on("read")
async def read(request: Request, response: Response) -> None:
    key = (await request.body()).decode()
    try:
        response.write(await storage.call("read", "files", key, within=request))
    except NotFound:
        response.error(404, f"there is no {key}")


@worker.on("ask")
async def ask(request: Request, response: Response) -> None:
    async with await Service("other").stream("enqueue", "copy", within=request) as stream:
        stream.write(b"question")
        stream.close()
        async for chunk in stream:
            await response.write(chunk)


def plain(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"plain"]


async def modern(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"modern"})


worker.on("wsgi", wsgi(plain))
worker.on("asgi", asgi(modern))

if __name__ == "__main__":
    worker.run()
