"""What an HTTP client gets, whatever the app, the platform or the client itself does."""

from __future__ import annotations

import itertools
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import AppStopped, ConnectionGone, HandlerFailed, InvocationTimeout, QueueFull
from cocaine_tx.wire.headers import timeout_of
from cocaine_tx.wire.idl import UNLIMITED
from tests.proxy.cases import load
from tests.proxy.world import NODE, App, Client, Job, World, get


class WorldCase(SynchronousTestCase):
    def world(self, **terms: Any) -> World:
        world = World(**terms)
        self.addCleanup(world.stop)
        return world

    def status(self, client: Client) -> int:
        self.assertTrue(client.got.startswith(b"HTTP/1.1 "), client.got)
        return int(client.got[9:12])


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


class BodyTests(WorldCase):
    def test_expect_continue(self) -> None:
        """A client that asks whether to send its body is told to, once."""
        world = self.world()
        app = world.app(play=None)
        client = world.ask(
            b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"hi")
        world.advance()
        self.assertEqual(app.jobs[0].body, b"hi")
        app.jobs[0].answer(b"x")
        world.advance()
        self.assertTrue(client.got.startswith(b"HTTP/1.1 200 OK"))

    def test_small_chunked(self) -> None:
        """A small body of unknown length reaches an ordinary app in one piece."""
        world = self.world()
        app = world.app(play=None)
        head = b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        world.ask(head + b"2\r\nhi\r\n3\r\n!!!\r\n0\r\n\r\n")
        self.assertEqual((app.jobs[0].request.body, len(app.jobs[0].chunks)), (b"hi!!!", 1))

    def test_too_large(self) -> None:
        """What an ordinary app cannot take is 413, before it is sent if the length is known."""
        for raw in (
            b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n",
            b"POST /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n",
        ):
            world = self.world(inline=10)
            app = world.app(play=None)
            client = world.ask(raw)
            self.assertEqual(self.status(client), 413)
            self.assertIn(b"Connection: close\r\n", client.got)
            self.assertEqual(app.jobs, [])

    def test_streamed(self) -> None:
        """An app that asks for it gets a large body in parts as they arrive, and can answer in between."""
        for framing, wrap in (
            (b"Content-Length: 12", lambda part: part),
            (b"Transfer-Encoding: chunked", lambda part: b"%x\r\n%b\r\n" % (len(part), part)),
        ):
            world = self.world(inline=10)
            app = world.app(play=None)
            app.info = {"http-streaming": True, "credits": True}
            client = world.ask(b"POST /app/http/ HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n" + wrap(b"abcd"))
            (job,) = app.jobs
            self.assertEqual((job.body, job.ended), (b"abcd", ""))
            self.assertIn((b"X-Cocaine-HTTP-Streaming", b"1"), job.request.headers)
            client.send(wrap(b"efgh"))
            world.advance()
            self.assertEqual(job.body, b"abcdefgh")
            job.head()
            job.channel.chunk(b"seen")
            world.advance()
            self.assertIn(b"seen", client.got)
            client.send(wrap(b"ijkl") + (b"0\r\n\r\n" if b"chunked" in framing else b""))
            world.advance()
            self.assertEqual((job.body, job.ended), (b"abcdefghijkl", "close"))
            job.channel.choke()
            world.advance()
            self.assertTrue(client.take().endswith(b"0\r\n\r\n"))
            client.send(get())
            world.advance()
            self.assertEqual(len(app.jobs), 2)

    def test_streaming_claimed(self) -> None:
        """That a body follows in parts is the proxy's word; no client makes an app wait for parts."""
        world = self.world(inline=3)
        app = world.app()
        app.info = {"http-streaming": True, "credits": True}
        for target in ("/app/http/", "/"):
            for length in (2, 9):
                lines = [f"PUT {target} HTTP/1.1", "Host: a", f"Content-Length: {length}"]
                lines += ["X-cocaine-http-streaming: 1"]
                lines += ["X-Cocaine-Service: app", "X-Cocaine-Event: http"] * (target == "/")
                world.ask("\r\n".join([*lines, "", "x" * length]).encode())
                headers = app.jobs[-1].request.headers
                claims = [value for name, value in headers if name.lower() == b"x-cocaine-http-streaming"]
                self.assertEqual(len(claims), length > 3)
                self.assertEqual(app.jobs[-1].body, b"x" * length)

    def test_early_answer(self) -> None:
        """An app may answer before it has got the whole body; the rest is dropped and the connection lives on."""
        world = self.world(inline=3)
        app = world.app()
        app.greet = lambda job: job.answer(b"enough")
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n1234")
        self.assertIn(b"enough", client.take())
        # A close would say that this was the whole body.
        self.assertIn("the rest of its request", app.jobs[0].ended)
        client.send(b"5678" + get())
        world.advance()
        self.assertEqual(self.status(client), 200)
        self.assertEqual(len(app.jobs), 2)

    def test_client_gone(self) -> None:
        """An app whose client goes away in the middle of an upload is told by an error."""
        world = self.world(inline=3)
        app = world.app(play=None)
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n1234")
        client.transport.abortConnection()  # type: ignore[union-attr]
        world.advance()
        self.assertEqual(app.jobs[0].ended, "the HTTP client has gone")
        self.assertEqual(world.entries[-1].status, 499)

    def test_broken_body(self) -> None:
        """A body that breaks the rules is 400, and the app is told by an error."""
        world = self.world()
        app = world.app(play=None)
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(b"PUT /app/http/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n")
        self.assertEqual(self.status(client), 400)
        self.assertTrue(app.jobs == [] or app.jobs[0].ended not in ("", "close"))

    def test_upgrade(self) -> None:
        """A switched connection carries bytes both ways until the app has ended its answer."""
        world = self.world()
        app = world.app(play=None)
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(get("/app/http/", "1.1", "Connection: Upgrade", "Upgrade: websocket") + b"early")
        (job,) = app.jobs
        job.head(101, ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "x"))
        job.channel.chunk(b"<<")
        world.advance()
        self.assertTrue(client.got.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), client.got)
        self.assertIn(b"\r\nX-Cocaine-Application: app\r\nX-Request-Id: ", client.got)
        self.assertTrue(client.got.endswith(b"\r\n\r\n<<"))
        client.send(b"\x81\x00\r\n")
        world.advance(60)
        self.assertEqual(job.chunks[1:], [b"early", b"\x81\x00\r\n"])
        job.channel.choke()
        world.advance()
        self.assertIsNotNone(client.ended)

    def test_upgrade_refused(self) -> None:
        """An app that does not switch answers as ever, with the whole request before it."""
        world = self.world()
        app = world.app()
        app.greet = lambda job: job.answer(b"no")
        for protocol in ("h2c", "websocket"):
            for streams in (True, False):
                app.info = {"http-streaming": streams, "credits": True}
                client = world.ask(get("/app/http/", "1.1", "Connection: Upgrade", f"Upgrade: {protocol}"))
                self.assertEqual(self.status(client), 200)
                self.assertEqual(app.jobs[-1].ended, "close")

    def test_upgrade_unmeant(self) -> None:
        """Clients that offer HTTP/2 with every request get their answer from apps that read the request to its end."""
        world = self.world()
        app = world.app(play=lambda job: job.answer(b"fine"))
        app.info = {"http-streaming": True, "credits": True}
        settings = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        client = world.ask(get("/app/http/", "1.1", *settings))
        self.assertIn(b"fine", client.got)

    def test_upgrade_ends(self) -> None:
        """When the app has ended a tunnel, the client can read its last words though it is still sending itself."""
        world = self.world()
        app = world.app(play=None)
        app.info = {"http-streaming": True, "credits": True}
        client = world.ask(get("/app/http/", "1.1", "Connection: Upgrade", "Upgrade: websocket"))
        (http,) = world.door.connections
        halves: list[str] = []
        http.transport.loseWriteConnection = lambda: halves.append("half")
        app.jobs[0].head(101)
        app.jobs[0].channel.choke()
        world.advance()
        self.assertEqual((halves, client.ended), (["half"], None))
        client.send(b"unheard")
        world.advance(3)
        self.assertIsNotNone(client.ended)


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
    def test_download(self) -> None:
        """A node that knows windows is granted more only as the client takes; nobody's connection is held."""
        world = self.world(buffer=100_000)
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        client = world.client()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(get())
        world.advance()
        (job,) = app.jobs
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
        app = world.app()
        app.info = {"http-streaming": False, "credits": True}
        client = world.client()
        client.transport.pauseProducing()  # type: ignore[union-attr]
        client.send(get())
        world.advance()
        (job,) = app.jobs
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


