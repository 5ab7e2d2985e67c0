"""Slow clients, limits of time, and what may wait."""

from __future__ import annotations

from cocaine_tx.errors import InvocationTimeout, QueueFull
from cocaine_tx.wire.idl import UNLIMITED
from tests.proxy.world import Client, Job, World, WorldCase, get


class SlowClientTests(WorldCase):
    def slow(self, world: World) -> Client:
        client = world.client()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(get())
        world.advance()
        return client

    def test_pressure(self) -> None:
        """A client that does not read stops its own app and nobody else; later it gets everything."""
        world = self.world(buffer=100_000)
        app = world.app()
        client = self.slow(world)
        job = app.jobs[0]
        job.head()
        for _ in range(400):
            job.channel.chunk(b"x" * 10_000)
            world.advance()
        (http,) = world.door.connections
        self.assertLess(http.outbox.waiting, 2_000_000)
        app.play = lambda other: other.answer(b"quick")
        for _ in range(5):
            self.assertIn(b"quick", world.ask(get()).got)
        job.channel.choke()
        client.transport.resumeProducing()  # type: ignore[union-attr]
        for _ in range(200):
            world.advance()
        self.assertEqual(client.got.count(b"x" * 10_000), 400)
        self.assertTrue(client.got.endswith(b"0\r\n\r\n"))

    def test_takes_nothing(self) -> None:
        """A client that takes nothing for too long is cut off."""
        world = self.world(write=30.0, chunk=300.0)
        app = world.app()
        self.slow(world)
        app.jobs[0].head()
        for _ in range(20):
            app.jobs[0].channel.chunk(b"x" * 200_000)
            world.advance()
        for _ in range(8):
            world.advance(10)
        self.assertEqual(world.door.connections, set())

    def test_cut_off(self) -> None:
        """A client that takes nothing is cut off once, though its connection is gone only a turn later."""
        world = self.world(write=30.0, chunk=300.0)
        app = world.app()
        self.slow(world)
        (http,) = world.door.connections
        aborted = []

        def abort() -> None:
            aborted.append(world.network.seconds())
            if len(aborted) > 5:
                raise GeneratorExit  # nothing less ends a loop that catches what goes wrong

        http.transport.abortConnection = abort
        app.jobs[0].head()
        for _ in range(10):
            app.jobs[0].channel.chunk(b"x" * 200_000)
            world.advance()
        self.assertGreater(http.outbox.waiting, 0)
        for _ in range(320):
            world.advance(0.125)
        self.assertEqual(len(aborted), 1)

    def test_slow_heads_and_bodies(self) -> None:
        """A head or a body that does not come in time is 408; a connection without a request is closed in silence."""
        world = self.world(head=10.0, body=30.0, keep_alive=75.0)
        world.app()
        silent = world.client()
        head = world.ask(b"GET / HT")
        body = world.ask(b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
        for _ in range(5):
            world.advance(4)
            head.send(b"T")
        self.assertEqual((silent.got, silent.ended is not None), (b"", True))
        self.assertEqual(self.status(head) // 100, 4)
        self.assertEqual(body.got, b"")
        world.advance(31)
        self.assertEqual(self.status(body), 408)
        world.advance(5)
        self.assertEqual(world.door.connections, set())

    def test_trickle(self) -> None:
        """A body that comes a byte at a time does not outlast the time for a whole request, and never begins a call."""
        for framing, piece in (("Content-Length: 99", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")):
            world = self.world(request=300.0, body=30.0)
            app = world.app()
            client = world.ask(f"POST /app/http/ HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
            for _ in range(14):
                self.assertEqual(client.got, b"")
                client.send(piece)
                world.advance(21)
            world.advance(10)
            self.assertEqual(self.status(client), 408)
            self.assertEqual((app.jobs, world.door.gathered), ([], 0))

    def test_trickle_to_the_app(self) -> None:
        """Who sends a streamed body too slowly is told that, whoever sees first that the time is over."""
        for seen_by_node in (False, True):
            world = self.world(request=60.0, body=30.0, chunk=30.0)
            app = world.app()
            app.info = {"http-streaming": True, "credits": True}
            client = world.ask(b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(2):
                client.send(b"1\r\nx\r\n")
                world.advance(25)
            self.assertEqual(client.got, b"")
            if seen_by_node:
                app.jobs[0].channel.fail(InvocationTimeout("invocation has timed out"))
            client.send(b"1\r\nx\r\n")
            world.advance(12)
            self.assertEqual(self.status(client), 408)
            self.assertNotEqual(app.jobs[0].ended, "close")

    def test_full_app(self) -> None:
        """An app that does not read what has been sent is the one that is late."""
        world = self.world(request=60.0, body=30.0, chunk=90.0, buffer=4)
        app = world.app()
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(
            b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        world.advance(50)
        world.advance(12)
        self.assertEqual(self.status(client), 504)

    def test_idle(self) -> None:
        """A connection may be idle for the keep-alive time, counted from its last answer."""
        world = self.world(keep_alive=75.0)
        world.app(play=lambda job: job.answer(b"x"))
        client = world.ask(get())
        for _ in range(3):
            world.advance(70)
            client.take()
            client.send(get())
            world.advance()
            self.assertEqual(self.status(client), 200)
        world.advance(80)
        self.assertIsNotNone(client.ended)


class WindowTests(WorldCase):
    def reading_nothing(self, world: World) -> tuple[Client, Job]:
        """A client that has asked and reads nothing, of an app whose node knows windows; and its event."""
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        client = world.client()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(get())
        world.advance()
        (job,) = app.jobs
        return client, job

    def test_download(self) -> None:
        """A node that knows windows is granted more only as the client takes; nobody's connection is held."""
        world = self.world(buffer=100_000)
        client, job = self.reading_nothing(world)
        self.assertEqual(int.from_bytes(job.headers[b"x-cocaine-window"], "little"), 100_000)
        job.head()
        sent = 0
        while sent < 4_000_000:
            self.assertLess(sent, 100_000 + job.credits)
            job.channel.chunk(b"x" * 10_000)
            sent += 10_000
            world.advance()
        client.transport.resumeProducing()  # type: ignore[union-attr]
        world.advance()
        self.assertEqual(client.got.count(b"x" * 10_000), 400)
        self.assertEqual(world.upstreams.pools["app"].aside, set())

    def test_unheeded(self) -> None:
        """An app that sends more than it was granted is held like one that knows no windows."""
        world = self.world(buffer=100_000)
        client, job = self.reading_nothing(world)
        (http,) = world.door.connections
        job.head()
        for _ in range(40):
            job.channel.chunk(b"x" * 200_000)
            world.advance()
        self.assertLess(http.outbox.waiting, 1_000_000)
        job.channel.choke()
        client.transport.resumeProducing()  # type: ignore[union-attr]
        for _ in range(200):
            world.advance()
        self.assertEqual(client.got.count(b"x" * 200_000), 40)

    def test_works_on(self) -> None:
        """An app that works on behind the end of its answer is not kept by what it still writes."""
        world = self.world(buffer=10_000)
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        client = world.ask(get())
        (job,) = app.jobs
        job.head(200, ("X-Cocaine-HTTP-Proto-Version", "1.1"))
        job.channel.chunk(b"all")
        job.channel.chunk(b"")
        world.advance()
        self.assertTrue(client.got.endswith(b"all\r\n0\r\n\r\n"))
        self.assertGreaterEqual(job.credits, UNLIMITED)

    def test_large_head(self) -> None:
        """Heads count against the window too, and what they took of it is granted again."""
        world = self.world(buffer=10_000)
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        client = world.ask(get())
        (job,) = app.jobs
        job.head(103, ("Link", "x" * 4_000))
        world.advance()
        job.head(200, ("X-Large", "x" * 8_000))
        world.advance()
        self.assertGreater(job.credits, 12_000)
        job.channel.choke()
        world.advance()
        self.assertTrue(client.got.endswith(b"0\r\n\r\n"))

    def test_unwanted_body(self) -> None:
        """An app that writes more than it has promised is granted it at once, and does not wait for ever."""
        world = self.world(buffer=10_000)
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        world.ask(get())
        (job,) = app.jobs
        job.head(200, ("Content-Length", "1"))
        for _ in range(10):
            job.channel.chunk(b"x" * 5_000)
            world.advance()
        self.assertGreater(job.credits, 45_000)

    def fill(self, world: World, job: Job, size: int) -> None:
        """The app sends as much as it may, up to so many bytes."""
        window = int.from_bytes(job.headers[b"x-cocaine-window"], "little")
        job.head()
        sent = 0
        while sent < size and sent < window + job.credits:
            piece = min(200_000, window)
            job.channel.chunk(b"x" * piece)
            sent += piece
            world.advance()
        if sent >= size:
            job.channel.choke()
            world.advance()

    def test_many_slow_clients(self) -> None:
        """While the windows of others make the limit, new answers have less room; they come whole all the same."""
        world = self.world(buffer=400_000, unsent=600_000)
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        slow = []
        for number in range(2):
            self.assertEqual(world.door.window, 400_000)
            client = world.client()
            client.transport.pauseProducing()  # type: ignore[union-attr]
            client.send(get())
            world.advance()
            self.fill(world, app.jobs[number], 50_000_000)
            slow.append(client)
        self.assertEqual(world.door.window, 50_000)
        quick = world.ask(get())
        self.fill(world, app.jobs[2], 500_000)
        self.assertEqual(quick.got.count(b"x" * 50_000), 10)
        self.assertEqual(world.door.promised, 800_000)
        slow[0].transport.abortConnection()  # type: ignore[union-attr]
        world.advance()
        self.assertEqual((world.door.promised, world.door.window), (400_000, 400_000))
        slow[1].transport.abortConnection()  # type: ignore[union-attr]
        world.advance()
        self.assertEqual(world.door.promised, 0)

    def test_promises_of_tries(self) -> None:
        """A request that is tried again has one window."""
        world = self.world(buffer=400_000)
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        client = world.ask(get())
        app.jobs[0].channel.fail(QueueFull())
        world.advance()
        self.assertEqual((len(app.jobs), world.door.promised), (2, 400_000))
        app.jobs[1].answer(b"x")
        world.advance()
        self.assertEqual((self.status(client), world.door.promised), (200, 0))

    def test_unknown(self) -> None:
        """A node that does not say that it knows credits gets no window; a body in parts then travels alone."""
        world = self.world(inline=3)
        app = world.app(play=None)
        app.info = {"http-streaming": True}
        world.ask(get())
        world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n1234")
        plain, parted = app.jobs
        for job in (plain, parted):
            self.assertNotIn(b"x-cocaine-window", job.headers)
        self.assertEqual((plain.ended, parted.ended, parted.body), ("close", "", b"1234"))
        self.assertEqual(len(parted.channel.session), 1)

    def test_upload(self) -> None:
        """A body is read from the client only as fast as the app grants, and all of it arrives."""
        world = self.world(buffer=1000, inline=10)
        app = world.app()
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n")
        (job,) = app.jobs
        for _ in range(10):
            client.send(b"y" * 500)
            world.advance()
        self.assertEqual(len(job.body), 1000)
        while job.ended == "":
            job.channel.credit(500)
            world.advance()
        self.assertEqual((len(job.body), job.ended), (5000, "close"))
