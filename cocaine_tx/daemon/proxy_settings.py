"""
Settings of the HTTP proxy: values and how they are read from a configuration's tree.

Every setting, its default and why: ``conf/proxy.yaml``.
Source: reference ``http-tools-sdk.md`` sections A.2 and A.6; keys that the original proxies had keep their meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .document import Document
from .section import Section
from .settings import LOCATOR_PORT, Limits, host_port, limits


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    Seconds.

    :ivar request: from the request's head to the end of the answer.
    :ivar chunk: from one part of an app's answer to the next, the first included.
    :ivar resolve: for the locator to answer.
    :ivar head: for a client to send a request's head.
    :ivar body: for a client to send the next part of a body.
    :ivar write: for a client to take anything of what waits for it.
    :ivar keep_alive: for a client to begin its next request.
    :ivar apps: app to event to the ``chunk`` time of its answers; event ``""`` is all others of the app.
    :ivar requests: the same for ``request``.
    """

    request: float = 300.0
    chunk: float = 30.0
    resolve: float = 5.0
    head: float = 10.0
    body: float = 30.0
    write: float = 30.0
    keep_alive: float = 75.0
    apps: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    requests: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pool:
    """
    Connections to apps.

    :ivar size: connections for each app in each process.
    :ivar lifespan: seconds after which one is replaced (at random up to twice as long), so that weights take effect.
    :ivar services: app to its own size.
    """

    size: int = 5
    lifespan: float = 120.0
    services: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retry:
    """
    :ivar attempts: tries of one request in all, where another try is safe.
    :ivar budget: share of requests that may be tried again while apps fail.
    :ivar queue_full_status: answer when all tries met a full queue: 503 or, as the original, 500.
    """

    attempts: int = 3
    budget: float = 0.2
    queue_full_status: int = 503


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """
    What one HTTP client can make the proxy hold; sizes in bytes.

    :ivar request_line: 414 above.
    :ivar header_count: 431 above.
    :ivar header_size: 431 above, for all headers together; also for one larger than 16384 and a quarter of this.
    :ivar body: 413 above.
    :ivar inline_body: largest body that travels inside the request's first chunk; larger ones follow in parts.
    :ivar bodies: 503 above, for all such bodies of one process that wait or are being answered.
    :ivar buffer: most bytes of one answer that wait for a slow client.
    :ivar unsent: while so many bytes may wait for all clients of a process, new answers have an eighth of ``buffer``.
    :ivar connections: most clients of one process.
    """

    request_line: int = 8192
    header_count: int = 100
    header_size: int = 65536
    body: int = 4 * 2**30
    inline_body: int = 2**20
    bodies: int = 256 * 2**20
    buffer: int = 256 * 2**10
    unsent: int = 64 * 2**20
    connections: int = 20_000


@dataclass(frozen=True, slots=True)
class AccessLog:
    """
    :ivar format: ``combined``, ``json`` or ``none``.
    :ivar file: path that is opened again on SIGHUP; None: the daemon's own log.
    """

    format: str = "combined"
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Tvm:
    """
    Who the proxy is where unicorn wants to know.

    :ivar service: that gives the tickets.
    """

    client: int
    secret: str = field(repr=False)
    service: str = "tvm"


@dataclass(frozen=True, slots=True)
class Unicorn:
    """
    What operators keep in the cluster.

    :ivar schema: ``tornado``: a node for each app below a path, chances in percent; ``rust``: the path is one node for
        all apps, chances from 0 to 1.
    :ivar service: unicorn's name.
    :ivar timeouts: path of the apps' timeouts; None: they are not read.
    :ivar tracing: path of the apps' chances of being traced, likewise.
    :ivar tvm: None: unicorn is shown no ticket.
    """

    schema: str
    service: str = "unicorn"
    timeouts: str | None = None
    tracing: str | None = None
    tvm: Tvm | None = None


#: RFC 9110 section 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: A host without a port; an IPv6 address has brackets then.
_ALONE = re.compile(r"[^:]*|\[[^\]]*\]")

#: Where the original proxy looked, whatever its options said.
_PATHS = {"tornado": ("/proxy_apps_timeouts", "/zipkin_sampling"), "rust": ("", "")}


