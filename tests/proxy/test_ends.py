"""When an answer is over for its client, and what an app that goes on, or keeps to no rule, can do about it."""

from __future__ import annotations

from typing import Any

from cocaine_tx.errors import HandlerFailed
from tests.proxy.world import App, Job, World, WorldCase, get

WINDOW = 10_000
#: Large enough that the network in memory does not take it at once.
PIECE = 200_000


class EndCase(WorldCase):
    def windowed(self, **terms: Any) -> tuple[World, App]:
        world = self.world(**{"buffer": WINDOW, **terms})
        app = world.app()
        app.info = {"http-streaming": True, "credits": True}
        return world, app

    def fill(self, world: World, job: Job, size: int, sent: int = 0) -> int:
        """The app sends so much as fast as it is allowed; returns what it could send."""
        while sent < size and sent < WINDOW + job.credits:
            job.channel.chunk(b"x" * 1000)
            sent += 1000
            world.advance()
        return sent


class OverTests(EndCase):
    """The client has all of its answer before the app has ended."""

    def test_next_request(self) -> None:
        """An app that keeps its channel open behind a whole answer does not keep the next request waiting."""
        for method, status, length in [("GET", 200, 2), ("GET", 200, 0), ("HEAD", 200, 2), ("GET", 204, None)]:
            world, app = self.windowed()
            other = world.app("other")
            client = world.ask(get().replace(b"GET", method.encode()))
            (job,) = app.jobs
            job.head(status, *[("Content-Length", str(length))] * (length is not None))
            if method == "GET" and length:
                job.channel.chunk(b"ok")
            world.advance()
            self.assertEqual(self.status(client), status)
            client.take()
            client.send(get("/other/http/"))
            world.advance()
            other.jobs[0].answer(b"mine")
            job.channel.chunk(b"late")
            job.channel.choke()
            world.advance()
            self.assertEqual(self.status(client), 200)
            self.assertEqual((client.got.count(b"mine"), client.got.count(b"late")), (1, 0))

    def test_error_behind(self) -> None:
        """An error behind the last byte does not take a whole answer away from its client."""
        world, app = self.windowed()
        client = world.ask(get())
        app.jobs[0].head(200, ("Content-Length", "2"))
        app.jobs[0].channel.chunk(b"ok")
        app.jobs[0].channel.fail(HandlerFailed("too late"))
        world.advance()
        self.assertTrue(client.take().endswith(b"\r\n\r\nok"))
        self.assertIsNone(client.ended)
        self.assertEqual(world.door.meters.aborted, 0)

    def test_head_only(self) -> None:
        """An app that goes on sending what HEAD did not ask for is told that nobody wants it."""
        world, app = self.windowed()
        client = world.ask(get().replace(b"GET", b"HEAD"))
        (job,) = app.jobs
        job.head(200, ("Content-Length", "1000000"))
        job.channel.chunk(b"x" * 1000)
        world.advance()
        self.assertEqual((self.status(client), job.channel.open), (200, False))
        self.assertEqual(world.entries[-1].status, 200)

    def test_head_beside_others(self) -> None:
        """An answer to HEAD, or one that is no HTTP, takes no connection from under another request."""
        for rest in (b"HEAD", b"GET"):
            world, app = self.windowed()
            client = world.ask(get())
            world.ask(get().replace(b"GET", rest))
            job, other = app.jobs
            self.assertIs(job.channel.session, other.channel.session)
            pool = world.upstreams.pools["app"]
            pool.renew()
            self.assertEqual(pool.open, [])
            if rest == b"HEAD":
                other.answer()
            else:
                other.channel.chunk(b"junk")
                other.channel.choke()
            world.advance()
            job.answer(b"whole")
            world.advance()
            self.assertIn(b"whole", client.got)

    def test_excess(self) -> None:
        """An app that sends more than it has promised comes to its end: it does not wait for room for ever."""
        world, app = self.windowed()
        client = world.ask(get())
        (job,) = app.jobs
        job.head(200, ("Content-Length", "1500"))
        world.advance()
        self.assertEqual(self.fill(world, job, 100_000), 100_000)
        self.assertEqual(client.got.count(b"x"), 1500)
        self.assertIsNotNone(client.ended)

    def test_upload_goes_on(self) -> None:
        """An app that has answered may read on; it is never told that half of a body was all."""
        for framing in [("Content-Length", "4"), ("X-Cocaine-HTTP-Proto-Version", "1.1")]:
            world, app = self.windowed(inline=3)
            client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n1234")
            (job,) = app.jobs
            job.head(200, framing)
            job.channel.chunk(b"fine")
            job.channel.chunk(b"")
            world.advance()
            self.assertEqual((self.status(client), job.ended), (200, ""))
            self.assertEqual(self.fill(world, job, 50_000), 50_000)
            client.take()
            client.send(b"5678" + get())
            world.advance()
            self.assertEqual((job.body, job.ended, len(app.jobs)), (b"12345678", "close", 2))

    def test_upload_breaks(self) -> None:
        """If such an upload breaks the rules its app hears of it, and the client gets no second answer."""
        for rest in (b"x\r\n", b""):
            world, app = self.windowed(inline=3)
            client = world.ask(
                b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n"
            )
            (job,) = app.jobs
            job.head(200, ("Content-Length", "0"))
            world.advance()
            client.take()
            client.send(rest)
            world.advance(0 if rest else 31)
            world.advance(3)
            self.assertNotIn(job.ended, ("", "close"))
            self.assertEqual(client.got, b"")
            self.assertIsNotNone(client.ended)


    def test_one_answer(self) -> None:
        """A request whose app has answered and ended gets nothing more, however the rest of its body goes wrong."""
        for rest in (b"x\r\n", b""):
            world, app = self.windowed(inline=3)
            app.greet = lambda job: job.answer(b"enough")
            client = world.ask(
                b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1234\r\n"
            )
            self.assertIn(b"enough", client.take())
            if rest:
                client.send(rest)
            else:
                for http in world.door.connections:
                    http.readConnectionLost()
            world.advance()
            self.assertEqual(client.got, b"")
            self.assertIsNotNone(client.ended)

    def test_refused_head(self) -> None:
        """An answer to HEAD has no body, also when it is a refusal."""
        for raw in (b"HEAD / HTTP/1.1\r\n\r\n", b"HEAD / HTTP/3.0\r\n", b"HEAD / HTTP/1.1\r\nA:\0"):
            world, _ = self.windowed()
            client = world.ask(raw)
            self.assertIn(self.status(client), (400, 505))
            self.assertTrue(client.got.endswith(b"\r\n\r\n"), client.got)
            self.assertNotIn(b"Content-Length: 0", client.got)
        late = world.ask(b"HEAD / HT")
        world.advance(11)
        self.assertEqual(self.status(late), 408)
        self.assertTrue(late.got.endswith(b"\r\n\r\n"), late.got)


