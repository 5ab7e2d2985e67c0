"""
A node in memory: the real service, apps and pools on a fake clock, with workers and clients that the test plays.

Bytes travel through `cocaine_tx.testing.network`, so framing, order and loss are real; processes are
`cocaine_tx.testing.isolate`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgpack
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from cocaine_tx.errors import CocaineError
from cocaine_tx.interfaces import Exit, Publication, ServiceInfo
from cocaine_tx.node.app import App, Surroundings
from cocaine_tx.node.pool import Pool
from cocaine_tx.node.service import NodeService
from cocaine_tx.rpc.client import Remote
from cocaine_tx.rpc.connection import Connection
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.storage.memory import MemoryStorage
from cocaine_tx.testing.isolate import MemoryIsolate, MemoryProcess
from cocaine_tx.testing.network import Host, Network, Pipe
from cocaine_tx.wire.frames import Limits, pack
from cocaine_tx.wire.headers import Headers
from cocaine_tx.wire.idl import Message, Slot
from cocaine_tx.wire.protocols import APP, NODE
from cocaine_tx.wire.session import Channel, dialing, error_of

#: What a client saw of one channel: the chunks, then how it ended. More than one end would be the bug of bugs.
PROFILE: Mapping[str, Any] = {"terminate-timeout": 4, "handshake-timeout": 5, "spawn-timeout": 2}


class Machine(Host):
    """The node's reactor, with UNIX sockets."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, "10.0.0.1")
        self.sockets: dict[str, Socket] = {}
        self.unwritable = False

    def listenUNIX(self, path: str, factory: Any, mode: int = 0o666) -> Socket:
        if self.unwritable or path in self.sockets:
            raise CannotListenError(None, path, OSError(13, "Permission denied"))
        made = self.sockets[path] = Socket(self, path, factory)
        return made


class Socket:
    """A listening UNIX socket."""

    def __init__(self, machine: Machine, path: str, factory: Any) -> None:
        self._machine = machine
        self._path = path
        self.factory = factory

    def stopListening(self) -> Deferred[None]:
        del self._machine.sockets[self._path]
        return succeed(None)


class Puppet(Protocol):
    """
    A worker's end of its socket, playing what the test says.

    :ivar heard: decoded frames without headers, beside heartbeats.
    :ivar headers: of the frame with the same place in ``heard``.
    """

    def __init__(self, stage: Stage, process: MemoryProcess) -> None:
        self.stage = stage
        self.process = process
        self.uuid = process.launch.arguments["--uuid"]
        self.heard: list[Any] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.beats = 0
        self.lost = False
        self.act: Callable[[Puppet, list[Any]], None] = echo
        self._unpacker = msgpack.Unpacker(raw=True)
        self._seen: set[int] = set()
        self._asked: set[int] = set()

    def say(self, *frames: list[Any]) -> None:
        """Send frames."""
        if not self.lost:
            self.transport.write(b"".join(msgpack.packb(frame, use_bin_type=False) for frame in frames))

    def dataReceived(self, data: bytes) -> None:
        self._unpacker.feed(data)
        for frame in self._unpacker:
            if frame[:3] == [1, 0, []]:
                self.beats += 1
                continue
            self.heard.append(frame[:3])
            self.headers.append({name: value for _, name, value in frame[3]} if len(frame) > 3 else {})
            self.act(self, frame[:3])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    def opened(self, frame: list[Any]) -> bool:
        """Whether the frame is an invoke."""
        new = frame[0] > 1 and frame[0] not in self._seen
        self._seen.add(frame[0])
        return new

    def unanswered(self) -> list[int]:
        """Events that were not asked for by this method before."""
        fresh = sorted(self._seen - {1} - self._asked)
        self._asked.update(fresh)
        return fresh

    @property
    def invoked(self) -> int:
        """How many events it was given."""
        return len(self._seen - {1})

    def exit(self, how: Exit = Exit(code=0)) -> None:
        """Its process ends, and its socket with it."""
        if not self.lost:
            self.transport.loseConnection()
        if not self.process.ended:
            self.process.end(how)


def echo(puppet: Puppet, frame: list[Any]) -> None:
    """Say back what is said, and obey terminate."""
    number, kind, args = frame
    if number == 1:
        if kind == 1:
            puppet.say([1, 1, args])
            puppet.exit()
    elif not puppet.opened(frame):
        puppet.say([number, kind, args])


