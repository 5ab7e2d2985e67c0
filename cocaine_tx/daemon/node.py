"""
``twistd cocaine-node``: services, locator and apps in one process.

`makeService` is the wiring diagram; `Node.start` is the order in which parts come up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python import usage

from ..errors import CocaineError, ComponentNotFound, ConfigError, InvalidArgument
from ..interfaces import IIsolate
from ..isolate.process import ProcessIsolate
from ..node.app import Surroundings
from ..node.manifest import LARGEST_PID, SOCKET_PATH_LIMIT, socket_path
from ..node.reception import sweep
from ..node.service import NodeService
from ..rpc.reactor import install_reactor
from . import settings
from .document import BUILT_IN, read
from .house import Runtime, make_folder, try_ports
from .neighbours import Neighbours
from .runtime_reader import Role, runtime_settings
from .twistd import DaemonService, end_on_hangup, refuse

#: Names that are services of the runtime in every configuration, so that no app may take one.
CORE = frozenset({"locator", "node", "storage", "logging"})


class Options(usage.Options):
    """Everything else is in the file."""

    optParameters = [["config", "c", None, "YAML file, or an original cocaine-runtime JSON file"]]


class Node:
    """
    The parts of a node daemon.

    :ivar service: the apps; None before the start.
    """

    _log = Logger()

    def __init__(self, reactor: Any, config: settings.Runtime) -> None:
        self.runtime = Runtime(reactor, config)
        self.neighbours = Neighbours(self.runtime)
        self.service: NodeService | None = None

    def _isolate(self, type: str, args: Mapping[str, Any]) -> IIsolate:
        if type not in ("process", "legacy_process"):
            raise ComponentNotFound(f"isolate.type: {type!r} is not known here; use 'process'")
        runtime = self.runtime
        return ProcessIsolate(
            runtime.reactor, runtime.threads, runtime.storage, runtime.config.spool, args, _environment(os.environ)
        )

    async def start(self) -> None:
        """Common services, then the node's own, then the runlist's apps."""
        runtime = self.runtime
        for warning in runtime.config.warnings:
            self._log.warn("{warning}", warning=warning)
        await runtime.start(self.neighbours.locator)
        try:
            make_folder("paths.spool", runtime.config.spool)
        except ConfigError as problem:
            # Not the end: an original file may count on a folder that its profiles do not use.
            self._log.warn("{reason}", reason=problem.reason)
        await self._isolate("process", {}).sweep()
        await deferToThreadPool(runtime.reactor, runtime.threads, sweep, runtime.config.runtime)
        self.service = NodeService(
            Surroundings(
                reactor=runtime.reactor,
                turn=runtime.turn,
                limits=runtime.limits,
                storage=runtime.storage,
                isolate=self._isolate,
                publish=lambda name, dispatch: Deferred.fromCoroutine(runtime.publish(name, dispatch)),
                locators=runtime.locators,
                runtime=runtime.config.runtime,
                taken=CORE,
            )
        )
        runtime.keep(await runtime.publish("node", self.service.dispatch))
        if runtime.config.runlist is not None:
            await self.service.run_list(runtime.config.runlist)
        await self.neighbours.start()
        self._log.info("node {uuid} is up, locator at {where}", uuid=runtime.uuid, where=runtime.locators())

    async def stop(self) -> None:
        """Drain the apps, then everything else."""
        await self.neighbours.stop()
        if self.service is not None:
            await self.service.drain()
        await self.runtime.stop()


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """
    What workers may inherit of our own environment, for programs that begin with ``#!/usr/bin/env python3``.

    They find the Python that runs this daemon first, and with it the worker SDK, also when nobody has activated its
    virtual environment; and they run in another folder, so relative paths would mean something else there.
    """
    paths = [os.path.abspath(path) for path in own.get("PYTHONPATH", "").split(os.pathsep) if path]
    found = dict(own) | {"PATH": os.pathsep.join((os.path.dirname(sys.executable), own.get("PATH", os.defpath)))}
    if paths:
        found["PYTHONPATH"] = os.pathsep.join(paths)
    return found


def try_sockets(folder: str) -> None:
    """
    See whether workers' sockets can be made in ``paths.runtime``: for the shortest name and the longest process id.

    :raises ConfigError: its path is so long that no app could be started.
    """
    try:
        socket_path(folder, "a", LARGEST_PID)
    except InvalidArgument as problem:
        words = f"{folder} is too long: sockets in it have paths of at most {SOCKET_PATH_LIMIT} bytes"
        raise ConfigError(f"paths.runtime: {words}; name a shorter folder") from problem


def makeService(options: Mapping[str, Any]) -> IService:
    """What twistd runs."""
    install_reactor()
    from twisted.internet import reactor

    try:
        config = runtime_settings(read(options["config"], os.environ), Role.NODE)
        try_sockets(config.runtime)
        try_ports(config.network)
        node = Node(reactor, config)
    except CocaineError as problem:
        raise refuse("cocaine-node", options["config"], problem) from problem
    end_on_hangup(reactor)
    return DaemonService("cocaine-node", options["config"] or BUILT_IN, reactor, node.start, node.stop)
