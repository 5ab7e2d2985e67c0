"""Everything at once, by chance: whatever happens, each request has one end, and nothing is left of it."""

from __future__ import annotations

import re
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import AppStopped, Discarded, HandlerFailed, NotRunning, QueueFull
from tests.proxy.world import PROXY, App, Client, Job, World

#: Other hosts than the locator's.
HOSTS = ("10.0.1.1", "10.0.1.2", "10.0.1.3")
REFUSALS = (AppStopped, NotRunning, QueueFull)
_ANSWER = re.compile(
    rb"(?:HTTP/1\.1 100 Continue\r\n\r\n)?HTTP/1\.1 (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)+)\r\n(.*)", re.DOTALL
)


class Request:
    """
    One client's, with a word of its own that the app is to say again.

    :ivar taken: times that an app had it and did not refuse it.
    """

    def __init__(self, world: World, chance: Random, number: int) -> None:
        self.word = b"w%d." % number
        self.taken = 0
        self.left = False
        self.method = chance.choice((b"GET", b"POST", b"PUT"))
        size = 0 if self.method == b"GET" else chance.choice((5, 30, 3000))
        app = chance.choice((b"app", b"app", b"app", b"group", b"nope"))
        lines = [b"%b /%b/http/%b HTTP/1.1" % (self.method, app, self.word), b"Host: a"]
        if size:
            lines.append(b"Content-Length: %d" % size)
        if size and chance.random() < 0.2:
            lines.append(b"Expect: 100-continue")
        if chance.random() < 0.3:
            lines.append(b"X-Cocaine-Sticky: %d" % chance.randrange(5))
        if not size and chance.random() < 0.2:
            lines += [b"Connection: Upgrade", b"Upgrade: x"]
        whole = b"\r\n".join(lines) + b"\r\n\r\n" + b"b" * size
        self.rest = whole
        self.client: Client = world.client()
        self.say(chance.choice((len(whole), len(whole), chance.randrange(len(whole)))))

    def say(self, size: int) -> None:
        """Some more of the request."""
        now, self.rest = self.rest[:size], self.rest[size:]
        if now and self.client.ended is None and not self.left:
            self.client.send(now)

    def leave(self) -> None:
        self.left = True
        self.client.transport.abortConnection()  # type: ignore[union-attr]


