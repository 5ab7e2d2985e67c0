"""The header table, entry by entry."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import HeaderError, InvalidArgument
from cocaine_tx.wire.frames import pack, pack_headers, unpack
from cocaine_tx.wire.headers import (
    STATIC_TABLE,
    HeaderDecoder,
    Latest,
    Trace,
    find,
    timeout_header,
    timeout_of,
    trace_of,
    without_trace,
)

ZERO = bytes(8)


class StaticTableTests(SynchronousTestCase):
    """Entries 1 to 61 are those of RFC 7541 appendix A; three more carry the trace."""

    def test_corners(self) -> None:
        """Known entries stand where the RFC and the reference put them."""
        entries = {
            1: (b":authority", b""), 2: (b":method", b"GET"), 5: (b":path", b"/index.html"), 8: (b":status", b"200"),
            14: (b":status", b"500"), 16: (b"accept-encoding", b"gzip, deflate"), 23: (b"authorization", b""),
            38: (b"host", b""), 58: (b"user-agent", b""), 61: (b"www-authenticate", b""), 62: (b"", b""),
            79: (b"", b""), 80: (b"trace_id", ZERO), 81: (b"span_id", ZERO), 82: (b"parent_id", ZERO),
        }  # fmt: skip
        self.assertEqual(len(STATIC_TABLE), 82)
        for index, header in entries.items():
            self.assertEqual(HeaderDecoder().decode((index,)), (header,), index)

    def test_old_runtime_untraced(self) -> None:
        """A runtime older than 0.12.13 sends three bare nine-byte indices: three zero ids."""
        frame = unpack(bytes.fromhex("9401009093cf0000000000000050cf0000000000000051cf0000000000000052"))
        self.assertEqual(
            HeaderDecoder().decode(frame[3]), ((b"trace_id", ZERO), (b"span_id", ZERO), (b"parent_id", ZERO))
        )

    def test_old_runtime_traced(self) -> None:
        """The same runtime with a trace names the entries by index and stores them."""
        frame = unpack(bytes.fromhex(
            "940100909393c3cf0000000000000050a8070000000000000093c3cf0000000000000051a8090000000000000093c3cf00000000"
            "00000052a80700000000000000"
        ))  # fmt: skip
        self.assertEqual(trace_of(HeaderDecoder().decode(frame[3])), Trace(7, 9, 7))


class DynamicTableTests(SynchronousTestCase):
    """Stored entries come first, the newest at 83, and push out the oldest."""

    def setUp(self) -> None:
        self.decoder = HeaderDecoder()

    def store(self, *headers: tuple[bytes, bytes]) -> None:
        self.decoder.decode(tuple((True, name, value) for name, value in headers))

    def test_newest_first(self) -> None:
        """The entry stored last is 83, the one before it 84."""
        self.store((b"a", b"1"), (b"b", b"2"))
        self.assertEqual(self.decoder.decode((83, 84)), ((b"b", b"2"), (b"a", b"1")))

    def test_not_stored(self) -> None:
        """A literal that is not to be stored leaves the table alone."""
        self.assertEqual(self.decoder.decode(((False, b"a", b"1"),)), ((b"a", b"1"),))
        self.assertRaises(HeaderError, self.decoder.decode, (83,))

    def test_name_by_index(self) -> None:
        """A name may be taken from either table, with a value of its own."""
        self.store((b"x-mine", b"1"))
        headers = self.decoder.decode(((False, 23, b"Bearer x"), (True, 83, b"2"), 83, 84))
        self.assertEqual(
            headers, ((b"authorization", b"Bearer x"), (b"x-mine", b"2"), (b"x-mine", b"2"), (b"x-mine", b"1"))
        )

    def test_python_client(self) -> None:
        """The original Python client's second call: each stored entry shifts what the next index means."""
        first = unpack(bytes.fromhex(
            "940a0092a4636f6c6ca16b9593c3ad617574686f72697a6174696f6ea8426561726572207893c3a974726163655f626974a13093"
            "c3a874726163655f6964a8887766554433221193c3a77370616e5f6964a8020000000000000093c3a9706172656e745f6964a800"
            "00000000000000"
        ))  # fmt: skip
        second = unpack(bytes.fromhex(
            "940b0092a4636f6c6ca16b95575693c355a8887766554433221193c355a8020000000000000093c355a80000000000000000"
        ))  # fmt: skip
        said = self.decoder.decode(first[3])
        self.assertEqual(said[:2], ((b"authorization", b"Bearer x"), (b"trace_bit", b"0")))
        self.assertEqual(trace_of(said), Trace(0x1122334455667788, 2, 0))
        for _ in range(40):
            # Its ids are stored again with every call, until the entries used by index are pushed out.
            self.assertEqual(self.decoder.decode(second[3][2:]), said[2:])
        self.assertRaises(HeaderError, self.decoder.decode, (83 + 200,))

    def test_second_python_call(self) -> None:
        """Authorization and trace bit come by bare index in that call."""
        self.store((b"authorization", b"T"), (b"trace_bit", b"0"), (b"trace_id", ZERO), (b"span_id", ZERO),
                   (b"parent_id", ZERO))  # fmt: skip
        entries = (87, 86, (True, 85, b"11111111"), (True, 85, b"22222222"), (True, 85, b"33333333"))
        self.assertEqual(
            [name for name, _ in self.decoder.decode(entries)],
            [b"authorization", b"trace_bit", b"trace_id", b"span_id", b"parent_id"],
        )

    def test_eviction(self) -> None:
        """The oldest entries leave when 4096 bytes are exceeded, 32 beside name and value counted for each."""
        # 64 entries of 64 bytes fill the table to the last byte.
        self.store(*((b"%02d" % number, b"x" * 30) for number in range(64)))
        self.assertEqual(self.decoder.decode((83 + 63,))[0][0], b"00")
        self.store((b"zz", b"x" * 30))
        self.assertEqual(self.decoder.decode((83, 83 + 63)), ((b"zz", b"x" * 30), (b"01", b"x" * 30)))
        self.assertRaises(HeaderError, self.decoder.decode, (83 + 64,))
        self.store((b"big", b"y" * (4096 - 32 - 3)))
        self.assertEqual(self.decoder.decode((83,)), ((b"big", b"y" * 4061),))
        self.assertRaises(HeaderError, self.decoder.decode, (84,))

    def test_too_large_to_store(self) -> None:
        """An entry larger than the whole table empties it and is still delivered."""
        self.store((b"a", b"1"))
        self.assertEqual(len(self.decoder.decode(((True, b"big", b"y" * 4062),))), 1)
        self.assertRaises(HeaderError, self.decoder.decode, (83,))
        self.store((b"b", b"2"))
        self.assertEqual(self.decoder.decode((83,)), ((b"b", b"2"),))

    def test_mutation_before_error(self) -> None:
        """A bad index is found where it stands: entries stored just before it count, later ones do not."""
        self.assertEqual(len(self.decoder.decode(((True, b"a", b"1"), 83))), 2)
        self.assertRaises(HeaderError, self.decoder.decode, (84, (True, b"b", b"2")))


