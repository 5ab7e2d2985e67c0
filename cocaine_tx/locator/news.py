"""
Announcements: what a node's locator writes on its ``connect`` stream, as values.

Very many services have very few protocols, so equal graphs become one object here: a gateway of 500 nodes with 200 apps
each would keep a hundred thousand copies otherwise.

Source: reference ``protocol-v12.md`` section 10.2, ``observed-runtime.md`` 19.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RemoteProtocolError
from ..interfaces import ServiceInfo
from ..rpc.client import service_info
from ..wire.frames import unpack
from ..wire.headers import LOCATOR_EXTRA, Headers, find

#: Most services that one node may announce at a time.
SERVICES = 20_000
#: Most different graphs that are remembered.
GRAPHS = 64

_graphs: list[dict[int, Any]] = []


@dataclass(frozen=True, slots=True)
class News:
    """One announcement: services without endpoints have gone."""

    uuid: str
    services: Mapping[str, ServiceInfo]
    extra: Mapping[str, Any]


def news_of(args: tuple[Any, ...], headers: Headers) -> News:
    """
    What a write of the ``connect`` stream says.

    :raises RemoteProtocolError: it has not the shape of an announcement.
    """
    if len(args) < 2 or args[0].__class__ is not bytes or args[1].__class__ is not dict:
        raise RemoteProtocolError("an announcement is not [uuid, {name: service}]")
    if len(args[1]) > SERVICES:
        raise RemoteProtocolError(f"more than {SERVICES} services are announced")
    services = {}
    for name, row in args[1].items():
        if name.__class__ is not bytes or row.__class__ is not tuple or len(row) < 3 or row[2].__class__ is not dict:
            raise RemoteProtocolError("an announced service is not [endpoints, version, graph]")
        services[sys.intern(name.decode("utf-8", "surrogateescape"))] = service_info((*row[:2], one_graph(row[2])))
    return News(args[0].decode("utf-8", "surrogateescape"), services, _extra(headers))


def one_graph(graph: dict[int, Any]) -> dict[int, Any]:
    """The graph, or an equal one that was seen before."""
    for place, known in enumerate(_graphs):
        if _equal(known, graph):
            if place:
                # What was seen last is mostly what comes next.
                _graphs.insert(0, _graphs.pop(place))
            return known
    _graphs.insert(0, graph)
    del _graphs[GRAPHS:]
    return graph


def _equal(known: dict[int, Any], graph: dict[int, Any]) -> bool:
    try:
        return known == graph
    except RecursionError:
        raise RemoteProtocolError("the graph of an announced service is too deep") from None


def _extra(headers: Headers) -> dict[str, Any]:
    blob = find(headers, LOCATOR_EXTRA)
    if not blob:
        return {}
    labels = unpack(blob)
    if labels.__class__ is not dict:
        raise RemoteProtocolError("the header x-cocaine-locator-extra is not a map")
    return {_text(key): _text(value) for key, value in labels.items()}


def _text(value: Any) -> Any:
    return value.decode("utf-8", "surrogateescape") if value.__class__ is bytes else value
