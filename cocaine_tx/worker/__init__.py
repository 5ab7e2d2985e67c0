"""
What an app author imports.

::

    from cocaine_tx.worker import Worker, http

    worker = Worker()

    @worker.on("http")
    @http
    async def hello(request, response):
        response.write(b"hello")

    worker.run()
"""

from __future__ import annotations

from .config import WorkerConfig
from .request import Request
from .response import Response
from .web import HttpRequest, HttpResponse, http
from .worker import Worker

__all__ = ["HttpRequest", "HttpResponse", "Request", "Response", "Worker", "WorkerConfig", "http"]
