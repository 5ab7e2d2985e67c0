"""What a client gets when the app or the way to it fails, and when that is tried again."""

from __future__ import annotations

import itertools
from typing import Any

from cocaine_tx.errors import AppStopped, ConnectionGone, HandlerFailed, QueueFull
from cocaine_tx.wire.headers import timeout_of
from tests.proxy.cases import load
from tests.proxy.world import NODE, App, Job, World, WorldCase, get


class FailureTests(WorldCase):
    def failing(self, world: World, *errors: Any) -> App:
        left = list(errors)

        def play(job: Job) -> None:
            if left:
                job.channel.fail(left.pop(0))
            else:
                job.answer(b"ok")

        return world.app(play=play)

    def test_no_such_app(self) -> None:
        """An unknown app is 503 in the original's words."""
        client = self.world().ask(get("/nope/http/"))
        self.assertTrue(client.got.startswith(b"HTTP/1.1 503 No Such Application\r\n"))
        self.assertIn(b"X-Error-Generated-By: cocaine_tx\r\n", client.got)
        self.assertTrue(client.got.endswith(b"current application nope is unavailable\n"))

    def test_nobody_there(self) -> None:
        """A node that does not answer at all is 503 as well."""
        world = self.world()
        world.app()
        world.network.kill(NODE)
        self.assertEqual(self.status(world.ask(get())), 503)

    def test_handler_failed(self) -> None:
        """An exception in the app is 500 with its text, and is not tried again."""
        world = self.world()
        app = self.failing(world, HandlerFailed("boom"))
        client = world.ask(get())
        self.assertEqual(self.status(client), 500)
        self.assertIn(b"boom", client.got)
        self.assertEqual(len(app.jobs), 1)

    def test_queue_full(self) -> None:
        """A full queue is tried again, also for POST; when it stays full the client is told when to come back."""
        world = self.world()
        app = self.failing(world, QueueFull(), QueueFull())
        post = b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        self.assertEqual(self.status(world.ask(post)), 200)
        self.assertEqual([job.request.body for job in app.jobs], [b"hi"] * 3)
        world = self.world()
        app = self.failing(world, *[QueueFull()] * 9)
        client = world.ask(post)
        self.assertEqual(self.status(client), 503)
        self.assertIn(b"Retry-After: 1\r\n", client.got)
        self.assertEqual(len(app.jobs), 3)

    def test_counted_by_name(self) -> None:
        """Failures are counted under their app; names that lead nowhere make no counter, for clients choose them."""
        world = self.world(chunk=5.0)
        self.failing(world, *[QueueFull()] * 3, HandlerFailed("boom"), ConnectionGone("lost"))
        world.app("mute", play=None)
        post = b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        for asked in (post, post, post, post, get("/mute/http/"), get("/nope/http/"), get("/")):
            world.ask(asked)
            world.advance(6)
        self.assertEqual(
            world.door.meters.statuses,
            {("app", 503): 1, ("app", 500): 1, ("app", 502): 1, ("app", 200): 1, ("mute", 504): 1, ("", 503): 1,
             ("", 404): 1},
        )  # fmt: skip

    def test_app_restarted(self) -> None:
        """A request that met a stopped app goes to the new one."""
        world = self.world()
        app = self.failing(world, AppStopped())
        self.assertEqual(self.status(world.ask(get())), 200)
        self.assertEqual(len(app.jobs), 2)

    def test_app_restarted_elsewhere(self) -> None:
        """However many connections lead to the stopped app, the first request finds the new one."""
        world = self.world()
        world.upstreams.size = 9
        old = world.app(play=lambda job: job.answer(b"old"))
        for _ in range(9):
            world.ask(get())
            world.advance(1)
        self.assertEqual(len(old.factory.connections), 9)
        old.greet, old.play = lambda job: job.channel.fail(AppStopped()), None
        world.app(play=lambda job: job.answer(b"new"))
        self.assertIn(b"new", world.ask(get()).got)
        self.assertEqual(len(old.jobs), 10)

    def test_connection_lost(self) -> None:
        """A lost request is repeated if its method allows that, otherwise the client is told; never twice answered."""
        for method, status, times in ((b"GET", 200, 2), (b"POST", 502, 1)):
            world = self.world()
            app = world.app()
            client = world.ask(method + b" /app/http/ HTTP/1.1\r\nHost: a\r\n\r\n")
            app.play = lambda job: job.answer(b"ok")
            app.jobs[0].channel.session.connection.abort()
            world.advance()
            self.assertEqual(self.status(client), status)
            self.assertEqual((len(app.jobs), client.got.count(b"HTTP/1.1")), (times, 1))

    def test_late_error(self) -> None:
        """An error after the head breaks the connection off; there is no second status line."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        app.jobs[0].channel.chunk(b"part")
        app.jobs[0].channel.fail(HandlerFailed("late"))
        world.advance()
        self.assertEqual(client.got.count(b"HTTP/1.1"), 1)
        self.assertFalse(client.got.endswith(b"0\r\n\r\n"))
        self.assertIsNotNone(client.ended)
        self.assertEqual(world.door.meters.aborted, 1)

    def test_nonsense(self) -> None:
        """An app that does not speak HTTP, or nothing at all, is 500."""
        for say in (
            lambda job: job.channel.choke(),
            lambda job: job.channel.chunk(b"\xc1"),
            lambda job: job.channel.chunk(7),
            lambda job: job.head(200, ("X-Cocaine-HTTP-Proto-Version", "9")),
            lambda job: job.head(101),
        ):
            world = self.world()
            world.app(play=say)
            client = world.ask(get())
            self.assertEqual(self.status(client), 500)
            self.assertIsNone(client.ended)

    def test_timeouts_hold(self) -> None:
        """A limit is over when it says, or at most a 64th of it later, whatever the time of the day."""
        for begun in (0.5, 7.0, 100.25):
            world = self.world(chunk=30.0)
            world.app()
            world.advance(begun)
            client = world.ask(get())
            for _ in range(59):
                world.advance(0.5)
            self.assertEqual(client.got, b"")
            world.advance(1.0)
            self.assertEqual(self.status(client), 504)

    def test_whole_time(self) -> None:
        """An event may have a time of its own for all of a request; it travels with the call."""
        world = self.world(request=40.0, requests={"app": {"slow": 100.0}})
        app = world.app()
        slow, usual = world.ask(get("/app/slow/")), world.ask(get())
        self.assertEqual([timeout_of(tuple(job.headers.items())) for job in app.jobs], [100.0, 40.0])
        for job in app.jobs:
            job.head()
        for _ in range(9):
            world.advance(5)
            for job in app.jobs:
                job.channel.chunk(b"x")
        self.assertEqual((slow.ended is None, usual.ended is None), (True, False))

    def test_timeouts(self) -> None:
        """An app that is silent for too long is 504; in the middle of an answer it is a broken connection."""
        world = self.world(chunk=30.0, apps={"app": {"slow": 5.0}})
        app = world.app()
        quick, slow = world.ask(get("/app/slow/")), world.ask(get())
        world.advance(6)
        self.assertEqual((self.status(quick), slow.got), (504, b""))
        app.jobs[1].head()
        for _ in range(3):
            world.advance(20)
            app.jobs[1].channel.chunk(b"x")
        world.advance()
        self.assertIsNone(slow.ended)
        world.advance(31)
        self.assertIsNotNone(slow.ended)

    def test_total_timeout(self) -> None:
        """A request has an end even if parts of its answer keep coming."""
        world = self.world(request=60.0)
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        for _ in range(4):
            world.advance(20)
            app.jobs[0].channel.chunk(b"x")
        world.advance()
        self.assertIsNotNone(client.ended)

    def test_corpus(self) -> None:
        """Every raw request of the corpus, sent to a living proxy, gets the answers it should, in order."""
        for case in load():
            world = self.world()
            client = world.ask(case.raw)
            ended = case.outcome.count("end")
            statuses = [int(line[:3]) for line in client.got.split(b"HTTP/1.1 ")[1:]]
            # Nothing in the corpus leads to an app that exists.
            statuses = [404 if status == 503 else status for status in statuses]
            if case.refused is not None:
                self.assertEqual(statuses, [404] * ended + [case.refused], case.name)
            elif not any(" continue" in line or "length 4294967296" in line for line in case.outcome):
                self.assertEqual(statuses, [404] * ended, case.name)
            world.stop()


class PoolTests(WorldCase):
    def test_stopped_while_connecting(self) -> None:
        """A proxy that is stopped while it connects to an app has nothing to log, and its clients are let go."""
        for inline in (100, 3):  # 3: the body goes in parts
            world = self.world(inline=inline)
            app = world.app(play=lambda job: job.answer(b"x"))
            app.info = {"http-streaming": True}
            world.ask(get())
            world.mute = True
            world.upstreams.pools["app"].renew()
            client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678")
            self.assertEqual((client.got, len(app.jobs)), (b"", 1))
            world.stop()
            world.advance()
            self.assertIsNotNone(client.ended)
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_ageing(self) -> None:
        """Connections are resolved anew as they age, and nobody's request notices."""
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"x"))
        for _ in range(300):
            self.assertEqual(self.status(world.ask(get("/app/http/", "1.1", "Connection: close"))), 200)
            world.advance(1)
        self.assertGreaterEqual(world.resolved.count("app"), 4)
        self.assertLessEqual(len(app.factory.connections), 3)

    def test_unused(self) -> None:
        """An app that nobody asks for is let go."""
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"x"))
        world.ask(get())
        for _ in range(700):
            world.network.advance(1)
        world.advance()
        self.assertEqual((app.factory.connections, world.upstreams.pools), (set(), {}))

    def test_spread(self) -> None:
        """Requests that run at the same time are spread over the connections."""
        world = self.world()
        app = world.app()
        world.ask(get())
        for _ in range(7):
            world.ask(get())
        loads = sorted(len(connection.session) for connection in app.factory.connections)
        self.assertEqual(loads, [4, 4])

    def test_one_after_another(self) -> None:
        """What follows close upon an answer goes the same way for a while; after a pause it is another's turn."""
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"x"))
        for pause in (0, 1):
            for _ in range(70):
                world.ask(get("/app/http/", "1.1", "Connection: close"))
                world.advance(pause)
        used = [job.channel.session for job in app.jobs]
        changes = [before is not after for before, after in itertools.pairwise(used)]
        self.assertLessEqual(sum(changes[:69]), 4)
        self.assertGreaterEqual(sum(changes[70:]), 60)
