"""
What the node, the locator and the gateway daemon share: the locator, the services around it and their ports.

Read `Runtime.start` from top to bottom: it is the list of parts and their order.

Source: reference ``node-engine.md`` sections 1.4 and 1.6.
"""

from __future__ import annotations

import errno
import gc
import os
import socket
import uuid
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from ..errors import CocaineError, ConfigError, PublishError
from ..interfaces import Endpoint, IStorage, Publication, ServiceInfo
from ..locator.directory import Directory
from ..locator.service import LocatorService
from ..logs.service import LoggingService
from ..rpc.client import Dialer
from ..rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from ..rpc.reactor import attend
from ..rpc.turn import Turn
from ..storage.files import FileStorage
from ..storage.service import StorageService
from . import settings
from .ports import Ports

#: Threads for disk work; one is busy with the storage, the others unpack archives.
THREADS = 8


class Runtime:
    """
    A locator and the services of one process.

    :ivar turn: ``dialer``, ``storage``, ``locator``: parts that rooms are given.
    """

    _log = Logger()

    def __init__(self, reactor: Any, config: settings.Runtime) -> None:
        self.reactor = reactor
        self.config = config
        self.uuid = config.uuid or str(uuid.uuid4())
        self.turn = Turn(reactor)
        attend(reactor, config.limits.busy_poll)
        self.limits = config.limits.session
        self.dialer = Dialer(reactor, self.turn, self.limits, config.limits.connect_timeout)
        self.threads = ThreadPool(0, THREADS, "disk")
        # Apps, groups and crash logs are in core, whatever the storage service offers.
        names = dict.fromkeys(("core", config.storage or "core"))
        self._storages = {name: self._storage(name) for name in names}
        self.storage: IStorage = self._storages["core"]
        self.directory = Directory(config.locator.restrict)
        self.locator: LocatorService | None = None
        self._hospitality = Hospitality(self.turn, reactor, self.limits, config.limits.connections)
        self._ports = Ports(config.network.pinned, config.network.shared)
        self._addresses: tuple[str, ...] = (config.network.endpoint,)
        self._publications: list[Publication] = []
        self._factories: list[ServiceFactory] = []
        self._withdrawn: set[ServiceFactory] = set()

    def _storage(self, name: str) -> FileStorage:
        component = self.config.storages[name]
        if component.type != "files":
            raise ConfigError(f"storages.{name}.type: {component.type!r} is not built in; use 'files'")
        path = component.args.get("path")
        if not isinstance(path, str) or not path:
            raise ConfigError(f"storages.{name}.args.path: name the folder that holds the objects")
        return FileStorage(self.reactor, path, self.threads)

    @staticmethod
    def _calm_collector() -> None:
        """
        Look for cycles less often: frames are many small values at once and no cycles.

        With Python's own thresholds a snapshot of 200 services takes 13 ms to read where it takes 2 without.
        """
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)

    async def start(self, locator: Callable[[Runtime], LocatorService]) -> None:
        """
        Bring the common services up.

        :param locator: makes the locator, since a gateway's has more parts.
        :raises CocaineError: with a reason for the operator.
        """
        self._calm_collector()
        make_folder("paths.runtime", self.config.runtime)
        self.threads.start()
        await self._open_storages()
        await self._find_addresses()
        self.locator = locator(self)
        await self.locator.start()
        self.keep(await self.publish("locator", self.locator.dispatch))
        if self.config.logging is not None:
            self.keep(await self.publish("logging", LoggingService(self.config.verbosity).dispatch))
        if self.config.storage is not None:
            self.keep(await self.publish("storage", StorageService(self._storages[self.config.storage]).dispatch))

    async def _open_storages(self) -> None:
        for name, storage in self._storages.items():
            try:
                await storage.opened
            except ConfigError as problem:
                raise ConfigError(f"storages.{name}.args.path: {problem.reason}") from problem

    async def _find_addresses(self) -> None:
        """What others are told when we bind to everything: the addresses of our host name (in a thread: DNS waits)."""
        network = self.config.network
        if network.endpoint not in ("::", "0.0.0.0"):
            return

        def look_up() -> tuple[str, ...]:
            name = network.hostname or socket.gethostname()
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

        try:
            self._addresses = await deferToThreadPool(self.reactor, self.threads, look_up)
        except OSError as problem:
            raise ConfigError(
                f"network.hostname: cannot be resolved ({problem}); give a name or an address"
            ) from problem

    def endpoints(self) -> list[Endpoint]:
        """Where our locator answers, for announcements and for workers."""
        info = self.directory.find("locator")
        return list(info.endpoints) if info is not None else []

    def locators(self) -> str:
        """The same as one word of a command line."""
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.endpoints())

    @property
    def addresses(self) -> tuple[str, ...]:
        """What others are told of this host."""
        return self._addresses

    def open(self, name: str, dispatch: Dispatch) -> Publication:
        """
        Open a port for a service that the locator does not list.

        Withdrawing closes the port; clients that are connected stay.

        :raises PublishError: the port cannot be had.
        """
        self._forget_withdrawn()
        factory = ServiceFactory(dispatch, self._hospitality)
        port = self._listen(name, factory)
        endpoints = tuple((address, port.getHost().port) for address in self._addresses)
        self._factories.append(factory)

        def withdraw() -> Deferred[None]:
            self._ports.release(name)
            self._withdrawn.add(factory)
            self._forget_withdrawn()
            return maybeDeferred(port.stopListening).addCallback(lambda _: None)

        info = ServiceInfo(endpoints, dispatch.protocol.version, dispatch.protocol.graph())
        return Publication(name, info, withdraw)

    def _listen(self, name: str, factory: ServiceFactory) -> Any:
        """On its own port, or on any of the shared ones that nobody else has, be it the end of a connection."""
        address, tried = self.config.network.endpoint, set[int]()
        while True:
            number = self._ports.take(name)
            try:
                return self.reactor.listenTCP(number, factory, interface=address, backlog=1024)
            except CannotListenError as problem:
                self._ports.release(name)
                if not self._ports.shared(name):
                    raise PublishError(_unavailable(name, address, number, problem.socketError)) from problem
                if number in tried:
                    words = f"network.shared: no port for {name}: {problem.socketError}; give a range with free ones"
                    raise PublishError(words) from problem
                tried.add(number)

    def _forget_withdrawn(self) -> None:
        """Withdrawn services are remembered only as long as a client is still connected."""
        gone = {factory for factory in self._withdrawn if not factory.connections}
        self._withdrawn -= gone
        self._factories = [factory for factory in self._factories if factory not in gone]

    async def publish(self, name: str, dispatch: Dispatch) -> Publication:
        """
        Open a port for a service and offer it.

        :raises PublishError: the port cannot be had.
        :raises InvalidArgument: the name is taken.
        """
        assert self.locator is not None
        opened = self.open(name, dispatch)
        try:
            remove = self.locator.publish(name, opened.info)
        except CocaineError:
            await opened.withdraw()
            raise

        def withdraw() -> Deferred[None]:
            remove()
            return opened.withdraw()

        return Publication(name, opened.info, withdraw)

    def keep(self, publication: Publication) -> None:
        """Withdraw this one too, at the end."""
        self._publications.append(publication)

    async def stop(self) -> None:
        """Withdraw everything, say what was said, close."""
        if self.locator is not None:
            self.locator.stop()
        await DeferredList([publication.withdraw() for publication in self._publications], consumeErrors=True)
        for factory in self._factories:
            factory.close_all()
        if self.threads.started:
            for storage in self._storages.values():
                await storage.close()
            self.threads.stop()


