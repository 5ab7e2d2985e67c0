#!/usr/bin/env python3
"""
An app whose requests begin and do not end at once.

``hold`` answers its process id at once and ends when the client's half ends; ``echo`` sends back what it gets; ``http``
greets, or, for ``/slow``, says a first word, works for a second, and says the last one.
"""

import os

from twisted.internet import reactor
from twisted.internet.task import deferLater

from cocaine_tx.worker import Worker, http

worker = Worker()


@worker.on("hold")
async def hold(request, response):
    await response.write(str(os.getpid()))
    async for _ in request:
        pass


@worker.on("echo")
async def echo(request, response):
    async for chunk in request:
        await response.write(chunk)


@worker.on("http")
@http
async def greet(request, response):
    response.write_head(200, {"Content-Type": "text/plain"})
    if request.path.endswith("/slow"):
        await response.write("first ")
        await deferLater(reactor, 1)
    response.write("last\n")


if __name__ == "__main__":
    worker.run()
