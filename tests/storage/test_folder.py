"""The layout on disk: what the original reads and writes, and what a killed writer leaves."""

import os
import random
import signal
import stat
import subprocess
import sys
import time
from types import SimpleNamespace
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from twisted.trial.unittest import SynchronousTestCase

import cocaine_tx
from cocaine_tx.errors import CocaineError, InvalidArgument, NotFound
from cocaine_tx.storage import folder
from cocaine_tx.storage.folder import ObjectFolder

ROOT = os.path.dirname(os.path.dirname(cocaine_tx.__file__))


class LayoutTests(SynchronousTestCase):
    def setUp(self):
        self.path = os.path.abspath(self.mktemp())
        self.folder = ObjectFolder(self.path)
        self.folder.open()
        self.addCleanup(self.folder.close)

    def tree(self):
        return sorted(
            os.path.relpath(os.path.join(at, name), self.path)
            for at, folders, files in os.walk(self.path)
            for name in folders + files
        )

    def test_layout(self):
        """Objects are files and tags are folders of relative links to them, with nothing else beside."""
        self.folder.write("manifests", "hello", b"blob", ["app"])
        self.assertEqual(
            self.tree(), ["manifests", "manifests/app", "manifests/app/hello", "manifests/hello"]
        )
        self.assertEqual(os.readlink(f"{self.path}/manifests/app/hello"), "../hello")
        with open(f"{self.path}/manifests/app/hello", "rb") as link:
            self.assertEqual(link.read(), b"blob")

    def test_made_for_its_owner(self):
        """A folder that we make is closed to other users; one that is there is left as it is."""
        path = os.path.join(self.mktemp(), "made")
        for mode in (0o700, 0o750):
            made = ObjectFolder(path)
            made.open()
            made.close()
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode)
            os.chmod(path, 0o750)

    def test_links_of_the_original(self):
        """Absolute links, as the original makes them, are tags; they survive the folder's move to another place."""
        os.makedirs(f"{self.path}/apps/app")
        with open(f"{self.path}/apps/hello", "wb") as file:
            file.write(b"archive")
        os.symlink(f"{self.path}/apps/hello", f"{self.path}/apps/app/hello")
        self.assertEqual(self.folder.find("apps", ["app"]), ["hello"])
        os.rename(self.path, self.path + "-moved")
        moved = ObjectFolder(self.path + "-moved")
        self.assertEqual(moved.find("apps", ["app"]), ["hello"])
        moved.write("apps", "hello", b"archive 2", [])
        self.assertEqual(moved.find("apps", ["app"]), [])

    def test_dead_links(self):
        """A link whose object somebody deleted by hand is not found, and is removed on the way."""
        self.folder.write("apps", "dead", b"", ["app", "x"])
        self.folder.write("apps", "live", b"", ["app"])
        os.unlink(f"{self.path}/apps/dead")
        self.assertEqual(self.folder.find("apps", ["app"]), ["live"])
        self.assertEqual(os.listdir(f"{self.path}/apps/app"), ["live"])
        self.folder.write("apps", "x", b"", [])  # only the dead one carried this tag
        self.assertEqual(self.folder.read("apps", "x"), b"")

    def test_empty_tags_go(self):
        """The last object of a tag takes the tag's folder with it."""
        self.folder.write("crashlogs", "1:u", b"", ["app", "cocaine-2026-01-01"])
        self.folder.remove("crashlogs", "1:u")
        self.assertEqual(self.tree(), ["crashlogs"])

    def test_odd_things_in_the_folder(self):
        """Folders, fifos and links out of the tree that somebody put there hold nobody up."""
        os.makedirs(f"{self.path}/c/folder")
        os.mkfifo(f"{self.path}/c/fifo")
        with open(f"{self.path}/file", "wb"):
            pass
        self.assertEqual(self.folder.read("c", "fifo"), b"")
        self.assertRaises(NotFound, self.folder.read, "c", "folder")
        self.assertRaises(NotFound, self.folder.read, "file", "k")
        self.assertEqual(self.folder.find("file", ["t"]), [])
        self.folder.remove("file", "k")
        self.folder.write("c", "folder", b"an empty folder is a tag out of use", [])

    def test_full_tag_folder_is_kept(self):
        """A folder with anything in it is never removed for the sake of a new object."""
        os.makedirs(f"{self.path}/c/tag/sub")
        self.assertRaises(InvalidArgument, self.folder.write, "c", "tag", b"", [])
        self.assertTrue(os.path.isdir(f"{self.path}/c/tag/sub"))

    def test_disk_of_its_own(self):
        """A file system's own ``lost+found``, which only root can look into, does not keep a daemon from starting."""
        os.mkdir(f"{self.path}/lost+found")
        self.folder.write("c", "k", b"v", ["t"])
        self.folder.close()
        aside, listdir = f"{self.path}/c/.~writing.99.0", os.listdir
        with open(aside, "wb"):
            pass

        def refusing(path):
            if os.fsdecode(path).endswith("lost+found"):
                raise PermissionError(13, "Permission denied", path)
            return listdir(path)

        with mock.patch.object(folder.os, "listdir", refusing):
            self.folder.open()
        self.assertFalse(os.path.exists(aside))
        self.assertEqual(self.folder.read("c", "k"), b"v")

    def test_leftovers_are_swept(self):
        """What a killed writer left is gone after the next start, but not while another daemon has the folder open."""
        self.folder.write("c", "k", b"v", ["t"])
        aside = f"{self.path}/c/.~writing.99.0"
        with open(aside, "wb"):
            pass
        other = ObjectFolder(self.path)
        other.open()
        other.close()
        self.assertTrue(os.path.exists(aside))
        self.folder.close()
        self.folder.open()
        self.assertFalse(os.path.exists(aside))
        self.assertEqual(self.folder.find("c", ["t"]), ["k"])

    def test_full_disk(self):
        """When the disk is full the old object stays, with its tags, and nothing is left aside."""
        self.folder.write("c", "k", b"old", ["t"])
        before = self.tree()
        full = OSError(28, "No space left on device", "/secret/path")
        for call in ("write", "fsync", "symlink", "rename"):
            with mock.patch.object(folder.os, call, side_effect=full):
                error = self.assertRaises(CocaineError, self.folder.write, "c", "k", b"new", ["t", "u"])
            self.assertEqual(error.reason, "c/k: No space left on device")
            self.assertEqual(self.folder.read("c", "k"), b"old")
            self.assertEqual(self.folder.find("c", ["t"]), ["k"])
            self.assertEqual(self.folder.find("c", ["u"]), [])
            self.assertEqual([name for name in self.tree() if name != "c/u"], before)


