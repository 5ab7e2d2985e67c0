"""The commands that ask the locator: ``locate``, ``routing``, ``cluster``, ``uuid``."""

from __future__ import annotations

import socket
from typing import Any
from uuid import uuid4

from ..errors import RemoteProtocolError
from ..interfaces import Endpoint
from ..rpc.client import service_info
from .command import Command, Job, all_of, name_of, option
from .console import Data, Result
from .documents import plain
from .exits import Refused, ServiceError

#: Points of a routing ring lie on a circle this long.
_CIRCLE = 2**32


async def locate(job: Job) -> Result:
    """Where a service answers and what it offers."""
    locator = await job.platform.locator()
    answer = await locator.call("resolve", job.named("service"))
    try:
        info = service_info(answer)
        api = {number: plain(row[0]) for number, row in info.graph.items()}
    except (RemoteProtocolError, AttributeError, TypeError, IndexError) as problem:
        raise ServiceError("locator", RemoteProtocolError("the answer has not the shape of a service")) from problem
    return Data({"api": api, "endpoints": [_address(place) for place in info.endpoints], "version": info.version})


def _address(place: Endpoint) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def routing(job: Job) -> Result:
    """The share of each app in a routing group."""
    name = job.named("routing group")
    locator = await job.platform.locator()
    # A second stream of the same id would end the first one, which may be somebody else's.
    rings = plain(await locator.first("routing", f"cocaine-tool:{uuid4()}", True)) or {}
    if name not in rings:
        raise Refused(f'Routing group "{name}" does not exist')
    return Data({name: shares(rings[name])})


def shares(ring: list[list[Any]]) -> dict[str, float]:
    """
    What part of the circle each app owns.

    :param ring: ``[point, app]``; a point belongs to all seeds from the point before it on
        (reference ``protocol-v12.md`` section 10.4).
    """
    points = sorted((int(point), str(app)) for point, app in ring)
    owned: dict[str, int] = {}
    before = points[-1][0] - _CIRCLE if points else 0
    for point, app in points:
        owned[app] = owned.get(app, 0) + point - before
        before = point
    return {app: length / _CIRCLE for app, length in owned.items()}


async def cluster(job: Job) -> Result:
    """The locators that this one knows, by node."""
    locator = await job.platform.locator()
    nodes: dict[str, list[Any]] = plain(await locator.value("cluster")) or {}
    if job.args.resolve is not None:
        return Data(nodes)

    async def named(uuid: str) -> tuple[str, list[Any]]:
        address, port = nodes[uuid][:2]
        return uuid, [await job.platform.wait(job.workplace.aside(host_of, address)), port]

    return Data(dict(await all_of(nodes, named)))


def host_of(address: str) -> str:
    """The host's name, or the address itself when nobody knows one. Waits for DNS."""
    try:
        return socket.gethostbyaddr(address)[0]
    except OSError:
        return address


async def uuid(job: Job) -> Result:
    """The node's uuid."""
    locator = await job.platform.locator()
    return Data(plain(await locator.value("uuid")))


COMMANDS = (
    Command(("locate",), "Show where a service answers and what it offers.", locate, (name_of("Service"),)),
    Command(("routing",), "Show the share of each app in a routing group.", routing, (name_of("Routing group"),)),
    Command(
        ("cluster",), "Show the nodes that the locator knows.", cluster,
        (
            option(
                "--resolve", metavar="ANY", nargs="?", const="yes",
                help="with any value, or none: show IP addresses instead of host names",
            ),
        ),
    ),
    Command(("uuid",), "Show the node's uuid.", uuid),
)  # fmt: skip
