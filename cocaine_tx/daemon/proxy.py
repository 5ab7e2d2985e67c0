"""
``twistd cocaine-proxy``: HTTP clients on one side, the platform on the other.

`makeService` is the wiring diagram; `Proxy.start` is the order in which parts come up.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from twisted.application.service import IService
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
from . import proxy_settings
from .document import BUILT_IN, parse, read, text_of
from .endpoints import read_certificates, renew, try_endpoints
from .inherited import adopt_port, leave_port, open_port
from .lines import LogFile, LogLines, try_file
from .openfiles import allow_clients
from .reports import Board, Reporter
from .supervisor import HEARD, SHARED, VARIABLE, Orders, Supervisor
from .twistd import DaemonService, refuse


def _count(text: str) -> int:
    """As ``processes`` of the file."""
    number = int(text)
    if not 0 <= number <= 1024:
        raise ValueError("give a whole number from 0 to 1024")
    return number


class Options(usage.Options):
    """Everything else is in the file."""

    optParameters = [
        ["config", "c", None, "YAML file"],
        ["processes", None, None, "how many processes share the endpoints; 0: one for each core", _count],
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
        self._endpoints = config.endpoints
        turn = Turn(reactor)
        attend(reactor, config.wire.busy_poll)
        dialer = Dialer(reactor, turn, config.wire.session, config.wire.connect_timeout)
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
        missing = allow_clients(self.config.limits.connections)
        for warning in (*self.config.warnings, *([missing] if missing else [])):
            self._log.warn("{warning}", warning=warning)
        self.door.upstreams.start()
        if self._unicorn is not None:
            self._unicorn.start()
        endpoints = self.config.endpoints
        for place, description in enumerate(endpoints):
            if self._sockets:
                socket = self._sockets[place]
                port = await adopt_port(self.reactor, description, socket, self._factory, self.config.backlog)
                os.close(socket)  # or it would listen until we end, with nobody to accept
            else:
                port = await open_port(self.reactor, description, self._factory, self.config.backlog)
            self._ports.append(port)
        if self._sockets:
            self._reporter = Reporter(self.reactor, self.door.totals)
        elif self.config.operations is not None:
            factory = pages(self.reactor, self.config, self.door.totals)
            where, backlog = self.config.operations, self.config.backlog
            self._ports.append(await open_port(self.reactor, where, factory, backlog, "operations"))
        # What has been made so far stays for ever; looking through it again and again would cost a tenth of our time.
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._log.info("proxy is up at {where}", where=", ".join(endpoints))

    def reload(self) -> None:
        """SIGHUP: read the file and the certificates again, open the access log again. A fault changes nothing."""
        self._lines.reopen()
        if len(self._ports) < len(self._endpoints):
            return  # still starting, with what has just been read
        try:
            config = proxy_settings.proxy_settings(read(self._path, os.environ))
            certificates = read_certificates(self.reactor, "endpoints", self._endpoints)
        except CocaineError as problem:
            self._log.error("the configuration stays as it was: {reason}", reason=problem.reason)
            return
        for place, certificate in certificates.items():
            renew(self._ports[place], certificate)
        old, self.config = self.config, config
        attend(self.reactor, config.wire.busy_poll)
        for warning in config.warnings:
            if warning not in old.warnings:
                self._log.warn("{warning}", warning=warning)
        if _fixed(config) != _fixed(old):
            self._log.warn(
                "endpoints, operations, locators, processes, backlog, unicorn, access-log.file and wire (but for "
                "drain-timeout and busy-poll) change only by a restart"
            )
        self.door.reload(terms(config))
        self.door.budget.share = config.retry.budget
        self.door.log.form = FORMS[config.access_log.format]
        self.door.upstreams.resize(config.pool.size, config.pool.lifespan, config.pool.services)
        self._factory.most = config.limits.connections
        self._log.info("the configuration has been read again")

    async def stop(self) -> None:
        """Let nobody else in, finish what has begun, leave."""
        for port in self._ports:
            leave_port(port)
        drained = self.door.drain()
        drained.addTimeout(self.config.wire.drain_timeout, self.reactor, onTimeoutCancel=lambda *_: None)
        await drained
        # A reset takes a turn; by a process that has ended before, the kernel says a regular end.
        await self.door.close().addTimeout(1.0, self.reactor, onTimeoutCancel=lambda *_: None)
        if self._unicorn is not None:
            self._unicorn.stop()
        if self._reporter is not None:
            self._reporter.report()
        self.door.upstreams.stop()
        self.door.log.flush()


def _fixed(config: proxy_settings.Proxy) -> tuple[object, ...]:
    """What is looked at only when the proxy starts."""
    wire = replace(config.wire, drain_timeout=0.0, busy_poll=0.0)
    return (
        config.endpoints, config.operations, config.locators, config.processes, config.backlog, config.unicorn,
        config.access_log.file, wire,
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


def pages(reactor: Any, config: proxy_settings.Proxy, totals: Callable[[], Totals]) -> DoorFactory:
    """
    What operators are shown, by a door of their own that leads nowhere else.

    They are neither counted nor logged with the clients, and get in when clients have taken all their connections.
    """
    turn, shown = Turn(reactor), Operations(totals)
    dialer = Dialer(reactor, turn)
    upstreams = Upstreams(dialer, Locators(dialer, config.locators), 1, config.pool.lifespan, {})
    door = Door(reactor, turn, upstreams, terms(config), AccessLog(None, reactor.callLater, LogLines().write))
    return DoorFactory(door, lambda door: HttpConnection(door, shown), config.limits.connections)


def settings_in(text: str, path: str | None) -> proxy_settings.Proxy:
    """
    The settings in a file's text.

    :raises ConfigError: it has a fault.
    """
    return proxy_settings.proxy_settings(parse(text, path or BUILT_IN, os.environ))


def supervisor(
    reactor: Any, text: str, path: str | None, count: int, outputs: Mapping[int, int | str]
) -> Supervisor:
    """The parent of several processes; operators' requests it answers itself."""

    config, board, operations = settings_in(text, path), Board(), None

    def orders(text: str) -> Orders:
        given = Orders(text, settings_in(text, path).wire.drain_timeout + 5)
        read_certificates(reactor, "endpoints", config.endpoints)
        return given

    if config.operations is not None:
        operations = (config.operations, pages(reactor, config, board.totals))
    return Supervisor(
        reactor, config.endpoints, count, _child(path), orders(text), lambda: orders(text_of(path)),
        board, config.backlog, outputs, operations,
    )  # fmt: skip