class RefusedTests(SynchronousTestCase):
    """What no header list may hold."""

    def test_shapes(self) -> None:
        """Indices out of range and entries of other shapes are refused."""
        wrong = (
            0, -1, 83, 2**63, True, None, 1.0, b"name", (), (True,), (True, b"n"), (True, b"n", b"v", b"x"),
            (1, b"n", b"v"), (None, b"n", b"v"), (True, b"n", 5), (True, b"n", None), (True, None, b"v"),
            (True, 0, b"v"), (True, 83, b"v"), (True, True, b"v"), (True, (), b"v"), {},
        )  # fmt: skip
        for entry in wrong:
            self.assertRaises(HeaderError, HeaderDecoder().decode, (entry,))

    def test_too_many_bytes(self) -> None:
        """Names and values together have a limit, and each entry costs 32 bytes, as in RFC 9113."""
        decoder = HeaderDecoder(132)
        self.assertEqual(len(decoder.decode(((False, b"n", b"v" * 99),))), 1)
        self.assertRaises(HeaderError, decoder.decode, ((False, b"n", b"v" * 100),))
        self.assertRaises(HeaderError, decoder.decode, ((False, b"n", b"v" * 60), (False, b"n", b"v" * 60)))

    def test_too_many(self) -> None:
        """An entry costs something beside its bytes, so that a million empty ones are refused too."""
        limit = 640
        for empty in ((False, b"", b""), (True, b"", b""), 62):
            self.assertEqual(len(HeaderDecoder(limit).decode((empty,) * 20)), 20)
            self.assertRaises(HeaderError, HeaderDecoder(limit).decode, (empty,) * 21)


