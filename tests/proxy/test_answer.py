"""A worker's answer on its way to the client, read back by a strict reader of our own and by httptools."""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import HttpFormatError, LocalProtocolError
from cocaine_tx.proxy.answer import Answer, Ending, http_date
from cocaine_tx.proxy.parser import RequestParser
from cocaine_tx.proxy.request import RequestHead

DATE = http_date(784111777)
OK = [(b"Content-Type", b"text/plain")]


def answer(method: bytes = b"GET", version: bytes = b"1.1", keep_alive: bool = True, upgrade: bytes = b"") -> Answer:
    return Answer(method, version, keep_alive, upgrade, lambda: DATE)


def head(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@dataclass
class Reader:
    """What a client's parser makes of the bytes."""

    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    complete: int = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete += 1


class FramingTests(SynchronousTestCase):
    """How the client learns where the body ends."""

    def test_chunked(self) -> None:
        """Without a length the body is chunked, and the connection lives on."""
        one = answer()
        self.assertEqual(
            one.head(200, OK),
            head(b"HTTP/1.1 200 OK", b"Content-Type: text/plain", b"Date: Sun, 06 Nov 1994 08:49:37 GMT",
                 b"Transfer-Encoding: chunked"),
        )  # fmt: skip
        self.assertEqual(one.chunk(b"hello world!"), b"c\r\nhello world!\r\n")
        self.assertEqual(one.chunk(b""), b"", "an empty chunk must not end the body")
        self.assertEqual(one.ending, Ending.ABORT, "an error now can only be told by breaking off")
        self.assertEqual(one.end(), b"0\r\n\r\n")
        self.assertEqual((one.done, one.ending, one.end(), one.chunk(b"late")), (True, Ending.KEEP, b"", b""))

    def test_length(self) -> None:
        """A length the worker gave is kept, and nothing is added to the body."""
        one = answer()
        self.assertIn(b"\r\nContent-Length: 5\r\n", one.head(200, [(b"content-length", b"5")]))
        self.assertEqual(one.chunk(b"he") + one.chunk(b"llo") + one.end(), b"hello")
        self.assertEqual(one.ending, Ending.KEEP)

    def test_excess(self) -> None:
        """What exceeds the promised length is dropped, and the connection is not used again."""
        one = answer()
        one.head(200, [(b"Content-Length", b"3")])
        self.assertEqual(one.chunk(b"hello") + one.chunk(b"more") + one.end(), b"hel")
        self.assertEqual(one.ending, Ending.CLOSE)

    def test_short(self) -> None:
        """A body that ends before its promised length is broken off, so that the client sees it."""
        one = answer()
        one.head(200, [(b"Content-Length", b"3")])
        self.assertEqual(one.chunk(b"h") + one.end(), b"h")
        self.assertEqual((one.done, one.ending), (True, Ending.ABORT))

    def test_bad_length(self) -> None:
        """A length that is none is an error of the worker, told before anything has been sent."""
        for values in ([b"-1"], [b"+1"], [b"5, 5"], [b""], [b"x"], [b"1", b"2"], [b"1" * 20]):
            one = answer()
            self.assertRaises(HttpFormatError, one.head, 200, [(b"Content-Length", value) for value in values])
            self.assertFalse(one.begun)
            self.assertIn(b" 500 ", one.complete(500, OK, b"sorry"))

    def test_same_length_twice(self) -> None:
        """The same length twice goes out once."""
        self.assertEqual(answer().head(200, [(b"Content-Length", b"1")] * 2).count(b"Content-Length"), 1)

    def test_http10(self) -> None:
        """HTTP/1.0 knows no chunks: the end of the connection is the end of the body."""
        one = answer(version=b"1.0")
        sent = one.head(200, OK)
        self.assertIn(b"\r\nConnection: close\r\n", sent)
        self.assertNotIn(b"Transfer-Encoding", sent)
        self.assertEqual(one.chunk(b"hello") + one.end(), b"hello")
        self.assertEqual(one.ending, Ending.CLOSE)

    def test_http10_keep_alive(self) -> None:
        """With a length it may live on, and is told so."""
        one = answer(version=b"1.0")
        self.assertIn(b"\r\nConnection: keep-alive\r\n", one.complete(200, OK, b"hello"))
        self.assertEqual(one.ending, Ending.KEEP)

    def test_complete(self) -> None:
        """An answer that is all there gets a length."""
        sent = answer().complete(200, OK, b"hello")
        self.assertTrue(sent.endswith(b"\r\n\r\nhello"))
        self.assertIn(b"\r\nContent-Length: 5\r\n", sent)

    def test_close(self) -> None:
        """A client that wants no more, or a proxy that takes no more, ends the connection."""
        one = answer(keep_alive=False)
        self.assertIn(b"\r\nConnection: close\r\n", one.complete(200, OK, b""))
        self.assertEqual(one.ending, Ending.CLOSE)
        draining = answer()
        draining.last()
        self.assertIn(b"\r\nConnection: close\r\n", draining.complete(200, OK, b""))

    def test_bodiless(self) -> None:
        """HEAD, 204 and 304 have no body, whatever the worker sends."""
        for method, status, kept in [(b"HEAD", 200, True), (b"GET", 204, False), (b"GET", 304, True)]:
            one = answer(method)
            sent = one.head(status, [(b"Content-Length", b"5")])
            self.assertEqual(b"Content-Length: 5" in sent, kept)
            self.assertNotIn(b"Transfer-Encoding", sent)
            self.assertEqual(one.chunk(b"hello") + one.end(), b"")
            self.assertEqual(one.ending, Ending.KEEP)
        for method, status in [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)]:
            sent = answer(method).head(status, OK)
            self.assertNotIn(b"Transfer-Encoding", sent)
            self.assertNotIn(b"Content-Length", sent)

    def test_reset_content(self) -> None:
        """205 has a body of none, and says so."""
        sent = answer().complete(205, [(b"Content-Length", b"9")], b"no matter")
        self.assertTrue(sent.endswith(b"Content-Length: 0\r\n\r\n"))

    def test_read_back(self) -> None:
        """Whatever chunks the worker sends, the client reads their sum, and one answer."""

        @settings(max_examples=150, deadline=None)
        @given(st.lists(st.binary(max_size=30), max_size=6), st.booleans(), st.integers(1, 60))
        def check(chunks: list[bytes], sized: bool, step: int) -> None:
            body = b"".join(chunks)
            one = answer()
            sent = one.head(200, [(b"Content-Length", b"%d" % len(body))] if sized else [])
            sent += b"".join(one.chunk(chunk) for chunk in chunks) + one.end()
            reader = Reader()
            parser = httptools.HttpResponseParser(reader)
            for start in range(0, len(sent), step):
                parser.feed_data(sent[start : start + step])
            self.assertEqual((reader.body, reader.complete, one.ending), (body, 1, Ending.KEEP))

        check()


