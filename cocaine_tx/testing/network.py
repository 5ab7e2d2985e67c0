"""
Hosts and TCP between them in memory, on one fake clock: whole clusters in one test, and every kind of loss on demand.

A `Network` is the clock; `Network.host` gives what a room takes as its reactor. Bytes travel in turns of the clock, so
``network.advance(0)`` runs until everybody has nothing more to say.

What is real: order, half-delivered streams, pull producers, pausing, refused and timed-out connects, resets, and links
that swallow bytes without a word (`Network.cut`) and deliver them when they are mended, as TCP does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import (
    CannotListenError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.interfaces import IAddress, IDelayedCall, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITransport)
class Pipe:
    """One end of a connection in memory; `peer` is the other."""

    def __init__(self, network: Network, host: IAddress, remote: IAddress, protocol: Any) -> None:
        self.network = network
        self.protocol = protocol
        self.peer: Pipe = self
        self.disconnecting = False
        self.disconnected = False
        self.written = 0
        self._addresses = (host, remote)
        self._paused = False
        self._inbox: deque[bytes | None] = deque()
        self._scheduled = False
        self._producer: Any = None
        self._done: Callable[[Failure], None] = _nothing

    # -- the transport

    def getHost(self) -> IAddress:
        return self._addresses[0]

    def getPeer(self) -> IAddress:
        return self._addresses[1]

    def write(self, data: bytes) -> None:
        if data and not (self.disconnecting or self.disconnected):
            self.written += len(data)
            self.peer.arrive(bytes(data))

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.disconnecting or self.disconnected:
            return
        self.disconnecting = True
        if self._producer is None:
            self._finish()

    def abortConnection(self) -> None:
        if not self.disconnected:
            # The bytes are lost at once, and the protocol is told in another turn, as a reactor does.
            self.disconnecting = True
            self._inbox.clear()
            self.peer.arrive(None)
            self.network.callLater(0, self.end, ConnectionLost())

    def _finish(self) -> None:
        self.peer.arrive(None)
        self.network.callLater(0, self.end, ConnectionDone())

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.wake()

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        if not streaming:
            self.network.callLater(0, self._pull)

    def unregisterProducer(self) -> None:
        self._producer = None
        if self.disconnecting and not self.disconnected:
            self._finish()

    def _pull(self) -> None:
        # A peer that does not read takes only so much before it stops taking.
        if self._producer is not None and not self.disconnected and len(self.peer._inbox) < 16:
            self._producer.resumeProducing()
        if self._producer is not None and not self.disconnected and len(self.peer._inbox) < 16:
            self.network.callLater(0, self._pull)

    # -- the wire

    def arrive(self, data: bytes | None) -> None:
        """Bytes on their way to us; None is the peer's end."""
        if not self.disconnecting:
            self._inbox.append(data)
        self.wake()

    def wake(self) -> None:
        """Deliver in the next turn, if anything can be delivered."""
        if self._inbox and not self._scheduled and not self.disconnected:
            self._scheduled = True
            self.network.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        while self._inbox and not self.disconnected and not self._paused:
            if self.network.severed(self.peer.getHost(), self.getHost()):
                return
            data = self._inbox.popleft()
            if data is None:
                self.end(ConnectionDone())
            else:
                self.protocol.dataReceived(data)
                self.peer._unblock()

    def _unblock(self) -> None:
        if self._producer is not None:
            self.network.callLater(0, self._pull)

    def end(self, reason: Exception) -> None:
        """This side learns that the connection is over."""
        if self.disconnected:
            return
        self.disconnected = True
        self._inbox.clear()
        self.network.pipes.discard(self)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))
        self._done(Failure(reason))


class Port:
    """A listening port in memory."""

    def __init__(self, network: Network, address: Any, factory: Any) -> None:
        self._network = network
        self._address = address
        self.factory = factory

    def getHost(self) -> Any:
        return self._address

    def stopListening(self) -> None:
        self._network.ports.pop((self._address.host, self._address.port), None)