def idle(puppet: Puppet, frame: list[Any]) -> None:
    """Take events and never answer; obey terminate."""
    puppet.opened(frame)
    if frame[:2] == [1, 1]:
        puppet.exit()


def deaf(puppet: Puppet, frame: list[Any]) -> None:
    """Take events, answer nothing, obey nothing."""
    puppet.opened(frame)


class Call:
    """
    What a client has of one request.

    :ivar ends: ``"close"`` or an error's pair and text; there must be exactly one in the end.
    """

    def __init__(self) -> None:
        self.channel: Any = None
        self.chunks: list[bytes] = []
        self.ends: list[Any] = []

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message.name in ("write", "value"):
            self.chunks.append(args[0] if args else None)
        elif message.name == "error":
            error = error_of(args)
            self.ends.append((*error.pair, error.reason))
        else:
            self.ends.append("close")

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        # Its own half may be open still; that is not another end of the answer.
        if not self.ends:
            self.ends.append("lost")

    @property
    def error(self) -> tuple[int, int] | None:
        """The pair of the only end, if it is an error."""
        return self.ends[0][:2] if len(self.ends) == 1 and isinstance(self.ends[0], tuple) else None


class Stage:
    """
    A node, the storage it reads and the workers it starts.

    :ivar act: how workers behave that are brought up by `settle`; None: they are not brought up.
    :ivar puppets: workers that are connected or were, oldest first.
    """

    def __init__(self) -> None:
        self.network = Network()
        self.machine = Machine(self.network)
        self.turn = Turn(self.machine)
        self.storage = MemoryStorage()
        self.isolate = MemoryIsolate()
        self.published: dict[str, Dispatch] = {}
        self.refusal: Exception | None = None
        self.act: Callable[[Puppet, list[Any]], None] | None = echo
        self.puppets: list[Puppet] = []
        self._staged: set[MemoryProcess] = set()
        self._ports = 0
        self.around = Surroundings(
            reactor=self.machine,
            turn=self.turn,
            limits=Limits(),
            storage=self.storage,
            isolate=lambda type, args: self.isolate,
            publish=self.publish,
            locators=lambda: "127.0.0.1:10053",
            runtime="run",
            taken=frozenset({"storage"}),
        )
        self.service = NodeService(self.around)

    # -- the node's surroundings

    def publish(self, name: str, dispatch: Dispatch) -> Deferred[Publication]:
        if self.refusal is not None:
            raise self.refusal
        self.published[name] = dispatch

        def withdraw() -> Deferred[None]:
            self.published.pop(name, None)
            return succeed(None)

        return succeed(Publication(name, ServiceInfo((), 1, {}), withdraw))

    def upload(self, name: str = "hello", profile: Mapping[str, Any] = {}, **manifest: Any) -> None:
        """Put an app and its profile (of the same name) into storage."""
        self.storage.write("manifests", name, pack({"slave": "run", **manifest}), ["app"])
        self.storage.write("profiles", name, pack({**PROFILE, **profile}), ["profile"])

    # -- time

    def settle(self) -> None:
        """Everybody says what he has to say; new workers come up and killed ones end."""
        while True:
            self.network.advance(0)
            fresh = [process for process in self.isolate.processes if process not in self._staged]
            for process in fresh:
                self._staged.add(process)
                if self.act is not None and not process.ended:
                    self.bring_up(process)
            dying = [process for process in self.isolate.processes if process.kills and not process.ended]
            for process in dying:
                self.end(process, Exit(signal=15))
            if not fresh and not dying:
                return

    def wait(self, seconds: float, step: float = 0.25) -> None:
        """Time passes."""
        until = self.network.seconds() + seconds
        while self.network.seconds() < until:
            self.network.advance(min(step, until - self.network.seconds()))
            self.settle()

    # -- workers

    def connect(self, process: MemoryProcess) -> Puppet:
        """Its program connects to the node, and says nothing yet."""
        puppet = Puppet(self, process)
        if self.act is not None:
            puppet.act = self.act
        socket = self.machine.sockets[process.launch.endpoint]
        server = socket.factory.buildProtocol(None)
        here, there = UNIXAddress(process.launch.endpoint), UNIXAddress(None)
        near, far = Pipe(self.network, _place(there), _place(here), puppet), None
        if server is None:
            puppet.lost = True
            return puppet
        far = Pipe(self.network, _place(here), _place(there), server)
        near.peer, far.peer = far, near
        server.makeConnection(far)
        puppet.makeConnection(near)
        self.puppets.append(puppet)
        return puppet

    def bring_up(self, process: MemoryProcess) -> Puppet:
        """It starts, connects and shakes hands."""
        self._staged.add(process)
        process.start()
        puppet = self.connect(process)
        puppet.say([1, 0, [puppet.uuid]], [1, 0, []])
        self.network.advance(0)
        return puppet

    def end(self, process: MemoryProcess, how: Exit) -> None:
        """The process ends, and its socket with it."""
        for puppet in self.puppets:
            if puppet.process is process and not puppet.lost:
                puppet.transport.loseConnection()
        process.end(how)
        self.network.advance(0)

    @property
    def alive(self) -> list[Puppet]:
        """Connected workers."""
        return [puppet for puppet in self.puppets if not puppet.lost]

    # -- clients

    def client(self, dispatch: Dispatch | None = None) -> Client:
        """Somebody connected to the node service, or to another."""
        return Client(self, dispatch or self.service.dispatch)

    def start(self, name: str = "hello", profile: Mapping[str, Any] = {}, **manifest: Any) -> App:
        """An app that runs."""
        self.upload(name, profile, **manifest)
        started = Deferred.fromCoroutine(self.service.start(name, name))
        self.settle()
        result: list[Any] = []
        started.addBoth(result.append)
        if result != [None]:
            raise AssertionError(f"the app did not start: {result}")
        return self.service.apps[name]

    def pool(self, name: str = "hello") -> Pool:
        """The workers of a running app."""
        pool = self.service.apps[name].pool
        assert pool is not None
        return pool

    def leftovers(self) -> list[str]:
        """What is still there though nothing should be: processes, sockets, connections of workers, timers."""
        left = [f"process {process.pid}" for process in self.isolate.processes if not process.ended]
        left += [f"image {image.app}" for image in self.isolate.images if not image.discarded]
        left += [f"socket {path}" for path in self.machine.sockets]
        left += [f"connection {puppet.uuid}" for puppet in self.alive]
        left += [f"published {name}" for name in self.published]
        return left


