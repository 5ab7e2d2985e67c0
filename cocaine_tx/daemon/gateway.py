"""
``twistd cocaine-gateway``: the locator that many nodes are linked to, and one address for each of their applications.

The parts are those of `locator`; a gateway's configuration has a gateway and a cluster where a locator's has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService

from .locator import Options, station_service
from .runtime_reader import Role


def makeService(options: Mapping[str, Any]) -> IService:
    """What twistd runs."""
    return station_service("cocaine-gateway", Role.GATEWAY, options)


__all__ = ["Options", "makeService"]
