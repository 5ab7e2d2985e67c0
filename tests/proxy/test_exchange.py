"""What an HTTP client gets of an app's answer, also one that has said its last."""

from __future__ import annotations

from cocaine_tx.errors import HandlerFailed
from tests.proxy.world import NODE, WorldCase, get


class AnswerTests(WorldCase):
    def test_hello(self) -> None:
        """A request reaches the app as packed HTTP, and the app's answer comes back whole."""
        world = self.world()
        app = world.app(play=lambda job: None)
        client = world.ask(get("/app/http/x?y=1", "1.1", "X-Request-Id: 42"))
        (job,) = app.jobs
        self.assertEqual((job.event, job.ended), (b"http", "close"))
        self.assertEqual(job.request[:3], (b"GET", b"/x?y=1", b"1.1"))
        self.assertEqual(job.request.body, b"")
        self.assertIn((b"X-Request-Id", b"42"), job.request.headers)
        self.assertEqual(int.from_bytes(job.headers[b"request_timeout"], "little"), 300_000)
        job.answer(b"hi", 200, ("Content-Type", "text/plain"), ("Set-Cookie", "a"), ("Set-Cookie", "b"))
        world.advance()
        self.assertEqual(
            client.got,
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
            b"X-Cocaine-Application: app\r\nX-Request-Id: 42\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        )
        self.assertIsNone(client.ended)
        (entry,) = world.entries
        self.assertEqual((entry.status, entry.app, entry.event, entry.id), (200, "app", "http", b"42"))

    def test_repeated_id(self) -> None:
        """An app that sends the request's id back, as many frameworks do, does not double it, nor names itself."""
        world = self.world()
        said = [("x-request-id", "42"), ("X-Cocaine-Application", "other")]
        world.app(play=lambda job: job.answer(b"hi", 200, *said))
        for id in (b"42", b"43"):
            got = world.ask(get("/app/http/", "1.1", f"X-Request-Id: {id.decode()}")).got.lower()
            self.assertEqual((got.count(b"x-request-id: "), got.count(b"x-request-id: " + id)), (1, 1))
            self.assertEqual((got.count(b"application: "), got.count(b"application: app\r\n")), (1, 1))
        client = world.ask(b"GET /app/http/ HTTP/1.1\r\nHost: a\r\nX-Request-Id: 44\r\nConnection: close\r\n\r\n")
        self.assertEqual(client.got.lower().count(b"x-request-id: 44\r\n"), 1)

    def test_streaming(self) -> None:
        """Parts of an answer reach the client as they come."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        world.advance()
        self.assertEqual(self.status(client), 200)
        client.take()
        for part in (b"one", b"two"):
            app.jobs[0].channel.chunk(part)
            world.advance()
            self.assertEqual(client.take(), b"3\r\n" + part + b"\r\n")

    def test_keep_alive_and_pipelining(self) -> None:
        """Requests sent at once are answered in their order, each when the one before has been."""
        world = self.world()
        app = world.app()
        client = world.ask(get("/app/http/1") + get("/app/http/2") + get("/app/http/3", "1.1", "Connection: close"))
        for number in (b"1", b"2", b"3"):
            self.assertEqual(len(app.jobs), int(number))
            app.jobs[-1].answer(number, 200, ("Content-Length", "1"))
            world.advance()
            self.assertTrue(client.take().endswith(b"\r\n\r\n" + number))
        self.assertIsNotNone(client.ended)

    def test_bodies_of_all(self) -> None:
        """Uploads of many clients together are held up to a limit; whoever comes too late may come again."""
        world = self.world(gathered=1000)
        app = world.app()
        post = b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 700\r\n\r\n"
        first, second = world.ask(post + b"x" * 600), world.ask(post + b"y" * 600)
        self.assertEqual(self.status(second), 503)
        self.assertIn(b"Retry-After: 1\r\n", second.got)
        first.send(b"x" * 100)
        world.advance()
        self.assertEqual(world.door.gathered, 700)
        app.jobs[0].answer(b"")
        world.advance()
        self.assertEqual((self.status(first), world.door.gathered), (200, 0))
        self.assertEqual(len(app.jobs), 1)

    def test_silent_locator(self) -> None:
        """A locator that hangs makes the proxy unhealthy, and its clients get an answer."""
        world = self.world()
        world.mute = True
        client = world.ask(get("/app/http/"))
        for _ in range(20):
            world.advance(1)
        self.assertIn(self.status(client), (502, 503))
        self.assertEqual(self.status(world.ask(get("/ping"))), 503)
        world.mute = False
        for _ in range(12):
            world.advance(1)
        self.assertEqual(self.status(world.ask(get("/ping"))), 200)

    def test_many_own_answers_at_once(self) -> None:
        """A long row of requests that lead nowhere is answered without end of breath."""
        world = self.world()
        client = world.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3000)
        self.assertEqual(client.got.count(b"HTTP/1.1 404 "), 3000)

    def test_http_1_0(self) -> None:
        """An old client gets no chunks; the end of the connection is the end of the answer."""
        world = self.world()
        world.app(play=lambda job: job.answer(b"hi"))
        client = world.ask(get("/app/http/", "1.0"))
        self.assertTrue(client.got.endswith(b"\r\n\r\nhi"))
        self.assertNotIn(b"chunked", client.got)
        self.assertIsNotNone(client.ended)

    def test_no_body(self) -> None:
        """HEAD, 204 and 304 have no body whatever the app sends."""
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"hi", int(job.request.uri[1:]), ("Content-Length", "2")))
        for method, status in ((b"HEAD", 200), (b"GET", 204), (b"GET", 304)):
            client = world.ask(b"%b /app/http/%d HTTP/1.1\r\nHost: a\r\n\r\n" % (method, status))
            self.assertEqual(self.status(client), status)
            self.assertTrue(client.got.endswith(b"\r\n\r\n"), client.got)
            self.assertEqual(client.got.count(b"\r\n\r\n"), 1)
            self.assertIsNone(client.ended)
        self.assertEqual(len(app.jobs), 3)

    def test_lingering(self) -> None:
        """With proto version 1.1 an empty chunk ends the answer, and the app works on behind it."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        job = app.jobs[0]
        job.head(200, ("X-Cocaine-HTTP-Proto-Version", "1.1"))
        job.channel.chunk(b"hi")
        job.channel.chunk(b"")
        world.advance()
        self.assertTrue(client.take().endswith(b"2\r\nhi\r\n0\r\n\r\n"))
        client.send(get())
        world.advance()
        job.channel.chunk(b"late")
        job.channel.choke()
        app.jobs[1].answer(b"two")
        world.advance()
        self.assertIn(b"two", client.got)
        self.assertNotIn(b"late", client.got)

    def test_interim(self) -> None:
        """A 103 goes out before the answer."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head(103, ("Link", "</a>"))
        app.jobs[0].answer(b"x")
        world.advance()
        self.assertTrue(client.got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"))

    def test_date(self) -> None:
        """An answer bears the date of its beginning, however long its app took, and so do our own."""
        now = 784111777.0
        world = self.world(wall=lambda: now, chunk=60.0)
        app = world.app()
        client = world.ask(get())
        now += 50
        app.jobs[0].answer(b"x")
        world.advance()
        self.assertIn(b"\r\nDate: Sun, 06 Nov 1994 08:50:27 GMT\r\n", client.take())
        client.send(get())
        world.advance()
        now += 10
        app.jobs[1].channel.fail(HandlerFailed("x"))
        world.advance()
        self.assertIn(b"\r\nDate: Sun, 06 Nov 1994 08:50:37 GMT\r\n", client.take())

    def test_sticky_and_groups(self) -> None:
        """A sticky header always leads to the same member of a group; the group is what the locator says."""
        world = self.world()
        for name in ("v1", "v2"):
            world.app(name, play=lambda job: job.answer(b"x"))
        world.routers[0].chunk({"group": [[2**31, "v1"], [2**32 - 1, "v2"]]})  # type: ignore[arg-type]
        world.advance()
        for seed in range(8):
            seen = {
                world.ask(get("/group/http/", "1.1", f"X-Cocaine-Sticky: {seed}")).got.split(b"Application: ")[1][:2]
                for _ in range(2)
            }
            self.assertEqual(len(seen), 1)
        self.assertEqual(set(world.resolved), {"v1", "v2"})

    def test_wire_headers(self) -> None:
        """Mapped headers and the trace travel with the call; the client gets its span back."""
        world = self.world(mapped=frozenset((b"authorization",)))
        app = world.app(play=lambda job: job.answer(b"x"))
        trace = "00-0af7651916cd43dd0448eb211c80319c-00f067aa0ba902b7-01"
        client = world.ask(get("/app/http/", "1.1", "Authorization: TVM x", f"traceparent: {trace}"))
        headers = app.jobs[0].headers
        self.assertEqual(headers[b"authorization"], b"TVM x")
        self.assertEqual(headers[b"trace_id"], 0x0448EB211C80319C.to_bytes(8, "little"))
        self.assertEqual(headers[b"parent_id"], 0x00F067AA0BA902B7.to_bytes(8, "little"))
        self.assertEqual(headers[b"trace_bit"], b"1")
        self.assertIn(b"traceresponse: 00-0af7651916cd43dd0448eb211c80319c-", client.got)

    def test_traceparent_that_is_none(self) -> None:
        """What W3C calls invalid is no decision to trace; a later version may say more than ours."""
        rest = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"x"))
        for trace, taken in (
            ("00" + rest, True), ("01" + rest, True), ("01" + rest + "-more", True), ("cc" + rest + "-", True),
            ("00" + rest + "-more", False), ("00" + rest + "-", False), ("01" + rest + "x", False),
            ("ff" + rest, False), ("00" + rest.upper(), False), ("00-" + "0" * 32 + rest[33:], False),
        ):  # fmt: skip
            client = world.ask(get("/app/http/", "1.1", f"traceparent: {trace}"))
            self.assertEqual(b"traceresponse" in client.got, taken, trace)
            self.assertEqual(b"trace_id" in app.jobs[-1].headers, taken, trace)

    def test_empty_id(self) -> None:
        """An id that says nothing is none: the app gets the one that the client and the log get."""
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"x"))
        client = world.ask(get("/app/http/", "1.1", "X-Request-Id:"))
        (entry,) = world.entries
        self.assertIn((b"X-Request-Id", entry.id), app.jobs[0].request.headers)
        self.assertIn(b"X-Request-Id: %b\r\n" % entry.id, client.got)

    def test_own_answers_are_found_again(self) -> None:
        """An answer of the proxy's own bears the request's id and trace, as the log does, wherever it was to lead."""
        world = self.world(chunk=5.0)
        world.app(play=None)
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for path, status in (("/", 404), ("/nope/http/", 503), ("/app/http/", 504)):
            client = world.ask(get(path, "1.1", "X-Request-Id: mine", f"traceparent: {trace}"))
            world.advance(6)
            self.assertEqual((self.status(client), world.entries[-1].id), (status, b"mine"))
            self.assertIn(b"\r\nX-Request-Id: mine\r\n", client.got)
            self.assertIn(b"\r\ntraceresponse: " + trace[:36].encode(), client.got)

    def test_ping(self) -> None:
        """``/ping`` says whether the locator is there."""
        world = self.world()
        self.assertEqual(self.status(world.ask(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")), 200)
        world.network.kill(NODE)
        world.advance(6)
        world.advance(6)
        self.assertEqual(self.status(world.ask(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")), 503)


class HalfClosedTests(WorldCase):
    def test_answer_after_half_close(self) -> None:
        """A client that has said all it had to say still gets its answers, the pipelined ones too."""
        world = self.world()
        app = world.app()
        client = world.ask(get() + get())
        (http,) = world.door.connections
        http.readConnectionLost()
        app.jobs[0].answer(b"one")
        world.advance()
        app.jobs[1].answer(b"two")
        world.advance()
        self.assertIn(b"one", client.got)
        self.assertIn(b"two", client.got)
        self.assertIsNotNone(client.ended)

    def test_end_inside_a_request(self) -> None:
        """A client that stops in the middle of a request is told so."""
        world = self.world()
        client = world.ask(b"GET / HTTP/1.1\r\nHo")
        (http,) = world.door.connections
        http.readConnectionLost()
        world.advance()
        self.assertEqual(self.status(client), 400)
