"""
The calling side: a connection to a service, and a client that finds its service by name and comes back after losses.

`Remote` is a live connection with a protocol to call by name. `ServiceClient` resolves through a locator, connects to
the endpoints in order, re-resolves and reconnects with back-off. Every open call fails exactly once when its
connection dies; no call is ever repeated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..errors import ConnectionGone, LocalProtocolError, RemoteProtocolError
from ..interfaces import Endpoint, ServiceInfo
from ..wire.frames import TRUSTING, Limits
from ..wire.headers import Headers, timeout_header
from ..wire.idl import PING_SLOT, Protocol, parse_protocol
from ..wire.protocols import LOCATOR
from ..wire.session import NOBODY, Channel, Receiver, dialing
from .channel import Reply, Stream
from .connection import Connection
from .turn import Turn

#: Seconds to reach one endpoint.
CONNECT_TIMEOUT = 5.0
#: Seconds to wait for a locator's answer.
RESOLVE_TIMEOUT = 5.0
#: Seconds before the second attempt after a failure, and the most there are between attempts.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0


class Remote:
    """
    A live connection to a service.

    :ivar protocol: what the service speaks.
    :ivar connection: the connection underneath; its ``session`` counts open channels by ``len``.
    """

    def __init__(self, connection: Connection, protocol: Protocol, clock: IReactorTime) -> None:
        self.connection = connection
        self.protocol = protocol
        self._clock = clock
        connection.session.revocation = protocol.named("revoke")

    def open(self, method: str, *args: Any, receiver: Receiver = NOBODY, headers: Headers = ()) -> Channel:
        """
        Call a method and keep the channel.

        :raises LocalProtocolError: the service has no such method, or an argument cannot be sent.
        :raises ConnectionGone: the connection has ended or is ending.
        """
        slot = self.protocol.named(method)
        if slot is None:
            raise LocalProtocolError(f"service {self.protocol.name} has no method {method!r}")
        return self.connection.session.open(slot, args, receiver, headers)

    def call(
        self, method: str, *args: Any, timeout: float | None = None, headers: Headers = ()
    ) -> Deferred[tuple[Any, ...]]:
        """
        Call a method that answers once (or not at all: then it fires at once with nothing).

        :param timeout: seconds until the Deferred fails with Twisted's ``TimeoutError``; the peer is told of them.
        :return: fires with the answer's arguments.
        """
        reply = Reply()
        if timeout is not None:
            headers = (*headers, timeout_header(timeout))
        try:
            channel = self.open(method, *args, receiver=reply, headers=headers)
        except (LocalProtocolError, ConnectionGone) as problem:
            reply.answer.errback(problem)
            return reply.answer
        reply.channel = channel
        if not channel.receiving:
            reply.answer.callback(())
        elif timeout is not None:
            reply.answer.addTimeout(timeout, self._clock)
        return reply.answer

    def ping(self, timeout: float) -> Deferred[None]:
        """
        Ask the peer for a sign of life; runtimes before 0.12.13 do not know the message and hang up.

        :param timeout: seconds until the Deferred fails with Twisted's ``TimeoutError``. The connection is left as it
            is: whether a silent peer is to be dropped is the caller's decision (see `Connection.held`).
        :return: fires when the answer has come; fails with `ConnectionGone` when the connection ends.
        """
        reply = Reply()
        alive: Deferred[None] = reply.answer.addCallback(lambda _: None)
        try:
            reply.channel = self.connection.session.open(PING_SLOT, (), reply)
        except ConnectionGone as problem:
            reply.answer.errback(problem)
            return alive
        return alive.addTimeout(timeout, self._clock)

    def stream(self, method: str, *args: Any, headers: Headers = ()) -> tuple[Channel, Stream]:
        """Call a method that answers by a stream: the channel to send on, and the stream to read."""
        stream = Stream()
        channel = self.open(method, *args, receiver=stream, headers=headers)
        stream.channel = channel
        return channel, stream

    def close(self) -> None:
        """End the connection; open calls fail with `ConnectionGone`."""
        self.connection.close()


class _DialFactory(Factory):
    noisy = False

    def __init__(self, turn: Turn, clock: IReactorTime, limits: Limits) -> None:
        self._made = (turn, clock, limits)

    def buildProtocol(self, addr: Any) -> Connection:
        turn, clock, limits = self._made
        return Connection(dialing(limits), turn, clock)


def endpoint_to(reactor: Any, address: Endpoint, timeout: float = CONNECT_TIMEOUT) -> IStreamClientEndpoint:
    """A Twisted endpoint for an address: literals directly, names through the resolver's threads."""
    host, port = address
    if ":" in host:
        return TCP6ClientEndpoint(reactor, host, port, timeout=timeout)  # type: ignore[no-untyped-call]
    if host.replace(".", "").isdigit():
        return TCP4ClientEndpoint(reactor, host, port, timeout=timeout)
    return HostnameEndpoint(reactor, host.encode("ascii"), port, timeout=timeout)