@dataclass(frozen=True, slots=True)
class Proxy:
    """
    Everything the HTTP proxy is told.

    :ivar endpoints: where clients connect, as Twisted endpoint strings.
    :ivar operations: where ``/ping``, ``/info`` and ``/metrics`` are answered, likewise; None: nowhere.
    :ivar locators: tried in this order.
    :ivar processes: that share the endpoints; 0: one for each core.
    :ivar backlog: connections that may wait to be accepted.
    :ivar request_header: carries the request's id.
    :ivar sticky_header: its value is the seed of a routing group's choice.
    :ivar mapped_headers: HTTP headers that also travel as headers of the enqueue frame.
    :ivar host_suffix: host names ``<app>.<suffix>`` lead to the app; None: they do not.
    :ivar tracing_chance: percent of requests traced when they bring no decision with them.
    :ivar jsonrpc: services that may be called by JSON-RPC; empty: it is off.
    :ivar jsonrpc_size: most bytes of JSON in answer to one such request.
    :ivar unicorn: what is read of the cluster's unicorn service; None: nothing.
    :ivar wire: limits of the connections to the platform.
    :ivar warnings: one line for each oddity of the file.
    """

    endpoints: tuple[str, ...] = ("tcp:8080:interface=127.0.0.1",)
    operations: str | None = None
    locators: tuple[tuple[str, int], ...] = (("127.0.0.1", LOCATOR_PORT),)
    processes: int = 1
    backlog: int = 1024
    request_header: str = "X-Request-Id"
    sticky_header: str = "X-Cocaine-Sticky"
    mapped_headers: tuple[str, ...] = ()
    host_suffix: str | None = None
    tracing_chance: float = 5.0
    jsonrpc: tuple[str, ...] = ()
    jsonrpc_size: int = 8 * 2**20
    timeouts: Timeouts = field(default_factory=Timeouts)
    pool: Pool = field(default_factory=Pool)
    retry: Retry = field(default_factory=Retry)
    limits: HttpLimits = field(default_factory=HttpLimits)
    access_log: AccessLog = field(default_factory=AccessLog)
    unicorn: Unicorn | None = None
    wire: Limits = field(default_factory=Limits)
    warnings: tuple[str, ...] = field(default=(), compare=False)


def proxy_settings(document: Document) -> Proxy:
    """
    The settings of the proxy.

    :raise ConfigError: a value cannot be used; one line with file, key and mend.
    """
    root, default = document.root, Proxy()
    if document.original:
        raise ConfigError(f"{root.source.file}: is a file for cocaine-runtime; give the proxy a YAML file of its own")
    tracing = root.section("tracing")
    chance = tracing.number("chance", default.tracing_chance, 0, 100)
    tracing.close()
    jsonrpc = root.section("json-rpc")
    services = jsonrpc.texts("services", default.jsonrpc)
    size = jsonrpc.whole("answer-size", default.jsonrpc_size, 1024)
    jsonrpc.close()
    endpoints = root.texts("endpoints", default.endpoints)
    if not endpoints:
        raise root.complaint("endpoints", "give at least one endpoint such as tcp:8080:interface=127.0.0.1")
    settings: dict[str, Any] = {
        "endpoints": endpoints,
        "operations": root.optional_text("operations"),
        "locators": _locators(root, default.locators),
        "processes": root.whole("processes", default.processes, 0, 1024),
        "backlog": root.whole("backlog", default.backlog, 1, 65535),
        "request_header": _header(root, "request-header", root.text("request-header", default.request_header)),
        "sticky_header": _header(root, "sticky-header", root.text("sticky-header", default.sticky_header)),
        "mapped_headers": tuple(
            _header(root, "mapped-headers", name) for name in root.texts("mapped-headers", default.mapped_headers)
        ),
        "host_suffix": root.optional_text("host-suffix"),
        "timeouts": _timeouts(root.section("timeouts")),
        "pool": _pool(root.section("pool")),
        "retry": _retry(root.section("retry")),
        "limits": _limits(root.section("limits")),
        "access_log": _access_log(root.section("access-log")),
        "unicorn": _unicorn(root.section("unicorn")),
        "wire": limits(root.section("wire")),
    }
    root.close()
    _fits(root, settings["limits"], settings["wire"])
    return Proxy(
        tracing_chance=chance, jsonrpc=services, jsonrpc_size=size, warnings=tuple(root.source.warnings), **settings
    )


def _fits(root: Section, http: HttpLimits, wire: Limits) -> None:
    """A body that is sent whole is in one frame with its head; a larger one would cost its connection and all on it."""
    head = http.request_line + 2 * http.header_size + 16 * http.header_count + 1024
    if http.inline_body + head > wire.frame_size:
        raise ConfigError(
            f"{root.source.file}: limits.inline-body: give at most {max(wire.frame_size - head, 0)}, since such a body "
            f"and its head travel in one frame (wire.frame-size), not {http.inline_body}"
        )


def _header(root: Section, key: str, name: str) -> str:
    """A header's name; anything else would let its owner write other lines of an answer."""
    if not _TOKEN.fullmatch(name):
        raise ConfigError(f"{root.source.file}: {root.key(key)}: give the name of an HTTP header, not {name!a}")
    return name