class RoomTests(EndCase):
    """What counts against a window, and what becomes of apps that do not mind it."""

    def test_large_head(self) -> None:
        """A head takes room as everything does, and the room is given back."""
        world, app = self.windowed()
        world.ask(get())
        (job,) = app.jobs
        job.head(200, ("X-Large", "y" * 6000))
        world.advance()
        self.assertEqual(self.fill(world, job, 100_000, 6020), 100_020)

    def bounded(self, world: World, app: App, piece: Any) -> None:
        client = world.client()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(get())
        world.advance()
        (job,) = app.jobs
        for _ in range(100):
            piece(job)
            world.advance()
        (http,) = world.door.connections
        self.assertLess(http.outbox.waiting, 4_000_000)
        client.transport.resumeProducing()  # type: ignore[union-attr]
        for _ in range(20):
            world.advance()
        self.assertGreater(client.got.count(b"x"), 100 * PIECE - 1)

    def test_window_ignored(self) -> None:
        """An app that sends on without room does not fill our memory; it is read only as its client is."""
        world, app = self.windowed()
        app.greet = lambda job: job.head()
        self.bounded(world, app, lambda job: job.channel.chunk(b"x" * PIECE))

    def test_interim_answers(self) -> None:
        """Nor does one that sends interim answers without end, with a window or without."""
        for info in ({"credits": True}, {}):
            world, app = self.windowed()
            app.info = {"http-streaming": False, **info}
            self.bounded(world, app, lambda job: job.head(103, ("Link", "x" * PIECE)))
