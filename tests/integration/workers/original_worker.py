"""An app of the original Python framework; the test puts the interpreter's line before it."""

import os
import time

from cocaine.exceptions import ChokeEvent
from cocaine.worker import Worker
from tornado import gen


def echo(request, response):
    try:
        while True:
            chunk = yield request.read()
            response.write(chunk)
    except ChokeEvent:
        response.close()


def fails(request, response):
    yield request.read()
    raise ValueError("the handler's own words")


def dies(request, response):
    print("last words", flush=True)
    os._exit(7)
    yield


def blocks(request, response):
    time.sleep(30)
    yield


def pid(request, response):
    response.write(b"%d" % os.getpid())
    response.close()
    yield


def sleeps(request, response):
    yield gen.sleep(float((yield request.read())))
    response.write(b"rested")
    response.close()


def cancelled(request, response):
    """Says in a file how its client went."""
    path = yield request.read()
    try:
        yield request.read()
    except Exception as error:
        with open(path, "w") as file:
            file.write(type(error).__name__)


worker = Worker(heartbeat_timeout=2.5, disown_timeout=2.4)
worker.run({"echo": echo, "fails": fails, "dies": dies, "blocks": blocks, "pid": pid, "sleeps": sleeps,
            "cancelled": cancelled})
