"""
From a configuration's tree to the settings of the node, locator and gateway daemons.

YAML and the original's version 4 JSON are the same tree with the same key names; ours are added to it. For an original
file only those defaults differ that its author counted on: all interfaces, ``/var/run/cocaine``, the listed services.

Source: reference ``node-engine.md`` sections 1.2, 1.3, 7 and 8.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import replace
from enum import Enum

from ..errors import ConfigError
from .document import Document
from .section import Section
from .settings import (
    LOCATOR_PORT,
    Component,
    Gateway,
    Locator,
    Multicast,
    Network,
    Predefined,
    Runtime,
    host_port,
    limits,
)

#: A gateway beside a node on one host must have another port.
GATEWAY_LOCATOR_PORT = 10054
STORAGE_TYPES = ("files", "elliptics", "s3", "postgresql", "postgres")
SERVICE_TYPES = ("locator", "node", "node::v2", "storage", "logging", "logging::v2")


class Role(Enum):
    """Which daemon reads the tree: they differ in defaults only."""

    NODE = "node"
    LOCATOR = "locator"
    GATEWAY = "gateway"


def runtime_settings(document: Document, role: Role) -> Runtime:
    """
    The settings of one of the runtime daemons.

    :raise ConfigError: a value cannot be used; one line with file, key and mend.
    """
    root, original = document.root, document.original
    if root.value("version") not in (None, 4):
        raise root.complaint("version", "give 4")
    paths = root.section("paths")
    paths.meaningless("plugins")
    state = paths.path_to("state", document.state)
    runtime = paths.path_to("runtime", "/var/run/cocaine" if original else os.path.join(state, "run"))
    spool = paths.path_to("spool", "/var/spool/cocaine" if original else os.path.join(state, "spool"))
    paths.close()
    network = _network(root.section("network"), original, role)
    log = root.section("logging")
    severity = log.choice("severity", "info", ("debug", "info", "warning", "error"))
    log.meaningless("loggers")
    log.close()
    services = root.section("services")
    args = {kind: _service(services, kind, original, role) for kind in ("locator", "node", "storage", "logging")}
    _foreign_services(services)
    locator, node, storage, logging = (args[kind] for kind in ("locator", "node", "storage", "logging"))
    assert locator is not None
    uuid = root.optional_text("uuid") or locator.optional_text("uuid")
    if node:
        node.meaningless("isolate_metrics", "isolate_metrics_poll_period_s")
    if logging:
        logging.meaningless("default_metafilter", "unicorn_path")
    verbosity = logging.whole("verbosity", 0, 0, 4) if logging else 0
    result = Runtime(
        uuid=uuid,
        runtime=runtime,
        spool=spool,
        network=network,
        severity=severity,
        limits=limits(root.section("limits")),
        storages=_storages(root.section("storages"), state),
        locator=_locator(locator, role, original),
        node=node is not None,
        runlist=node.optional_text("runlist") if node else None,
        storage=storage.text("backend", "core") if storage else None,
        logging=logging.text("backend", "core") if logging else None,
        verbosity=verbosity,
        warnings=(),
    )
    for section in (locator, node, storage, logging):
        if section:
            section.close()
    if result.storage is not None and result.storage not in result.storages:
        mend = f"services.storage.args.backend: give one of {', '.join(result.storages)}, not {result.storage!r}"
        raise ConfigError(f"{root.source.file}: {mend}")
    _foreign_groups(root, original)
    root.close()
    return replace(result, warnings=tuple(root.source.warnings))


def _network(section: Section, original: bool, role: Role) -> Network:
    section.meaningless("pool")
    endpoint = section.text("endpoint", "::" if original else "127.0.0.1")
    try:
        ipaddress.ip_address(endpoint)
    except ValueError:
        raise section.complaint("endpoint", "give a numeric IP address such as 127.0.0.1 or ::") from None
    default_port = GATEWAY_LOCATOR_PORT if role is Role.GATEWAY and not original else LOCATOR_PORT
    pinned = section.table("pinned", {"locator": default_port}, lambda ports, name: ports.whole(name, 0, 0, 65535))
    network = Network(endpoint, section.optional_text("hostname"), pinned, _shared(section))
    section.close()
    return network


def _shared(section: Section) -> tuple[int, int] | None:
    value = section.value("shared")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(type(n) is int and 0 <= n <= 65536 for n in value):
        raise section.complaint("shared", "give [first port, one after the last port]")
    first, end = value
    return (first, end) if end > first > 0 else None


def _service(services: Section, kind: str, original: bool, role: Role) -> Section | None:
    """
    The arguments of one of our services; None if it does not run.

    An original file runs what it lists, under any name; ours run by default and are switched off with ``false``.
    """
    on = {"node": role is Role.NODE, "storage": role is not Role.GATEWAY, "logging": role is not Role.GATEWAY}
    if kind == "node" and role is not Role.NODE:
        return None
    if services.off(kind):
        if kind == "locator":
            raise services.complaint(kind, "the locator cannot be switched off")
        return None
    if services.value(kind) is None and kind != "locator" and (original or not on[kind]):
        return None
    service = services.section(kind)
    types = [name for name in SERVICE_TYPES if name.split("::")[0] == kind]
    service.choice("type", types[0], types)
    args = service.section("args")
    service.close()
    return args


def _foreign_services(services: Section) -> None:
    for name in services.names():
        if name not in ("locator", "node", "storage", "logging"):
            kind = services.section(name).text("type", "unspecified")
            services.source.warn(services.key(name), f"service type {kind!r} does not exist here; left out")


def _locator(args: Section, role: Role, original: bool) -> Locator:
    local = Predefined({"local": ("127.0.0.1", LOCATOR_PORT)}) if role is Role.GATEWAY else None
    return Locator(
        restrict=args.texts("restrict"),
        extra_param=args.plain("extra_param"),
        cluster=local if args.value("cluster") is None else _cluster(args.section("cluster")),
        gateway=_gateway(args, role),
        # An original runtime without a cluster hangs up on gateways, and its file may count on that.
        followed=not original,
    )


def _cluster(section: Section) -> Multicast | Predefined | None:
    kind = section.choice("type", "", ("multicast", "predefine", "predefined", "unicorn"))
    args = section.section("args")
    section.close()
    match kind:
        case "multicast":
            interface = args.value("interface")
            if interface is not None and type(interface) is not int and not isinstance(interface, str):
                raise args.complaint("interface", "give a local IPv4 address, or the number of an interface for IPv6")
            cluster: Multicast | Predefined = Multicast(
                group=_group(args),
                port=args.whole("port", LOCATOR_PORT, 1, 65535),
                interval=args.number("interval", 5.0, 0.1),
                interface=interface,
                loopback=args.flag("loopback", False),
                hops=args.whole("hops", 1, 0, 255),
            )
        case "predefine" | "predefined":
            read = args.table("nodes", {}, lambda nodes, name: host_port(nodes, name, nodes.text(name, "?")))
            if not read:
                raise args.complaint("nodes", "give a map of label to host:port with at least one entry")
            cluster = Predefined(read, args.number("interval", 5.0, 0.1))
        case "unicorn":
            words = "discovery by unicorn does not exist here; give multicast or predefined"
            args.source.warn(section.key("type"), words)
            return None
        case _:
            raise section.complaint("type", "give one of multicast, predefined")
    args.close()
    return cluster


def _group(args: Section) -> str:
    group = args.text("group", "")
    try:
        if ipaddress.ip_address(group).is_multicast:
            return group
    except ValueError:
        pass
    raise args.complaint("group", "give a multicast address such as 239.0.100.53")


def _gateway(locator: Section, role: Role) -> Gateway | None:
    if locator.off("gateway") or (locator.value("gateway") is None and role is not Role.GATEWAY):
        return None
    section = locator.section("gateway")
    kind = section.choice("type", "relay", ("relay", "adhoc", "ipvs", "vicodyn"))
    args = section.section("args")
    section.close()
    # A node of another label is not used; the label is the locator's own, which the original's ipvs kept elsewhere.
    label = args.text("x-cocaine-cluster", "") or str(locator.plain("extra_param").get("x-cocaine-cluster", ""))
    plain = Gateway()
    args.meaningless("wrapped", "balancer")
    gateway = Gateway(
        type="relay" if kind == "vicodyn" else kind,
        cluster=label,
        scheduler=args.text("scheduler", plain.scheduler),
        weight=args.whole("weight", plain.weight, 1, 65535),
        tries=args.whole("tries", args.whole("retry_count", plain.tries, 1, 100), 1, 100),
        eject_after=args.whole("eject-after", plain.eject_after, 1),
        eject_time=args.number("eject-time", plain.eject_time),
        slow_start=args.number("slow-start", plain.slow_start),
    )
    args.close()
    return gateway


def _storages(section: Section, state: str) -> dict[str, Component]:
    core = Component("files", {"path": os.path.join(state, "storage")})
    if "cache" in section.values:
        section.meaningless("cache", because="is not used: nothing ever took stale entries out of it")
    names = [name for name in section.names() if name != "cache"]
    return {"core": core, **{name: _storage(section.section(name), core) for name in names}}


def _storage(section: Section, core: Component) -> Component:
    kind = section.text("type", core.type)
    if kind not in STORAGE_TYPES:
        # Others are known by name, so that whoever has one is told that it is refused; nobody is sent to them.
        raise section.complaint("type", "give files")
    if kind == "files":
        path = section.section("args").path_to("path", core.args["path"])
        component = Component(kind, {**section.plain("args"), "path": path})
    else:
        component = Component("postgresql" if kind == "postgres" else kind, section.plain("args"))
    section.close()
    return component


def _foreign_groups(root: Section, original: bool) -> None:
    """Groups of the original that have no meaning here; those that would have protected something are named for it."""
    for name in root.section("authorizations").names():
        kind = root.section("authorizations").section(name).text("type", "disabled")
        if kind != "disabled":
            root.source.warn(f"authorizations.{name}", f"{kind!r} is not enforced: nothing is refused here")
    root.meaningless("authentications", "unicorns", "context", "senders", "postgres")
    if original:
        root.meaningless(*root.unasked())
