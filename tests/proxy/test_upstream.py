"""The connections to an app, when nodes hang, apps move, and settings change."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from cocaine_tx.errors import AppStopped, NotRunning
from cocaine_tx.wire.protocols import NODE as NODE_SERVICE
from tests.proxy.world import NODE, PROXY, App, Job, World, WorldCase, get

OTHER = "10.0.0.9"
POST = b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
PUT = b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678"


def ok(job: Job) -> None:
    job.answer(b"ok")


def stopped() -> Any:
    raise AppStopped()


class UpstreamCase(WorldCase):
    def run_for(self, world: World, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            world.advance(0.5)


class HangingNodeTests(UpstreamCase):
    def freeze(self, world: World, host: str) -> None:
        """Whatever runs there says nothing any more, and nobody is told."""
        world.network.cut(host, PROXY)
        world.network.cut(PROXY, host)

    def two_nodes(self, world: World) -> tuple[App, App]:
        """Two connections, one to each; the locator sends new ones to the second."""
        first = world.app(play=ok)
        self.assertEqual(self.status(world.ask(get())), 200)
        second = world.app(play=ok, host=OTHER)
        world.ask(get())
        self.run_for(world, 1)
        world.ask(get())
        self.assertEqual((len(first.factory.connections), len(second.factory.connections)), (1, 1))
        return first, second

    def test_says_nothing_at_first(self) -> None:
        """A node that takes a connection and says nothing is given no request: nobody waits for it in vain."""
        world = self.world()
        silent = world.app()
        silent.factory.buildProtocol = lambda address: Protocol()
        client = world.ask(get())
        self.run_for(world, 1)
        spoken = world.app(play=ok, host=OTHER)
        self.run_for(world, 6)
        self.assertEqual(self.status(client), 200)
        self.assertEqual((len(silent.jobs), len(spoken.jobs)), (0, 1))

    def test_nobody_says_anything(self) -> None:
        """When there is no other node, the client is told so in time; a large body is not called too large."""
        for raw in (get(), POST, PUT):
            world = self.world(inline=4)
            app = world.app()
            app.factory.buildProtocol = lambda address: Protocol()
            client = world.ask(raw)
            self.run_for(world, 20)
            self.assertEqual((self.status(client), app.jobs), (503, []))

    def test_knows_only_events(self) -> None:
        """An app that answers everything but ``info`` is served, as plainly as an original."""
        world = self.world()
        app = world.app(play=ok)
        app.say_info = Deferred
        client = world.ask(get())
        self.run_for(world, 7)
        self.assertEqual((self.status(client), len(app.jobs)), (200, 1))

    def test_freezes(self) -> None:
        """A node that hangs under way gets no further request within some seconds, whatever it had before."""
        world = self.world()
        first, second = self.two_nodes(world)
        first.play = None
        self.freeze(world, NODE)
        asked = []
        for _ in range(4):
            asked.append(world.ask(get()))
            self.run_for(world, 0.5)
        self.assertIn(b"", [client.got for client in asked])
        self.run_for(world, 5)
        before = len(first.jobs)
        for _ in range(8):
            self.assertEqual(self.status(world.ask(get())), 200)
        self.assertEqual(len(first.jobs), before)
        self.run_for(world, 10)
        self.assertEqual([self.status(client) for client in asked], [200] * 4)

    def test_idle_ones(self) -> None:
        """When one connection to a node is silent, the idle ones to it are left as well."""
        world = self.world()
        world.upstreams.size = 4
        first = world.app(play=ok)
        for _ in range(4):
            world.ask(get())
            self.run_for(world, 1)
        self.assertEqual(len(first.factory.connections), 4)
        first.play = None
        second = world.app(play=ok, host=OTHER)
        client = world.ask(get())
        for number in range(2):
            world.network.cut(*((NODE, PROXY), (PROXY, NODE))[number])
        self.run_for(world, 5)
        world.network.mend(NODE, PROXY)  # the locator lives there too
        world.network.mend(PROXY, NODE)
        world.advance()
        self.assertEqual((self.status(world.ask(get())), len(second.jobs), client.got), (200, 1, b""))

    def test_dies(self) -> None:
        """What was with a node that dies goes to another one at once, not to that node's other connections first."""
        world = self.world()
        world.upstreams.size = 8
        first = world.app(play=ok)
        for _ in range(8):
            world.ask(get())
            self.run_for(world, 1)
        second = world.app(play=ok, host=OTHER)
        pool = world.upstreams.pools["app"]
        for _ in range(2):
            pool.set_aside(pool.open[0])
            world.ask(get())
            self.run_for(world, 2)
        self.assertEqual((len(first.factory.connections), len(second.factory.connections)), (6, 2))
        first.play = second.play = None
        asked = [world.ask(get()) for _ in range(30)]
        second.play = ok
        # The reactor tells of the losses one by one, in the order in which it looks.
        for connection in list(first.factory.connections):
            connection.abort()
        world.advance()
        for job in second.jobs:
            if job.channel.open:
                job.answer(b"late")
        world.advance()
        self.assertEqual([self.status(client) for client in asked], [200] * 30)

    def test_freezes_with_a_post(self) -> None:
        """What may not be repeated is an error as soon as the node is given up, and is never sent twice."""
        world = self.world()
        app = world.app()
        client = world.ask(POST)
        self.assertEqual(len(app.jobs), 1)
        self.freeze(world, NODE)
        second = world.app(play=ok, host=OTHER)
        self.run_for(world, 20)
        self.assertEqual((self.status(client), second.jobs), (502, []))

    def test_slow_but_alive(self) -> None:
        """A node whose app takes its time is left alone."""
        world = self.world()
        app = world.app()
        client = world.ask(POST)
        self.run_for(world, 25)
        self.assertEqual(client.got, b"")
        app.jobs[0].answer(b"late")
        world.advance()
        self.assertIn(b"late", client.got)
        self.assertEqual(len(app.factory.connections), 1)

    def test_slow_client(self) -> None:
        """Silence that is our own doing, since a client does not read, is not taken for the node's."""
        world = self.world(buffer=1000, write=100.0)
        app = world.app()
        client = world.client()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(get())
        world.advance()
        app.jobs[0].head()
        for _ in range(200):
            app.jobs[0].channel.chunk(b"x" * 1000)
            world.advance()
        self.run_for(world, 25)
        client.transport.resumeProducing()  # type: ignore[union-attr]
        app.jobs[0].channel.choke()
        for _ in range(20):
            world.advance()
        self.assertEqual(client.got.count(b"x" * 1000), 200)