class SharedTests(SynchronousTestCase):
    """Two nodes on one folder, each at work in the middle of what the other one does."""

    def setUp(self):
        self.path = os.path.abspath(self.mktemp())
        self.one, self.other = ObjectFolder(self.path), ObjectFolder(self.path)
        for shared in (self.one, self.other):
            shared.open()
            self.addCleanup(shared.close)

    def before(self, name, act):
        """Let the other one act just before the first call of that name."""
        real = getattr(os, name)

        def meanwhile(*args):
            setattr(os, name, real)
            act()
            return real(*args)

        self.patch(os, name, meanwhile)

    def test_find_beside_a_write(self):
        """Looking for objects takes no tag from one that another node is just writing."""
        self.before("rename", lambda: self.other.find("apps", ["app"]))
        self.one.write("apps", "new", b"", ["app"])
        self.assertEqual(self.other.find("apps", ["app"]), ["new"])

    def test_name_of_a_tag_beside_a_write(self):
        """A tag that another node is just about to use is in use."""
        self.before("rename", lambda: self.assertRaises(InvalidArgument, self.other.write, "apps", "app", b"", []))
        self.one.write("apps", "new", b"", ["app"])
        self.assertEqual(self.one.find("apps", ["app"]), ["new"])

    def test_two_writes(self):
        """What two nodes write at one time is never mixed up, also where both have the same process id."""
        self.before("rename", lambda: self.other.write("apps", "b", b"of the other", []))
        self.one.write("apps", "a", b"of one", [])
        self.assertEqual([self.one.read("apps", key) for key in "ab"], [b"of one", b"of the other"])

    def test_tag_goes_and_comes(self):
        """A tag's folder that another node removes with its last object is made again."""
        self.other.write("apps", "old", b"", ["app"])
        self.before("symlink", lambda: self.other.remove("apps", "old"))
        self.one.write("apps", "new", b"", ["app"])
        self.assertEqual(self.one.find("apps", ["app"]), ["new"])

    def test_left_behind(self):
        """What a killed node has left goes when one that is alone comes by it."""
        self.one.write("apps", "dead", b"", ["app"])
        os.unlink(f"{self.path}/apps/dead")
        self.assertEqual(self.one.find("apps", ["app"]), [])
        self.assertEqual(os.listdir(f"{self.path}/apps/app"), ["dead"])
        self.other.close()
        self.assertEqual(self.one.find("apps", ["app"]), [])
        self.assertEqual(os.listdir(f"{self.path}/apps"), [])


class Killed(BaseException):
    """The process is no more."""