class HeadTests(SynchronousTestCase):
    """What of the worker's head reaches the client."""

    def test_hop_by_hop(self) -> None:
        """What concerns only the worker's own connection stays behind, and what it names with it."""
        sent = answer().head(200, [
            (b"Connection", b"close, X-Inner"), (b"Keep-Alive", b"timeout=5"), (b"Transfer-Encoding", b"chunked"),
            (b"x-inner", b"1"), (b"Proxy-Connection", b"close"), (b"TE", b"x"), (b"Trailer", b"X"),
            (b"Upgrade", b"h2c"), (b"X-Outer", b"2"),
        ])  # fmt: skip
        self.assertEqual(sent, head(b"HTTP/1.1 200 OK", b"X-Outer: 2", b"Date: " + DATE, b"Transfer-Encoding: chunked"))

    def test_named_length(self) -> None:
        """Nobody gets rid of the length by naming it."""
        sent = answer().head(200, [(b"Connection", b"content-length"), (b"Content-Length", b"5")])
        self.assertIn(b"Content-Length: 5\r\n", sent)

    def test_repeated(self) -> None:
        """Repeated headers stay repeated and in order."""
        sent = answer().head(200, [(b"Set-Cookie", b"a=1"), (b"X", b"y"), (b"Set-Cookie", b"b=2")])
        self.assertIn(b"Set-Cookie: a=1\r\nX: y\r\nSet-Cookie: b=2\r\n", sent)

    def test_date(self) -> None:
        """Date is added unless the worker gave one."""
        mine = b"Mon, 07 Nov 1994 08:49:37 GMT"
        sent = answer().head(200, [(b"DATE", mine)])
        self.assertEqual((sent.count(b"Date: "), sent.count(mine)), (1, 1))

    def test_reason(self) -> None:
        """Phrases come from the standard table; unknown statuses have none; the proxy may bring its own."""
        self.assertTrue(answer().head(404, []).startswith(b"HTTP/1.1 404 Not Found\r\n"))
        self.assertTrue(answer().head(299, []).startswith(b"HTTP/1.1 299 \r\n"))
        sent = answer().complete(503, [], b"", [(b"X", b"y")], b"No Such Application")
        self.assertTrue(sent.startswith(b"HTTP/1.1 503 No Such Application\r\nX: y\r\n"))

    def test_once(self) -> None:
        """A second status line never goes out."""
        one = answer()
        one.head(200, [])
        self.assertRaises(LocalProtocolError, one.head, 500, [])
        self.assertRaises(LocalProtocolError, answer().chunk, b"x")

    def test_no_head(self) -> None:
        """A worker that closes without a head has failed."""
        one = answer()
        self.assertRaises(HttpFormatError, one.end)
        self.assertEqual((one.begun, one.ending), (False, Ending.KEEP))

    def test_interim(self) -> None:
        """Early hints go out at once to HTTP/1.1 and not at all to HTTP/1.0; the real head follows."""
        hints = [(b"Link", b"</a.css>"), (b"Content-Length", b"5")]
        one = answer()
        self.assertEqual(one.head(103, hints), head(b"HTTP/1.1 103 Early Hints", b"Link: </a.css>"))
        self.assertFalse(one.begun)
        self.assertTrue(one.complete(200, [], b"").startswith(b"HTTP/1.1 200"))
        self.assertEqual(answer(version=b"1.0").head(103, hints), b"")

    def test_from_request(self) -> None:
        """The parser's head is all an answer needs to know."""
        request = RequestParser().feed(b"HEAD / HTTP/1.0\r\n\r\n")[0]
        assert isinstance(request, RequestHead)
        sent = Answer.to(request, lambda: DATE).complete(200, OK, b"hello")
        self.assertTrue(sent.endswith(b"\r\nConnection: close\r\n\r\n"))


