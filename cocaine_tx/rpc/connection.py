"""
A session on a Twisted transport: the only ``dataReceived`` that speaks frames.

Reads are decoded at once and delivered; writes gather until the end of the reactor turn and leave in one send.

Pressure: when the peer does not take what we send, its session is *congested*. Whoever forwards to it then calls
`Connection.delay` with the connection the data came from, which is not read until the peer has caught up. A peer that
takes less than a slice (`outlet.SLICE`) in ``stall`` seconds while more waits is cut off, so that nobody is delayed for
ever.

Half-close: a peer that has said its last on the transport still gets the answers to what it has asked completely, if
it turns out to be there (`NOTHING`); what it has left unfinished is lost at once (``observed-runtime.md`` item 25).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast
from typing import Protocol as Shape

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..errors import CocaineError, ConnectionGone, LocalProtocolError, UncaughtError
from ..wire.frames import pack
from ..wire.session import Channel, Event, Session
from .desk import Desk
from .outlet import Outlet
from .turn import Turn

#: Seconds without progress, while something waits, after which the peer is cut off.
STALL = 60.0
#: Seconds between the words that find out whether a peer that says no more still listens; the first comes sooner.
FIRST_PROBE, PROBE = 0.05, 1.0
#: What they are: a frame for no channel, which every client ignores.
NOTHING = pack((0, 0, (), ()))


class Source(Shape):
    """Whoever we can stop reading from: a `Connection`, or another kind of peer whose bytes become frames."""

    def hold(self, holder: object) -> None:
        """Do not read from this peer until every holder has released it."""

    def release(self, holder: object) -> None:
        """The holder can take data again."""


@implementer(IHalfCloseableProtocol)
class Connection(Protocol):
    """
    One peer.

    :param session: its channels.
    :param turn: where writes gather.
    :param clock: for the stall limit.
    :param stall: seconds.
    :ivar lost: told once when the connection has ended, after every open channel was told.
    :ivar gone: the connection has ended.
    :ivar desk: the peer's calls, if it makes some.
    """

    _log = Logger()
    #: How bytes leave; the worker SDK brings one that a thread may speak through.
    outlet: type[Outlet] = Outlet

    def __init__(self, session: Session, turn: Turn, clock: IReactorTime, stall: float = STALL) -> None:
        self.session = session
        self.lost: Callable[[Connection], None] | None = None
        self.gone = False
        self.desk = Desk(self)
        self._turn = turn
        self._clock = clock
        self._stall = stall
        self._closing = False
        self._deaf = False
        self._outlet: Outlet | None = None
        self._holders: set[object] = set()
        self._delayed: set[Source] = set()
        self._watch: IDelayedCall | None = None
        self._lingering: IDelayedCall | None = None
        session.connection = self
        session.wake = self._wake

    # -- reading

    def connectionMade(self) -> None:
        tune(self.transport)
        self._outlet = self.outlet(self.transport, self._drained, self._progressed)
        self._flush()

    def dataReceived(self, data: bytes) -> None:
        session = self.session
        if self.gone:
            return
        events = session.receive(data)
        for channel, message, args, headers in events:
            try:
                channel.receiver.received(channel, message, args, headers)
            except Exception:
                self._log.failure("{channel!r}: its receiver failed", channel=channel)
                self._give_up(channel)
        if session.congested:
            self.pressed(events)
        if session.broken is not None and not self._closing:
            self._log.info("{peer} broke the protocol: {reason}", peer=self.peer, reason=session.broken.reason)
            self.close()

    def pressed(self, events: list[Event]) -> None:
        """The peer has said this, and does not take what we say."""

    def _give_up(self, channel: Channel) -> None:
        """Nobody here can answer on it: say so, or end the connection where the protocol has no word for it."""
        channel.abandon()
        try:
            channel.fail(UncaughtError())
        except LocalProtocolError:
            self.close()

    def readConnectionLost(self) -> None:
        if self._deaf:
            return
        self._deaf = True
        self._tell_lost(self.session.lose_unfinished(), ConnectionGone())
        if len(self.session):
            self._probe(FIRST_PROBE)
        self._turn.call(self._flush)

    def _probe(self, pause: float = PROBE) -> None:
        """
        A peer that has closed its half may wait for answers, or be gone; only writing tells.

        The first word to a peer that is gone comes back as a reset, the second one fails for it.
        """
        self._lingering = None
        if self._outlet is not None and not self._closing and not self.gone and len(self.session):
            self._outlet.write(NOTHING)
            self._lingering = self._clock.callLater(pause, self._probe)

    def writeConnectionLost(self) -> None:
        """We never end our half alone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end(ConnectionGone())
        if self.lost is not None:
            lost, self.lost = self.lost, None
            lost(self)

    def sever(self, reason: CocaineError) -> None:
        """End the connection now by our own decision; every open channel is told this reason at once."""
        if not self.gone:
            # First, since a transport may tell of its end at once, and then with a reason of its own.
            self._end(reason)
            self._drop()

    def _end(self, error: CocaineError) -> None:
        self.gone = True
        self._holders.clear()
        self._drained()
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        self._tell_lost(self.session.lose(), error)

    def _tell_lost(self, channels: list[Channel], error: CocaineError) -> None:
        for channel in channels:
            receiver = channel.receiver
            channel.abandon()
            try:
                receiver.lost(channel, error)
            except Exception:
                self._log.failure("{channel!r}: its receiver failed at the end", channel=channel)

    def close(self) -> None:
        """Send what was said so far, then end the connection."""
        if self.gone or self._closing:
            return
        self._send()
        self._stop_talking()
        transport = cast(Any, self.transport)
        if transport is not None:
            # A peer that never reads must not keep us from closing.
            self._guard()
            transport.loseConnection()

    def abort(self) -> None:
        """End the connection now; what waits to be sent is lost."""
        if not self.gone:
            self._drop()

    def _drop(self) -> None:
        self._stop_talking()
        transport = cast(Any, self.transport)
        getattr(transport, "abortConnection", transport.loseConnection)()

    def _stop_talking(self) -> None:
        self._closing = True
        self.session.ended = True

    @property
    def over(self) -> bool:
        """No new conversation can begin: it has ended, or is about to."""
        return self.gone or self.session.ended

    @property
    def peer(self) -> str:
        """Who is at the other end, for people."""
        return str(self.transport.getPeer()) if self.transport is not None else "nobody"

    # -- writing

    def _wake(self) -> None:
        self._turn.call(self._flush)

    def _flush(self) -> None:
        self._send()
        if self._deaf and not len(self.session):
            self.close()

    def _send(self) -> None:
        outlet = self._outlet
        if outlet is None:
            return
        data = self.session.take()
        if self._closing or self.gone:
            # Said too late, by somebody who could not know.
            return
        if data:
            outlet.write(data)
            if outlet.waiting:
                self._guard()
                if outlet.pending > self.session.limits.unsent:
                    self.session.congested = True

    def _guard(self) -> None:
        if self._watch is None:
            self._watch = self._clock.callLater(self._stall, self._cut)

    def _progressed(self) -> None:
        if self._watch is not None:
            self._watch.reset(self._stall)

    def _cut(self) -> None:
        self._watch = None
        self._log.warn("{peer} took nothing for {stall} seconds and is cut off", peer=self.peer, stall=self._stall)
        self.abort()

    def _drained(self) -> None:
        self.session.congested = False
        if self._watch is not None and (self.gone or not self._closing):
            self._watch.cancel()
            self._watch = None
        delayed, self._delayed = self._delayed, set()
        for source in delayed:
            source.release(self)
        self.desk.resume()

    # -- pressure

    def delay(self, source: Source) -> None:
        """Do not read from ``source`` until our own peer has caught up."""
        if self.session.congested and source is not self:
            self._delayed.add(source)
            source.hold(self)

    def hold(self, holder: object) -> None:
        """Do not read from this peer until every holder has released it."""
        if not self._holders and not self.gone:
            cast(Any, self.transport).pauseProducing()
        self._holders.add(holder)

    def release(self, holder: object) -> None:
        """The holder can take data again."""
        if holder in self._holders:
            self._holders.discard(holder)
            if not self._holders and not self.gone and not self._deaf:
                cast(Any, self.transport).resumeProducing()

    @property
    def held(self) -> bool:
        """We do not read from this peer now: its silence is our doing."""
        return bool(self._holders)


def tune(transport: Any) -> None:
    """No delay, and a silently cut peer noticed within half a minute (reference ``node-engine.md`` lesson 37)."""
    if not hasattr(transport, "setTcpNoDelay"):
        return
    try:
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        handle = transport.getHandle()
        if not hasattr(handle, "setsockopt"):  # TLS hides the socket
            return
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 5)):
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        # A UNIX socket has no such options, and a connection that has died meanwhile will say so itself.
        pass