class DrainTests(WorldCase):
    def test_drain(self) -> None:
        """When the proxy is stopped, idle clients go within a moment and running requests get their answer."""
        world = self.world()
        app = world.app()
        idle, busy = world.client(), world.ask(get())
        drained = world.door.drain()
        world.advance(2)
        self.assertIsNotNone(idle.ended)
        self.assertNoResult(drained)
        app.jobs[0].answer(b"done")
        world.advance()
        self.assertIn(b"Connection: close\r\n", busy.got)
        self.assertIn(b"done", busy.got)
        self.successResultOf(drained)

    def test_on_its_way(self) -> None:
        """A request that was sent before its client could know that the proxy is stopped is answered, and the last."""
        world = self.world()
        world.app(play=lambda job: job.answer(b"x"))
        new, old = world.client(), world.ask(get())
        old.take()
        drained = world.door.drain()
        for client in (new, old):
            client.send(get())
            world.advance()
            self.assertEqual(self.status(client), 200)
            self.assertIn(b"Connection: close\r\n", client.got)
            self.assertIsNotNone(client.ended)
        self.successResultOf(drained)

    def test_pipelined_before(self) -> None:
        """Requests that had arrived behind another one when the proxy was stopped are answered; the last says so."""
        world = self.world()
        app = world.app()
        client = world.ask(get() * 3)
        drained = world.door.drain()
        for number in range(3):
            app.jobs[number].answer(b"answer %d" % number)
            world.advance()
        self.assertEqual(client.got.count(b"answer "), 3)
        self.assertEqual(client.got.count(b"Connection: close\r\n"), 1)
        self.assertLess(client.got.index(b"answer 1"), client.got.index(b"Connection: close\r\n"))
        self.successResultOf(drained)

    def test_answered_meanwhile(self) -> None:
        """The same behind an answer that had begun before."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        world.advance()
        drained = world.door.drain()
        app.jobs[0].channel.choke()
        world.advance()
        self.assertIsNone(client.ended)
        client.take()
        client.send(get())
        world.advance()
        app.jobs[1].answer(b"x")
        world.advance()
        self.assertEqual(self.status(client), 200)
        self.successResultOf(drained)

    def test_cut_off(self) -> None:
        """Whoever is left at the end is in the log, with the reason."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        world.advance()
        closed = world.door.close()
        world.advance()
        self.successResultOf(closed)
        self.assertIsNotNone(client.ended)
        (entry,) = world.entries
        self.assertEqual((entry.status, entry.error), (200, "the proxy has been stopped"))


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
