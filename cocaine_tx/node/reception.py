"""
Where an app's workers connect: one UNIX socket, and the handshake that says which worker it is.

A handshake with an unknown or a used uuid ends that connection at once; so does silence, and too many strangers.

Source: reference ``node-engine.md`` sections 5.1, 5.2; ``observed-runtime.md`` 13.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger

from ..errors import CocaineError, PublishError
from ..rpc.connection import Connection
from ..rpc.turn import Turn
from ..wire.frames import Limits
from ..wire.headers import Headers
from ..wire.idl import REVOKE_SLOT, Message, Slot
from ..wire.protocols import CREDITS, WORKER
from ..wire.session import Channel, serving
from .workers import Worker

#: Seconds a connection may take to say who it is.
PATIENCE = 10.0
#: ``<app>.<pid>``, see `manifest.socket_path`.
_OURS = re.compile(r".+\.\d+", re.DOTALL)
#: Connections that have not said yet who they are.
STRANGERS = 256


def sweep(folder: str) -> list[str]:
    """
    Remove the sockets that a killed node has left: those named like ours behind which nobody listens. Blocks.

    :return: their paths.
    """
    swept = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            if not _OURS.fullmatch(entry.name) or not stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                continue
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.setblocking(False)
                if probe.connect_ex(entry.path) == errno.ECONNREFUSED:
                    os.unlink(entry.path)
                    swept.append(entry.path)
    return swept


class Reception(ServerFactory):
    """
    The listening socket of one app.

    :param path: of the socket; a stale one there is replaced.
    :param expected: the worker with that uuid, if its handshake is awaited.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        turn: Turn,
        limits: Limits,
        path: str,
        expected: Callable[[str], Worker | None],
    ) -> None:
        self.path = path
        self._reactor = reactor
        self._turn = turn
        self._limits = limits
        self._expected = expected
        self._port: IListeningPort | None = None
        self._strangers: set[Guest] = set()
        self._closed: Deferred[Any] | None = None

    def listen(self) -> None:
        """
        :raises PublishError: the socket cannot be made there; the reason names it.
        """
        try:
            with suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(self.path).st_mode):
                    os.unlink(self.path)
            # Only our own user's processes may pose as workers; an isolate that changes the user hands the socket over.
            self._port = self._reactor.listenUNIX(self.path, self, mode=0o600)
        except (OSError, CannotListenError) as problem:
            why = problem.socketError if isinstance(problem, CannotListenError) else problem
            raise PublishError(f"the workers' socket {self.path} cannot be opened: {why}") from problem

    def buildProtocol(self, addr: Any) -> Connection | None:
        if len(self._strangers) >= STRANGERS:
            self._log.warn("{path}: too many connections without a handshake", path=self.path)
            return None
        guest = Guest(self)
        connection = Connection(serving(WORKER, guest, self._limits), self._turn, self._reactor)
        guest.arrived(connection, self._reactor)
        self._strangers.add(guest)
        return connection

    def left(self, guest: Guest) -> None:
        """Somebody said who they are, or has gone."""
        self._strangers.discard(guest)

    def admit(self, uuid: str, channel: Channel, credits: bool) -> None:
        """Somebody says it is that worker, and whether it knows credits."""
        worker = self._expected(uuid)
        connection: Connection = channel.session.connection
        if worker is None:
            self._log.info("{path}: no worker {uuid} is expected, its connection is closed", path=self.path, uuid=uuid)
            channel.abandon()
            connection.close()
        else:
            if credits:
                # One of ours: it also understands that a request is taken back.
                channel.session.revocation = REVOKE_SLOT
            channel.session.kin = credits
            worker.join(connection, channel)

    def close(self) -> Deferred[None]:
        """Stop listening, remove the socket, send strangers away; fires when that is done, also when asked again."""
        for guest in list(self._strangers):
            guest.send_away()
        closed: Deferred[None] = Deferred()
        if self._closed is None:
            port, self._port = self._port, None
            self._closed = maybeDeferred(cast(Any, port.stopListening)) if port is not None else succeed(None)
        self._closed.addBoth(lambda _: closed.callback(None))
        return closed


class Guest:
    """A connection that has not said yet who it is; the acceptor of its session."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._connection: Connection | None = None
        self._patience: IDelayedCall | None = None

    def arrived(self, connection: Connection, clock: IReactorTime) -> None:
        """It is connected; from now it has to hurry."""
        self._connection = connection
        connection.lost = self._gone
        self._patience = clock.callLater(PATIENCE, self.send_away)

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if self._patience is None:
            # A second handshake on another channel: a worker opens none but the first.
            channel.abandon()
            channel.session.connection.close()
            return
        self._leave()
        able = args[1] if len(args) > 1 else {}
        self._reception.admit(args[0].decode("utf-8", "replace"), channel, CREDITS.encode() in able)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """It went before it was admitted."""

    def _gone(self, connection: Connection) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._patience = None
        self._reception.left(self)

    def send_away(self) -> None:
        """It has not said who it is for too long."""
        self._leave()
        if self._connection is not None:
            self._connection.abort()