def make_folder(key: str, path: str) -> None:
    """
    Make a folder of the configuration, unless it is there.

    :raises ConfigError: it cannot be made, or not be written in.
    """
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as problem:
        raise ConfigError(
            f"{key}: {path} cannot be made: {problem.strerror}; make it for this user, or name another folder"
        ) from problem
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{key}: {path} cannot be written in by this user; let it, or name another folder")


def try_ports(network: settings.Network) -> None:
    """
    See whether the address and the pinned ports of our own services can be had, while twistd still has a terminal.

    Whoever is quicker afterwards is found out when the daemon starts, in its log.

    :raises ConfigError: one cannot.
    """
    family = socket.AF_INET6 if ":" in network.endpoint else socket.AF_INET
    for name in ("locator", "node", "storage", "logging"):
        port = network.pinned.get(name, 0)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((network.endpoint, port))
                probe.listen(1)
            except OSError as problem:
                raise ConfigError(_unavailable(name, network.endpoint, port, problem)) from problem


def _unavailable(name: str, address: str, port: int, problem: Exception) -> str:
    """Why a service has no port, with the key to change."""
    reason = getattr(problem, "strerror", None) or str(problem)
    if getattr(problem, "errno", None) == errno.EADDRNOTAVAIL:
        return f"network.endpoint: {address}: {reason}; give an address of this host"
    return f"network.pinned.{name}: port {port}: {reason}; stop who has it, or give another port"
