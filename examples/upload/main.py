#!/usr/bin/env python3
"""Takes an upload of any size as it arrives, without keeping it, and answers its size and SHA-256."""

import hashlib

from cocaine_tx.worker import Worker, http

worker = Worker()


@worker.on("http")
@http
async def upload(request, response):
    digest, size = hashlib.sha256(), 0
    async for piece in request:
        digest.update(piece)
        size += len(piece)
    response.write_head(200, {"Content-Type": "text/plain"})
    response.write(f"{size} bytes, sha256 {digest.hexdigest()}\n")


if __name__ == "__main__":
    worker.run()
