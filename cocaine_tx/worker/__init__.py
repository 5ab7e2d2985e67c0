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

from typing import TYPE_CHECKING, Any

from .config import WorkerConfig
from .request import Request
from .response import Response
from .web import HttpRequest, HttpResponse, http
from .worker import Worker

if TYPE_CHECKING:
    from .log import LogHandler
    from .service import Locator, Service

__all__ = [
    "HttpRequest", "HttpResponse", "Locator", "LogHandler", "Request", "Response", "Service", "Worker", "WorkerConfig",
    "http",
]  # fmt: skip

#: Parts that few apps use and that cost time to import, by the module they are in.
_LATE = {"Locator": "service", "Service": "service", "LogHandler": "log"}


def __getattr__(name: str) -> Any:
    """Import such a part when an app asks for it."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATE[name]}", __name__), name)
