#!/usr/bin/env python3
"""Greets over HTTP (event ``http``) and sends back whatever it is sent (event ``echo``)."""

from urllib.parse import parse_qs

from cocaine_tx.worker import Worker, http

worker = Worker()


@worker.on("http")
@http
async def hello(request, response):
    name = parse_qs(request.query).get("name", ["world"])[0]
    body = f"Hello, {name}!\n".encode()
    response.write_head(200, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", len(body))])
    response.write(body)


@worker.on("echo")
async def echo(request, response):
    async for chunk in request:
        await response.write(chunk)


if __name__ == "__main__":
    worker.run()