def _locators(root: Section, default: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    texts = root.texts("locators")
    # The original proxy took one text with commas; a host without a port means the usual one.
    items = [item.strip() for text in texts for item in text.split(",") if item.strip()]
    return tuple(
        host_port(root, "locators", f"{item}:{LOCATOR_PORT}" if _ALONE.fullmatch(item) else item) for item in items
    ) or default


def _timeouts(section: Section) -> Timeouts:
    default = Timeouts()
    result = Timeouts(
        request=section.number("request", default.request, 0.001),
        chunk=section.number("chunk", default.chunk, 0.001),
        resolve=section.number("resolve", default.resolve, 0.001),
        head=section.number("head", default.head, 0.001),
        body=section.number("body", default.body, 0.001),
        write=section.number("write", default.write, 0.001),
        keep_alive=section.number("keep-alive", default.keep_alive),
        apps=section.table("apps", {}, _app_timeouts),
        requests=section.table("requests", {}, _app_timeouts),
    )
    section.close()
    return result


def _app_timeouts(apps: Section, app: str) -> dict[str, float]:
    """Seconds for all of an app's events, or a map of event to seconds."""
    if not isinstance(apps.value(app), Mapping):
        return {"": apps.number(app, Timeouts().chunk, 0.001)}
    return apps.table(app, {}, lambda events, event: events.number(event, Timeouts().chunk, 0.001))


def _pool(section: Section) -> Pool:
    default = Pool()
    result = Pool(
        size=section.whole("size", default.size, 1, 10_000),
        lifespan=section.number("lifespan", default.lifespan, 1),
        services=section.table("services", {}, lambda sizes, app: sizes.whole(app, default.size, 1, 10_000)),
    )
    section.close()
    return result


def _retry(section: Section) -> Retry:
    default = Retry()
    status = section.whole("queue-full-status", default.queue_full_status)
    if status not in (500, 503):
        raise section.complaint("queue-full-status", "give 503 or 500")
    result = Retry(
        attempts=section.whole("attempts", default.attempts, 1, 100),
        budget=section.number("budget", default.budget, 0, 1),
        queue_full_status=status,
    )
    section.close()
    return result


def _limits(section: Section) -> HttpLimits:
    default = HttpLimits()
    result = HttpLimits(
        request_line=section.whole("request-line", default.request_line, 64),
        header_count=section.whole("header-count", default.header_count, 1),
        header_size=section.whole("header-size", default.header_size, 256),
        body=section.whole("body", default.body),
        inline_body=section.whole("inline-body", default.inline_body),
        bodies=section.whole("bodies", default.bodies, 1),
        buffer=section.whole("buffer", default.buffer, 1024),
        unsent=section.whole("unsent", default.unsent, 0),
        connections=section.whole("connections", default.connections, 1),
    )
    section.close()
    return result


def _access_log(section: Section) -> AccessLog:
    default = AccessLog()
    form = section.choice("format", default.format, ("combined", "json", "none"))
    file = section.path_to("file", ".") if section.value("file") is not None else None
    section.close()
    return AccessLog(form, file)


def _unicorn(section: Section) -> Unicorn | None:
    schema = section.choice("schema", "", tuple(_PATHS))
    service = section.text("service", "unicorn")
    usual = _PATHS.get(schema, ("", ""))
    timeouts, tracing = _node(section, "timeouts", usual[0]), _node(section, "tracing", usual[1])
    tvm = _tvm(section.section("tvm"))
    section.close()
    if not schema:
        if timeouts is not None or tracing is not None:
            raise section.complaint("schema", f"give one of {', '.join(_PATHS)}")
        return None
    if timeouts is None and tracing is None:
        raise section.complaint("timeouts", "give the path of a node here or as tracing, such as /cocaine/timeouts")
    return Unicorn(schema, service, timeouts, tracing, tvm)


def _node(section: Section, key: str, usual: str) -> str | None:
    """The path of a node; None if it is not wanted."""
    if section.off(key):
        return None
    path = section.text(key, usual).rstrip("/")
    if path and (not path.startswith("/") or "//" in path):
        raise section.complaint(key, "give a path such as /cocaine/timeouts, or false")
    return path or None


def _tvm(section: Section) -> Tvm | None:
    client, secret = section.whole("client-id", 0), section.text("client-secret", "")
    service = section.text("service", "tvm")
    section.close()
    if not client and not secret:
        return None
    if not client or not secret:
        raise section.complaint("client-secret" if client else "client-id", "give both, or neither")
    return Tvm(client, secret, service)
