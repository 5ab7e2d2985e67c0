#!/usr/bin/env python3
"""
Sends back what it is sent, and on which host that was.

Events ``echo`` and, for visitors, ``http``; event ``slow`` takes a second between its two halves.
"""

import asyncio
import sys

from cocaine_tx.worker import Worker, http

worker = Worker()
HOST = sys.argv[sys.argv.index("--locator") + 1].rpartition(":")[0].encode()


@worker.on("echo")
async def echo(request, response):
    said = b"".join([chunk async for chunk in request])
    await response.write(said + b"@" + HOST)


@worker.on("http")
@http
async def visited(request, response):
    response.write_head(200, {})
    response.write(request.body + b"@" + HOST)


@worker.on("slow")
async def slow(request, response):
    await response.write(b"@" + HOST)
    await asyncio.sleep(1)
    await response.write(b".")


if __name__ == "__main__":
    worker.run()