class MovedAppTests(UpstreamCase):
    def moved(self, world: World) -> tuple[App, App]:
        """The app has been stopped where it was, under a connection of ours, and started elsewhere."""
        old = world.app(play=ok)
        old.info = {"http-streaming": True, "credits": True}
        world.ask(get())
        old.jobs.clear()
        old.play, old.greet = None, lambda job: job.channel.fail(AppStopped())
        new = world.app(play=ok)
        new.info = old.info
        return old, new

    def test_upload(self) -> None:
        """A body in parts finds the app where it is now, as long as none of the body has been given away."""
        world = self.world(inline=4)
        old, new = self.moved(world)
        client = world.ask(PUT.replace(b"\r\n\r\n12345678", b"\r\nExpect: 100-continue\r\n\r\n"))
        self.assertEqual((len(new.jobs), len(old.jobs)), (1, 1))
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        for part in (b"1234", b"5678"):
            client.send(part)
            world.advance()
        self.assertEqual(self.status(client), 200)
        self.assertEqual(new.jobs[0].body, b"12345678")

    def test_upload_given_away(self) -> None:
        """A body of which the stopped app was sent a part is lost; the next one goes where the app is now."""
        world = self.world(inline=4)
        old, new = self.moved(world)
        old.greet = None
        head, _, body = PUT.rpartition(b"\r\n\r\n")
        client = world.ask(head + b"\r\n\r\n" + body[:4])
        old.jobs[0].channel.fail(AppStopped())
        world.advance()
        self.assertEqual(self.status(client), 503)
        self.assertEqual(self.status(world.ask(PUT)), 200)
        self.assertEqual([job.body for job in new.jobs], [b"12345678"])

    def test_upgrade(self) -> None:
        """So does a request to switch protocols."""
        world = self.world()
        _, new = self.moved(world)
        new.play, new.greet = None, lambda job: job.head(101, ("Upgrade", "websocket"))
        client = world.ask(get("/app/http/", "1.1", "Connection: Upgrade", "Upgrade: websocket"))
        self.assertEqual(self.status(client), 101)

    def test_information_while_it_stops(self) -> None:
        """An app that is being stopped is not taken for one that knows nothing of bodies in parts."""
        world = self.world(inline=4)
        app = world.app(play=ok)
        app.say_info = stopped
        world.ask(get())
        self.assertIsNone(world.upstreams.pools["app"].streams)
        app.say_info = lambda: ({"http-streaming": True, "credits": True},)
        self.assertEqual(self.status(world.ask(PUT)), 200)

    def test_gone(self) -> None:
        """A large body for an app that is not there is 503 as every request for it, not 413."""
        world = self.world(inline=4)
        client = world.ask(PUT)
        self.assertEqual(self.status(client), 503)


