"""
Listening sockets that a parent opened and its children share.

The parent of several proxy processes opens each endpoint once (`open_sockets`) and never accepts; the children take
the same endpoint strings, but where Twisted would bind they adopt the open socket (`Inherited`), so that TCP, UNIX,
TLS and systemd endpoints all work alike.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.interfaces import IListeningPort


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

    def _adopt(self, factory: Any) -> IListeningPort:
        with socket.socket(fileno=socket.dup(self._fd)) as probe:
            family = probe.family
        port: IListeningPort = self._reactor.adoptStreamPort(self._fd, family, factory)
        return port

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        return self._adopt(factory)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        return self._adopt(factory)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        # Twisted's TLS needs pyOpenSSL, which only those install who have such an endpoint.
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        return self._adopt(factory)
