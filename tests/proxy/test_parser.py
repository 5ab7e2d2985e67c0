"""The parser as the connection sees it: the corpus, any split of anything, and the pause between requests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import LocalProtocolError
from cocaine_tx.proxy.head import HEAD, fields_of
from cocaine_tx.proxy.parser import RequestParser
from cocaine_tx.proxy.request import Body, End, Limits, Refused, RequestHead
from tests.proxy import cases

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def single(raw: bytes) -> list[bytes]:
    return [raw[i : i + 1] for i in range(len(raw))]


class CorpusTests(SynchronousTestCase):
    """Every raw request comes to what its file says."""

    def check(self, case: cases.Case, pieces: list[bytes]) -> None:
        parser = RequestParser()
        events = cases.told(parser, pieces)
        said = [line for line in case.outcome if line != "wait" and not line.startswith("header ")]
        self.assertEqual(cases.outcome(events), said, case.name)
        fields = {
            f"header {name.decode('latin-1')}: {value.decode('latin-1')}"
            for event in events
            if isinstance(event, RequestHead)
            for name, value in event.headers
        }
        self.assertLessEqual({line for line in case.outcome if line.startswith("header ")}, fields, case.name)
        if case.outcome[-1] == "end":
            self.assertTrue(parser.idle, case.name)

    def test_enough(self) -> None:
        """There are at least 150 of them, and some of each kind."""
        corpus = cases.load()
        self.assertGreaterEqual(len(corpus), 150)
        statuses = {case.refused for case in corpus}
        self.assertEqual(statuses, {None, 400, 413, 414, 417, 431, 501, 505})

    def test_whole(self) -> None:
        """In one piece."""
        for case in cases.load():
            self.check(case, [case.raw])

    def test_byte_by_byte(self) -> None:
        """One byte at a time."""
        for case in cases.load():
            self.check(case, single(case.raw))

    def test_halves(self) -> None:
        """In two pieces, cut anywhere (long ones only near line ends)."""
        for case in cases.load():
            raw = case.raw
            ends = [at for at in range(len(raw)) if raw[at : at + 1] in b"\r\n"]
            cuts = range(len(raw)) if len(raw) < 300 else ends[:100]
            whole = cases.told(RequestParser(), [raw])
            for cut in cuts:
                self.assertEqual(cases.told(RequestParser(), [raw[:cut], raw[cut:]]), whole, (case.name, cut))

    def test_refused_once(self) -> None:
        """After a refusal nothing more is said, whatever arrives."""
        for case in cases.load():
            if case.refused is not None:
                parser = RequestParser()
                cases.told(parser, [case.raw])
                self.assertEqual((parser.feed(GET), parser.next(), parser.eof(), parser.rest()), ([], [], [], b""))


# Pieces of requests, sound and not, from which hypothesis builds what nobody thought of.
SCRAPS = st.sampled_from([
    GET, POST, CHUNKED, b"GET", b"POST", b" ", b"/", b"*", b"http://a/", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0",
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\t", b"\0", b":", b",", b";", b"Host: a", b"Host: b\r\n", b"\xff", b"a" * 70,
    b"Content-Length: 5\r\n", b"Content-Length: 0", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x",
    b"Connection: close\r\n", b"Connection: upgrade", b"Upgrade: x\r\n", b"Expect: 100-continue\r\n", b"X: 1\r\n",
    b" folded\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"3;a=b\r\nabc\r\n", b"5\r\n", b"hello", b"0\r\n",
])  # fmt: skip
STREAMS = st.one_of(
    st.binary(max_size=80),
    st.lists(st.one_of(SCRAPS, st.binary(max_size=3)), max_size=14).map(b"".join),
    st.lists(SCRAPS, max_size=8).map(lambda scraps: b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(scraps)),
    st.lists(SCRAPS, max_size=8).map(lambda scraps: CHUNKED + b"".join(scraps)),
)
SMALL = Limits(line=60, field=40, head=150, headers=4, body=20, chunk_line=12, extensions=10, trailers=30)


class AnythingTests(SynchronousTestCase):
    """Whatever arrives, however it is cut."""

    def test_split(self) -> None:
        """The events are the same, to the word of the refusal, under any split of the bytes."""

        @settings(max_examples=400, deadline=None)
        @given(STREAMS, st.lists(st.integers(0, 250), max_size=6), st.sampled_from([Limits(), SMALL]))
        def check(raw: bytes, cuts: list[int], limits: Limits) -> None:
            whole = cases.told(RequestParser(limits), [raw])
            edges = [0, *sorted(cuts), len(raw)]
            pieces = [raw[a:b] for a, b in zip(edges, edges[1:], strict=False)]
            pieces = pieces if b"".join(pieces) == raw else [raw]
            self.assertEqual(cases.told(RequestParser(limits), pieces), whole)
            self.assertEqual(cases.told(RequestParser(limits), single(raw)), whole)

        check()

    def test_order(self) -> None:
        """A head comes first, then bodies, then the end; a refusal is the last word; nothing is ever raised."""

        @settings(max_examples=300, deadline=None)
        @given(STREAMS)
        def check(raw: bytes) -> None:
            events = cases.told(RequestParser(), [raw])
            inside = False
            for position, event in enumerate(events):
                if isinstance(event, Refused):
                    self.assertEqual(position, len(events) - 1)
                elif isinstance(event, RequestHead):
                    self.assertFalse(inside)
                    inside = True
                else:
                    self.assertTrue(inside)
                    inside = not isinstance(event, End)

        check()

    def test_two_readers(self) -> None:
        """llhttp finds in a block of fields exactly what the grammar says is there."""
        name = st.sampled_from([b"Connection", b"Upgrade", b"Expect", b"Proxy-Connection", b"!", b"|a", b"x" * 30])
        value = st.lists(st.sampled_from(list(b"\t  ab,:;\x80\xff")), max_size=8).map(bytes)
        line = st.tuples(name, value).map(lambda pair: pair[0] + b":" + pair[1] + b"\r\n")

        @settings(max_examples=300, deadline=None)
        @given(st.lists(line, max_size=5).map(b"".join))
        def check(lines: bytes) -> None:
            match = HEAD.fullmatch(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
            if match is None:
                return
            fields = fields_of(match[4])
            if not isinstance(fields, Refused):
                wanted = [part.partition(b":") for part in lines.split(b"\r\n")[:-1]]
                self.assertEqual(fields, [(name, value.strip(b" \t")) for name, _, value in wanted])

        check()

    def test_round_trip(self) -> None:
        """Any body, however chunked, comes out as it went in, and the next request behind it is found."""

        @settings(max_examples=100, deadline=None)
        @given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.integers(1, 50))
        def check(chunks: list[bytes], step: int) -> None:
            raw = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks) + b"0\r\n\r\n" + POST
            events = cases.told(RequestParser(), [raw[i : i + step] for i in range(0, len(raw), step)])
            bodies = [event.data for event in events if isinstance(event, Body)]
            self.assertEqual(bodies, [b"".join(chunks)] * bool(chunks) + [b"hello"])

        check()


class PauseTests(SynchronousTestCase):
    """Between two requests the parser rests."""

    def test_next(self) -> None:
        """The second request is read only when it is asked for."""
        parser = RequestParser()
        self.assertEqual(len(parser.feed(GET + POST)), 2)
        self.assertEqual(parser.waiting, len(POST))
        self.assertEqual(parser.feed(GET), [])
        self.assertEqual(parser.waiting, len(POST + GET))
        self.assertEqual([type(event) for event in parser.next()], [RequestHead, Body, End])
        self.assertEqual([type(event) for event in parser.next()], [RequestHead, End])
        self.assertEqual((parser.waiting, parser.next(), parser.idle), (0, [], True))

    def test_next_too_early(self) -> None:
        """Asking for the next request inside one is our own fault."""
        parser = RequestParser()
        parser.feed(POST[:-1])
        self.assertRaises(LocalProtocolError, parser.next)

    def test_flood(self) -> None:
        """A connection that does not stop reading is told so before memory is."""
        parser = RequestParser(Limits(pending=100))
        parser.feed(GET)
        parser.feed(b"x" * 100)
        self.assertRaises(LocalProtocolError, parser.feed, b"x")

    def test_last(self) -> None:
        """Behind a last request nothing is kept, however much comes."""
        parser = RequestParser(Limits(pending=100))
        parser.feed(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
        for _ in range(10):
            self.assertEqual(parser.feed(b"x" * 100), [])
        self.assertEqual((parser.waiting, parser.next(), parser.idle), (0, [], True))

    def test_tunnel(self) -> None:
        """After a 101 the bytes behind the head belong to the tunnel, as they are."""
        parser = RequestParser()
        parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x81\x00")
        parser.feed(b"\x81\x01")
        self.assertEqual(parser.rest(), b"\x81\x00\x81\x01")
        self.assertEqual(parser.feed(b"more"), [])

    def test_streams(self) -> None:
        """A large body flows out as it comes in; nothing of it is held."""
        parser = RequestParser()
        parser.feed(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        piece = b"x" * 10000
        for _ in range(99):
            self.assertEqual(parser.feed(piece), [Body(piece)])
        self.assertEqual(parser.feed(piece), [Body(piece), End()])


class EndOfInputTests(SynchronousTestCase):
    """The client has said all it will."""

    def test_between(self) -> None:
        """Between requests that is no fault, and a request being answered is not disturbed."""
        for raw in (b"", GET, POST, b"\r\n", GET + GET):
            parser = RequestParser()
            parser.feed(raw)
            self.assertEqual(parser.eof(), [])

    def test_inside(self) -> None:
        """Inside a head or a body the request is refused."""
        for raw in (b"G", GET[:-1], POST[:-1], CHUNKED + b"0\r\n"):
            parser = RequestParser()
            parser.feed(raw)
            (event,) = parser.eof()
            self.assertIsInstance(event, Refused)
            self.assertEqual(parser.feed(raw), [])
