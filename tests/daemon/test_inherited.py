"""Listening sockets: what those who are accepted there may cost."""

from __future__ import annotations

import os
import socket
import tempfile
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from cocaine_tx.daemon.inherited import UNSENT, adopt_port, open_port
from cocaine_tx.errors import ConfigError

#: What the client has room for, as the kernel counts it; a segment more than both limits may be on its way.
ROOM, SEGMENT = 128 * 1024, 128 * 1024


class Speaker(Protocol):
    """Gives the kernel all that it takes for a client."""

    def connectionMade(self) -> None:
        handle: Any = self.transport.getHandle()  # type: ignore[union-attr]
        taken = 0
        try:
            while True:
                taken += handle.send(bytes(65536))
        except BlockingIOError:
            pass
        self.factory.told.callback(taken)  # type: ignore[attr-defined, union-attr]
        self.transport.abortConnection()  # type: ignore[union-attr]


@skipUnless(hasattr(socket, "TCP_NOTSENT_LOWAT"), "this kernel keeps as much as it likes")
class SparingTests(TestCase):
    timeout = 20

    async def taken(self, port: Any, told: Deferred[int]) -> int:
        self.addCleanup(port.stopListening)
        client = socket.socket()
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM // 2)
        client.connect(("127.0.0.1", port.getHost().port))
        return await told

    def speaking(self) -> tuple[Factory, Deferred[int]]:
        factory: Any = Factory.forProtocol(Speaker)  # type: ignore[no-untyped-call]
        factory.told = Deferred()
        return factory, factory.told

    async def test_unread(self) -> None:
        """A client that reads nothing keeps little of the kernel's memory."""
        factory, told = self.speaking()
        port = await open_port(reactor, "tcp:0:interface=127.0.0.1", factory, 50)
        self.assertLess(await self.taken(port, told), ROOM + UNSENT + SEGMENT)

    async def test_unread_of_a_child(self) -> None:
        """The same for a process that shares the socket with others."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        listening.setblocking(False)
        factory, told = self.speaking()
        port = await adopt_port(reactor, "systemd:domain=INET:index=0", listening.fileno(), factory, 50)
        self.assertLess(await self.taken(port, told), ROOM + UNSENT + SEGMENT)


class KilledTests(TestCase):
    """What somebody who was killed has left of a UNIX socket."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="ctx")
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "s")

    def leave(self, pid: int) -> None:
        """A socket at which nobody listens, and the lock of its owner."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        os.symlink(str(pid), f"{self.path}.lock")

    async def test_pid_of_another(self) -> None:
        """It is in nobody's way, also where somebody else has that pid now: in a container, the next start itself."""
        self.leave(os.getpid())
        port = await open_port(reactor, f"unix:{self.path}", Factory(), 50)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)
        await port.stopListening()
        self.assertEqual(os.listdir(os.path.dirname(self.path)), [])
        os.symlink(str(os.getpid()), f"{self.path}.lock")
        port = await open_port(reactor, f"unix:{self.path}", Factory(), 50)
        await port.stopListening()

    async def test_alive(self) -> None:
        """A socket at which somebody listens stays, however many wait there; and a file that is none stays as well."""
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as waiting:
            listening.bind(self.path)
            listening.listen(0)
            waiting.connect(self.path)
            os.symlink(str(os.getpid()), f"{self.path}.lock")
            with self.assertRaises(ConfigError):
                await open_port(reactor, f"unix:{self.path}", Factory(), 50)
            self.assertTrue(os.path.lexists(f"{self.path}.lock"))
        os.unlink(self.path)
        os.unlink(f"{self.path}.lock")
        with open(self.path, "w", encoding="ascii") as file:
            file.write("mine")
        with self.assertRaises(ConfigError):
            await open_port(reactor, f"unix:{self.path}", Factory(), 50)
        self.assertTrue(os.path.isfile(self.path))
