"""
The locator as its clients see it: where services are, who else is there, which groups stand for what.

Local services come from the rooms by `LocatorService.publish`, other nodes' from the gateway, external ones from
whoever publishes them on a connection and stays. What was once packed for ``resolve`` is sent again as it is.

Source: reference ``protocol-v12.md`` section 10, ``node-engine.md`` sections 7.6 and 7.7, ``observed-runtime.md`` 8
to 20.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..errors import CocaineError, InvalidArguments, RemoteProtocolError, ServiceNotFound
from ..interfaces import Endpoint, IGateway, ServiceInfo
from ..rpc.dispatch import Dispatch
from ..wire.frames import pack, pack_headers
from ..wire.headers import LOCATOR_EXTRA, UNTRACED, Headers, trace_of
from ..wire.idl import Message, Slot, parse_protocol
from ..wire.protocols import LOCATOR
from ..wire.session import Channel, Packed
from .directory import Directory, wire_form
from .routing import Groups
from .table import RoutingTable

#: Packed answers kept at most; each belongs to one `ServiceInfo` and is a few hundred bytes.
ANSWERS = 4096
#: Longest name, seed or uuid that is looked at, in bytes.
NAME_LIMIT = 1024
#: What ``cluster`` shows for a node that is not connected yet.
NOWHERE: Endpoint = ("0.0.0.0", 0)

#: The nodes this locator is linked to, and where; an address is None while the link is being made.
Members = Callable[[], Mapping[str, Endpoint | None]]


class LocatorService:
    """
    The face of one locator; ``dispatch`` is what its port serves.

    :param uuid: of this runtime.
    :param directory: local services.
    :param table: routing groups.
    :param gateway: other nodes' services; None when this runtime knows only itself.
    :param members: the uplinks; None without a cluster, and then ``connect`` is closed at once.
    :param extra: told to whoever connects, with every announcement (``x-cocaine-locator-extra``).
    """

    _log = Logger()

    def __init__(
        self,
        uuid: str,
        directory: Directory,
        table: RoutingTable,
        *,
        gateway: IGateway | None = None,
        members: Members | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.uuid = uuid
        self._directory = directory
        self._table = table
        self._gateway = gateway
        self._members = members
        self._told = dict(extra or {})
        self._extra = pack(self._told)
        self._answers: dict[int, tuple[ServiceInfo, Packed]] = {}
        self._peers: dict[bytes, Channel] = {}
        self._routers: dict[bytes, Channel] = {}
        table.changed = self._regrouped
        self.dispatch = Dispatch(
            LOCATOR,
            {"resolve": self._resolve, "refresh": self._refresh, "cluster": self._cluster, "uuid": self._uuid},
            {"connect": self._connect, "publish": self._publish, "routing": self._routing},
        )

    # -- for the rooms of this runtime

    def publish(self, name: str, info: ServiceInfo) -> Callable[[], None]:
        """
        Offer a service from now on.

        :return: withdraws it; more than one call does nothing more.
        :raises InvalidArgument: the name is in use; the service that has it is left alone.
        """
        self._directory.add(name, info)
        listed = True

        def withdraw() -> None:
            nonlocal listed
            if listed:
                listed = False
                self._answers.pop(id(info), None)
                self._directory.remove(name)

        return withdraw

    def find(self, name: str, seed: bytes = b"") -> ServiceInfo:
        """
        Where to go for a service or routing group.

        :raises ServiceNotFound: nobody offers it.
        """
        name = self._table.target(name, seed)
        gateway = self._gateway
        if gateway is None:
            info = self._directory.find(name)
        elif gateway.exclusive and name != LOCATOR.name:
            # The gateway knows our own services too. What it does not know can only be a name kept from it.
            info = gateway.resolve(name) or self._directory.find(name)
        else:
            info = self._directory.find(name) or gateway.resolve(name)
        if info is None:
            raise ServiceNotFound()
        return info

    def start(self) -> Deferred[None]:
        """Load the routing groups, and let the gateway know our own services; fires when the groups were tried."""
        if self._gateway is not None:
            self._directory.observe(self._consume)
        return self._table.start()

    def _consume(self, services: Mapping[str, ServiceInfo]) -> None:
        gateway = self._gateway
        if gateway is None:
            return
        for name, info in services.items():
            if info.endpoints:
                gateway.consume(self, self.uuid, name, info, self._told)
            else:
                gateway.withdraw(self, self.uuid, name)

    def stop(self) -> None:
        """Tell those who follow us that nothing more will come."""
        self._table.stop()
        for channel in list(self._peers.values()):
            channel.choke()
        self._peers.clear()

    # -- resolve

    def _resolve(self, headers: Headers, name: bytes, seed: bytes = b"") -> Packed:
        info = self.find(name.decode("utf-8", "surrogateescape"), seed)
        known = self._answers.get(id(info))
        if known is not None:
            return known[1]
        answer = Packed(([list(place) for place in info.endpoints], info.version, info.graph))
        if len(self._answers) >= ANSWERS:
            self._answers.clear()
        # The value is kept beside its answer, so that its identity cannot become another's.
        self._answers[id(info)] = (info, answer)
        return answer

    # -- connect

    def _connect(self, channel: Channel, headers: Headers, uuid: bytes) -> None:
        if self._members is None:
            channel.choke()
            return
        caller = _text(uuid)
        trace = trace_of(headers)
        base = tuple(entry[1:] for entry in UNTRACED) if trace is None else trace.headers()
        channel.tail = pack_headers((*base, (LOCATOR_EXTRA, self._extra)))
        replaced = self._peers.get(uuid)
        if replaced is not None:
            replaced.choke()
        self._peers[uuid] = channel

        def tell(services: Mapping[str, ServiceInfo]) -> None:
            channel.send("write", self.uuid, wire_form(services))

        channel.receiver = _Follower(self._peers, uuid, self._directory.follow(caller, tell))

    # -- routing

    def _routing(self, channel: Channel, headers: Headers, router: bytes) -> None:
        _text(router)
        # A second call of the same router replaces the first without closing it, as its clients expect.
        self._routers[router] = channel
        channel.receiver = _Follower(self._routers, router, _nothing)
        channel.send("write", self._table.groups.as_map())

    def _regrouped(self, groups: Groups) -> None:
        if self._routers:
            message = Packed((groups.as_map(),))
            for channel in list(self._routers.values()):
                write = channel.sending.named("write")
                if write is not None:
                    channel.forward(write, message)

    def _refresh(self, headers: Headers, names: tuple[Any, ...]) -> Deferred[tuple[Any, ...]]:
        if any(name.__class__ is not bytes for name in names):
            raise InvalidArguments("refresh takes a list of group names")
        return self._table.refresh([_text(name) for name in names]).addCallback(_no_value)

    # -- publish

    def _publish(
        self, channel: Channel, headers: Headers, name: bytes, endpoints: tuple[Any, ...], meta: tuple[Any, ...] = ()
    ) -> None:
        withdraw = self.publish(_text(name), external(endpoints, meta))
        self._log.info("{name} is published by {peer}", name=_text(name), peer=channel.session.connection.peer)
        channel.receiver = _Publisher(withdraw)
        channel.value(())

    # -- cluster, uuid

    def _cluster(self, headers: Headers) -> tuple[Any, ...]:
        members = {} if self._members is None else self._members()
        return ({uuid: list(place or NOWHERE) for uuid, place in members.items()},)

    def _uuid(self, headers: Headers) -> tuple[Any, ...]:
        return (self.uuid,)


class _Follower:
    """Receives the end of a stream of ours: it is then no longer written to."""

    __slots__ = ("_end", "_key", "_table")

    def __init__(self, table: dict[bytes, Channel], key: bytes, end: Callable[[], None]) -> None:
        self._table = table
        self._key = key
        self._end = end

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        """The one thing a client can say is ``discard``."""
        self._leave(channel)
        channel.choke()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self._leave(channel)

    def _leave(self, channel: Channel) -> None:
        self._end()
        if self._table.get(self._key) is channel:
            del self._table[self._key]


class _Publisher:
    """Receives the end of an external service: its ``discard``, or that its publisher has gone."""

    __slots__ = ("_withdraw",)

    def __init__(self, withdraw: Callable[[], None]) -> None:
        self._withdraw = withdraw

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        self._withdraw()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self._withdraw()


def external(endpoints: tuple[Any, ...], meta: tuple[Any, ...]) -> ServiceInfo:
    """
    What a publisher says of its service.

    :param endpoints: ``[[address, port], ...]``.
    :param meta: ``[version, graph]``, or nothing for a service that does not speak this protocol.
    :raises InvalidArguments: it has another shape, a graph without a version, or a graph that is none: everybody who
        follows us would be told of it.
    """
    places: list[Endpoint] = []
    for place in endpoints:
        if place.__class__ is not tuple or len(place) < 2:
            raise InvalidArguments("an endpoint is [address, port]")
        host, port = place[:2]
        if host.__class__ is not bytes or port.__class__ is not int or not 0 <= port <= 65535:
            raise InvalidArguments("an endpoint is [address, port]")
        places.append((_text(host), port))
    if not meta:
        return ServiceInfo(tuple(places), 0, {})
    if len(meta) < 2 or meta[0].__class__ is not int or meta[1].__class__ is not dict or meta[0] < 0:
        raise InvalidArguments("a service's meta is [version, graph]")
    version, graph = meta[:2]
    if graph and not version:
        raise InvalidArguments("a service with a protocol needs a version above 0")
    try:
        parse_protocol("of a publisher", version, graph)
    except RemoteProtocolError as problem:
        raise InvalidArguments(problem.reason) from problem
    return ServiceInfo(tuple(places), version, graph)


def _text(raw: bytes) -> str:
    if len(raw) > NAME_LIMIT:
        raise InvalidArguments(f"a name is longer than {NAME_LIMIT} bytes")
    return raw.decode("utf-8", "surrogateescape")


def _nothing() -> None:
    """Routers follow nobody else."""


def _no_value(_: object) -> tuple[Any, ...]:
    return ()
