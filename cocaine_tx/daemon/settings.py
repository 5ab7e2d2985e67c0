"""
Settings of the node, locator and gateway daemons as values.

`Limits` and addresses are shared with the proxy. `runtime_reader` makes these values from a file. Every setting, its
default and why: ``conf/node.yaml`` and ``conf/gateway.yaml``.

Source: reference ``node-engine.md`` sections 1.2, 1.3, 7 and 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from ..wire import frames
from .section import Section

LOCATOR_PORT = 10053


@dataclass(frozen=True, slots=True)
class Component:
    """Something with a type; its arguments are checked by whoever builds it."""

    type: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """
    :ivar endpoint: address all services bind to, a numeric IP.
    :ivar hostname: name or address that others are told when the endpoint is a wildcard; None: the host's own name.
    :ivar pinned: service or app name to its fixed port.
    :ivar shared: first port and the one after the last, for all other services; None: the system chooses.
    """

    endpoint: str
    hostname: str | None
    pinned: Mapping[str, int]
    shared: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one peer can make a daemon hold. Sizes in bytes, times in seconds.

    :ivar frame_size: largest frame accepted; a larger one closes its connection.
    :ivar header_size: largest header table and largest sum of one frame's headers, each 32 more than its text.
    :ivar write_buffer: bytes waiting for a connection's peer at which whoever feeds it is paused.
    :ivar connections: most connections of one listening port.
    :ivar channels: most open channels of one connection.
    :ivar connect_timeout: longest wait for a connection to be made.
    :ivar drain_timeout: longest wait for open requests after SIGTERM.
    :ivar busy_poll: longest look for the next event before sleeping; 0: sleep at once.
    """

    frame_size: int = 128 * 2**20
    header_size: int = 64 * 2**10
    write_buffer: int = 256 * 2**10
    connections: int = 10_000
    channels: int = 16_384
    connect_timeout: float = 5.0
    drain_timeout: float = 30.0
    busy_poll: float = 0.001

    @property
    def session(self) -> frames.Limits:
        """Those of one connection's frames."""
        return frames.Limits(
            frame=self.frame_size, headers=self.header_size, channels=self.channels, unsent=self.write_buffer
        )


@dataclass(frozen=True, slots=True)
class Multicast:
    """Nodes announce themselves to a group every ``interval`` seconds and are forgotten after three without a word."""

    group: str
    port: int = LOCATOR_PORT
    interval: float = 5.0
    interface: str | int | None = None
    loopback: bool = False
    hops: int = 1


@dataclass(frozen=True, slots=True)
class Predefined:
    """A fixed list: label to ``(host, port)`` of a locator, tried every ``interval`` seconds."""

    nodes: Mapping[str, tuple[str, int]]
    interval: float = 5.0


@dataclass(frozen=True, slots=True)
class Gateway:
    """
    How load is spread over nodes.

    :ivar type: ``relay``, ``adhoc`` or ``ipvs``.
    :ivar cluster: only nodes whose ``x-cocaine-cluster`` label equals this are used.
    :ivar scheduler: ipvs: the kernel's scheduler.
    :ivar weight: ipvs: weight of every destination.
    :ivar tries: relay: nodes tried for one request while that is safe.
    :ivar eject_after: relay: consecutive failures that take a node out.
    :ivar eject_time: relay: seconds it stays out, times the number of its ejections.
    :ivar slow_start: relay: seconds until a node that has joined gets its full share.
    """

    type: str = "relay"
    cluster: str = ""
    scheduler: str = "wlc"
    weight: int = 1
    tries: int = 4
    eject_after: int = 5
    eject_time: float = 10.0
    slow_start: float = 10.0


@dataclass(frozen=True, slots=True)
class Locator:
    """
    :ivar restrict: services never announced to other hosts.
    :ivar extra_param: labels that go with every announcement.
    :ivar cluster: how nodes find one another; None: not at all.
    :ivar gateway: how their services are used; None: only local ones are.
    :ivar followed: a gateway that connects is told of our services also when we have no cluster.
    """

    restrict: tuple[str, ...]
    extra_param: Mapping[str, Any]
    cluster: Multicast | Predefined | None
    gateway: Gateway | None
    followed: bool = True


@dataclass(frozen=True, slots=True)
class Runtime:
    """
    Everything a node, locator or gateway daemon is told. Paths are absolute.

    :ivar uuid: this runtime's identity in the cluster; None: a new one at every start.
    :ivar runtime: folder of the workers' sockets.
    :ivar spool: folder of the apps' code.
    :ivar severity: least severity that is logged: debug, info, warning or error.
    :ivar storages: storage name to its kind; ``core`` is always there.
    :ivar runlist: apps started at boot; None: none.
    :ivar node: whether apps run here.
    :ivar storage: name of the storage that the ``storage`` service offers; None: no such service.
    :ivar logging: name of the log that the ``logging`` service writes to; None: no such service.
    :ivar verbosity: its first verbosity: 0 debug, 1 info, 2 warning, 3 error.
    :ivar warnings: one line for each oddity of the file.
    """

    uuid: str | None
    runtime: str
    spool: str
    network: Network
    severity: str
    limits: Limits
    storages: Mapping[str, Component]
    locator: Locator
    node: bool
    runlist: str | None
    storage: str | None
    logging: str | None
    verbosity: int
    warnings: tuple[str, ...] = field(default=(), compare=False)


def limits(section: Section) -> Limits:
    """The section ``limits`` (of the proxy: ``wire``)."""
    default = Limits()
    result = Limits(
        frame_size=section.whole("frame-size", default.frame_size, 1024),
        header_size=section.whole("header-size", default.header_size, 4096),
        write_buffer=section.whole("write-buffer", default.write_buffer, 1024),
        connections=section.whole("connections", default.connections, 1),
        channels=section.whole("channels", default.channels, 1),
        connect_timeout=section.number("connect-timeout", default.connect_timeout, 0.001),
        drain_timeout=section.number("drain-timeout", default.drain_timeout),
        busy_poll=section.number("busy-poll", default.busy_poll, most=0.1),
    )
    section.close()
    return result


def host_port(section: Section, key: str, text: str) -> tuple[str, int]:
    """
    ``host:port``, ``[v6]:port`` or ``v6:port``: the port is what follows the last colon.

    :raise ConfigError: it is not.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    cut = host.endswith(":") and not host.endswith("::")  # an address without a port, such as ::1
    if not host or cut or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise ConfigError(f"{section.source.file}: {section.key(key)}: give host:port, not {text!r}")
    return host, int(port)