class Connector:
    """An attempt to connect, as factories hold it."""

    def __init__(self, give_up: Callable[[], None], destination: IAddress) -> None:
        self._give_up = give_up
        self._destination = destination

    def getDestination(self) -> IAddress:
        return self._destination

    def stopConnecting(self) -> None:
        self._give_up()

    disconnect = stopConnecting


class Host(Clock):
    """
    One machine: what its rooms take as their reactor.

    :ivar address: its IP address.
    """

    def __init__(self, network: Network, address: str) -> None:
        super().__init__()
        self.network = network
        self.address = address

    def seconds(self) -> float:
        return self.network.seconds()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        return self.network.callLater(delay, callable, *args, **kw)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        network = self.network
        host = interface or self.address
        if not port:
            network.next_port += 1
            port = network.next_port
        if (host, port) in network.ports:
            raise CannotListenError(interface, port, OSError("in use"))
        made = network.ports[host, port] = Port(network, _address(host, port), factory)
        factory.doStart()
        return made

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Connector:
        network = self.network
        target = _address(host, port)
        network.next_port += 1
        own = _address(self.address, network.next_port)
        tries: list[IDelayedCall] = []

        def fail(reason: Exception) -> None:
            for call in tries:
                if call.active():
                    call.cancel()
            factory.clientConnectionFailed(connector, Failure(reason))

        def attempt() -> None:
            if network.severed(own, target) or network.severed(target, own) or host in network.silent:
                return
            listening = network.ports.get((host, port))
            if listening is None:
                fail(ConnectionRefusedError())
                return
            tries[0].cancel()
            server = listening.factory.buildProtocol(own)
            if server is None:
                fail(ConnectionRefusedError())
                return
            client = factory.buildProtocol(target)
            near, far = Pipe(network, own, target, client), Pipe(network, target, own, server)
            near.peer, far.peer = far, near
            near._done = lambda reason: factory.clientConnectionLost(connector, reason)
            network.pipes |= {near, far}
            server.makeConnection(far)
            client.makeConnection(near)

        connector = Connector(lambda: fail(ConnectionRefusedError()), target)
        factory.doStart()
        factory.startedConnecting(connector)
        tries.append(network.callLater(timeout, lambda: fail(TimeoutError())))
        tries.append(network.callLater(0, attempt))
        return connector


class Network(Clock):
    """
    All hosts, and the state of the links between them.

    :ivar ports: who listens, by address and port.
    :ivar pipes: ends of open connections.
    :ivar silent: hosts that answer nothing at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[tuple[str, int], Port] = {}
        self.pipes: set[Pipe] = set()
        self.silent: set[str] = set()
        self.next_port = 20000
        self._cuts: set[tuple[str, str]] = set()

    def host(self, address: str) -> Host:
        """A machine with that address."""
        return Host(self, address)

    def severed(self, source: Any, target: Any) -> bool:
        """Whether bytes from one address to the other are swallowed now."""
        return (source.host, target.host) in self._cuts

    def cut(self, source: str, target: str) -> None:
        """From now on nothing gets from one host to the other; nobody is told."""
        self._cuts.add((source, target))

    def mend(self, source: str, target: str) -> None:
        """The link works again, and what was sent meanwhile arrives."""
        self._cuts.discard((source, target))
        for pipe in list(self.pipes):
            pipe.wake()

    def kill(self, address: str) -> None:
        """The host's processes die: its ports are closed and its connections reset."""
        for place in [place for place in self.ports if place[0] == address]:
            del self.ports[place]
        for pipe in list(self.pipes):
            if getattr(pipe.getHost(), "host", None) == address:
                pipe.peer.arrive(None)
                pipe.end(ConnectionLost())


def _address(host: str, port: int) -> Any:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def _nothing(reason: Failure) -> None:
    """Servers' ends report to nobody."""
