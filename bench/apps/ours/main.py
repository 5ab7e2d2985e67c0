#!/usr/bin/env python3
"""The app that echoes one chunk, on our own SDK."""

from cocaine_tx.worker import Worker

worker = Worker()


@worker.on("echo")
async def echo(request, response):
    response.write(await request.read())


worker.run()