class ProtoVersionTests(SynchronousTestCase):
    """``X-Cocaine-HTTP-Proto-Version``: when the body ends."""

    def test_lingering(self) -> None:
        """1.1: an empty chunk ends the body, and the worker may go on working."""
        one = answer()
        sent = one.head(200, [(b"X-Cocaine-Http-Proto-Version", b"1.1")])
        self.assertIn(b"X-Cocaine-HTTP-Proto-Version: 1.1\r\n", sent)
        one.chunk(b"hello")
        self.assertEqual(one.chunk(b""), b"0\r\n\r\n")
        self.assertEqual((one.done, one.ending, one.chunk(b"late"), one.end()), (True, Ending.KEEP, b"", b""))

    def test_lingering_bodiless(self) -> None:
        """It ends an answer to HEAD too."""
        one = answer(b"HEAD")
        one.head(200, [(b"X-Cocaine-HTTP-Proto-Version", b"1.1")])
        self.assertEqual((one.chunk(b""), one.done), (b"", True))

    def test_plain(self) -> None:
        """1.0: only the end of the channel does."""
        one = answer()
        one.head(200, [(b"X-Cocaine-HTTP-Proto-Version", b"1.0")])
        self.assertEqual((one.chunk(b""), one.done), (b"", False))

    def test_other(self) -> None:
        """Any other value is an error."""
        for values in ([b"2.0"], [b""], [b"1.0", b"1.1"]):
            headers = [(b"X-Cocaine-HTTP-Proto-Version", value) for value in values]
            error = self.assertRaises(HttpFormatError, answer().head, 200, headers)
            self.assertEqual(error.http_status, 500)


class TunnelTests(SynchronousTestCase):
    """Switching protocols."""

    def test_upgrade(self) -> None:
        """After 101 the bytes pass as they are, and the connection ends with the channel."""
        one = answer(upgrade=b"websocket")
        sent = one.head(101, [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Accept", b"x")])
        self.assertEqual(
            sent,
            head(b"HTTP/1.1 101 Switching Protocols", b"Sec-WebSocket-Accept: x", b"Date: " + DATE,
                 b"Connection: upgrade", b"Upgrade: websocket"),
        )  # fmt: skip
        self.assertTrue(one.tunnel)
        self.assertEqual(one.chunk(b"\x81\x00") + one.end(), b"\x81\x00")
        self.assertEqual(one.ending, Ending.CLOSE)

    def test_unasked(self) -> None:
        """A worker cannot switch a client that did not ask."""
        self.assertRaises(HttpFormatError, answer().head, 101, [(b"Upgrade", b"websocket")])

    def test_declined(self) -> None:
        """A worker may answer such a request as any other."""
        one = answer(upgrade=b"websocket")
        self.assertIn(b"Content-Length: 2\r\n", one.complete(200, OK, b"no"))
        self.assertEqual((one.tunnel, one.ending), (False, Ending.KEEP))
