"""The packing convention, held against bytes written down by hand and against anything hypothesis thinks of."""

from __future__ import annotations

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import HttpFormatError
from cocaine_tx.wire.http import PackedRequest, pack_head, pack_request, unpack_head, unpack_request

GET = bytes.fromhex("95a3474554a22f78a3312e319192a4486f7374a168a0")
OK = bytes.fromhex("92ccc89192ac436f6e74656e742d54797065aa746578742f706c61696e")


class RequestTests(SynchronousTestCase):
    """What the proxy sends and the worker reads."""

    def test_golden(self) -> None:
        """A GET is five elements in old-spec raw, with an empty body at the end."""
        self.assertEqual(pack_request(b"GET", b"/x", b"1.1", [(b"Host", b"h")], b""), GET)
        self.assertEqual(pack_request("GET", "/x", "1.1", {"Host": "h"}), GET)
        self.assertEqual(pack_request("GET", "/x", "1.1", (["Host", "h"],)), GET)
        self.assertEqual(unpack_request(GET), PackedRequest(b"GET", b"/x", b"1.1", [(b"Host", b"h")], b""))

    def test_old_raw_only(self) -> None:
        """Neither str8 nor bin ever leaves: a 33-byte URI is raw16, and so is a 33-byte body."""
        packed = pack_request(b"GET", b"/" * 33, b"1.1", [], b"b" * 33)
        self.assertIn(b"\xda\x00\x21" + b"/" * 33, packed)
        self.assertTrue(packed.endswith(b"\xda\x00\x21" + b"b" * 33))

    def test_four_elements(self) -> None:
        """A request without the body element is one with an empty body."""
        self.assertEqual(unpack_request(msgpack.packb([b"GET", b"/", b"1.0", []])).body, b"")

    def test_new_msgpack(self) -> None:
        """Text, bin, a map of headers and the long form of the version are understood."""
        chunk = msgpack.packb(["PUT", "/", "HTTP/1.1", {"A": b"1"}, b"\xff" * 40], use_bin_type=True)
        self.assertEqual(unpack_request(chunk), (b"PUT", b"/", b"1.1", [(b"A", b"1")], b"\xff" * 40))

    def test_refused(self) -> None:
        """Anything else is refused with our own error."""
        bad = [[], [b"GET", b"/", b"1.1"], [b"GET", b"/", b"1.1", [], b"", b""], [1, b"/", b"1.1", []],
               [b"GET", b"/", b"1.1", 5], [b"GET", b"/", b"1.1", [[b"a"]]], [b"GET", b"/", b"1.1", [], None],
               {}, 7]  # fmt: skip
        for value in bad:
            self.assertRaises(HttpFormatError, unpack_request, msgpack.packb(value))
        self.assertRaises(HttpFormatError, unpack_request, GET + b"\x00")
        self.assertRaises(HttpFormatError, unpack_request, GET[:-1])
        self.assertRaises(HttpFormatError, pack_request, b"GET", b"/", b"1.1", [(b"a", object())])

    def test_round_trip(self) -> None:
        """What is packed is what is read."""
        raw = st.binary(max_size=70)

        @settings(max_examples=60, deadline=None)
        @given(raw, raw, st.lists(st.tuples(raw, raw), max_size=5), raw)
        def check(method: bytes, uri: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
            packed = pack_request(method, uri, b"1.1", headers, body)
            self.assertEqual(unpack_request(packed), (method, uri, b"1.1", headers, body))

        check()


class HeadTests(SynchronousTestCase):
    """What the worker sends first and the proxy reads."""

    def test_golden(self) -> None:
        """The head is a status and pairs, in old-spec raw."""
        self.assertEqual(pack_head(200, [("Content-Type", "text/plain")]), OK)
        self.assertEqual(unpack_head(OK), (200, [(b"Content-Type", b"text/plain")]))

    def test_containers(self) -> None:
        """Headers may be lists, tuples or a map, text or bytes, and a number is written out."""
        wanted = pack_head(200, [(b"A", b"1"), (b"B", b"2")])
        lists, tuples = [["A", "1"], ["B", "2"]], (("A", b"1"), (b"B", "2"))
        for headers in (lists, tuples, {"A": 1, "B": "2"}, {b"A": b"1", b"B": 2}):
            self.assertEqual(pack_head(200, headers), wanted)  # type: ignore[arg-type]
        self.assertEqual(unpack_head(msgpack.packb([200, {"A": 1}])), (200, [(b"A", b"1")]))

    def test_repeated(self) -> None:
        """Repeated headers stay repeated, in order."""
        cookies = [(b"Set-Cookie", b"a=1"), (b"X", b""), (b"Set-Cookie", b"b=2")]
        self.assertEqual(unpack_head(pack_head(200, cookies)), (200, cookies))

    def test_again(self) -> None:
        """A head that is like one before is answered the same; one that only equals it is judged for itself."""
        for length, wanted in ((14, "14"), ("14", "14"), (15, "15"), (14, "14")):
            headers = [("Content-Length", length)]
            self.assertEqual(unpack_head(pack_head(200, headers))[1], [(b"Content-Length", wanted.encode())])
        for odd in (14.0, True, None):
            self.assertRaises(HttpFormatError, pack_head, 200, [("Content-Length", odd)])
        self.assertRaises(HttpFormatError, pack_head, 200.0, [("Content-Length", 14)])
        self.assertEqual(pack_head(200, [["Content-Length", 14]]), pack_head(200, [("Content-Length", 14)]))

    def test_text(self) -> None:
        """Text that latin-1 holds goes out as latin-1, all other as UTF-8."""
        headers = unpack_head(pack_head(200, {"A": "\xe9", "B": "\u20ac"}))[1]
        self.assertEqual(headers, [(b"A", b"\xe9"), (b"B", b"\xe2\x82\xac")])

    def test_no_injection(self) -> None:
        """A worker cannot begin a new line, whichever side checks."""
        for name, value in [("A", "1\r\nB: 2"), ("A", "1\nB"), ("A", "\r"), ("A", "\0"), ("A", "\x7f"), ("A\r\nB", "1"),
                            ("", "1"), ("A:", "1"), ("A ", "1"), (" A", "1"), ("A\n", "1"), ("\xe9", "1")]:  # fmt: skip
            good = ("Good", "yes")
            self.assertRaises(HttpFormatError, pack_head, 200, [good, (name, value), good])
            self.assertRaises(HttpFormatError, unpack_head, msgpack.packb([200, [good, (name, value), good]]))

    def test_status(self) -> None:
        """A status is a whole number from 100 to 599."""
        for status in (99, 600, 0, -1, True, None, "200", 200.0, 2**70):
            self.assertRaises(HttpFormatError, pack_head, status, [])
        for status in (99, 600, True, None, "200", 200.0):
            self.assertRaises(HttpFormatError, unpack_head, msgpack.packb([status, []]))
        self.assertEqual(unpack_head(pack_head(599, [])), (599, []))

    def test_anything(self) -> None:
        """No bytes raise anything but our own error."""

        @settings(max_examples=300, deadline=None)
        @given(st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda tail: b"\x92\xcc\xc8" + tail)))
        def check(chunk: bytes) -> None:
            for read in (unpack_head, unpack_request):
                try:
                    read(chunk)
                except HttpFormatError as error:
                    self.assertEqual(error.http_status, 500)

        check()
        deep = b"\x91" * 100000
        for chunk in (deep, b"", b"\xdd\xff\xff\xff\xff", b"\x81\x90\x01", b"\xc7\x00\x01", b"\xd6\xff\0\0\0\0"):
            self.assertRaises(HttpFormatError, unpack_head, chunk)
