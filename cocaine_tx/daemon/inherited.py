"""
Listening sockets that a parent opened and its children share.

The parent of several proxy processes opens each endpoint once (`open_port`) and never accepts; the children take the
same endpoint strings, but where Twisted would bind they adopt the open socket (`adopt_port`), so that TCP, UNIX, TLS
and systemd endpoints all work alike.

A client that reads nothing would be given a megabyte by the kernel before we learn of it. Thousands of them fill the
memory that the kernel has for TCP, and then every send costs far more: so what a kernel keeps unsent is limited, with
the option ``TCP_NOTSENT_LOWAT`` (Linux 3.12). What is under way in the network is not, so that far clients are as fast.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from .endpoints import listened_at, refusal

#: Bytes that the kernel keeps for one client beside those it has sent: what a turn of the reactor lets a fast one take.
UNSENT = 128 * 1024
#: Seconds of accepting those who have waited, before a port is closed; there may always come others.
LONGEST_WELCOME = 0.2


class Inherited:
    """
    A reactor for ``serverFromString`` that listens on a socket which is open already.

    :param fd: the socket's descriptor; it is duplicated.
    """

    def __init__(self, reactor: Any, fd: int) -> None:
        self._reactor = reactor
        self._fd = fd

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adopt(self, factory: Any) -> Any:
        """A port on it."""
        return adopted(self._reactor, self._fd, factory)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        return self.adopt(factory)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        return self.adopt(factory)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        # Twisted's TLS brings pyOpenSSL, which costs time and memory where nobody has such an endpoint.
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self.adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return self.adopt(factory)


async def open_port(reactor: Any, description: str, factory: Any, backlog: int, key: str = "endpoints") -> Any:
    """
    Listen at an endpoint string.

    :param backlog: connections that may wait to be accepted; unlike the endpoint's own, the same for every kind.
    :param key: where it stands in the configuration.
    :raises ConfigError: it is none, or it cannot be had.
    """
    try:
        port = await serverFromString(_Keeping(reactor), description).listen(factory)  # type: ignore[no-untyped-call]
        port.socket.listen(backlog)
        _keep_little(port.socket)
        return port
    except Exception as problem:
        # Twisted's parsers raise whatever they stumble over.
        raise refusal(key, description, problem) from problem


async def adopt_port(reactor: Any, description: str, fd: int, factory: Any, backlog: int) -> Any:
    """
    The same where the socket is open already.

    :raises ConfigError: it is no endpoint string.
    """
    if description.startswith("systemd:"):
        # Only the parent was told of systemd's descriptors.
        port = Inherited(reactor, fd).adopt(factory)
        port.socket.listen(backlog)
        _keep_little(port.socket)
        return port
    return await open_port(Inherited(reactor, fd), description, factory, backlog)


def leave_port(port: Any) -> None:
    """
    Listen no more. Whoever is connected already is accepted first: the kernel would reset all whom we have not met yet.

    The socket is closed before this returns, since others would come until the reactor's next turn.
    """
    if not port.connected:
        return
    waiting = select.poll()
    waiting.register(port.fileno(), select.POLLIN)
    end = port.reactor.seconds() + LONGEST_WELCOME
    while port.reactor.seconds() < end and [event for _, event in waiting.poll(0)] == [select.POLLIN]:
        port.doRead()
    port.connectionLost(Failure(ConnectionDone()))  # type: ignore[no-untyped-call]


def hand_over_port(port: Any) -> None:
    """Let go of a socket that children have as well: they decide when nobody listens any more."""
    # Twisted would shut it down, which ends it for everybody who shares it.
    port._shouldShutdown = False
    port.connectionLost(Failure(ConnectionDone()))  # type: ignore[no-untyped-call]


def _keep_little(listening: socket.socket) -> None:
    """What is accepted there has the option as well, at no cost for each connection."""
    if listening.family != socket.AF_UNIX and hasattr(socket, "TCP_NOTSENT_LOWAT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


def _clear(address: str) -> None:
    """
    Remove what is left of a UNIX socket at which nobody listens.

    Twisted's lock names its owner by pid and holds while anybody has that pid; in a container that is the next start.
    """
    if address.startswith("\0"):
        return
    try:
        if listened_at(address):
            return
    except OSError:
        return  # what is wrong is said when it is bound
    left = [f"{address}.lock"]
    if os.path.exists(address):
        left = [*left, address] if stat.S_ISSOCK(os.stat(address).st_mode) else []
    for path in left:
        if os.path.lexists(path):
            os.unlink(path)


class _Keeping:
    """
    A reactor that takes over open sockets, systemd's, without ever removing their paths, and takes the places of UNIX
    sockets whose owner was killed.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> Any:
        if not isinstance(self._reactor, Inherited):
            _clear(address)
        return self._reactor.listenUNIX(address, factory, backlog, mode, wantPID)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> Any:
        return adopted(self._reactor, fileDescriptor, factory)


class _SharedUnixPort(unix.Port):
    """A UNIX socket that belongs to somebody else: its mode stays, and so does its path."""

    # A shutdown would end it for everybody who shares it.
    _shouldShutdown = False

    def startListening(self) -> None:
        # Twisted sets the mode even of a socket that it has not made.
        self.mode = stat.S_IMODE(os.stat(self._bindPath).st_mode)
        super().startListening()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)  # type: ignore[no-untyped-call]


def adopted(reactor: Any, fd: int, factory: Any) -> Any:
    """A port on a socket that is open; the descriptor is duplicated."""
    with socket.socket(fileno=socket.dup(fd)) as probe:
        family, name = probe.family, probe.getsockname()
    if family == socket.AF_UNIX and name and name[0] not in ("\0", 0):
        port = _SharedUnixPort._fromListeningDescriptor(reactor, fd, factory)  # type: ignore[no-untyped-call]
        port.startListening()
        return port
    return reactor.adoptStreamPort(fd, family, factory)
