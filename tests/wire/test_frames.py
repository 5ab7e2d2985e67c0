"""The msgpack dialect, and what one connection may make us keep."""

from __future__ import annotations

import ast
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import LocalProtocolError, UndecodableError
from cocaine_tx.wire.frames import FrameDecoder, Limits, Packed, pack, unpack
from cocaine_tx.wire.protocols import APP, STORAGE
from cocaine_tx.wire.session import NOBODY, dialing, serving
from tests.wire.recordings import FOLDER
from tests.wire.test_recordings import lists, tuples

MEGABYTE = 1 << 20
#: What a transport reads at once.
READ = 65536


def examples() -> list[tuple[bytes, object]]:
    """The bytes and values of ``vectors/examples.txt``."""
    lines = [line for line in (FOLDER / "examples.txt").read_text().splitlines() if line and line[0] != "#"]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return [(bytes.fromhex(packed), ast.literal_eval(text.strip())) for packed, text in pairs]


class DialectTests(SynchronousTestCase):
    """Old-spec raw out, everything in."""

    def test_examples(self) -> None:
        """Every example of the protocol page decodes as written there."""
        found = examples()
        self.assertGreater(len(found), 100)
        for packed, value in found:
            self.assertEqual(lists(unpack(packed)), value, packed.hex())
            self.assertEqual([lists(frame) for frame in FrameDecoder(Limits()).feed(packed)], [value], packed.hex())

    def test_examples_packed(self) -> None:
        """The same values packed are the same bytes, save where the page shows what another peer's packer does."""
        strange = [packed for packed, value in examples() if pack(tuples(value)) != packed]
        # Compressed headers of the oldest runtimes carry nine-byte indices, the Rust client's are of type bin, and
        # some examples write "value" where a worker wrote a float.
        for packed in strange:
            self.assertTrue(b"\xcf" in packed or b"\xc4" in packed or b"\xce" in packed, packed.hex())
        self.assertLess(len(strange), 6)

    def test_raw_sizes(self) -> None:
        """Strings of every size go out as old raw, never str8 or bin, since C++ peers may not know those."""
        for size, head in ((31, "bf"), (32, "da0020"), (255, "da00ff"), (256, "da0100"), (65536, "db00010000")):
            packed = pack(b"x" * size)
            self.assertTrue(packed.startswith(bytes.fromhex(head)), size)
            self.assertEqual(pack("x" * size), packed)

    def test_newer_strings_in(self) -> None:
        """str8, bin8, bin16 and bin32 of newer peers are read as the same bytes."""
        for text in ("d903616263", "c403616263", "c50003616263", "c600000003616263", "a3616263", "da0003616263"):
            self.assertEqual(unpack(bytes.fromhex(text)), b"abc", text)

    def test_names_that_are_no_text(self) -> None:
        """Bytes that are not UTF-8 pass through text and come out as they were."""
        self.assertEqual(pack(b"\xff\xfe".decode("utf-8", "surrogateescape")), pack(b"\xff\xfe"))

    def test_cannot_be_packed(self) -> None:
        """A value without a wire form is the sender's own fault, and the next value is packed as if nothing was."""
        nested: object = ()
        for _ in range(2000):
            nested = (nested,)
        for value in (object(), {1, 2}, 2**64, nested, "\ud800", [b"half", object()]):
            self.assertRaises(LocalProtocolError, pack, value)
            self.assertEqual(pack(1), b"\x01")

    def test_packed_answers(self) -> None:
        """Arguments packed beforehand make the same frame as packed on the way."""
        frames = []
        for args in ((b"a", [1, 2], {3: b"x" * 40}), Packed((b"a", [1, 2], {3: b"x" * 40}))):
            session = serving(STORAGE, NOBODY)
            ((channel, _, _, _),) = session.receive(pack((1, 0, (b"c", b"k"))))
            channel.value(args)
            frames.append(session.take())
        self.assertEqual(*frames)

    def test_unpack_is_exact(self) -> None:
        """One whole value: nothing missing, nothing behind it, no types of a newer msgpack."""
        for text in ("", "92", "9201", "0101", "c1", "c7000501", "d6ff00000000", "8190", "81809090"):
            self.assertRaises(UndecodableError, unpack, bytes.fromhex(text))


