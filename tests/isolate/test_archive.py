"""Archives from strangers: what is unpacked, and what is refused with nothing left behind."""

import io
import os
import random
import stat
import tarfile
import tempfile
from unittest import mock

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import ArchiveError, SpoolError
from cocaine_tx.isolate import archive
from cocaine_tx.isolate.archive import Limits, unpack, unwrap


def member(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = 1_000_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def link(name, to, kind=tarfile.SYMTYPE):
    return member(name, linkname=to, type=kind)


def packed(*members, mode="w:", form=tarfile.PAX_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


APP = (
    member("./", type=tarfile.DIRTYPE, mode=0o755),
    member("bin", type=tarfile.DIRTYPE, mode=0o755),
    member("bin/run", b"#!/bin/sh\n", mode=0o4755),
    member("data/deep/file", bytes(1000), mode=0o666),
    link("current", "bin/run"),
    link("bin/same", "bin/run", tarfile.LNKTYPE),
    link("data/up", "../bin"),
)


def seen(folder):
    """What is in a folder, as a table."""
    table = {}
    for at, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(at, name)
            if os.path.islink(path):
                value = os.readlink(path)
            elif os.path.isdir(path):
                value = None
            else:
                with open(path, "rb") as file:
                    value = file.read()
            table[os.path.relpath(path, folder)] = value
    return table


class UnpackTests(SynchronousTestCase):
    def setUp(self):
        self.folder = self.mktemp()

    def assertRefused(self, blob, *words, limits=Limits(), kind=ArchiveError):
        folder = tempfile.mkdtemp(dir=os.getcwd())
        error = self.assertRaises(kind, unpack, blob, folder, limits)
        for word in words:
            self.assertIn(word, error.reason)
        self.assertFalse(os.path.exists(folder))
        return error

    def test_every_compression(self):
        """A tar is unpacked whatever it is compressed with, and whatever its dialect."""
        for mode in ("w:", "w:gz", "w:bz2", "w:xz"):
            for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
                folder = self.mktemp()
                os.mkdir(folder)
                unpack(packed(*APP, mode=mode, form=form), folder)
                table = seen(folder)
                self.assertEqual(table["bin/run"], b"#!/bin/sh\n")
                self.assertEqual(table["current"], "bin/run")
                self.assertEqual(table["data/up"], "../bin")
                self.assertEqual(table["data/deep/file"], bytes(1000))
                self.assertTrue(os.path.samefile(f"{folder}/bin/run", f"{folder}/bin/same"))

    def test_times_and_modes(self):
        """Times and execute bits are kept; nobody gains rights by them."""
        os.mkdir(self.folder)
        unpack(packed(*APP), self.folder)
        run, data = os.stat(f"{self.folder}/bin/run"), os.stat(f"{self.folder}/data/deep/file")
        self.assertEqual(stat.S_IMODE(run.st_mode), 0o755)
        self.assertEqual(stat.S_IMODE(data.st_mode), 0o644)
        self.assertEqual(run.st_mtime, 1_000_000_000)
        self.assertEqual(os.stat(f"{self.folder}/bin").st_mtime, 1_000_000_000)

    def test_names(self):
        """Long names, names in other alphabets and bytes that are no text are kept."""
        names = ["n" * 200 + "/" + "m" * 200, "\u044f/\u20ac", "raw\udcff", " ", "-x", "back\\slash", "..."]
        os.mkdir(self.folder)
        unpack(packed(*(member(name, b"1") for name in names), form=tarfile.GNU_FORMAT), self.folder)
        for name in names:
            self.assertTrue(os.path.exists(os.path.join(self.folder, name)), repr(name))

    def test_a_member_twice(self):
        """Of a member that comes twice the later one counts, without touching what is linked to the first."""
        os.mkdir(self.folder)
        twice = packed(member("a", b"1"), link("b", "a", tarfile.LNKTYPE), member("a", b"2"), link("c", "a"),
                       member("c", b"3"), member("d", b"4"), link("d", "a"))
        unpack(twice, self.folder)
        self.assertEqual(seen(self.folder), {"a": b"2", "b": b"1", "c": b"3", "d": "a"})

    def test_ways_out(self):
        """Nothing is written, and no link leads, outside of the folder."""
        for members, word in (
            ([member("/etc/x")], "/etc/x"),
            ([member("../x")], "../x"),
            ([member("a/../../x")], "a/../../x"),
            ([member("..")], ".."),
            ([link("l", "/etc/passwd")], "/etc/passwd"),
            ([link("l", "..")], "outside"),
            ([link("a/l", "../../x")], "outside"),
            ([link("l", "a/../../x")], "outside"),
            ([link("h", "/etc/passwd", tarfile.LNKTYPE)], "/etc/passwd"),
            ([link("h", "../x", tarfile.LNKTYPE)], "../x"),
            ([link("h", "later", tarfile.LNKTYPE), member("later")], "later"),
            ([link("l", "."), link("h", "l", tarfile.LNKTYPE)], "h"),
            # each alone looks harmless
            ([member("d/e/f"), link("d/e/up", "../.."), link("evil", "d/e/up/../x")], "evil"),
            ([link("l", "sub"), member("l/x", b"through the link")], "l"),
            ([member("x", b"a file"), member("x/y", b"below a file")], "x/y"),
            ([member("d", type=tarfile.DIRTYPE), member("d", b"file over folder")], "d"),
            ([member("d", type=tarfile.DIRTYPE), link("d", "x")], "d"),
            ([member(".", b"file")], "folder"),
            ([member("dev", type=tarfile.CHRTYPE)], "dev"),
            ([member("dev", type=tarfile.BLKTYPE)], "dev"),
            ([member("fifo", type=tarfile.FIFOTYPE)], "fifo"),
            ([member("odd", type=b"Z")], "odd"),
            ([member("n" * 300, b"")], "too long"),
        ):
            self.assertRefused(packed(*members), word)

    def test_bombs(self):
        """An archive that unpacks to too much is refused before it has."""
        limits = Limits(size=10_000, members=10)
        self.assertRefused(packed(*(member(f"f{n}") for n in range(11))), "more than 10 members", limits=limits)
        self.assertRefused(packed(member("big", bytes(10_001)), mode="w:gz"), "'big'", "10000", limits=limits)
        honest = bytearray(packed(member("claims", b"x")))
        claim, _ = member("claims")
        claim.size = 8**11 - 1
        honest[:512] = claim.tobuf(tarfile.USTAR_FORMAT)
        self.assertRefused(bytes(honest), "'claims'")
        name, _ = member("x", type=tarfile.XHDTYPE)
        name.size = 50_000_000
        self.assertRefused(name.tobuf(tarfile.USTAR_FORMAT) + bytes(50_000_000), "header of 50000")

    def test_no_archive(self):
        """What is not an archive at all is called so."""
        for blob in (b"", b"x", b"hello" * 1000, b"\x1f\x8b", b"\x1f\x8bgarbage", b"BZhgarbage", b"\xfd7zXZ\0garbage"):
            self.assertRefused(blob)
        self.assertRefused(b"PK\3\4" + bytes(100), "zip")
        self.assertRefused(b"\x28\xb5\x2f\xfd" + bytes(100), "zstd")

    def test_cut_off_at_every_byte(self):
        """A truncated archive is refused wherever the cut is; only padding after the end mark may be missing."""
        small = (member("a", b"12345"), member("b", b"1" * 600), link("c", "a"))
        for mode in ("w:", "w:gz", "w:bz2", "w:xz"):
            whole = packed(*small, mode=mode)
            end = packed(*small).rindex(b"ustar") - 257 + 1024 if mode == "w:" else len(whole)
            for cut in range(end):
                self.assertRefused(whole[:cut])
        self.assertRefused(packed(*small)[:1000], "'a'")
        self.assertRefused(packed(*small)[:1800], "'b'", "unexpected end")

    def test_flipped_bits(self):
        """Damage raises nothing but the two errors a spool may fail with, and leaves nothing behind."""
        chance = random.Random(5)
        sources = [packed(*APP, mode=mode, form=form) for mode in ("w:", "w:gz", "w:xz")
                   for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
        for _ in range(600):
            blob = bytearray(chance.choice(sources))
            for _ in range(chance.randrange(1, 6)):
                blob[chance.randrange(min(len(blob), 5000))] = chance.randrange(256)
            folder = tempfile.mkdtemp(dir=os.getcwd())
            try:
                unpack(bytes(blob), folder)
            except (ArchiveError, SpoolError):
                self.assertFalse(os.path.exists(folder))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=2000))
    def test_any_bytes(self, blob):
        """No input raises anything else."""
        folder = tempfile.mkdtemp(dir=os.getcwd())
        self.assertRaises(ArchiveError, unpack, blob, folder)

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(st.text(st.characters(min_codepoint=33, max_codepoint=0x4FF, blacklist_characters="/"),
                                   min_size=1, max_size=30).filter(lambda n: n not in (".", "..")),
                           st.binary(max_size=3000), max_size=6))
    def test_round_trip(self, files):
        """Whatever files are packed are the files that are unpacked."""
        folder = tempfile.mkdtemp(dir=os.getcwd())
        unpack(packed(*(member(name, data) for name, data in files.items()), mode="w:gz"), folder)
        self.assertEqual(seen(folder), files)

    def test_full_disk(self):
        """A full disk is not the archive's fault."""
        os.mkdir(self.folder)
        with mock.patch.object(archive.os, "chmod", side_effect=OSError(28, "No space left on device")):
            error = self.assertRaises(SpoolError, unpack, packed(*APP), self.folder)
        self.assertIn("No space left on device", error.reason)
        self.assertFalse(os.path.exists(self.folder))

    def test_given_up(self):
        """Unpacking stops soon after nobody wants it any more."""
        os.mkdir(self.folder)
        asked = []

        def given_up():
            asked.append(1)
            return len(asked) > 3

        self.assertRaises(ArchiveError, unpack, packed(member("f", bytes(10_000_000))), self.folder, Limits(), None,
                          given_up)
        self.assertEqual(len(asked), 4)
        self.assertFalse(os.path.exists(self.folder))


class UnwrapTests(SynchronousTestCase):
    def test_unwrap(self):
        """The archive comes in one msgpack raw, old or new; anything else is refused."""
        for data in (b"", b"x" * 20, b"x" * 300, b"x" * 70_000):
            self.assertEqual(unwrap(msgpack.packb(data, use_bin_type=False)), data)
            self.assertEqual(unwrap(msgpack.packb(data, use_bin_type=True)), data)
        for blob in (b"", b"\xda\xff", b"\xda\x00\x05abc", b"\xc1", b"\x01", b"\x91\xa1x", b"\xa1xy", b"\x1f\x8b\x08"):
            self.assertRaises(ArchiveError, unwrap, blob)
