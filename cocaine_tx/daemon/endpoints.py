"""
Whether an endpoint string can be listened at, found out while twistd still has a terminal, and what to do if it cannot;
and the certificates that it names, which change while we run.

Twisted's own complaints come as whatever its parsers stumble over; here they become one line with key and mend.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from functools import partial
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory

from ..errors import ConfigError

_FREE = "stop who has it, or give another"
_PEM = "let privateKey and certKey name a key and its certificate in PEM, which this user may read"
_FOLDER = "name a path in a folder that is there and that this user may write in"
_MENDS = {
    errno.EADDRINUSE: _FREE,
    errno.EADDRNOTAVAIL: "give an address of this host",
    errno.EACCES: "give a port above 1023, or this user the right to it",
}


def refusal(key: str, description: str, problem: Exception) -> ConfigError:
    """
    What to tell whoever gave an endpoint string.

    :param key: where it stands in the configuration.
    :param problem: whatever Twisted has raised.
    """
    kind = description.partition(":")[0].lower()
    problem = getattr(problem, "socketError", problem)
    verdict, reason, mend = "is no endpoint", str(problem).rstrip("."), "give one such as tcp:8080:interface=127.0.0.1"
    if kind == "ssl" and isinstance(problem, ImportError):
        verdict, reason, mend = "cannot be had", "TLS needs pyOpenSSL", "pip install 'twisted[tls]'"
    elif isinstance(problem, OSError):
        verdict, reason = "cannot be had", problem.strerror or reason
        mend = _MENDS.get(problem.errno or 0, "give another")
        if kind == "ssl" and problem.filename is not None:
            reason, mend = f"{problem.filename}: {reason}", _PEM
        elif kind == "unix" and problem.errno != errno.EADDRINUSE:
            mend = _FOLDER
    elif kind == "ssl" and not isinstance(problem, (TypeError, ValueError)):
        verdict, mend = "cannot be had", _PEM
    elif kind == "systemd" and isinstance(problem, (LookupError, ValueError)):
        verdict, reason = "cannot be had", "systemd has given no such socket"
        mend = "start us by a socket unit that has it, or give another"
    return ConfigError(f"{key}: {description!r} {verdict}: {reason}; {mend}")


def try_endpoints(reactor: Any, key: str, descriptions: Iterable[str]) -> None:
    """
    See whether endpoint strings are some and can be had. Kinds that other packages have added are left for later.

    Whoever is quicker afterwards is found out when the daemon starts, in its log.

    :raises ConfigError: one cannot.
    """
    for description in descriptions:
        if description.partition(":")[0].lower() in ("tcp", "ssl", "unix", "systemd") or ":" not in description:
            failures: list[Any] = []
            try:
                server: Any = serverFromString(_Trying(reactor), description)  # type: ignore[no-untyped-call]
                if not description.lower().startswith("systemd"):  # it is open already, and to listen would take it
                    server.listen(Factory()).addErrback(failures.append)
            except Exception as problem:
                raise refusal(key, description, problem) from problem
            for failure in failures:
                raise refusal(key, description, failure.value) from failure.value


def read_certificates(reactor: Any, key: str, descriptions: Iterable[str]) -> dict[int, Any]:
    """
    What is now in the files that TLS endpoints name.

    :return: place among the endpoints to context factory, for `renew`.
    :raises ConfigError: it cannot be used.
    """
    contexts: dict[int, Any] = {}
    for place, description in enumerate(descriptions):
        if description.lower().startswith("ssl:"):
            try:
                server: Any = serverFromString(_Reading(reactor), description)  # type: ignore[no-untyped-call]
            except Exception as problem:
                raise refusal(key, description, problem) from problem
            server.listen(Factory()).addCallback(partial(contexts.__setitem__, place))
    return contexts


def listened_at(address: str) -> bool:
    """
    Whether somebody listens at a UNIX socket.

    :raises OSError: it cannot be asked.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            pass  # somebody does, and more wait to be accepted than may
    return True


def renew(port: Any, context: Any) -> None:
    """Clients that come from now on are shown another certificate; those who are there notice nothing."""
    from twisted.protocols.tls import TLSMemoryBIOFactory

    old = port.factory
    port.factory = TLSMemoryBIOFactory(context, False, old.wrappedFactory)
    port.factory.doStart()
    old.doStop()


class _Trying:
    """A reactor that listens for no longer than it takes to see that it could."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        family = socket.AF_INET6 if isIPv6Address(interface) else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((interface, port))
            probe.listen(1)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> None:
        folder = os.path.dirname(os.path.abspath(address))
        if not os.path.isdir(folder):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        if listened_at(address):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class _Reading(_Trying):
    """A reactor that only tells what it would show to TLS clients."""

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        return contextFactory
