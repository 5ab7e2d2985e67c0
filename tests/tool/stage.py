"""
A small platform for the tool's tests: a locator, a storage and a node of our own protocols, on loopback.

`Stage.tool` runs a command line against it as `cocaine-tool` does and returns what a user would see.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, execute, gatherResults, maybeDeferred

from cocaine_tx.errors import AlreadyStarted, CocaineError, InvalidArgument, NotFound, NotRunning, ServiceNotFound
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.tool.command import Job, Workplace
from cocaine_tx.tool.console import Console
from cocaine_tx.tool.main import carry_out
from cocaine_tx.tool.parser import parse
from cocaine_tx.tool.platform import Platform, Wait
from cocaine_tx.wire import protocols
from cocaine_tx.wire.frames import pack
from cocaine_tx.wire.idl import ANY, PRIMITIVE, RAW, VOID, Optional, Protocol, Slot, protocol

#: 2026-03-04 05:06:07 UTC.
NOW = 1772600767.0


@dataclass(frozen=True)
class Seen:
    """What a user sees of a command."""

    status: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class DictStorage:
    """Storage in a dictionary. ``broken`` maps (method, collection) to the error to answer, a list of them, a wait."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[bytes, tuple[str, ...]]] = {}
        self.broken: dict[tuple[str, str], Any] = {}
        self.calls: list[tuple[str, ...]] = []

    def put(self, collection: str, key: str, value: Any, *tags: str) -> None:
        self.objects[collection, key] = (pack(value), tags)

    def blob(self, collection: str, key: str) -> bytes:
        return self.objects[collection, key][0]

    def calls_by_name(self) -> dict[str, Callable[..., Any]]:
        return {"read": self._read, "write": self._write, "remove": self._remove, "find": self._find}

    def _asked(self, method: str, *raw: bytes) -> list[str]:
        words = [word.decode() for word in raw]
        self.calls.append((method, *words))
        problem = self.broken.get((method, words[0]))
        if isinstance(problem, list):
            problem = problem.pop(0) if problem else None
        if problem is not None:
            raise problem
        return words

    def _read(self, headers: Any, collection: bytes, key: bytes) -> tuple[bytes]:
        at = tuple(self._asked("read", collection, key))
        if at not in self.objects:
            raise NotFound()
        return (self.objects[at][0],)  # type: ignore[index]

    def _write(self, headers: Any, collection: bytes, key: bytes, blob: bytes, tags: Any = ()) -> Any:
        waiting = self.broken.get(("write", collection.decode()))
        if isinstance(waiting, Deferred):
            self.calls.append(("write", collection.decode(), key.decode()))
            return waiting
        at = self._asked("write", collection, key)
        self.objects[at[0], at[1]] = (blob, tuple(tag.decode() for tag in tags))
        return ()

    def _remove(self, headers: Any, collection: bytes, key: bytes) -> tuple[()]:
        at = self._asked("remove", collection, key)
        self.objects.pop((at[0], at[1]), None)
        return ()

    def _find(self, headers: Any, collection: bytes, tags: Any) -> tuple[list[str]]:
        (where,) = self._asked("find", collection)
        wanted = {tag.decode() for tag in tags}
        return ([key for (of, key), (_, had) in self.objects.items() if of == where and wanted and wanted <= {*had}],)


class FakeNode:
    """A node that runs nothing and remembers what it was told. ``reports`` may hold an error or a Deferred."""

    def __init__(self) -> None:
        self.apps: dict[str, str] = {}
        self.reports: dict[str, Any] = {}
        self.calls: list[tuple[str, ...]] = []
        self.flags: list[int] = []
        self.refusal: CocaineError | None = None

    def calls_by_name(self) -> dict[str, Callable[..., Any]]:
        return {
            "start_app": self._start, "pause_app": self._pause, "list": self._list, "info": self._info,
            "restart_app": self._restart,
        }  # fmt: skip

    def _start(self, headers: Any, app: bytes, profile: bytes) -> tuple[()]:
        self.calls.append(("start", app.decode(), profile.decode()))
        if app.decode() in self.apps:
            raise AlreadyStarted(f"app '{app.decode()}' is running: application has already been started")
        if self.refusal is not None:
            raise self.refusal
        self.apps[app.decode()] = profile.decode()
        return ()

    def _pause(self, headers: Any, app: bytes) -> tuple[()]:
        self.calls.append(("pause", app.decode()))
        if self.apps.pop(app.decode(), None) is None:
            raise NotRunning()
        return ()

    def _restart(self, headers: Any, app: bytes, *profile: bytes) -> tuple[()]:
        self.calls.append(("restart", app.decode(), *(name.decode() for name in profile)))
        if app.decode() not in self.apps:
            raise NotRunning()
        if self.refusal is not None:
            raise self.refusal
        for name in profile:
            self.apps[app.decode()] = name.decode()
        return ()

    def _list(self, headers: Any) -> tuple[list[str]]:
        return (sorted(self.apps),)

    def _info(self, headers: Any, app: bytes, flags: int = 0) -> Any:
        self.flags.append(flags)
        name = app.decode()
        if name not in self.apps:
            raise InvalidArgument(f"app '{name}' is not running")
        report = self.reports.get(name, {"state": "running", "profile": {"name": self.apps[name]}})
        if isinstance(report, CocaineError):
            raise report
        return report if isinstance(report, Deferred) else (report,)