class StickyTests(UpstreamCase):
    def test_named(self) -> None:
        """An answer, and the log, name the app that a sticky value has found behind a group's name."""
        world = self.world()
        world.app("v1", play=ok)
        world.routers[0].chunk({"group": [[2**31, "v1"]]})  # type: ignore[arg-type]
        world.advance()
        client = world.ask(get("/group/http/", "1.1", "X-Cocaine-Sticky: me"))
        self.assertIn(b"\r\nX-Cocaine-Application: v1\r\n", client.got)
        self.assertEqual([entry.app for entry in world.entries], ["v1"])
        world.routers[0].chunk({})  # type: ignore[arg-type]
        world.advance()
        client = world.ask(get("/group/http/", "1.1", "X-Cocaine-Sticky: me"))
        self.assertTrue(client.got.startswith(b"HTTP/1.1 503 No Such Application\r\n"))


class CareTests(UpstreamCase):
    def test_leaving(self) -> None:
        """A client that leaves in the middle of an upload takes nobody with it, also on a connection that has aged."""
        world = self.world(inline=4)
        world.upstreams.size = 1
        app = world.app()
        app.info = {"http-streaming": True, "credits": True}
        reading = world.ask(get())
        app.jobs[0].head()
        leaving = world.ask(PUT[:-4])
        self.assertEqual(len(app.factory.connections), 1)
        world.upstreams.pools["app"].renew()
        leaving.transport.abortConnection()  # type: ignore[union-attr]
        world.advance()
        self.assertEqual(app.jobs[1].ended, "the HTTP client has gone")
        app.jobs[0].channel.chunk(b"more")
        app.jobs[0].channel.choke()
        world.advance(2)
        self.assertTrue(reading.got.endswith(b"4\r\nmore\r\n0\r\n\r\n"), reading.got)
        world.advance(2)
        self.assertEqual(app.factory.connections, set())

    def test_long_streams(self) -> None:
        """Connections with a running request are not closed because nobody has begun another for a while."""
        world = self.world(request=3600.0, chunk=3600.0)
        world.upstreams.lifespan = 10_000.0
        app = world.app()
        client = world.ask(get())
        for _ in range(140):
            world.advance(5)
        app.jobs[0].answer(b"at last")
        world.advance()
        self.assertIn(b"at last", client.got)

    def test_slow_first_body(self) -> None:
        """A slow body for an app that nobody has asked for before makes connections that are looked after."""
        world = self.world()
        app = world.app(play=ok)
        client = world.ask(POST[:-1])
        self.run_for(world, 3)
        client.send(POST[-1:])
        world.advance()
        self.assertEqual(self.status(client), 200)
        self.assertEqual([len(pool.open) for pool in world.upstreams.pools.values()], [1])
        for _ in range(130):
            world.advance(5)
        self.assertEqual((app.factory.connections, world.upstreams.pools), (set(), {}))

    def test_fewer(self) -> None:
        """A pool that is made smaller loses connections as they age; no request notices."""
        world = self.world()
        world.upstreams.size = 6
        app = world.app(play=ok)
        for _ in range(8):
            world.ask(get())
            world.advance(1)
        self.assertEqual(len(app.factory.connections), 6)
        world.upstreams.resize(2, 120.0, {})
        for _ in range(260):
            self.assertEqual(self.status(world.ask(get("/app/http/", "1.1", "Connection: close"))), 200)
            world.advance(1)
        self.assertLessEqual(len(app.factory.connections), 3)

    def test_slow_replacement(self) -> None:
        """While the locator takes its time, one replacement is waited for, and not one more every second."""
        world = self.world()
        world.upstreams.lifespan = 0.5
        world.upstreams.locators.patience = 60.0
        app = world.app(play=ok)
        for _ in range(2):
            world.ask(get())
            world.advance()
        world.mute = True
        self.run_for(world, 30)
        self.assertEqual(world.unanswered, 2)
        self.assertEqual(len(app.factory.connections), 2)

    def test_weights_after_trouble(self) -> None:
        """A group that changes while the locator is away is followed soon after it is back."""
        world = self.world()
        world.upstreams.size = 1
        world.app(play=ok)
        world.ask(get())
        new = world.app(play=ok)
        world.mute = True
        world.upstreams.pools["app"].retire()
        self.run_for(world, 8)
        self.assertEqual(self.status(world.ask(get())), 200)
        world.mute = False
        self.run_for(world, 15)
        world.ask(get())
        self.assertEqual(len(new.jobs), 1)

    def test_no_app(self) -> None:
        """A service that is no app is like an app that does not exist, and gets no word from HTTP clients."""
        world = self.world()
        node = world.app("node")
        node.spoken = NODE_SERVICE
        accepted: list[Any] = []
        node.factory.buildProtocol = accepted.append  # type: ignore[method-assign]
        client = world.ask(get("/node/http/"))
        self.assertTrue(client.got.startswith(b"HTTP/1.1 503 No Such Application\r\n"), client.got)
        self.assertEqual(accepted, [])

    def test_time_left(self) -> None:
        """The time that travels with a request is what is left of it, after a slow body and after another try."""
        world = self.world(request=100.0)
        app = world.app()
        head, _, body = POST.rpartition(b"\r\n\r\n")
        client = world.ask(head + b"\r\n\r\n" + body[:1])
        world.advance(20)
        client.send(body[1:])
        world.advance()
        world.advance(15)
        app.jobs[0].channel.fail(NotRunning())
        world.advance()
        given = [int.from_bytes(job.headers[b"request_timeout"], "little") for job in app.jobs]
        self.assertEqual(given, [80_000, 65_000])

    def test_once(self) -> None:
        """A gateway that knows the word is told of requests that may be carried out only once; nobody else is."""
        for knows in (True, False):
            world = self.world()
            app = world.app(play=ok)
            app.info = {"once": knows}
            world.ask(get())
            world.ask(POST)
            self.assertEqual([b"x-cocaine-once" in job.headers for job in app.jobs], [False, knows])

    def test_refused_by_all(self) -> None:
        """What no worker has seen is tried anew, whatever the method, until the tries are used up."""
        world = self.world()
        app = world.app()
        app.greet = lambda job: job.channel.fail(NotRunning())
        self.assertEqual(self.status(world.ask(POST)), 503)
        self.assertEqual(len(app.jobs), 3)
