"""
``twistd cocaine-locator``: the runtime without applications, for hosts that keep objects or show the way.

`Station` is what the gateway daemon runs as well; the two differ in what their configuration says by default.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage

from ..errors import CocaineError
from ..rpc.reactor import install_reactor
from . import settings
from .document import BUILT_IN, read
from .house import Runtime, try_ports
from .neighbours import Neighbours
from .runtime_reader import Role, runtime_settings
from .twistd import DaemonService, end_on_hangup, refuse


class Options(usage.Options):
    """Everything else is in the file."""

    optParameters = [["config", "c", None, "YAML file, or an original cocaine-runtime JSON file"]]


class Station:
    """The parts of a daemon without applications."""

    _log = Logger()

    def __init__(self, reactor: Any, config: settings.Runtime) -> None:
        self.runtime = Runtime(reactor, config)
        self.neighbours = Neighbours(self.runtime)

    async def start(self) -> None:
        """The locator and the services around it, then the neighbours."""
        for warning in self.runtime.config.warnings:
            self._log.warn("{warning}", warning=warning)
        await self.runtime.start(self.neighbours.locator)
        await self.neighbours.start()
        self._log.info("locator {uuid} is up at {where}", uuid=self.runtime.uuid, where=self.runtime.locators())

    async def stop(self) -> None:
        """What is on its way ends first."""
        await self.neighbours.stop()
        await self.runtime.stop()


def station_service(name: str, role: Role, options: Mapping[str, Any]) -> IService:
    """What twistd runs for a daemon of that role."""
    install_reactor()
    from twisted.internet import reactor

    try:
        config = runtime_settings(read(options["config"], os.environ), role)
        try_ports(config.network)
        station = Station(reactor, config)
    except CocaineError as problem:
        raise refuse(name, options["config"], problem) from problem
    end_on_hangup(reactor)
    return DaemonService(name, options["config"] or BUILT_IN, reactor, station.start, station.stop)


def makeService(options: Mapping[str, Any]) -> IService:
    """What twistd runs."""
    return station_service("cocaine-locator", Role.LOCATOR, options)