class Dialer:
    """
    Opens connections to services.

    :param reactor: connects and keeps time.
    :param turn: where writes gather.
    :param limits: what services may make us keep; a daemon has its own.
    :param timeout: seconds to reach one address.
    """

    def __init__(
        self, reactor: Any, turn: Turn, limits: Limits = TRUSTING, timeout: float = CONNECT_TIMEOUT
    ) -> None:
        self.reactor = reactor
        self.turn = turn
        self.limits = limits
        self._timeout = timeout

    async def connect(self, addresses: Sequence[Endpoint], protocol: Protocol) -> Remote:
        """
        The first address that answers, in order.

        :raises ConnectionGone: none did; the reason names the last one and why.
        """
        problem: Exception | None = None
        for address in addresses:
            try:
                connection = await self.dial(endpoint_to(self.reactor, address, self._timeout))
            except (CancelledError, ConnectingCancelledError) as given_up:
                # Twisted's endpoints have their own word for it.
                raise CancelledError from given_up
            except Exception as error:
                problem = error
                continue
            return Remote(connection, protocol, self.reactor)
        where = ", ".join(f"{host}:{port}" for host, port in addresses) or "no address"
        raise ConnectionGone(f"cannot connect to {protocol.name} at {where}: {problem or 'it has none'}") from problem

    def dial(self, endpoint: IStreamClientEndpoint) -> Deferred[Connection]:
        """A client connection to one endpoint."""
        connecting: Deferred[Any] = endpoint.connect(_DialFactory(self.turn, self.reactor, self.limits))
        return connecting

    async def locator(self, addresses: Sequence[Endpoint]) -> Remote:
        """A locator at one of the addresses."""
        return await self.connect(addresses, LOCATOR)

    async def service(self, locators: Sequence[Endpoint], name: str, seed: str | None = None) -> Remote:
        """
        A connection to a service by its name.

        :raises ServiceNotFound: the locator knows no such service.
        :raises ConnectionGone: nobody could be reached.
        """
        locator = await self.locator(locators)
        try:
            info = await resolve(locator, name, seed)
        finally:
            locator.close()
        return await self.connect(info.endpoints, parse_protocol(name, info.version, info.graph))


async def resolve(locator: Remote, name: str, seed: str | None = None) -> ServiceInfo:
    """
    Ask a locator.

    :raises ServiceNotFound: it knows no such service.
    :raises RemoteProtocolError: its answer makes no sense.
    """
    args = (name,) if seed is None else (name, seed)
    return service_info(await locator.call("resolve", *args, timeout=RESOLVE_TIMEOUT))


def service_info(args: tuple[Any, ...]) -> ServiceInfo:
    """
    ``(endpoints, version, graph)`` as locators send it.

    :raises RemoteProtocolError: it has another shape.
    """
    try:
        endpoints, version, graph = args[:3]
        places = tuple((host.decode("ascii"), int(port)) for host, port in (place[:2] for place in endpoints))
        if not all(0 < port < 65536 for _, port in places):
            raise ValueError("no such port")
        return ServiceInfo(places, int(version), graph)
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as problem:
        raise RemoteProtocolError("a locator's answer has not the shape of a service") from problem


class ServiceClient:
    """
    One remote service, found by name again whenever its connection has been lost.

    Twisted's `ClientService` keeps a connection up for its own sake; callers here want one when they call, and an
    error when there is none, so attempts are made on demand: shared by all who wait, and paced after failures.

    :param locators: addresses of locators, in order of preference.
    :param name: the service.
    """

    def __init__(self, dialer: Dialer, locators: Sequence[Endpoint], name: str) -> None:
        self.name = name
        self._dialer = dialer
        self._locators = tuple(locators)
        self._remote: Remote | None = None
        self._attempt: Deferred[None] | None = None
        self._waiting: list[Deferred[Remote]] = []
        self._failures = 0

    def remote(self) -> Deferred[Remote]:
        """
        The live connection, made if there is none. Fails as the attempt failed.

        Cancelling it leaves the attempt to the others who wait.
        """
        waiting: Deferred[Remote] = Deferred(self._unwait)
        if self._remote is not None and not self._remote.connection.over:
            waiting.callback(self._remote)
            return waiting
        self._waiting.append(waiting)
        if self._attempt is None:
            self._attempt = Deferred.fromCoroutine(self._connect())
            self._attempt.addErrback(self._failed)
        return waiting

    def _unwait(self, waiting: Deferred[Remote]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    async def _connect(self) -> None:
        if self._failures:
            pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
            await deferLater(self._dialer.reactor, pause)
        remote = await self._dialer.service(self._locators, self.name)
        self._failures = 0
        self._remote = remote
        self._attempt = None
        for waiting in self._answered():
            # One of them may have cancelled another meanwhile.
            if not waiting.called:
                waiting.callback(remote)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if failure.check(CancelledError):  # type: ignore[no-untyped-call]
            failure = Failure(ConnectionGone(f"the client of {self.name} was closed"))  # type: ignore[no-untyped-call]
        else:
            self._failures += 1
        for waiting in self._answered():
            if not waiting.called:
                waiting.errback(failure)

    def _answered(self) -> list[Deferred[Remote]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def call(
        self, method: str, *args: Any, timeout: float | None = None, headers: Headers = ()
    ) -> Deferred[tuple[Any, ...]]:
        """`Remote.call` on the live connection."""

        async def calling() -> tuple[Any, ...]:
            remote = await self.remote()
            return await remote.call(method, *args, timeout=timeout, headers=headers)

        return Deferred.fromCoroutine(calling())

    def close(self) -> None:
        """Disconnect; open calls fail with `ConnectionGone`, and a later call connects anew."""
        if self._attempt is not None:
            self._attempt.cancel()
        if self._remote is not None:
            remote, self._remote = self._remote, None
            remote.close()