METRICS = protocol("metrics", 1, (Slot(0, "fetch", VOID, PRIMITIVE, (Optional(RAW), Optional(ANY))),))
#: A node of the original runtime: it cannot replace an app.
OLD_NODE = protocol("node", 1, [slot for slot in protocols.NODE.slots.values() if slot.name != "restart_app"])


@dataclass
class Stage:
    """Everything a test may look at or break. ``addresses`` and ``known`` are what the locator tells."""

    storage: DictStorage = field(default_factory=DictStorage)
    node: FakeNode = field(default_factory=FakeNode)
    ports: dict[str, Any] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    known: dict[str, Protocol] = field(default_factory=dict)
    rings: dict[str, Any] = field(default_factory=dict)
    refreshed: list[list[str]] = field(default_factory=list)
    metrics: list[Any] = field(default_factory=list)
    edit: Callable[[str], str] = lambda text: text
    _factories: list[ServiceFactory] = field(default_factory=list)

    def open(self, node_protocol: Protocol = protocols.NODE) -> None:
        """Listen. ``known`` may be made smaller afterwards: what is not there is not resolved."""
        node_calls = {name: call for name, call in self.node.calls_by_name().items() if node_protocol.named(name)}
        self.serve(protocols.LOCATOR, self._locator_calls(), {"routing": self._routing})
        self.serve(protocols.STORAGE, self.storage.calls_by_name())
        self.serve(node_protocol, node_calls)
        self.serve(METRICS, {"fetch": self._fetch})

    def serve(self, spoken: Protocol, calls: dict[str, Any], streams: dict[str, Any] | None = None) -> None:
        """One more service."""
        factory = ServiceFactory(Dispatch(spoken, calls, streams), Hospitality(Turn(reactor), reactor))
        self._factories.append(factory)
        self.ports[spoken.name] = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addresses[spoken.name] = self.ports[spoken.name].getHost().port
        self.known[spoken.name] = spoken

    async def close(self) -> None:
        """Stop listening and wait until nobody is connected."""
        await gatherResults([maybeDeferred(port.stopListening) for port in self.ports.values()])
        # All within one turn of the reactor: one that ends by itself while another is waited for would not be noticed.
        connections = [connection for factory in self._factories for connection in factory.connections]
        ends: list[Deferred[None]] = []
        for connection in connections:
            ended: Deferred[None] = Deferred()
            connection.lost = lambda _, ended=ended: ended.callback(None)
            ends.append(ended)
        for connection in connections:
            connection.abort()
        await gatherResults(ends)

    def _locator_calls(self) -> dict[str, Any]:
        return {
            "resolve": self._resolve,
            "cluster": lambda headers: ({"uuid-2": ["127.0.0.1", 10053], "uuid-1": ["127.0.0.1", 10054]},),
            "uuid": lambda headers: ("uuid-0",),
            "refresh": self._refresh,
        }

    def _resolve(self, headers: Any, name: bytes, *seed: bytes) -> tuple[Any, ...]:
        spoken = self.known.get(name.decode())
        if spoken is None:
            raise ServiceNotFound()
        return ([["127.0.0.1", self.addresses[spoken.name]]], spoken.version, spoken.graph())

    def _refresh(self, headers: Any, names: Any) -> tuple[()]:
        self.refreshed.append([name.decode() for name in names])
        return ()

    def _routing(self, channel: Any, headers: Any, router: bytes) -> None:
        channel.send("write", self.rings)

    def _fetch(self, headers: Any, *args: Any) -> tuple[Any]:
        self.metrics.append(args)
        return ({"a.b": 1},)

    async def tool(self, *words: str, terminal: bool = False) -> Seen:
        """Run a command line to its end."""
        address = ("--port", str(self.addresses["locator"]), "--host", "127.0.0.1")
        args = parse([*words, *address])
        out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
        console = Console(out, err, json=args.json, quiet=args.quiet, verbosity=args.verbose)
        platform = Platform(
            Dialer(reactor, Turn(reactor)), (args.host, int(args.port)), Wait(reactor, args.timeout)
        )  # fmt: skip
        workplace = Workplace(execute, lambda text: execute(self.edit, text), lambda: NOW)
        status = await carry_out(Job(args, platform, console, workplace))
        return Seen(status, out.getvalue(), err.getvalue())
