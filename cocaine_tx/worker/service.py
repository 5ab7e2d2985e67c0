"""
Other services, as an app calls them.

::

    storage = Service("storage")

    @worker.on("cat")
    async def cat(request, response):
        response.write(await storage.call("read", "files", "cat", within=request))

        async with await Service("other").stream("enqueue", "event", within=request) as stream:
            stream.write(b"question")
            stream.close()
            async for chunk in stream:
                await response.write(chunk)

A service is found through a locator when it is first called, and again after its connection was lost. No call is ever
repeated. Results can be awaited by Twisted coroutines and by asyncio tasks.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence
from random import getrandbits
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ..errors import CocaineError, InvocationTimeout, LocalProtocolError
from ..rpc.channel import Stream
from ..rpc.client import Dialer, Remote, ServiceClient, resolve
from ..rpc.turn import Turn
from ..wire.headers import Headers, Trace, timeout_header
from ..wire.idl import Message
from ..wire.session import Channel
from .config import locators_of
from .request import Request
from .waiting import READY, native
from .web import HttpRequest

#: A numeric address without brackets, and a port.
Endpoint = tuple[str, int]
#: Seconds a call may take unless told otherwise.
TIMEOUT = 30.0
#: Bytes written to a stream before its writer has to wait.
_AHEAD = 256 * 1024


def result_of(args: tuple[Any, ...]) -> Any:
    """An answer as people want it: nothing, the one value, or a tuple of several."""
    if not args:
        return None
    return args[0] if len(args) == 1 else args


class Service:
    """
    One remote service.

    :param name: as the locator knows it.
    :param locators: addresses of locators; those on this worker's command line unless given.
    :param reactor: the process's own unless given.
    """

    def __init__(self, name: str, locators: Sequence[Endpoint] | None = None, reactor: Any = None) -> None:
        self.name = name
        self._locators = locators
        self._reactor = reactor
        self._made: ServiceClient | None = None

    def __repr__(self) -> str:
        return f"<service {self.name}>"

    def call(
        self, method: str, *args: Any, timeout: float = TIMEOUT, within: Request | HttpRequest | None = None
    ) -> Awaitable[Any]:
        """
        Call a method that answers once.

        Fails with the error answered (see `cocaine_tx.errors`), with `ServiceNotFound`, with `ConnectionGone`, or with
        `InvocationTimeout`.

        :param timeout: seconds, finding the service included.
        :param within: the request for whose sake this is done: its trace is passed on, and its deadline holds.
        :return: fires with the answer's value; a tuple of them if there are several, None if there is none. Text
            comes as bytes: the protocol does not tell the two apart.
        """
        limit = _limit(timeout, within)
        headers = (*_trace(within), timeout_header(limit))
        return native(self._limited(self._called(method, args, headers), limit))

    def stream(
        self, method: str, *args: Any, timeout: float = TIMEOUT, within: Request | HttpRequest | None = None
    ) -> Awaitable[ServiceStream]:
        """
        Call a method that streams.

        :param timeout: seconds until the call has been sent. How long the stream may last is the request's deadline.
        :return: fires with a `ServiceStream`; use it as an async context manager.
        """
        limit = _limit(timeout, within)
        headers = _trace(within)
        if within is not None and within.remaining is not None:
            headers += (timeout_header(within.remaining),)
        return native(self._limited(self._streamed(method, args, headers), limit))

    def close(self) -> None:
        """Disconnect. A later call connects anew."""
        if self._made is not None:
            self._made.close()

    @property
    def _client(self) -> ServiceClient:
        if self._made is None:
            dialer = dialer_on(self._reactor)
            self._made = ServiceClient(
                dialer, locators_of(sys.argv) if self._locators is None else self._locators, self.name
            )
        return self._made

    def _limited(self, doing: Any, limit: float) -> Deferred[Any]:
        reactor = _reactor_or_own(self._reactor)
        done: Deferred[Any] = Deferred.fromCoroutine(doing)
        return done.addTimeout(limit, reactor, _expired)

    async def _called(self, method: str, args: tuple[Any, ...], headers: Headers) -> Any:
        remote = await self._client.remote()
        return result_of(await remote.call(method, *args, headers=headers))

    async def _streamed(self, method: str, args: tuple[Any, ...], headers: Headers) -> ServiceStream:
        remote: Remote = await self._client.remote()
        return ServiceStream(*remote.stream(method, *args, headers=headers), _reactor_or_own(self._reactor))


class _Room:
    """Waits, in a source's place, until a connection has caught up or ended."""

    def __init__(self) -> None:
        self.there: Deferred[None] = Deferred()

    def hold(self, holder: object) -> None:
        """We wait already."""

    def release(self, holder: object) -> None:
        if not self.there.called:
            self.there.callback(None)


