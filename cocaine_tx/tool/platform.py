"""
The platform as the tool's commands see it: a locator, and services by name.

Everything a service can answer badly becomes an exception of `exits`, so that commands only decide what their words and
results are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError

from ..errors import CocaineError, ConnectionGone, ServiceNotFound
from ..interfaces import Endpoint
from ..rpc.client import Dialer, Remote, resolve
from ..wire.headers import AUTHORIZATION, Headers
from ..wire.idl import parse_protocol
from .exits import ServiceError, TimedOut, Unreachable
from .settings import Secure

T = TypeVar("T")
#: Gives the headers that say who we are; asked before every call.
Credentials = Callable[[], Awaitable[Headers]]


async def anonymous() -> Headers:
    """We say nothing of who we are."""
    return ()


class Service:
    """
    One service the tool is connected to.

    :ivar name: as the locator knows it.
    """

    def __init__(self, name: str, remote: Remote, wait: Wait, credentials: Credentials = anonymous) -> None:
        self.name = name
        self._remote = remote
        self._wait = wait
        self._credentials = credentials

    @property
    def gone(self) -> bool:
        """The connection has ended."""
        return self._remote.connection.over

    def offers(self, method: str) -> bool:
        """Whether the service's protocol has this method."""
        return self._remote.protocol.named(method) is not None

    async def call(self, method: str, *args: Any) -> tuple[Any, ...]:
        """
        All the arguments of the answer.

        :raises ServiceError: the service answered an error, has no such method, or its connection ended.
        :raises TimedOut: no answer in time.
        """
        headers = await self._credentials()
        return await self._answered(self._remote.call(method, *args, headers=headers))

    async def value(self, method: str, *args: Any) -> Any:
        """The answer's first argument; None if it has none. Raises as `call` does."""
        answer = await self.call(method, *args)
        return answer[0] if answer else None

    async def first(self, method: str, *args: Any) -> Any:
        """The first message of a stream, which is given up after it; None if it has none. Raises as `call` does."""
        headers = await self._credentials()
        try:
            _, stream = self._remote.stream(method, *args, headers=headers)
        except CocaineError as error:
            raise ServiceError(self.name, error) from error
        try:
            message = await self._answered(stream.read())
        finally:
            stream.close()
        return message[0] if message else None

    async def _answered(self, answer: Deferred[T]) -> T:
        try:
            return await self._wait(answer)
        except CocaineError as error:
            raise ServiceError(self.name, error) from error

    def close(self) -> None:
        """End the connection."""
        self._remote.close()


class Wait:
    """
    The patience of one command.

    :param clock: the reactor.
    :ivar seconds: the longest wait for any one answer.
    """

    def __init__(self, clock: Any, seconds: float) -> None:
        self._clock = clock
        self.seconds = seconds

    async def __call__(self, waiting: Deferred[T]) -> T:
        """
        What the Deferred fires with.

        :raises TimedOut: it did not fire in time.
        """
        try:
            return await waiting.addTimeout(self.seconds, self._clock)
        except TimeoutError as problem:
            raise TimedOut(self.seconds) from problem

    def at_least(self, seconds: float) -> None:
        """Commands that move much data wait this long even if they were told to wait less."""
        self.seconds = max(self.seconds, seconds)


class Platform:
    """
    One platform, by the address of one of its locators. Connections are made when first asked for, and kept.

    :param dialer: opens connections.
    :param locator: where the locator is.
    :param wait: how long to wait for any one answer.
    :param secure: who we are, or None for nobody.
    """

    def __init__(self, dialer: Dialer, locator: Endpoint, wait: Wait, secure: Secure | None = None) -> None:
        self.wait = wait
        self._dialer = dialer
        self._where = locator
        self._secure = secure
        self._locator_remote: Remote | None = None
        self._services: dict[str, Service] = {}

    async def locator(self) -> Service:
        """
        The locator.

        :raises Unreachable: nobody answers at its address.
        """
        return Service("locator", await self._located(), self.wait)

    async def _located(self) -> Remote:
        if self._locator_remote is None or self._locator_remote.connection.over:
            host, port = self._where
            mend = "is the platform up? --host and --port say where its locator is"
            self._locator_remote = await self._reached(f"{host}:{port}", self._dialer.locator([self._where]), mend)
        return self._locator_remote

    async def _reached(
        self, where: str, connecting: Coroutine[Deferred[Any], Any, Remote], mend: str = ""
    ) -> Remote:
        try:
            return await self.wait(Deferred.fromCoroutine(connecting))
        except ConnectionGone as problem:
            why = str(problem.__cause__ or problem)
            told = f"Unable to establish connection: {where}: {why}"
            raise Unreachable(f"{told.rstrip('.')}; {mend}" if mend else told) from problem

    async def service(self, name: str) -> Service:
        """
        A service by its name.

        :raises ServiceError: the locator knows none of that name.
        :raises Unreachable: nobody answers at its address.
        """
        known = self._services.get(name)
        if known is not None and not known.gone:
            return known
        credentials = self._ticket if self._secure is not None and name != "tvm" else anonymous
        made = self._services[name] = Service(name, await self._connected(name), self.wait, credentials)
        return made

    async def _connected(self, name: str) -> Remote:
        locator = await self._located()
        try:
            info = await self.wait(Deferred.fromCoroutine(resolve(locator, name)))
            protocol = parse_protocol(name, info.version, info.graph)
        except ServiceNotFound as error:
            raise ServiceError(name, error) from error
        except ConnectionGone as error:
            host, port = self._where
            raise ServiceError("locator", error, f"is {host}:{port} a locator's address?") from error
        except CocaineError as error:
            raise ServiceError("locator", error) from error
        except TimeoutError as problem:
            # The resolver's own patience ended before ours.
            raise TimedOut(self.wait.seconds) from problem
        where = ", ".join(f"{host}:{port}" for host, port in info.endpoints) or f"{name} has no address"
        return await self._reached(where, self._dialer.connect(info.endpoints, protocol))

    async def _ticket(self) -> Headers:
        """A fresh ticket of the ``tvm`` service, as the original tool fetches one before every call."""
        assert self._secure is not None
        tvm = await self.service("tvm")
        who = self._secure
        ticket = await tvm.value("ticket_full", who.client_id, who.client_secret, "client_credentials", {})
        return ((AUTHORIZATION, b"TVM " + (ticket if isinstance(ticket, bytes) else b"")),)

    def close(self) -> None:
        """End all connections."""
        for service in self._services.values():
            service.close()
        if self._locator_remote is not None:
            self._locator_remote.close()
