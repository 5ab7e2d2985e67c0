"""The app that `test_process` starts as a worker."""

import asyncio
import hashlib
import sys
import time

from cocaine_tx.worker import Worker, http
from cocaine_tx.worker.asgi import asgi

worker = Worker()


@worker.on("echo")
async def echo(request, response):
    async for chunk in request:
        await response.write(chunk)


@worker.on("http")
@http
async def hello(request, response):
    response.write_head(200, {"X-Method": request.method})
    response.write(request.body)


@worker.on("burn")
async def burn(request, response):
    """Keeps the interpreter busy for as many seconds as it is told."""
    until = time.monotonic() + float(await request.read())
    while time.monotonic() < until:
        hashlib.sha256(b"x" * 1000)
    response.write(b"burnt")


@worker.on("block")
def block(request, response):
    seconds = float(request.read())
    response.write(b"begun")
    time.sleep(seconds)
    response.write(b"slept")


@worker.on("big")
async def big(request, response):
    for _ in range(40):
        await response.write(bytes(100_000))


if "--with-asyncio" in sys.argv:

    @worker.on("tasks", run="asyncio")
    async def tasks(request, response):
        """What only a real task can do."""
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.01))
        async for chunk in request:
            await response.write(chunk)

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            if "--no-start" in sys.argv:
                await send({"type": "lifespan.startup.failed", "message": "there is no database"})
                return
            await asyncio.sleep(0.05)
            scope["state"]["mark"] = b"?"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print("shut down", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/nothing":
            return
        message = await receive()
        await receive()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-path", scope["raw_path"])]})
        await send({"type": "http.response.body", "body": message["body"], "more_body": True})
        if scope["path"] == "/part":
            return
        await send({"type": "http.response.body", "body": b"!" + scope["state"]["mark"]})

    async def plain(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    worker.on("asgi", asgi(application))
    worker.on("plain", asgi(plain))

    @worker.on("exit", run="asyncio")
    async def leave(request, response):
        sys.exit(3)

    @worker.on("forever", run="asyncio")
    async def forever(request, response):
        response.write(b"begun")
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            response.write(b"cancelled")
            raise


if __name__ == "__main__":
    worker.run()
