"""
The lifespan of an ASGI application: told when its worker begins, and when it ends.

`cocaine_tx.worker.asgi.asgi` makes one; the worker's process begins it in its loop and ends it when no handler runs any
more. Requests that come before the application has started up wait for it.

Source: the ASGI specification, lifespan protocol, version 2.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

Application = Callable[..., Awaitable[None]]


class Lifespan:
    """
    :param leave: told when the worker has been asked to end, and waits for what runs.
    :ivar state: what the application wants each request to have, if it has said so.
    """

    _log = Logger()

    def __init__(self, application: Application, leave: Callable[[], None]) -> None:
        self.leave = leave
        self.state: dict[str, Any] = {}
        self._application = application
        self._failed: Callable[[str], None] = _nobody
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()
        self._told = False

    def begin(self, failed: Callable[[str], None]) -> None:
        """
        Start the application up; called once, in the loop that its requests will run in.

        :param failed: told why the application cannot serve, if it says so.
        """
        self._failed = failed
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def ready(self) -> None:
        """The application has started up, or does not want to know of it."""
        if self._task is not None and not self._started.is_set():
            await self._started.wait()

    def end(self) -> Deferred[Any]:
        """Shut the application down. Fires when it has."""
        if self._task is None or self._task.done():
            return succeed(None)
        self._ending.set()
        return Deferred.fromFuture(asyncio.ensure_future(self._ended.wait()))

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._receive, self._send)
        except Exception as problem:
            # Before it has started: it does not speak this protocol, which it may say in whatever way.
            if self._started.is_set():
                self._log.failure("the application's lifespan failed")
            else:
                self._log.debug("the application has no lifespan: {problem!r}", problem=problem)
        finally:
            if self._failed is not _nobody:
                self._started.set()
            self._ended.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._told:
            self._told = True
            return {"type": "lifespan.startup"}
        await self._ending.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._started.set()
        elif kind == "lifespan.startup.failed":
            failed, self._failed = self._failed, _nobody
            failed(f"the application did not start: {message.get('message', '')}".rstrip(": \n"))
        elif kind == "lifespan.shutdown.complete":
            self._ended.set()
        elif kind == "lifespan.shutdown.failed":
            self._log.warn("the application did not shut down well: {why}", why=message.get("message", ""))
            self._ended.set()
        else:
            raise ValueError(f"a lifespan cannot send {kind!r}")


def _nobody(reason: str) -> None:
    """It has been told already."""
