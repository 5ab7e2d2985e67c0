"""How a client's connection ends, on real sockets: what was said is taken, and nobody stays for ever."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any
from unittest import SkipTest

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from cocaine_tx.proxy import connection
from cocaine_tx.proxy.access import AccessLog
from cocaine_tx.proxy.connection import HttpConnection
from cocaine_tx.proxy.door import Door, DoorFactory
from cocaine_tx.proxy.failure import Failure
from cocaine_tx.proxy.terms import Terms
from cocaine_tx.rpc.turn import Turn

reactor: Any = _reactor
#: More than the kernel keeps for a client that does not read.
LARGE = 20_000_000
#: So much announced that it is answered before it has come.
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nabc"
#: Answered before its body is looked at, which has come all the same.
EXPECTS = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def rest(client: socket.socket) -> int:
    """How much comes until the end, which must be a regular one."""
    got = 0
    while data := client.recv(1_000_000):
        got += len(data)
    return got


class PartingCase(TestCase):
    timeout = 60

    def listen(self, size: int, **terms: Any) -> None:
        """A door at which every request gets an answer of that size."""
        self.patch(connection, "LINGER", 0.1)
        log = AccessLog(None, reactor.callLater, lambda batch, done: done())
        self.door = Door(reactor, Turn(reactor), None, Terms(inline=10, **terms), log)  # type: ignore[arg-type]
        self.addCleanup(self.door.close)
        answer = Failure(200, "x" * size)
        factory = DoorFactory(self.door, lambda door: HttpConnection(door, lambda head: answer), 10)
        port = reactor.listenTCP(0, self.wrapped(factory), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port

    def wrapped(self, factory: Any) -> Any:
        return factory

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 20)

    async def ask(self, raw: bytes) -> socket.socket:
        """A client that has sent this and reads nothing."""

        def sent() -> socket.socket:
            client = self.connect()
            client.sendall(raw)
            return client

        client: socket.socket = await deferToThread(sent)
        self.addCleanup(client.close)
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    async def closing(self) -> None:
        """Everything has been said, and some of it may wait."""
        await self.until(lambda: any(one._closing for one in self.door.connections))


class PlainTests(PartingCase):
    async def test_slow_reader(self) -> None:
        """A client that was answered early has all the time it needs for a large answer, and then reads the end."""
        self.listen(LARGE)
        client = await self.ask(UPLOAD)
        await self.closing()
        await deferLater(reactor, 0.5)  # longer than a client that takes nothing may linger
        self.assertGreater(await deferToThread(rest, client), LARGE)
        client.close()
        await self.until(lambda: not self.door.connections)

    async def test_silent_client(self) -> None:
        """A client that has its last answer and does not close is not waited for, whatever it had sent by then."""
        self.listen(100)
        for raw in (UPLOAD, EXPECTS, LAST):
            client = await self.ask(raw)
            self.assertGreater(await deferToThread(rest, client), 100)
            await self.until(lambda: not self.door.connections)


class SecureTests(PartingCase):
    def setUp(self) -> None:
        try:
            from OpenSSL.SSL import Connection
        except ImportError as problem:
            raise SkipTest("pyOpenSSL is not installed") from problem
        self.assertTrue(Connection)

    def wrapped(self, factory: Any) -> Any:
        from twisted.internet.ssl import KeyPair
        from twisted.protocols.tls import TLSMemoryBIOFactory

        return TLSMemoryBIOFactory(KeyPair.generate().selfSignedCert(1, CN="a").options(), False, factory)

    def connect(self) -> socket.socket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(super().connect(), suppress_ragged_eofs=False)

    async def test_slow_reader(self) -> None:
        """A client that reads slowly but steadily is not cut off, and TLS ends as it should."""
        self.listen(LARGE, write=1.0)
        client = await self.ask(UPLOAD)
        await self.closing()

        got = 0
        for _ in range(8):
            got += len(await deferToThread(client.recv, 100_000))
            while got % 1_000_000:
                data = await deferToThread(client.recv, 1_000_000 - got % 1_000_000)
                self.assertTrue(data)
                got += len(data)
            await deferLater(reactor, 0.25)
        got += await deferToThread(rest, client)
        self.assertGreater(got, LARGE)

    async def test_silent_client(self) -> None:
        """A client that has its last answer, and the end of it, cannot keep the connection."""
        self.listen(100, write=0.1)
        for raw in (UPLOAD, EXPECTS, LAST):
            client = await self.ask(raw)
            self.assertGreater(await deferToThread(rest, client), 100)
            await self.until(lambda: not self.door.connections)

    async def test_no_handshake(self) -> None:
        """Nor can one that never speaks, in TLS or at all."""
        self.listen(100, head=0.1, write=0.1)
        for raw in (b"", b"\x16\x03\x01\x00", b"GET / HTTP/1.1\r\n\r\n"):
            client = socket.create_connection(("127.0.0.1", self.port), 20)
            self.addCleanup(client.close)
            await deferToThread(client.sendall, raw)
            await self.until(lambda: bool(self.door.meters.accepted) and not self.door.connections)
            self.door.meters.accepted = 0
        shy = await self.ask(b"")
        await self.until(lambda: not self.door.connections)
        shy.close()
