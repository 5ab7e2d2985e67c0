"""Bytes to real sockets whose other end reads slowly, or not at all."""

from __future__ import annotations

import os
import random
import shutil
import socket
import tempfile
from hashlib import sha256

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, UNIXClientEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cocaine_tx.rpc.outlet import SLICE, Outlet

MEGABYTE = 1 << 20


class Writer(Protocol):
    """Has an outlet, and notes what it reports."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.waiting: list[Deferred] = []
        self.made: Deferred = Deferred()
        self.ended: Deferred = Deferred()

    def connectionMade(self) -> None:
        self.outlet = Outlet(self.transport, self.drained, lambda: self.notes.append("progressed"))
        self.made.callback(self)

    def drained(self) -> None:
        self.notes.append("drained")
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def connectionLost(self, reason) -> None:
        self.ended.callback(None)


class Reader(Protocol):
    """Counts and digests what comes, and fires at an amount."""

    def __init__(self) -> None:
        self.got = 0
        self.digest = sha256()
        self.wanted = 0
        self.reached: Deferred = Deferred()
        self.ended: Deferred = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += len(data)
        self.digest.update(data)
        if self.wanted and self.got >= self.wanted and not self.reached.called:
            self.reached.callback(None)

    def connectionLost(self, reason) -> None:
        self.ended.callback(None)


class Socketed:
    """An outlet whose peer is at the other end of a real socket."""

    timeout = 15

    def endpoints(self):
        raise NotImplementedError

    async def connected(self) -> tuple[Writer, Reader]:
        reader, writer = Reader(), Writer()
        server, connect = self.endpoints()
        port = await server.listen(Factory.forProtocol(lambda: reader))
        self.addCleanup(port.stopListening)
        await connect(port).connect(Factory.forProtocol(lambda: writer))
        while reader.transport is None:
            await deferLater(reactor, 0)

        async def end() -> None:
            for end in (writer, reader):
                end.transport.abortConnection()
                await end.ended

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return writer, reader

    async def test_straight_through(self) -> None:
        """While the kernel takes it, data is on its way when write returns, and nothing is reported."""
        writer, reader = await self.connected()
        reader.wanted = 3000
        for _ in range(3):
            writer.outlet.write(b"x" * 1000)
        self.assertFalse(writer.outlet.waiting)
        await reader.reached
        self.assertEqual((reader.got, writer.notes), (3000, []))

    async def test_slow_reader(self) -> None:
        """A reader that stops and goes gets every byte in order; what the kernel refused waits with us."""
        writer, reader = await self.connected()
        reader.transport.pauseProducing()
        seeded = random.Random(7)
        sent = sha256()
        for _ in range(300):
            data = seeded.randbytes(seeded.choice((0, 1, 100, 5_000, 60_000, 200_000)))
            sent.update(data)
            reader.wanted += len(data)
            writer.outlet.write(data)
        self.assertTrue(writer.outlet.waiting)
        self.assertGreater(writer.outlet.pending, 0)
        drained: Deferred = Deferred()
        writer.waiting.append(drained)
        while not reader.reached.called:
            reader.transport.resumeProducing()
            await deferLater(reactor, 0)
            reader.transport.pauseProducing()
        await drained
        self.assertEqual(reader.digest.hexdigest(), sent.hexdigest())
        self.assertEqual((writer.outlet.pending, writer.outlet.waiting), (0, False))
        self.assertEqual(writer.notes[-1], "drained")
        # From here it goes straight through again.
        writer.outlet.write(b"tail")
        self.assertFalse(writer.outlet.waiting)

    async def test_hundred_megabytes(self) -> None:
        """A source that waits to be told to go on sends 100 MB through, and no more than its own piece ever waits."""
        writer, reader = await self.connected()
        piece = os.urandom(MEGABYTE)
        most = 0
        reader.wanted = 100 * MEGABYTE
        for _ in range(100):
            writer.outlet.write(piece)
            most = max(most, writer.outlet.pending)
            if writer.outlet.waiting:
                drained: Deferred = Deferred()
                writer.waiting.append(drained)
                await drained
        await reader.reached
        self.assertEqual(reader.got, 100 * MEGABYTE)
        self.assertLessEqual(most, MEGABYTE)
        self.assertEqual(reader.digest.hexdigest(), sha256(piece * 100).hexdigest())

    async def test_nothing_to_write(self) -> None:
        """Writing nothing while something waits stops nothing."""
        writer, reader = await self.connected()
        reader.transport.pauseProducing()
        for data in (b"y" * 8 * MEGABYTE, b"", b"", b"z"):
            reader.wanted += len(data)
            writer.outlet.write(data)
        reader.transport.resumeProducing()
        await reader.reached

    async def test_close_after_pressure(self) -> None:
        """Closing right after writing lets everything out first."""
        writer, reader = await self.connected()
        reader.transport.pauseProducing()
        for _ in range(8):
            writer.outlet.write(b"y" * MEGABYTE)
        writer.transport.loseConnection()
        reader.transport.resumeProducing()
        await reader.ended
        self.assertEqual(reader.got, 8 * MEGABYTE)

    async def test_reader_goes(self) -> None:
        """When the reader goes away nothing is raised, and what waited is let go of."""
        writer, reader = await self.connected()
        reader.transport.pauseProducing()
        for _ in range(8):
            writer.outlet.write(b"y" * MEGABYTE)
        reader.transport.abortConnection()
        await writer.ended
        writer.outlet.write(b"late")
        self.assertLessEqual(writer.outlet.pending, 4)

    async def test_reader_gone_before(self) -> None:
        """Writing to a peer that has reset the connection is not an error of ours: the transport finds out."""
        writer, reader = await self.connected()
        handle = reader.transport.getHandle()
        if handle.family != socket.AF_UNIX:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        reader.transport.abortConnection()
        await reader.ended
        writer.outlet.write(b"x")
        writer.outlet.write(b"y")
        await writer.ended


class TcpTests(Socketed, TestCase):
    """Over TCP on the loopback."""

    def endpoints(self):
        return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), lambda port: TCP4ClientEndpoint(
            reactor, "127.0.0.1", port.getHost().port
        )


class UnixTests(Socketed, TestCase):
    """Over a UNIX socket, as workers are spoken to."""

    def endpoints(self):
        # Short: a socket's path has at most 107 characters.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = os.path.join(folder, "s")
        return UNIXServerEndpoint(reactor, path), lambda port: UNIXClientEndpoint(reactor, path)


class MemoryTests(SynchronousTestCase):
    """Transports that have no socket."""

    def test_small(self) -> None:
        """What fits a slice goes to the transport at once."""
        transport = StringTransport()
        outlet = Outlet(transport, lambda: None, lambda: None)
        outlet.write(b"abc")
        self.assertEqual((transport.value(), outlet.pending), (b"abc", 0))

    def test_large(self) -> None:
        """More than a slice goes as the transport asks for it."""
        transport, notes = StringTransport(), []
        outlet = Outlet(transport, lambda: notes.append("drained"), lambda: notes.append("progressed"))
        outlet.write(b"x" * SLICE + b"y")
        outlet.write(b"z")
        self.assertEqual((transport.value(), outlet.pending, transport.streaming), (b"", SLICE + 2, False))
        for _ in range(4):
            transport.producer.resumeProducing()
        self.assertEqual(transport.value(), b"x" * SLICE + b"yz")
        self.assertEqual(notes, ["progressed"] * 3 + ["drained"])
        self.assertIsNone(transport.producer)
