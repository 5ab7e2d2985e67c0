"""
How nodes learn of one another: each says every few seconds, to a multicast group, who it is and where its locator is.

Nothing that arrives is trusted: a datagram that cannot be read is dropped, and a node that was heard is only tried. A
host without a route to the group goes on without it and tries again.

Sockets' options are set directly, since Twisted's own multicast calls know one interface only, by an IPv4 address.

Source: reference ``node-engine.md`` section 7.2 with its [bug] marks mended, ``protocol-v12.md`` section 10.2.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import UndecodableError
from ..interfaces import Endpoint, ICluster, IClusterListener
from ..wire.frames import pack, unpack

#: A node is forgotten after that many intervals without a word.
EXPIRY = 3
#: Most nodes kept, most addresses of one, and bytes of its uuid.
NODES, ENDPOINTS, UUID = 4096, 16, 256


@dataclass(frozen=True, slots=True)
class Group:
    """
    Where to speak and to listen.

    :ivar address: the group, an IPv4 or IPv6 literal.
    :ivar interface: IPv4: a local address; IPv6: an interface's index or name; None: the system chooses.
    :ivar loopback: nodes on this host hear us too.
    :ivar hops: how many routers a datagram may pass, and one.
    """

    address: str
    port: int = 10053
    interval: float = 5.0
    interface: str | int | None = None
    loopback: bool = False
    hops: int = 1


def announcement(uuid: str, endpoints: Sequence[Endpoint]) -> bytes:
    """The datagram of a node."""
    return pack([uuid, [list(endpoint) for endpoint in endpoints]])


def heard(datagram: bytes) -> tuple[str, tuple[Endpoint, ...]]:
    """
    Who says that it is where.

    :raises UndecodableError: the datagram is no announcement.
    """
    value = unpack(datagram)
    if value.__class__ is not tuple or len(value) != 2 or value[1].__class__ is not tuple:
        raise UndecodableError("not [uuid, endpoints]")
    uuid, places = value
    if uuid.__class__ is not bytes or not 0 < len(uuid) <= UUID or len(places) > ENDPOINTS:
        raise UndecodableError("not [uuid, endpoints]")
    endpoints = []
    for place in places:
        if place.__class__ is not tuple or len(place) != 2 or place[0].__class__ is not bytes:
            raise UndecodableError("an endpoint is not [address, port]")
        host, port = place
        if port.__class__ is not int or not 0 < port < 65536:
            raise UndecodableError("an endpoint has no port")
        try:
            # Names are refused: a stranger's datagram must not make us ask name servers.
            endpoints.append((str(ipaddress.ip_address(host.decode("ascii"))), port))
        except ValueError as problem:
            raise UndecodableError("an endpoint's address is no IP literal") from problem
    return uuid.decode("utf-8", "surrogateescape"), tuple(endpoints)


def join(handle: socket.socket, group: Group) -> None:
    """
    Make a UDP socket a member of the group and a speaker to it, also one that is.

    :raises OSError: there is no such interface, or no route to the group.
    """
    if ":" in group.address:
        index = _index(group.interface)
        handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, group.hops)
        handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(group.loopback))
        if index:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        wish = socket.inet_pton(socket.AF_INET6, group.address) + struct.pack("@I", index)
        _enter(handle, socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, wish)
        return
    local = socket.inet_aton(str(group.interface) if group.interface else "0.0.0.0")
    handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, group.hops)
    handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(group.loopback))
    if group.interface:
        handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
    _enter(handle, socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group.address) + local)


def _enter(handle: socket.socket, level: int, option: int, wish: bytes) -> None:
    try:
        handle.setsockopt(level, option, wish)
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE:  # it is a member already
            raise


def _index(interface: str | int | None) -> int:
    if interface is None:
        return 0
    if isinstance(interface, int) or interface.isdigit():
        return int(interface)
    return socket.if_nametoindex(interface)


class _Ear(DatagramProtocol):
    """Hands datagrams on."""

    noisy = False

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._received(datagram)


@implementer(ICluster)
class MulticastCluster:
    """
    Announces this node, and listens for others.

    :param reactor: keeps time and opens the socket.
    """

    _log = Logger()

    def __init__(self, reactor: Any, group: Group) -> None:
        self._reactor = reactor
        self._group = group
        self._uuid = ""
        self._endpoints: Callable[[], Sequence[Endpoint]] = tuple
        self._heard: IClusterListener | None = None
        self._port: Any = None
        self._call: IDelayedCall | None = None
        self._last: dict[str, float] = {}
        self._complaint = ""

    def start(
        self, self_uuid: str, endpoints: Callable[[], Sequence[Endpoint]], heard: IClusterListener | None
    ) -> None:
        self._uuid = self_uuid
        self._endpoints = endpoints
        self._heard = heard
        self._tick()

    def stop(self) -> Deferred[None]:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        return self._close()

    def _close(self) -> Deferred[None]:
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)

    def _tick(self) -> None:
        self._call = self._reactor.callLater(self._group.interval, self._tick)
        try:
            if self._port is None or self._complaint:
                self._open()
            self._announce()
        except (OSError, CannotListenError) as problem:
            self._complain(f"group {self._group.address}: {problem}")
        else:
            self._complaint = ""
        self._expire()

    def _complain(self, complaint: str) -> None:
        """Once for each trouble, not at every interval."""
        if complaint != self._complaint:
            self._complaint = complaint
            self._log.warn(
                "cannot be announced: {complaint}; trying every {interval} s",
                complaint=complaint, interval=self._group.interval,
            )  # fmt: skip

    def _open(self) -> None:
        self._close()
        # Who only announces needs no port that others can send to.
        number = 0 if self._heard is None else self._group.port
        interface = "::" if ":" in self._group.address else "0.0.0.0"
        port = self._reactor.listenMulticast(
            number, _Ear(self.received), interface=interface, maxPacketSize=65536, listenMultiple=True
        )
        try:
            join(port.getHandle(), self._group)
        except OSError:
            port.stopListening()
            raise
        self._port = port

    def _announce(self) -> None:
        endpoints = self._endpoints()
        if not endpoints:
            self._complain("the locator has no address yet")
            return
        handle = self._port.getHandle()
        # An interface that has gone and come back has forgotten who was in the group, and tells nobody.
        join(handle, self._group)
        # The socket's own call tells of a missing route; the transport's only logs it.
        datagram = announcement(self._uuid, endpoints)
        try:
            handle.sendto(datagram, (self._group.address, self._group.port))
        except BlockingIOError:
            # The queue of the interface is full; the next announcement comes soon enough.
            pass

    def received(self, datagram: bytes) -> None:
        """A datagram from anybody."""
        listener = self._heard
        if listener is None:
            return
        try:
            uuid, endpoints = heard(datagram)
        except UndecodableError as problem:
            self._log.debug("a datagram is no announcement: {reason}", reason=problem.reason)
            return
        if uuid == self._uuid or not endpoints:
            return
        if uuid not in self._last and len(self._last) >= NODES:
            return
        self._last[uuid] = self._reactor.seconds()
        try:
            listener.link(uuid, endpoints)
        except Exception:
            self._log.failure("{uuid} cannot be linked to", uuid=uuid)

    def _expire(self) -> None:
        listener = self._heard
        oldest = self._reactor.seconds() - EXPIRY * self._group.interval
        for uuid in [uuid for uuid, last in self._last.items() if last <= oldest]:
            del self._last[uuid]
            if listener is not None:
                listener.drop(uuid)
