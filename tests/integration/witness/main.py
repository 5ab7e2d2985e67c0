#!/usr/bin/env python3
"""Writes down every request that it is given, a JSON object on a line, in the file that its event names."""

import json
import os

from cocaine_tx.worker import Worker, http

worker = Worker()


@worker.on("http")
@http
async def witness(request, response):
    # First, for the body of a request that offers an upgrade ends only behind the answer's head.
    response.write_head(200, {})
    headers = [(name.lower(), value) for name, value in request.headers]
    body = b"".join([piece async for piece in request])
    told = {"method": request.method, "target": request.uri, "headers": headers, "body": body.hex()}
    file = os.open(dict(headers)["x-witness"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, json.dumps(told).encode() + b"\n")
    os.close(file)


worker.run()
