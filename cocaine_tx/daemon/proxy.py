"""
``twistd cocaine-proxy``: HTTP clients on one side, the platform on the other.

`makeService` is the wiring diagram; `Proxy.start` is the order in which parts come up.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python import usage

from ..errors import CocaineError
from ..proxy.access import FORMS, AccessLog
from ..proxy.connection import HttpConnection
from ..proxy.door import Door, DoorFactory
from ..proxy.locators import Locators
from ..proxy.metrics import Totals
from ..proxy.operations import Operations
from ..proxy.request import Limits as RequestLimits
from ..proxy.route import HostSuffix
from ..proxy.subscriptions import Schema
from ..proxy.terms import Terms
from ..proxy.unicorn import Ticket, Unicorn
from ..proxy.upstreams import Upstreams
from ..rpc.client import Dialer
from ..rpc.reactor import attend, install_reactor
from ..rpc.turn import Turn
from ..wire.frames import Limits
from . import proxy_settings
from .document import BUILT_IN, read
from .inherited import adopt_port, open_port
from .lines import LogFile, LogLines
from .reports import Board, Reporter
from .supervisor import VARIABLE, Supervisor
from .twistd import DaemonService, refuse


class Options(usage.Options):
    """Everything else is in the file."""

    optParameters = [
        ["config", "c", None, "YAML file"],
        ["processes", None, None, "how many processes share the endpoints; 0: one for each core", int],
    ]


class Proxy:
    """
    The parts of one proxy process.

    :param path: of the configuration, which is read again on SIGHUP; None: the built-in one.
    :param sockets: descriptors of open sockets, in the order of the endpoints; none: they are still to be opened.
    :ivar door: the proxy's heart: what all its clients share.
    """

    _log = Logger()

    def __init__(self, reactor: Any, config: proxy_settings.Proxy, path: str | None, sockets: tuple[int, ...]) -> None:
        self.reactor = reactor
        self.config = config
        self._path = path
        self._sockets = sockets
        turn = Turn(reactor)
        attend(reactor, config.wire.busy_poll)
        limits = Limits(config.wire.frame_size, config.wire.header_size, channels=config.wire.channels)
        dialer = Dialer(reactor, turn, limits)
        locators = Locators(dialer, config.locators, config.timeouts.resolve)
        pool = config.pool
        upstreams = Upstreams(dialer, locators, pool.size, pool.lifespan, pool.services)
        file = config.access_log.file
        self._lines = LogLines() if file is None else LogFile(reactor, file)
        log = AccessLog(FORMS[config.access_log.format], reactor.callLater, self._lines.write)
        self.door = Door(reactor, turn, upstreams, terms(config), log, config.retry.budget)
        self._factory = DoorFactory(self.door, HttpConnection, config.limits.connections)
        self._unicorn = unicorn(reactor, config.unicorn, self.door)
        self._ports: list[IListeningPort] = []
        self._reporter: Reporter | None = None

    async def start(self) -> None:
        """
        Connect to the platform, then let clients in.

        :raises ConfigError: an endpoint cannot be had.
        """
        for warning in self.config.warnings:
            self._log.warn("{warning}", warning=warning)
        self.door.upstreams.start()
        if self._unicorn is not None:
            self._unicorn.start()
        endpoints = self.config.endpoints
        for place, description in enumerate(endpoints):
            if self._sockets:
                socket = self._sockets[place]
                port = await adopt_port(self.reactor, description, socket, self._factory, self.config.backlog)
            else:
                port = await open_port(self.reactor, description, self._factory, self.config.backlog)
            self._ports.append(port)
        if self._sockets:
            self._reporter = Reporter(self.reactor, self.door.totals)
        elif self.config.operations is not None:
            factory = pages(self.door, self.door.totals, self.config.limits.connections)
            self._ports.append(await open_port(self.reactor, self.config.operations, factory, self.config.backlog))
        # What has been made so far stays for ever; looking through it again and again would cost a tenth of our time.
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._log.info("proxy is up at {where}", where=", ".join(endpoints))

    def reload(self) -> None:
        """SIGHUP: read the file again, and open the access log again. A file with a fault changes nothing."""
        self._lines.reopen()
        try:
            config = proxy_settings.proxy_settings(read(self._path, os.environ))
        except CocaineError as problem:
            self._log.error("the configuration stays as it was: {reason}", reason=problem.reason)
            return
        old, self.config = self.config, config
        attend(self.reactor, config.wire.busy_poll)
        if _fixed(config) != _fixed(old):
            self._log.warn(
                "endpoints, operations, locators, processes, unicorn and access-log.file change only by a restart"
            )
        self.door.reload(terms(config))
        self.door.budget.share = config.retry.budget
        self.door.log.form = FORMS[config.access_log.format]
        self.door.upstreams.resize(config.pool.size, config.pool.lifespan, config.pool.services)
        self._factory.most = config.limits.connections
        self._log.info("the configuration has been read again")

    async def stop(self) -> None:
        """Let nobody in, finish what has begun, leave."""
        await DeferredList([maybeDeferred(port.stopListening) for port in self._ports], consumeErrors=True)
        drained = self.door.drain()
        drained.addTimeout(self.config.wire.drain_timeout, self.reactor, onTimeoutCancel=lambda *_: None)
        await drained
        self.door.close()
        if self._unicorn is not None:
            self._unicorn.stop()
        if self._reporter is not None:
            self._reporter.report()
        self.door.upstreams.stop()
        self.door.log.flush()


def _fixed(config: proxy_settings.Proxy) -> tuple[object, ...]:
    """What is looked at only when the proxy starts."""
    return (
        config.endpoints, config.operations, config.locators, config.processes, config.unicorn, config.access_log.file
    )  # fmt: skip


def unicorn(reactor: Any, config: proxy_settings.Unicorn | None, door: Door) -> Unicorn | None:
    """Who follows what operators say in the cluster, if anybody does."""
    if config is None:
        return None
    tvm = config.tvm
    ticket = Ticket(tvm.service, tvm.client, tvm.secret) if tvm is not None else None
    reach, schema = door.upstreams.reach, Schema(config.schema)
    return Unicorn(
        reactor, reach, config.service, ticket, schema, config.timeouts, config.tracing, door.override
    )


def terms(config: proxy_settings.Proxy) -> Terms:
    """The settings in the words of the room."""
    limits, timeouts, suffix = config.limits, config.timeouts, config.host_suffix
    return Terms(
        parser=RequestLimits(
            line=limits.request_line,
            field=max(RequestLimits().field, limits.header_size // 4),
            head=limits.request_line + limits.header_size,
            headers=limits.header_count,
            body=limits.body,
        ),
        by_host=HostSuffix(b"." + suffix.lower().encode().lstrip(b".")) if suffix else None,
        request=timeouts.request,
        chunk=timeouts.chunk,
        apps=timeouts.apps,
        requests=timeouts.requests,
        head=timeouts.head,
        body=timeouts.body,
        write=timeouts.write,
        keep_alive=timeouts.keep_alive,
        inline=limits.inline_body,
        gathered=limits.bodies,
        buffer=limits.buffer,
        unsent=limits.unsent,
        attempts=config.retry.attempts,
        queue_full_status=config.retry.queue_full_status,
        request_header=config.request_header.lower().encode("latin-1"),
        sticky_header=config.sticky_header.lower().encode("latin-1"),
        mapped=frozenset(name.lower().encode("latin-1") for name in (*config.mapped_headers, "authorization")),
        services=frozenset(config.jsonrpc),
        json_size=config.jsonrpc_size,
        tracing_chance=config.tracing_chance / 100,
    )


def pages(door: Door, totals: Callable[[], Totals], most: int) -> DoorFactory:
    """What operators are shown, to at most so many of them."""
    shown = Operations(totals)
    return DoorFactory(door, lambda door: HttpConnection(door, shown), most)


def supervisor(reactor: Any, config: proxy_settings.Proxy, path: str | None, count: int) -> Supervisor:
    """The parent of several processes; operators' requests it answers itself, by a door that leads nowhere else."""
    board, operations = Board(), None
    if config.operations is not None:
        turn = Turn(reactor)
        dialer = Dialer(reactor, turn)
        upstreams = Upstreams(dialer, Locators(dialer, config.locators), 1, config.pool.lifespan, {})
        log = AccessLog(None, reactor.callLater, LogLines().write)
        door = Door(reactor, turn, upstreams, terms(config), log)
        operations = (config.operations, pages(door, board.totals, config.limits.connections))
    patience = config.wire.drain_timeout + 5
    return Supervisor(reactor, config.endpoints, count, _child(path), patience, board, config.backlog, operations)


def makeService(options: Mapping[str, Any]) -> IService:
    """What twistd runs: one proxy, or the supervisor of several."""
    install_reactor()
    from twisted.internet import reactor

    path = options["config"]
    try:
        config = proxy_settings.proxy_settings(read(path, os.environ))
    except CocaineError as problem:
        raise refuse("cocaine-proxy", path, problem) from problem
    count = config.processes if options["processes"] is None else options["processes"]
    count = count or os.cpu_count() or 1
    made: Proxy | Supervisor
    if VARIABLE in os.environ:
        # A child must not pass this on.
        sockets = tuple(int(number) for number in os.environ.pop(VARIABLE).split(","))
        made = Proxy(reactor, config, path, sockets)
    elif count > 1:
        made = supervisor(reactor, config, path, count)
    else:
        made = Proxy(reactor, config, path, ())
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(made.reload))  # type: ignore[attr-defined]
    return DaemonService("cocaine-proxy", path or BUILT_IN, reactor, made.start, made.stop)


def _child(path: str | None) -> list[str]:
    """The command line of one of several processes, behind the interpreter."""
    twistd = ["-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=", "cocaine-proxy"]
    return twistd if path is None else [*twistd, "--config", os.path.abspath(path)]