class Storm:
    """A world in which everything changes."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.world = World(inline=1000, buffer=2000, body=5.0, chunk=20.0, request=60.0)
        self.world.upstreams.size = 3
        self.world.upstreams.lifespan = 10.0
        self.world.door.budget.share = 1.0
        self.requests: dict[bytes, Request] = {}
        self.open: list[Job] = []
        self.places: list[App] = []
        for name in ("app", "v1", "v2"):
            self.move(name)
        self.world.routers[-1].chunk({"group": [[2**31, "v1"], [2**32 - 1, "v2"]]})  # type: ignore[arg-type]
        self.world.advance()

    def move(self, name: str) -> None:
        """From now on the app is elsewhere; where it was it may be stopped, or go on."""
        old = self.world.apps.get(name)
        if old is not None and self.chance.random() < 0.5:
            old.greet = lambda job: job.channel.fail(AppStopped())
        app = self.world.app(name, host=self.chance.choice(HOSTS))
        app.info = {"http-streaming": self.chance.random() < 0.7, "credits": self.chance.random() < 0.7}
        app.greet = self.greet
        self.places.append(app)

    def greet(self, job: Job) -> None:
        self.open.append(job)
        if self.chance.random() < 0.1:
            job.channel.fail(self.chance.choice(REFUSALS)())
            self.open.remove(job)

    def taken(self, job: Job) -> None:
        """The app has begun to work on it."""
        if not job.play and job.chunks:
            job.play = lambda _: None
            self.requests[job.request.uri[1:]].taken += 1

    def go_on(self) -> None:
        """An app does something with one of its requests."""
        if not self.open:
            return
        job = self.chance.choice(self.open)
        if not job.channel.open or not job.chunks:
            return
        self.taken(job)
        what = self.chance.randrange(9)
        if what < 5:
            job.answer(job.request.uri[1:])
        elif what == 5:
            job.head()
            job.channel.chunk(job.request.uri[1:])
            return
        elif what == 6:
            job.channel.fail(self.chance.choice((HandlerFailed, Discarded))())
        elif what == 7:
            job.channel.session.connection.abort()
        else:
            job.channel.chunk(b"\xc1")
        self.open.remove(job)

    def change(self) -> None:
        """Something happens to the platform."""
        chance, network, world = self.chance, self.world.network, self.world
        host = chance.choice(HOSTS)
        what = chance.randrange(7)
        if what == 0:
            network.cut(host, PROXY)
            network.cut(PROXY, host)
        elif what < 3:
            for other in HOSTS:
                network.mend(other, PROXY)
                network.mend(PROXY, other)
        elif what == 3:
            self.move(chance.choice(("app", "v1", "v2")))
        elif what == 4:
            world.mute = not world.mute and chance.random() < 0.3
        elif what == 5:
            for app in self.places:
                if app.address[0] == host:
                    for connection in list(app.factory.connections):
                        connection.abort()
        else:
            for name in list(world.upstreams.pools):
                world.upstreams.pools[name].retire()

    def blow(self) -> None:
        """For a while."""
        chance = self.chance
        for number in range(400):
            what = chance.random()
            if what < 0.35:
                request = Request(self.world, chance, number)
                self.requests[request.word] = request
            elif what < 0.75:
                self.go_on()
            elif what < 0.8 and self.requests:
                chance.choice(list(self.requests.values())).leave()
            elif what < 0.9 and self.requests:
                chance.choice(list(self.requests.values())).say(10_000)
            elif what < 0.95:
                self.change()
            self.world.advance(chance.choice((0, 0, 0, 0.1, 0.5, 2.0)))

    def calm(self) -> None:
        """Everything works again, and whoever has time to the end is waited for."""
        self.world.mute = False
        for host in HOSTS:
            self.world.network.mend(host, PROXY)
            self.world.network.mend(PROXY, host)
        for request in self.requests.values():
            request.say(10_000)
        for _ in range(200):
            self.world.advance(0.5)


class StormTests(SynchronousTestCase):
    def judge(self, request: Request) -> None:
        """It got one answer, to itself, or none since it did not stay."""
        got, client = request.client.got, request.client
        match = _ANSWER.fullmatch(got)
        if match is None:
            # Its connection broke off, or it had not said all; and nobody is still waiting.
            self.assertIsNotNone(client.ended, (request.word, got))
            return
        status, head, body = int(match[1]), match[2], match[3]
        self.assertNotIn(b"HTTP/1.1", body, request.word)
        if status == 200 and client.ended is None:
            self.assertIn(b"chunked", head)
            self.assertTrue(body.endswith(b"0\r\n\r\n"), (request.word, body))
            self.assertEqual(body, b"%x\r\n%b\r\n0\r\n\r\n" % (len(request.word), request.word))

    def test_storms(self) -> None:
        """Nobody is answered twice or with another's answer, no POST is done twice, and no bytes or timers are kept."""
        for seed in range(5):
            storm = Storm(seed)
            world = storm.world
            storm.blow()
            storm.calm()
            for request in storm.requests.values():
                self.judge(request)
                if request.method == b"POST":
                    self.assertLessEqual(request.taken, 1, (seed, request.word))
                request.leave()
            world.advance()
            door = world.door
            left = (door.gathered, door.promised, door.calling, door.meters.running, len(door.deadlines))
            self.assertEqual(left, (0, 0, 0, 0, 0), seed)
            self.assertLessEqual(len(world.entries), len(storm.requests), seed)
            for _ in range(130):
                world.advance(5)
            self.assertEqual(world.upstreams.pools, {}, seed)
            self.assertEqual([app.factory.connections for app in storm.places], [set()] * len(storm.places), seed)
            self.assertEqual(self.flushLoggedErrors(), [])
            world.stop()
            world.advance()
            self.assertEqual(world.door.connections, set())