def _outputs(twistd: Mapping[str, Any] | None) -> Mapping[int, int | str]:
    """Children's logs go where ours goes: to stdout, or through us to wherever twistd has been told to put it."""
    if twistd is None:
        return SHARED
    elsewhere = not twistd["nodaemon"] or twistd["syslog"] or twistd["logger"] or twistd["logfile"] not in (None, "-")
    return HEARD if elsewhere else SHARED


def makeService(options: Mapping[str, Any]) -> IService:
    """What twistd runs: one proxy, or the supervisor of several."""
    install_reactor()
    from twisted.internet import reactor

    path = options["config"] and os.path.abspath(options["config"])
    # A child must not pass this on.
    inherited = os.environ.pop(VARIABLE, None)
    try:
        text = text_of(options["config"]) if inherited is None else sys.stdin.buffer.read().decode()
        config = settings_in(text, options["config"])
        if inherited is None:
            try_endpoints(reactor, "endpoints", config.endpoints)
            try_endpoints(reactor, "operations", [config.operations] if config.operations is not None else [])
            if config.access_log.file is not None:
                try_file(config.access_log.file)
    except CocaineError as problem:
        raise refuse("cocaine-proxy", options["config"], problem) from problem
    count = config.processes if options["processes"] is None else options["processes"]
    count = count or os.cpu_count() or 1
    made: Proxy | Supervisor
    if inherited is not None:
        endpoints, sockets = zip(*json.loads(inherited), strict=True)
        made = Proxy(reactor, replace(config, endpoints=endpoints), path, sockets)
    elif count > 1:
        made = supervisor(reactor, text, path, count, _outputs(getattr(options, "parent", None)))
    else:
        made = Proxy(reactor, config, path, ())
    signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(made.reload))  # type: ignore[attr-defined]
    return DaemonService("cocaine-proxy", options["config"] or BUILT_IN, reactor, made.start, made.stop)


def _child(path: str | None) -> list[str]:
    """The command line of one of several processes, behind the interpreter."""
    twistd = ["-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=", "cocaine-proxy"]
    return twistd if path is None else [*twistd, "--config", path]