class ServiceStream:
    """A conversation: `write` and `close` one way, ``async for`` the other."""

    def __init__(self, channel: Channel, stream: Stream, reactor: Any) -> None:
        self._channel = channel
        self._stream = stream
        self._reactor = reactor
        self._unsent = 0

    def write(self, *args: Any) -> Awaitable[None]:
        """
        One message; await the result when much is to be written.

        :raises LocalProtocolError: the method takes none.
        """
        channel = self._channel
        if channel.sending:
            channel.send("write", *args)
            self._unsent += sum(len(arg) for arg in args if isinstance(arg, (bytes, str)))
            if self._unsent > _AHEAD:
                self._unsent = 0
                return native(Deferred.fromCoroutine(self._room()))
        return READY

    async def _room(self) -> None:
        """What was written is sent at the end of this turn; by then we know whether the peer takes it."""
        await deferLater(self._reactor, 0)
        if self._channel.session.congested:
            room = _Room()
            self._channel.session.connection.delay(room)
            await room.there

    def send(self, name: str, *args: Any) -> None:
        """
        Any message by its name.

        :raises LocalProtocolError: the method has no such message now.
        """
        self._channel.send(name, *args)

    def close(self) -> None:
        """Our last word; the answer goes on."""
        last = self._channel.sending.named("close")
        if isinstance(last, Message):
            self._channel.forward(last, ())

    def read(self) -> Awaitable[Any]:
        """
        The next message's value; None after the last.

        Fails with the error that ended the stream.
        """
        return native(Deferred.fromCoroutine(self._read()))

    async def _read(self) -> Any:
        args = await self._stream.read()
        return None if args is None else result_of(args)

    def __aiter__(self) -> ServiceStream:
        return self

    async def __anext__(self) -> Any:
        args = await native(self._stream.read())
        if args is None:
            raise StopAsyncIteration
        return result_of(args)

    async def __aenter__(self) -> ServiceStream:
        return self

    async def __aexit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if self._channel.sending:
            if problem is None:
                self.close()
            else:
                self._channel.fail(problem if isinstance(problem, CocaineError) else CocaineError("cancelled"))
        self._stream.close()


class Locator:
    """
    The locator itself.

    :param locators: addresses; those on this worker's command line unless given.
    """

    def __init__(self, locators: Sequence[Endpoint] | None = None, reactor: Any = None) -> None:
        self._locators = locators
        self._reactor = reactor

    def resolve(self, name: str, seed: str | None = None) -> Awaitable[Any]:
        """
        Where a service is: a `cocaine_tx.interfaces.ServiceInfo`. Fails with `ServiceNotFound` or `ConnectionGone`.

        :param seed: picks the same instance for the same seed, when the name is a routing group's.
        """
        return native(Deferred.fromCoroutine(self._resolved(name, seed)))

    def cluster(self) -> Awaitable[dict[str, Endpoint]]:
        """The locators it knows: address by uuid."""
        return native(Deferred.fromCoroutine(self._cluster()))

    async def _remote(self) -> Remote:
        places = locators_of(sys.argv) if self._locators is None else self._locators
        return await dialer_on(self._reactor).locator(places)

    async def _resolved(self, name: str, seed: str | None) -> Any:
        remote = await self._remote()
        try:
            return await resolve(remote, name, seed)
        finally:
            remote.close()

    async def _cluster(self) -> dict[str, Endpoint]:
        remote = await self._remote()
        try:
            answer = result_of(await remote.call("cluster", timeout=TIMEOUT))
            return {uuid.decode("utf-8"): (place[0].decode("ascii"), place[1]) for uuid, place in answer.items()}
        except (AttributeError, LookupError, TypeError, UnicodeDecodeError) as problem:
            raise LocalProtocolError("the locator's cluster cannot be read") from problem
        finally:
            remote.close()


def _limit(timeout: float, within: Request | HttpRequest | None) -> float:
    """Seconds a call may take."""
    remaining = None if within is None else within.remaining
    return timeout if remaining is None else min(timeout, remaining)


def _trace(within: Request | HttpRequest | None) -> Headers:
    """A span of its own under the request's."""
    trace = None if within is None else within.trace
    return () if trace is None else Trace(trace.trace_id, getrandbits(62) + 1, trace.span_id).headers()


def _expired(result: Any, timeout: float | None) -> Any:
    raise InvocationTimeout(f"no answer within {timeout:.3g} seconds")


def _reactor_or_own(reactor: Any) -> Any:
    if reactor is not None:
        return reactor
    # Apps make services where they like; by the time they call one the worker's reactor runs.
    from twisted.internet import reactor as own

    return own


def dialer_on(reactor: Any) -> Dialer:
    """What opens connections on a reactor, the process's own if None."""
    reactor = _reactor_or_own(reactor)
    return Dialer(reactor, Turn(reactor))
