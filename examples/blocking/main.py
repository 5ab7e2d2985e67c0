#!/usr/bin/env python3
"""A plain function that takes its time: it runs in a thread, and other requests are served meanwhile."""

import time

from cocaine_tx.worker import Worker, http

worker = Worker()


@worker.on("http")
@http
def slow(request, response):
    time.sleep(1)
    response.write_head(200, {"Content-Type": "text/plain"})
    response.write(f"worked a second for {request.uri}\n")


if __name__ == "__main__":
    worker.run()
