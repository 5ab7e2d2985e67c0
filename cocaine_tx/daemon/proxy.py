"""
``twistd cocaine-proxy``: HTTP clients on one side, the platform on the other.

`makeService` is the wiring diagram; `Proxy.start` is the order in which parts come up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python import usage

from ..errors import CocaineError, ConfigError
from ..proxy.access import FORMS, AccessLog
from ..proxy.connection import HttpConnection
from ..proxy.door import Door, DoorFactory
from ..proxy.locators import Locators
from ..proxy.request import Limits as RequestLimits
from ..proxy.route import HostSuffix
from ..proxy.terms import Terms
from ..proxy.upstreams import Upstreams
from ..rpc.client import Dialer
from ..rpc.turn import Turn
from ..wire.frames import Limits
from . import proxy_settings
from .document import BUILT_IN, read
from .twistd import DaemonService, refuse


class Options(usage.Options):
    """Everything else is in the file."""

    optParameters = [["config", "c", None, "YAML file"]]


class Proxy:
    """
    The parts of one proxy process.

    :ivar door: the proxy's heart: what all its clients share.
    """

    _log = Logger()

    def __init__(self, reactor: Any, config: proxy_settings.Proxy) -> None:
        self.reactor = reactor
        self.config = config
        turn = Turn(reactor)
        limits = Limits(config.wire.frame_size, config.wire.header_size, channels=config.wire.channels)
        dialer = Dialer(reactor, turn, limits)
        locators = Locators(dialer, config.locators, config.timeouts.resolve)
        pool = config.pool
        upstreams = Upstreams(dialer, locators, pool.size, pool.lifespan, pool.services)
        log = AccessLog(FORMS[config.access_log.format], reactor.callLater, self._write)
        self.door = Door(reactor, turn, upstreams, terms(config), log, config.retry.budget)
        self._ports: list[IListeningPort] = []

    def _write(self, batch: str, written: Any) -> None:
        self._log.info("{lines}", lines=batch)
        written()

    async def start(self) -> None:
        """Connect to the platform, then let clients in."""
        for warning in self.config.warnings:
            self._log.warn("{warning}", warning=warning)
        self.door.upstreams.start()
        factory = DoorFactory(self.door, HttpConnection, self.config.limits.connections)
        for description in self.config.endpoints:
            self._ports.append(await self._listen(description, factory))
        self._log.info("proxy is up at {where}", where=", ".join(self.config.endpoints))

    async def _listen(self, description: str, factory: DoorFactory) -> IListeningPort:
        try:
            endpoint = serverFromString(self.reactor, description)  # type: ignore[no-untyped-call]
            port: IListeningPort = await endpoint.listen(factory)
        except (ValueError, TypeError, LookupError) as problem:
            mend = "give one such as tcp:8080:interface=127.0.0.1"
            raise ConfigError(f"endpoints: {description!r} is no endpoint: {problem}; {mend}") from problem
        except (CannotListenError, OSError) as problem:
            reason = str(getattr(problem, "socketError", problem)).rstrip(".")
            mend = "stop who has it, or give another"
            raise ConfigError(f"endpoints: {description!r} cannot be had: {reason}; {mend}") from problem
        return port

    async def stop(self) -> None:
        """Let nobody in, finish what has begun, leave."""
        await DeferredList([maybeDeferred(port.stopListening) for port in self._ports], consumeErrors=True)
        drained = self.door.drain()
        drained.addTimeout(self.config.wire.drain_timeout, self.reactor, onTimeoutCancel=lambda *_: None)
        await drained
        self.door.close()
        self.door.upstreams.stop()
        self.door.log.flush()


def terms(config: proxy_settings.Proxy) -> Terms:
    """The settings in the words of the room."""
    limits, timeouts, suffix = config.limits, config.timeouts, config.host_suffix
    return Terms(
        parser=RequestLimits(
            line=limits.request_line,
            head=limits.request_line + limits.header_size,
            headers=limits.header_count,
            body=limits.body,
        ),
        by_host=HostSuffix(b"." + suffix.lower().encode().lstrip(b".")) if suffix else None,
        request=timeouts.request,
        chunk=timeouts.chunk,
        apps=timeouts.apps,
        head=timeouts.head,
        body=timeouts.body,
        write=timeouts.write,
        keep_alive=timeouts.keep_alive,
        inline=limits.inline_body,
        buffer=limits.buffer,
        attempts=config.retry.attempts,
        queue_full_status=config.retry.queue_full_status,
        request_header=config.request_header.lower().encode("latin-1"),
        sticky_header=config.sticky_header.lower().encode("latin-1"),
        mapped=frozenset(name.lower().encode("latin-1") for name in (*config.mapped_headers, "authorization")),
        tracing_chance=config.tracing_chance / 100,
    )


def makeService(options: Mapping[str, Any]) -> IService:
    """What twistd runs."""
    from twisted.internet import reactor

    try:
        proxy = Proxy(reactor, proxy_settings.proxy_settings(read(options["config"], os.environ)))
    except CocaineError as problem:
        raise refuse("cocaine-proxy", options["config"], problem) from problem
    return DaemonService("cocaine-proxy", options["config"] or BUILT_IN, reactor, proxy.start, proxy.stop)