class Client:
    """One client's connection."""

    def __init__(self, stage: Stage, dispatch: Dispatch) -> None:
        self.stage = stage
        stage._ports += 1
        factory = ServiceFactory(dispatch, Hospitality(stage.turn, stage.machine))
        server = factory.buildProtocol(None)
        assert server is not None
        self.server = server
        self.connection = Connection(dialing(), stage.turn, stage.machine)
        near = Pipe(stage.network, _place(stage._ports), _place(0), self.connection)
        far = Pipe(stage.network, _place(0), _place(stage._ports), server)
        near.peer, far.peer = far, near
        server.makeConnection(far)
        self.connection.makeConnection(near)
        self.remote = Remote(self.connection, {"node": NODE, "app": APP}[dispatch.protocol.name], stage.machine)

    def enqueue(self, *chunks: bytes, event: bytes = b"ping", headers: Headers = (), close: bool = True) -> Call:
        """An event of the app ``hello``, with chunks, closed unless told otherwise. Not delivered yet."""
        call = Call()
        args = (event,) if self.remote.protocol is APP else (b"hello", event)
        call.channel = self.remote.open("enqueue", *args, receiver=call, headers=headers)
        for chunk in chunks:
            call.channel.chunk(chunk)
        if close:
            call.channel.choke()
        return call

    def call(self, method: str, *args: Any) -> Any:
        """A call's answer (its first value, or the error's pair and text) after everybody has settled; None so far."""
        result: list[Any] = []
        self.remote.call(method, *args).addBoth(result.append)
        self.stage.settle()
        return answer(result)

    def leave(self) -> None:
        """The client vanishes."""
        self.connection.abort()
        self.stage.network.advance(0)


def answer(result: list[Any]) -> Any:
    """What a Deferred fired with, in words that compare."""
    if not result:
        return None
    if isinstance(result[0], Failure):
        error = result[0].value
        return (*error.pair, error.reason) if isinstance(error, CocaineError) else error
    return result[0][0] if result[0] else ()


class _Place:
    """An address for the network's books."""

    def __init__(self, name: object) -> None:
        self.host = str(name)

    def __repr__(self) -> str:
        return self.host


def _place(name: object) -> Any:
    return _Place(name)
