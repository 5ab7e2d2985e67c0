#!/usr/bin/env python3
"""Answers as it goes: ten lines, one each half second, over HTTP. A client that leaves ends it."""

import asyncio

from cocaine_tx.worker import Worker, http

worker = Worker()


@worker.on("http", run="asyncio")
@http
async def count(request, response):
    response.write_head(200, {"Content-Type": "text/plain"})
    for number in range(1, 11):
        await response.write(f"{number}\n")
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    worker.run()
