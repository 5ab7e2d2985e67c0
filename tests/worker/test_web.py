from twisted.internet.defer import Deferred

from cocaine_tx.errors import ConnectionGone, HttpFormatError, LocalProtocolError
from cocaine_tx.wire.headers import window_header
from cocaine_tx.wire.http import pack_request, unpack_head
from cocaine_tx.wire.idl import REVOKE_SLOT
from cocaine_tx.worker import Worker, http
from cocaine_tx.worker.asgi import scope
from cocaine_tx.worker.wsgi import wsgi

from .test_worker import StageCase

GET = pack_request("GET", "/a/b?c=d", "1.1", [("Host", "h"), ("Cookie", "1"), ("COOKIE", "2")])


class HttpTests(StageCase):
    def answer(self, event):
        return unpack_head(event.chunks[0]), event.chunks[1:], event.error

    def test_request(self):
        """The parts of a request are text; headers are found whatever their case, and none is lost."""
        seen = []

        @self.worker.on("http")
        @http
        async def handler(request, response):
            seen.extend([request.method, request.uri, request.version, request.path, request.query, request.body])
            headers = request.headers
            seen.extend(
                [headers["host"], headers.get("cookie"), headers.get_all("Cookie"), headers.get("x"), len(headers)]
            )
            self.assertIn("HOST", headers)
            self.assertRaises(KeyError, headers.__getitem__, "x")
            self.assertEqual(list(headers)[0], ("Host", "h"))

        self.stage().invoke("http", GET)
        self.assertEqual(seen[:6], ["GET", "/a/b?c=d", "1.1", "/a/b", "c=d", b""])
        self.assertEqual(seen[6:], ["h", "1", ["1", "2"], None, 3])

    def test_response(self):
        """A head of pairs or of a map, repeated headers kept, then the body as it is."""

        @self.worker.on("http")
        @http
        async def handler(request, response):
            response.write_head(302, [("Set-Cookie", "a"), ("Set-Cookie", "b"), ("Content-Length", 4)])
            response.write("body")
            self.assertRaises(LocalProtocolError, response.write_head, 200)

        head, body, error = self.answer(self.stage().invoke("http", GET))
        self.assertEqual(head, (302, [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Content-Length", b"4")]))
        self.assertEqual((body, error), ([b"body"], None))

    def test_without_head(self):
        """A body without a head, and no word at all, are 200."""

        @self.worker.on("body")
        @http
        async def body(request, response):
            response.write(b"x")

        @self.worker.on("nothing")
        @http
        async def nothing(request, response):
            pass

        stage = self.stage()
        self.assertEqual(self.answer(stage.invoke("body", GET)), ((200, []), [b"x"], None))
        self.assertEqual(self.answer(stage.invoke("nothing", GET)), ((200, []), [], None))

    def test_large_write(self):
        """A body written in one piece goes out in parts: no frame is too large, and no more is sent than asked."""
        whole = bytes(range(256)) * 10_000
        ends = []

        @self.worker.on("bytes")
        @http
        async def handler(request, response):
            await response.write(whole)
            ends.append("taken")

        @self.worker.on("text")
        @http
        async def text(request, response):
            await response.write("\u00e9" * 1_000_000)
            ends.append("taken")

        @self.worker.on("blocking")
        @http
        def blocking(request, response):
            response.write(memoryview(whole))
            ends.append("taken")

        for name, wanted in (("bytes", whole), ("text", "\u00e9".encode() * 1_000_000), ("blocking", whole)):
            stage = self.stage(credits=True)
            stage.node.session.kin = True
            stage.node.session.revocation = REVOKE_SLOT
            event = stage.open(name, GET, headers=[window_header(100_000)])
            event.channel.choke()
            stage.wait(lambda event=event: len(event.chunks) > 1)
            self.assertLess(sum(map(len, event.chunks)), 500_000)
            self.assertEqual(ends, [])
            event.channel.credit(5_000_000)
            stage.wait(lambda event=event: event.closed)
            self.assertEqual((b"".join(event.chunks[1:]) == wanted, ends), (True, ["taken"]))
            ends.clear()

    def test_bad_head(self):
        """A header that would begin a new line is the handler's error."""

        @self.worker.on("http")
        @http
        async def handler(request, response):
            response.write_head(200, {"X": "a\r\nSet-Cookie: b"})

        event = self.stage().invoke("http", GET)
        self.assertEqual((event.chunks, event.error.pair), ([], (42, 100)))
        self.flushLoggedErrors(HttpFormatError)

    def test_streamed_body(self):
        """A body that comes in pieces is read as it comes, what came with the head first."""
        pieces, whole = [], []

        @self.worker.on("pieces")
        @http
        async def handler(request, response):
            async for piece in request:
                pieces.append(piece)

        @self.worker.on("whole")
        @http
        async def all_of_it(request, response):
            whole.append(await request.read_all())

        stage = self.stage()
        for first in (b"", b"1"):
            head = pack_request("POST", "/", "1.1", [], first)
            event = stage.open("pieces", head)
            stage.settle()
            for piece in (b"2", b"3"):
                event.channel.chunk(piece)
                stage.settle()
            event.channel.choke()
            stage.settle()
            self.assertTrue(event.closed)
            stage.invoke("whole", head, b"2", b"3")
        self.assertEqual((pieces, whole), ([b"2", b"3", b"1", b"2", b"3"], [b"23", b"123"]))

    def test_tiny_pieces(self):
        """A client that sends byte by byte does not stop the worker from reading before the buffer is really full."""
        gate = Deferred()
        bodies = []

        @self.worker.on("http")
        @http
        async def handler(request, response):
            await gate
            bodies.append(await request.read_all())

        stage = self.stage(buffer=10_000)
        body = bytes(number % 256 for number in range(9_000))
        event = stage.open("http", pack_request("POST", "/", "1.1", []))
        stage.settle()
        for number in range(len(body)):
            event.channel.chunk(body[number : number + 1])
        stage.settle()
        self.assertEqual(stage.transport.producerState, "producing")
        event.channel.chunk(bytes(1_000))
        stage.settle()
        self.assertEqual(stage.transport.producerState, "paused")
        gate.callback(None)
        stage.settle()
        event.channel.choke()
        stage.settle()
        self.assertEqual(bodies, [body + bytes(1_000)])

    def test_upgrade_declined(self):
        """A request that offers an upgrade has no body: nobody waits for the client before the answer has begun."""
        for more, offers in (
            ([("Upgrade", "h2c"), ("Connection", "Upgrade, HTTP2-Settings")], True),
            ([("Upgrade", "h2c"), ("Connection", "upgrade"), ("X-Cocaine-HTTP-Streaming", "1")], False),
            ([("Upgrade", "h2c")], False),
        ):
            worker = self.worker = Worker()

            @worker.on("whole")
            @http
            async def whole(request, response):
                response.write(await request.read_all())

            @worker.on("pieces")
            @http
            async def pieces(request, response):
                async for piece in request:
                    response.write(piece)

            worker.on("wsgi", wsgi(lambda environ, start: [start("200 OK", []) and environ["wsgi.input"].read()]))
            stage = self.stage()
            for name in ("whole", "pieces", "wsgi"):
                event = stage.open(name, pack_request("GET", "/", "1.1", more))
                if offers:
                    stage.wait(lambda event=event: event.closed)
                    self.assertEqual((b"".join(event.chunks[1:]), event.error), (b"", None))
                else:
                    stage.settle()
                    self.assertFalse(event.closed)
                    event.channel.chunk(b"body")
                    event.channel.choke()
                    stage.wait(lambda event=event: event.closed)
                    self.assertEqual(event.chunks[1:], [b"body"])

    def test_upgrade(self):
        """What a client sends behind a switch of protocols is read once the handler has switched."""

        @self.worker.on("http")
        @http
        async def handler(request, response):
            self.assertIsNone(await request.read())
            response.write_head(101, {"Upgrade": "echo"})
            async for piece in request:
                await response.write(piece)

        stage = self.stage()
        offer = [("Connection", "upgrade"), ("Upgrade", "echo")]
        event = stage.open("http", pack_request("GET", "/", "1.1", offer), b"early")
        stage.settle()
        event.channel.chunk(b"more")
        event.channel.choke()
        stage.settle()
        self.assertEqual(self.answer(event), ((101, [(b"Upgrade", b"echo")]), [b"early", b"more"], None))

    def test_late_first_chunk(self):
        """The handler begins when the request is there, not when the event is."""
        seen = []

        @self.worker.on("http")
        @http
        async def handler(request, response):
            seen.append(request.method)

        stage = self.stage()
        event = stage.open("http")
        stage.settle()
        self.assertEqual((seen, event.closed), ([], False))
        event.channel.chunk(GET)
        stage.settle()
        self.assertEqual((seen, event.closed), (["GET"], True))

    def test_no_request(self):
        """What is no HTTP request gets an error, and no handler."""

        @self.worker.on("http")
        @http
        async def handler(request, response):
            raise AssertionError

        stage = self.stage()
        for chunks in ((b"GET / HTTP/1.1",), ()):
            event = stage.invoke("http", *chunks)
            self.assertEqual(event.error.pair, HttpFormatError("").pair)
        self.assertEqual(len(stage.shift.intake), 0)

    def test_blocking(self):
        """A plain function may speak HTTP as well."""

        @self.worker.on("http")
        @http
        def handler(request, response):
            response.write_head(201, {"X-Method": request.method})
            response.write(request.read_all())

        stage = self.stage()
        event = stage.invoke("http", pack_request("PUT", "/", "1.1", [], b"1"), b"2")
        stage.wait(lambda: event.closed)
        self.assertEqual(self.answer(event), ((201, [(b"X-Method", b"PUT")]), [b"12"], None))

    def test_asgi_scope(self):
        """An ASGI application is told the client's address as a WSGI one is, if a front has said it."""
        seen = []

        @self.worker.on("http")
        @http
        async def handler(request, response):
            seen.append(scope(request, {"pool": 1}))

        stage = self.stage()
        stage.invoke("http", GET)
        stage.invoke("http", pack_request("GET", "/%7e?x", "1.1", [("X-Real-IP", "1.2.3.4")]))
        self.assertEqual([made["client"] for made in seen], [None, ("1.2.3.4", 0)])
        self.assertEqual([made["state"] for made in seen], [{"pool": 1}] * 2)
        self.assertEqual((seen[1]["path"], seen[1]["raw_path"], seen[1]["query_string"]), ("/~", b"/%7e", b"x"))

    def test_wsgi(self):
        """A WSGI application is called as PEP 3333 says, and its iterable closed."""
        closed = []

        class Pieces(list):
            def close(self):
                closed.append(True)

        def application(environ, start_response):
            write = start_response("200 OK", [("Content-Type", "text/plain")])
            write(environ["wsgi.input"].read())
            names = "REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "HTTP_COOKIE", "SERVER_NAME", "CONTENT_LENGTH"
            return Pieces([b"|".join(environ[name].encode("latin-1") for name in names)])

        self.worker.on("http", wsgi(application))
        stage = self.stage()
        headers = [("Host", "h:81"), ("Cookie", "1"), ("Cookie", "2")]
        event = stage.invoke("http", pack_request("POST", "/a%20b?c", "1.1", headers, b"body"))
        stage.wait(lambda: event.closed)
        head, body, error = self.answer(event)
        self.assertEqual((head, error, closed), ((200, [(b"Content-Type", b"text/plain")]), None, [True]))
        self.assertEqual(body, [b"body", b"POST|/a b|c|1, 2|h|4"])

    def test_wsgi_names(self):
        """No header passes for another by an underscore, and a body that came in HTTP chunks is as whole as any."""

        def application(environ, start_response):
            start_response("200 OK", [])
            return [repr(sorted(name for name in environ if name.startswith("HTTP_"))).encode()]

        self.worker.on("http", wsgi(application))
        stage = self.stage()
        headers = [("X-Real-IP", "1"), ("X_Real-IP", "2"), ("X_Forwarded_For", "3"), ("Transfer-Encoding", "chunked")]
        event = stage.invoke("http", pack_request("POST", "/", "1.1", headers, b"body"))
        stage.wait(lambda: event.closed)
        self.assertEqual(self.answer(event)[1], [b"['HTTP_X_REAL_IP']"])

    def test_wsgi_streamed(self):
        """A body in parts is read by a WSGI application as it arrives, whatever its size, and lines of it are found."""

        def application(environ, start_response):
            write = start_response("200 OK", [])
            length, source = environ.get("CONTENT_LENGTH"), environ["wsgi.input"]
            self.assertTrue(environ["wsgi.input_terminated"])
            write(b"%a %a" % (length, source.readline()))
            return iter(lambda: source.read(100_000), b"")

        self.worker.on("http", wsgi(application))
        for more, length in (([], None), ([("Content-Length", "99000000")], "99000000")):
            stage = self.stage()
            head = pack_request("POST", "/", "1.1", [*more, ("X-Cocaine-HTTP-Streaming", "1")])
            event = stage.open("http", head, b"li", b"ne\nrest")
            stage.wait(lambda event=event: len(event.chunks) == 2)
            self.assertEqual(event.chunks[1], b"%a %a" % (length, b"line\n"))
            size = 4
            for _ in range(70):
                event.channel.chunk(bytes(1_000_000))
                size += 1_000_000
                stage.wait(lambda event=event, size=size: sum(map(len, event.chunks[2:])) > size - 200_000)
            event.channel.choke()
            stage.wait(lambda event=event: event.closed)
            self.assertEqual((sum(map(len, event.chunks[2:])), event.error), (size, None))

    def test_wsgi_client_gone(self):
        """An application that reads, or writes, for a client that has gone is broken off, and its iterable closed."""
        seen = []

        class Pieces:
            def __init__(self, source):
                self.source = source

            def __iter__(self):
                return self

            def __next__(self):
                return self.source.read(10)

            def close(self):
                seen.append("closed")

        def application(environ, start_response):
            start_response("200 OK", [])
            return Pieces(environ["wsgi.input"])

        self.worker.on("http", wsgi(application))
        stage = self.stage()
        event = stage.open("http", pack_request("POST", "/", "1.1", [("X-Cocaine-HTTP-Streaming", "1")]), b"0123456789")
        stage.wait(lambda: len(event.chunks) == 2)
        event.channel.fail(ConnectionGone())
        stage.wait(lambda: event.closed)
        self.assertEqual((seen, event.error.pair), (["closed"], ConnectionGone().pair))

