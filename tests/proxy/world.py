"""A proxy, a locator, apps and HTTP clients in memory, on one fake clock; the apps say what the test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import CocaineError, ServiceNotFound
from cocaine_tx.proxy.access import AccessLog, Entry
from cocaine_tx.proxy.connection import HttpConnection
from cocaine_tx.proxy.door import Door, DoorFactory
from cocaine_tx.proxy.locators import Locators
from cocaine_tx.proxy.terms import Terms
from cocaine_tx.proxy.upstreams import Upstreams
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.network import Network
from cocaine_tx.wire.headers import Headers
from cocaine_tx.wire.http import PackedRequest, pack_head, unpack_request
from cocaine_tx.wire.idl import CREDIT
from cocaine_tx.wire.protocols import APP, LOCATOR
from cocaine_tx.wire.session import Channel

NODE, PROXY, CLIENT = "10.0.0.1", "10.0.0.2", "10.0.0.3"


class Job:
    """
    One event that an app was given.

    :ivar credits: bytes granted beyond the first window.
    :ivar chunks: what the proxy has sent; ``ended`` is "close", or the error's reason, or "lost".
    """

    def __init__(self, channel: Channel, headers: Headers, event: bytes) -> None:
        self.channel = channel
        self.headers = dict(headers)
        self.event = event
        self.chunks: list[bytes] = []
        self.ended = ""
        self.credits = 0
        self.play: Any = None
        channel.receiver = self

    def received(self, channel: Channel, message: Any, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CREDIT:
            self.credits += args[0]
        elif message.name == "write":
            self.chunks.append(args[0])
        else:
            self.ended = args[1].decode() if message.name == "error" else "close"
            if self.play is not None and self.ended == "close":
                self.play(self)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self.ended = self.ended or "lost"

    @property
    def request(self) -> PackedRequest:
        return unpack_request(self.chunks[0])

    @property
    def body(self) -> bytes:
        return self.request.body + b"".join(self.chunks[1:])

    def head(self, status: int = 200, *headers: tuple[str, str]) -> None:
        self.channel.chunk(pack_head(status, headers))

    def answer(self, body: bytes = b"", status: int = 200, *headers: tuple[str, str]) -> None:
        self.head(status, *headers)
        if body:
            self.channel.chunk(body)
        self.channel.choke()


class App:
    """
    A node's service of one app.

    :ivar jobs: every event, in order.
    :ivar greet: called with each new job; ``play``: when the proxy has sent all of it.
    :ivar say_info: makes the answer to ``info``.
    """

    spoken = APP

    def __init__(self, world: World, name: str, port: int, host: str = NODE) -> None:
        self.name = name
        self.address = (host, port)
        self.jobs: list[Job] = []
        self.play: Any = None
        self.greet: Any = None
        self.info: dict[str, Any] = {}
        self.say_info: Any = lambda: (self.info,)
        dispatch = Dispatch(APP, {"info": lambda headers: self.say_info()}, {"enqueue": self._enqueue})
        self.factory = ServiceFactory(dispatch, Hospitality(world.turn, world.node))
        world.network.host(host).listenTCP(port, self.factory, interface=host)

    def _enqueue(self, channel: Channel, headers: Headers, event: bytes, tag: bytes = b"") -> None:
        job = Job(channel, headers, event)
        self.jobs.append(job)
        if self.greet is not None:
            self.greet(job)
        job.play = self.play


class Client(Protocol):
    """An HTTP client that speaks bytes."""

    def __init__(self) -> None:
        self.got = b""
        self.ended: str | None = None

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        self.ended = type(reason.value).__name__

    def send(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def take(self) -> bytes:
        got, self.got = self.got, b""
        return got


class _ClientFactory:
    def __init__(self, made: Client) -> None:
        self._made = made

    def buildProtocol(self, addr: object) -> Client:
        return self._made

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class World:
    """Everything; `turn` is the whole network's."""

    def __init__(self, wall: Callable[[], float] = lambda: 784111777.0, **terms: Any) -> None:
        self.network = Network()
        self.node = self.network.host(NODE)
        self.turn = Turn(self.network)
        self.apps: dict[str, App] = {}
        self.made = 0
        self.resolved: list[str] = []
        self.routers: list[Channel] = []
        self.mute = False  # the locator says nothing
        self.unanswered = 0
        dispatch = Dispatch(
            LOCATOR, {"resolve": self._resolve, "cluster": self._cluster}, {"routing": self._routing}
        )
        self.node.listenTCP(10053, ServiceFactory(dispatch, Hospitality(self.turn, self.node)), interface=NODE)
        host = self.network.host(PROXY)
        dialer = Dialer(host, self.turn)
        locators = Locators(dialer, [(NODE, 10053)])
        self.entries: list[Entry] = []
        self.upstreams = Upstreams(dialer, locators, 2, 120.0, {})

        def line(entry: Entry) -> str:
            self.entries.append(entry)
            return ""

        log = AccessLog(line, host.callLater, lambda batch, done: done())
        self.door = Door(host, self.turn, self.upstreams, Terms(tracing_chance=0.0, **terms), log, wall=wall)
        host.listenTCP(80, DoorFactory(self.door, HttpConnection, 100), interface=PROXY)
        self.upstreams.start()
        self.advance()

    def _cluster(self, headers: Headers) -> Any:
        return Deferred() if self.mute else ({},)

    def _resolve(self, headers: Headers, name: bytes, seed: bytes = b"") -> Any:
        if self.mute:
            self.unanswered += 1
            return Deferred()
        self.resolved.append(name.decode())
        app = self.apps.get(name.decode())
        if app is None:
            raise ServiceNotFound()
        return ([list(app.address)], app.spoken.version, app.spoken.graph())

    def _routing(self, channel: Channel, headers: Headers, uid: bytes) -> None:
        self.routers.append(channel)

    def app(self, name: str = "app", play: Any = None, host: str = NODE) -> App:
        """The locator sends everybody who asks from now on to this one."""
        self.made += 1
        self.apps[name] = made = App(self, name, 30000 + self.made, host)
        made.play = play
        return made

    def client(self) -> Client:
        made = Client()
        self.network.host(CLIENT).connectTCP(PROXY, 80, _ClientFactory(made))
        self.advance()
        return made

    def ask(self, raw: bytes) -> Client:
        """A new client that sends this."""
        client = self.client()
        client.send(raw)
        self.advance()
        return client

    def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, and everybody say what they have to say."""
        self.network.advance(seconds)
        for _ in range(30):
            self.network.advance(0)

    def stop(self) -> None:
        self.door.close()
        self.upstreams.stop()


def get(target: str = "/app/http/", version: str = "1.1", *headers: str) -> bytes:
    lines = [f"GET {target} HTTP/{version}", "Host: a", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class WorldCase(SynchronousTestCase):
    """Worlds that are stopped at the end."""

    def world(self, **terms: Any) -> World:
        world = World(**terms)
        self.addCleanup(world.stop)
        return world

    def status(self, client: Client) -> int:
        self.assertTrue(client.got.startswith(b"HTTP/1.1 "), client.got)
        return int(client.got[9:12])