def dying(after):
    """The ``os`` module of a process killed before its call number ``after``; from then on it can do nothing."""
    left = [after]

    def limited(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    calls = ("open", "write", "fsync", "symlink", "rename", "unlink", "mkdir", "rmdir", "close", "scandir", "lstat")
    return SimpleNamespace(**{**vars(os), **{name: limited(getattr(os, name)) for name in calls}}), left


class KilledWriterTests(SynchronousTestCase):
    def play(self, before, act, states):
        """Kill ``act`` before each of its system calls in turn; the reader must then see one of the states."""
        for after in range(200):
            path = self.mktemp()
            store = ObjectFolder(path)
            store.open()
            before(store)
            world, left = dying(after)
            with mock.patch.object(folder, "os", world):
                try:
                    act(store)
                except Killed:
                    pass
            store.close()
            store.open()
            try:
                seen = store.read("c", "k")
            except NotFound:
                seen = None
            state = (seen, store.find("c", ["t"]), store.find("c", ["u"]))
            store.close()
            self.assertIn(state, states, f"killed before call {after}")
            self.assertNotIn(b".~writing", b" ".join(os.listdir(os.fsencode(path) + b"/c")) if seen else b"")
            if left[0] > 0:
                return after
        self.fail("the act does not end")

    def test_first_write(self):
        """A new object is there with all of its tags, or not at all."""
        calls = self.play(
            lambda store: None,
            lambda store: store.write("c", "k", b"new", ["t"]),
            [(None, [], []), (b"new", ["k"], [])],
        )
        self.assertGreater(calls, 8)

    def test_second_write(self):
        """An object is the old one or the new one; its new tags come before it, its old ones go after it."""
        self.play(
            lambda store: store.write("c", "k", b"old", ["t"]),
            lambda store: store.write("c", "k", b"new", ["u"]),
            [(b"old", ["k"], []), (b"old", ["k"], ["k"]), (b"new", ["k"], ["k"]), (b"new", [], ["k"])],
        )

    def test_remove(self):
        """An object that is being removed is there with its tags, or nowhere."""
        self.play(
            lambda store: store.write("c", "k", b"old", ["t", "u"]),
            lambda store: store.remove("c", "k"),
            [(b"old", ["k"], ["k"]), (None, [], [])],
        )


WRITER = """
import hashlib, random, sys
sys.path.insert(0, sys.argv[2])
from cocaine_tx.storage.folder import ObjectFolder
folder = ObjectFolder(sys.argv[1])
folder.open()
number = 0
while True:
    number += 1
    key = "k%d" % (number % 3)
    body = random.randbytes(random.randrange(200_000))
    folder.write("c", key, hashlib.sha256(body).digest() + body, ["t%d" % (number % 2)])
    print(key, flush=True)
"""


class SigkillTests(SynchronousTestCase):
    def test_real_kills(self):
        """However often a writing process is killed, every object it acknowledged is there and whole."""
        import hashlib

        path = self.mktemp()
        chance = random.Random(3)
        for _ in range(25):
            writer = subprocess.Popen(
                [sys.executable, "-S", "-E", "-c", WRITER, path, ROOT], stdout=subprocess.PIPE, bufsize=0
            )
            first = writer.stdout.readline().split()
            time.sleep(chance.random() * 0.03)  # a kill must fall anywhere, there is nothing to wait for
            writer.send_signal(signal.SIGKILL)
            acknowledged = {*first, *writer.stdout.read().split()}
            writer.wait()
            writer.stdout.close()
            store = ObjectFolder(path)
            store.open()
            self.assertTrue(acknowledged)
            for key in acknowledged:
                blob = store.read("c", key.decode())
                self.assertEqual(hashlib.sha256(blob[32:]).digest(), blob[:32])
            self.assertTrue({*store.find("c", ["t0"]), *store.find("c", ["t1"])} >= {k.decode() for k in acknowledged})
            self.assertFalse([name for name in os.listdir(f"{path}/c") if name.startswith(".~")])
            store.close()


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and not name.startswith(".~writing.")
)


class History(RuleBasedStateMachine):
    """Any history of calls with any names, beside a plain table."""

    case: LayoutTests

    def __init__(self):
        super().__init__()
        self.folder = ObjectFolder(self.case.mktemp())
        self.folder.open()
        self.table = {}

    def teardown(self):
        self.folder.close()

    @rule(key=NAMES, blob=st.binary(max_size=20), tags=st.lists(NAMES, max_size=3))
    def write(self, key, blob, tags):
        used = {tag for _, carried in self.table.values() for tag in carried}
        try:
            self.folder.write("c", key, blob, tags)
        except InvalidArgument:
            assert key in tags or key in used or set(tags) & set(self.table)
        else:
            self.table[key] = (blob, set(tags))

    @rule(data=st.data())
    def remove(self, data):
        key = data.draw(st.sampled_from(sorted(self.table)) if self.table else NAMES)
        self.folder.remove("c", key)
        self.table.pop(key, None)

    @invariant()
    def same(self):
        for key, (blob, tags) in self.table.items():
            assert self.folder.read("c", key) == blob
            for tag in tags:
                assert self.folder.find("c", [tag]) == sorted(k for k, (_, had) in self.table.items() if tag in had)


class HistoryTests(SynchronousTestCase):
    def test_any_history(self):
        """The folder holds what a table would hold, whatever the names."""
        machine = type("Case", (History,), {"case": self})
        machine.TestCase.settings = settings(max_examples=30, stateful_step_count=12, deadline=None)
        machine.TestCase("runTest").runTest()
