"""How bodies travel to apps, whole and in parts."""

from __future__ import annotations

from tests.proxy.world import WorldCase, get


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
