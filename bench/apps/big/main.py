#!/usr/bin/env python3
"""Answers as many bytes as the query says, as fast as they are taken (event ``http``)."""

from cocaine_tx.worker import Worker, http

worker = Worker()
PIECE = bytes(65536)


@worker.on("http")
@http
async def big(request, response):
    left = int(request.query)
    response.write_head(200, {})
    while left > 0:
        await response.write(PIECE[:left])
        left -= len(PIECE)


worker.run()
