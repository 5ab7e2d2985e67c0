"""
Two real connections joined in memory by a pretend wire, so that a conversation can be tested without sockets or time.

    pair = ConnectionPair(dialing(), serving(STORAGE, dispatch))
    answer = Remote(pair.near, STORAGE, pair.clock).call("read", "collection", "key")
    pair.pump()

Nothing moves before `ConnectionPair.pump` or `ConnectionPair.carry`: a test decides what arrives when, and in which
pieces. The ends behave as TCP sockets do: sends are partial when the wire is full, a paused end is not read, closing
waits for what was said, aborting does not. Nothing sleeps; time is `ConnectionPair.clock`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IHalfCloseableProtocol, IPushProducer, ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import CocaineError
from ..rpc.connection import Connection
from ..rpc.turn import Turn
from ..wire.headers import Headers
from ..wire.idl import Message, Slot
from ..wire.session import Channel, Session

#: Rounds without an end after which two sides are taken to be talking for ever.
_ENDLESS = 100_000


class Recorder:
    """
    A receiver that writes down what it is told.

    :ivar told: ``(channel number, message name, arguments)``, and ``(channel number, "lost", error pair)``.
    :ivar channels: those it was told of, by number.
    :ivar headers: those of the latest message.
    """

    def __init__(self) -> None:
        self.told: list[tuple[int, str, tuple[Any, ...]]] = []
        self.channels: dict[int, Channel] = {}
        self.headers: Headers = ()

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        self.channels[channel.number] = channel
        self.headers = headers
        self.told.append((channel.number, message.name, args))

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self.told.append((channel.number, "lost", reason.pair))


@implementer(ITransport, IPushProducer, IConsumer)
class End:
    """
    One end of the wire: a transport for whatever protocol it is given to.

    :param capacity: bytes the wire holds before sends become partial and then refused, as a full socket buffer does.
    :ivar peer: the other end.
    :ivar travelling: bytes sent and not yet arrived.
    :ivar paused: the protocol does not want to be told of what has arrived.
    :ivar closed: the protocol has been told that the connection is gone.
    :ivar writes: how many times something was sent, and how much each time.
    """

    def __init__(self, clock: Clock, port: int, capacity: int) -> None:
        self.clock = clock
        self.capacity = capacity
        self.protocol: Any = None
        self.peer: End = self
        self.travelling = bytearray()
        self.paused = False
        self.closed = False
        self.disconnecting = False
        self.writes: list[int] = []
        self._unsent = bytearray()
        self._producer: Any = None
        self._said_last = False
        self._address = IPv4Address("TCP", "127.0.0.1", port)

    # -- what a socket does

    def getHandle(self) -> End:
        """The pretend socket, which is this very object."""
        return self

    def send(self, data: bytes) -> int:
        """
        As much as there is room for.

        :raises BlockingIOError: there is none.
        """
        if self.closed or self.peer.closed:
            raise BrokenPipeError("the other end is gone")
        size = min(len(data), self.capacity - len(self.travelling))
        if size <= 0 and data:
            raise BlockingIOError("the wire is full")
        self.travelling += data[:size]
        self.writes.append(size)
        return size

    # -- what a Twisted transport does

    def write(self, data: bytes) -> None:
        if not self.closed:
            self._unsent += data
            if not self.peer.closed:
                self._fill()

    def writeSequence(self, iovec: Any) -> None:
        self.write(b"".join(iovec))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("a producer is registered already")
        if self.closed:
            producer.stopProducing()
            return
        self._producer = producer
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.paused = True

    def loseWriteConnection(self) -> None:
        """End our sending; the other side may go on."""
        self._said_last = True

    def abortConnection(self) -> None:
        self.disconnecting = True
        self._unsent.clear()
        self.clock.callLater(0, self.reset, ConnectionAborted())

    def getPeer(self) -> IPv4Address:
        return self.peer._address

    def getHost(self) -> IPv4Address:
        return self._address

    # -- what the wire does

    def carry(self, size: int | None = None) -> bool:
        """Let up to ``size`` of the bytes sent arrive, in one piece; true when anything happened."""
        happened = False
        peer = self.peer
        if self.travelling and not peer.paused and not peer.closed:
            piece = bytes(self.travelling[:size])
            del self.travelling[: len(piece)]
            peer.protocol.dataReceived(piece)
            happened = True
        if not self.closed:
            happened |= self._push()
        if self._said_last and not self.travelling and not peer.paused and not peer.closed:
            self._said_last = False
            peer.hear_last()
            happened = True
        return happened

    def _push(self) -> bool:
        """From the transport's own buffer to the wire, and what follows when that is empty."""
        if self._unsent and self.peer.closed:
            self.reset(ConnectionLost())
            return True
        self._fill()
        if self._producer is not None and not self._unsent and len(self.travelling) < self.capacity:
            self._producer.resumeProducing()
            return True
        if self.disconnecting and not self._unsent and self._producer is None:
            self._said_last = True
            self._close(ConnectionDone())
            return True
        return False

    def _fill(self) -> None:
        while self._unsent and len(self.travelling) < self.capacity:
            del self._unsent[: self.send(bytes(self._unsent))]

    def hear_last(self) -> None:
        """The other end says no more; whether it still listens cannot be known but by sending."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self._close(ConnectionDone())

    def reset(self, reason: Exception) -> None:
        """The connection ends here and there, with whatever travels."""
        self.travelling.clear()
        self._close(reason)
        if not self.peer.closed:
            self.peer.reset(ConnectionLost())

    def _close(self, reason: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        if self._producer is not None:
            self._producer.stopProducing()
            self._producer = None
        self._unsent.clear()
        self.protocol.connectionLost(Failure(reason))


class ConnectionPair:
    """
    Two connections and the wire between them; both are up at once.

    :param near: the session of one side, by custom the one that calls.
    :param far: the session of the other side.
    :param clock: what time it is for both; one of its own unless given.
    :param capacity: bytes the wire holds each way before the sender has to wait.
    :param stall: seconds without progress after which a connection cuts its peer off.
    :ivar turn: where both gather their writes.
    :ivar near_end: the near connection's transport, where ``travelling`` and ``writes`` can be looked at.
    :ivar far_end: the far connection's.
    """

    def __init__(
        self,
        near: Session,
        far: Session,
        clock: Clock | None = None,
        capacity: int = 1 << 40,
        stall: float = 60.0,
    ) -> None:
        self.clock = Clock() if clock is None else clock
        self.turn = Turn(self.clock)
        self.near = Connection(near, self.turn, self.clock, stall)
        self.far = Connection(far, self.turn, self.clock, stall)
        self.near_end = End(self.clock, 40001, capacity)
        self.far_end = End(self.clock, 10053, capacity)
        self.near_end.peer, self.far_end.peer = self.far_end, self.near_end
        for end, connection in ((self.near_end, self.near), (self.far_end, self.far)):
            end.protocol = connection
            connection.makeConnection(end)

    def settle(self) -> None:
        """End the current turn: what was said goes out on the wire, and nothing arrives."""
        self.clock.advance(0)

    def carry(self, end: End, size: int | None = None) -> bool:
        """Let up to ``size`` bytes that ``end`` sent arrive, in one piece; true when anything happened."""
        self.settle()
        happened = end.carry(size)
        self.settle()
        return happened

    def pump(self, size: int | None = None) -> None:
        """
        Carry everything both ways until nobody has anything more to say.

        :param size: most bytes in one piece; all that waits unless given.
        :raises AssertionError: they never stop.
        """
        for _ in range(_ENDLESS):
            near = self.carry(self.near_end, size)
            far = self.carry(self.far_end, size)
            if not near and not far:
                return
        raise AssertionError("the two sides talk for ever")

    def cut(self) -> None:
        """The network breaks: what travels is lost, and both sides find out."""
        self.near_end.reset(ConnectionLost())
        self.settle()