class LimitTests(SynchronousTestCase):
    """However much is sent or announced, little is kept."""

    def kept(self, first: bytes, following: bytes, count: int, limits: Limits = Limits()) -> float:
        """Send these, cut as a transport reads, until refused; returns the most megabytes that were in use."""
        session = serving(APP, NOBODY, limits)
        waiting = first
        tracemalloc.start()
        try:
            for _ in range(count):
                waiting += following
                while len(waiting) >= READ and session.broken is None:
                    session.receive(waiting[:READ])
                    waiting = waiting[READ:]
                if session.broken is not None:
                    break
            peak = tracemalloc.get_traced_memory()[1] / MEGABYTE
        finally:
            tracemalloc.stop()
        self.assertIsInstance(session.broken, UndecodableError)
        self.assertEqual(session.receive(pack((1, 0, (b"ping",)))), [])
        return peak

    def test_frame_of_200_megabytes(self) -> None:
        """A frame announced as 200 MB is refused when the limit has come of it, and no more than that was kept."""
        for announced in ("db0c800000", "c60c800000"):
            first = bytes.fromhex("93010091" + announced)
            self.assertLess(self.kept(first, b"x" * READ, 3200, Limits(frame=4 * MEGABYTE)), 12)
        self.assertLess(self.kept(first, b"x" * READ, 3200), 110)

    def test_announced_collections(self) -> None:
        """Arrays and maps of more elements than allowed are refused at their head; nothing is reserved for them."""
        for announced in ("dd0c800000", "df0c800000"):
            self.assertLess(self.kept(bytes.fromhex("930100" + announced), b"x" * READ, 2), 2)

    def test_frame_of_many_parts(self) -> None:
        """A frame that is too large in sum, though every part of it is allowed, is refused too."""
        limits = Limits(frame=4 * MEGABYTE)
        for part in (b"\xdb\x00\x0f\xff\xff" + b"x" * 0xFFFFF, b"\xda\xff\xff" + b"y" * 65535):
            self.assertLess(self.kept(bytes.fromhex("930100dcffff"), part, 100, limits), 12)

    def test_small_values_are_dear(self) -> None:
        """A frame of small values costs many times its bytes; it is refused long before it is as large as a blob."""
        limits = Limits(dense=MEGABYTE // 2)
        first = bytes.fromhex("930100dcffff")
        self.assertLess(self.kept(first, b"\xdc\x10\x00" + b"\x80" * 4096, 10000, limits), 160)

    def test_announced_nests(self) -> None:
        """Arrays of announced thousands inside one another do not make msgpack reserve them all."""
        self.assertLess(self.kept(b"\xdd\x00\x04\x00\x00" * 300, b"\x91" * READ, 3), 64)

    def test_numbers_as_keys(self) -> None:
        """Numbers can be chosen so that a map finds each behind all the others: few may be keys. Raw cannot."""
        few, many = dict.fromkeys(range(256)), dict.fromkeys(range(257))
        names = {b"%d" % n: None for n in range(100_000)}
        for value in (few, names, {**few, **names}):
            self.assertEqual(unpack(pack(value)), value)
            session = serving(STORAGE, NOBODY)
            self.assertEqual(len(session.receive(pack((1, 0, (b"c", b"k", value))))), 1)
        for value in (many, {**many, **names}, {(n,): None for n in range(257)}, {n / 2: None for n in range(257)}):
            self.assertRaises(UndecodableError, unpack, pack(value))
            session = serving(STORAGE, NOBODY)
            self.assertEqual(session.receive(pack((1, 0, (b"c", b"k", value)))), [])
            self.assertIsInstance(session.broken, UndecodableError)

    def test_largest_frame(self) -> None:
        """A frame of just the limit arrives, in the pieces a transport reads; so does the next one."""
        limits = Limits(frame=2 * MEGABYTE)
        session = serving(STORAGE, NOBODY, limits)
        blob = b"x" * limits.frame
        for number in (1, 2, 3):
            data = pack((number, 1, (b"c", b"k", blob, (b"tag",))))
            events = []
            for place in range(0, len(data), READ):
                events += session.receive(data[place : place + READ])
            self.assertIsNone(session.broken)
            self.assertEqual([args[2] == blob for _, _, args, _ in events], [True])

    def test_many_small_frames_at_once(self) -> None:
        """Any number of frames may arrive in a row: the limit is one frame's, not the connection's."""
        session = dialing(Limits(frame=MEGABYTE))
        channel = session.open(APP.slots[0], (b"ping",), NOBODY)
        data = pack((channel.number, 0, (b"x" * 1000,))) * 64
        count = sum(len(session.receive(data)) for _ in range(100))
        self.assertEqual((count, session.broken), (6400, None))

    def test_channels(self) -> None:
        """A peer that opens more channels than allowed is disconnected."""
        session = serving(APP, NOBODY, Limits(channels=10))
        events = session.receive(b"".join(pack((number, 0, (b"e",))) for number in range(1, 20)))
        self.assertEqual(len(events), 10)
        self.assertIsNotNone(session.broken)