class MeaningTests(SynchronousTestCase):
    """Traces and deadlines."""

    def test_trace_round_trip(self) -> None:
        """A trace's headers, packed and read, are the trace."""
        trace = Trace(2**63 - 2, 1, 3)
        self.assertEqual(trace_of(HeaderDecoder().decode(unpack(pack_headers(trace.headers())))), trace)

    def test_no_trace(self) -> None:
        """Zero, absent and malformed ids are no trace, and no reason to refuse work."""
        whole = Trace(7, 8, 9).headers()
        for headers in (
            (), Trace(0, 0, 0).headers(), whole[:2], whole[1:], Trace(7, 0, 0).headers(), Trace(0, 8, 9).headers(),
            ((b"trace_id", b"short"), *whole[1:]),
        ):  # fmt: skip
            self.assertIsNone(trace_of(headers))

    def test_other_headers(self) -> None:
        """What travels with an invoke is everything but the ids."""
        headers = (*Trace(7, 8, 9).headers(), (b"authorization", b"x"), (b"trace_bit", b"1"))
        self.assertEqual(without_trace(headers), ((b"authorization", b"x"), (b"trace_bit", b"1")))
        self.assertEqual((find(headers, b"trace_bit"), find(headers, b"none")), (b"1", None))

    def test_deadline(self) -> None:
        """Seconds travel as milliseconds in eight bytes; another length is the caller's mistake."""
        for seconds in (0.001, 1.5, 86400.0):
            self.assertEqual(timeout_of((timeout_header(seconds),)), seconds)
        self.assertEqual(timeout_of((timeout_header(0),)), 0.001)
        self.assertIsNone(timeout_of(()))
        self.assertRaises(InvalidArgument, timeout_of, ((b"request_timeout", b"1500"),))

    def test_sent_uncompressed(self) -> None:
        """We send nothing but literals that are not stored, since the Python client reads headers lazily."""
        self.assertEqual(pack_headers(((b"a", b"1"),)), pack([[False, b"a", b"1"]]))


class RepeatedTests(SynchronousTestCase):
    """The same entries twice in a row."""

    def test_literals(self) -> None:
        """Literals that are not stored mean the same again."""
        decoder = HeaderDecoder()
        entries = ((False, b"a", b"1"), (False, b"b", b"2"))
        self.assertEqual(decoder.decode(entries), ((b"a", b"1"), (b"b", b"2")))
        self.assertEqual(decoder.decode(tuple(entries)), ((b"a", b"1"), (b"b", b"2")))

    def test_stored(self) -> None:
        """What changes the table is carried out every time it is said."""
        decoder = HeaderDecoder()
        decoder.decode(((True, b"a", b"1"),))
        decoder.decode(((True, b"b", b"2"),))
        decoder.decode(((True, b"a", b"1"),))
        self.assertEqual(decoder.decode((83, 84, 85)), ((b"a", b"1"), (b"b", b"2"), (b"a", b"1")))

    def test_indexed(self) -> None:
        """An index means whatever stands there now."""
        decoder = HeaderDecoder()
        decoder.decode(((True, b"a", b"1"),))
        self.assertEqual(decoder.decode((83,)), ((b"a", b"1"),))
        decoder.decode(((True, b"b", b"2"),))
        self.assertEqual(decoder.decode((83,)), ((b"b", b"2"),))

    def test_truth_is_no_number(self) -> None:
        """Entries that only look equal to the ones before are judged by themselves."""
        decoder = HeaderDecoder()
        decoder.decode(((False, b"a", b"1"),))
        with self.assertRaises(HeaderError):
            decoder.decode(((0, b"a", b"1"),))


class LatestTests(SynchronousTestCase):
    """What headers mean is read once while they are the same object, and never remembered of what could not be read."""

    def test_of(self) -> None:
        read: list[object] = []

        def timed(headers: tuple[tuple[bytes, bytes], ...]) -> float | None:
            read.append(headers)
            return timeout_of(headers)

        latest = Latest(timed)
        short, long = (timeout_header(1.0),), (timeout_header(9.0),)
        broken = ((b"request_timeout", b"x"),)
        self.assertEqual([latest.of(headers) for headers in (short, short, long, (), ())], [1.0, 1.0, 9.0, None, None])
        self.assertEqual(read, [short, long, ()])
        for _ in range(2):
            self.assertRaises(InvalidArgument, latest.of, broken)
        self.assertEqual((latest.of(()), len(read)), (None, 5))
