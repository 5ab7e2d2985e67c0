"""Storage's face, against what the original was seen to answer."""

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.storage.memory import MemoryStorage
from cocaine_tx.storage.service import StorageService
from tests.wire.captures import Stage, decoded


class Storage(SynchronousTestCase):
    def setUp(self):
        self.storage = MemoryStorage()
        self.stage = Stage(StorageService(self.storage).dispatch)
        self.successResultOf(self.storage.write("bench", "k100", b"x" * 100, ["t1"]))

    def check(self, name):
        recorded, client = self.stage.play(name)
        self.assertEqual(client.data.hex(), recorded.answered.hex())
        self.assertEqual(client.closed, recorded.closed)

    def ask(self, client, *frame):
        return decoded(self.stage.say(client, msgpack.packb(frame, use_bin_type=False)))

    def test_recorded(self):
        """Every exchange recorded from the original is answered byte for byte, and ends as it did."""
        for name in (
            "storage-read", "storage-read-extra-arg", "storage-write", "storage-write-3-args", "storage-remove",
            "storage-find", "storage-write-utf8-int-key", "split-frame", "control-ping-chan1", "control-goaway-chan1",
            "control-revoke-chan1", "control-revoke-wellformed", "control-settings-chan1", "bad-args", "bad-args-few",
            "bad-channel-reuse", "bad-frame-int", "bad-not-frame", "bad-slot",
        ):  # fmt: skip
            if name == "bad-channel-reuse":
                # The original may hang up before it answers; ours answers what was asked rightly first.
                recorded, client = self.stage.play(name)
                self.assertTrue(recorded.closed and client.closed)
                continue
            self.check(name)

    def test_missing(self):
        """An absent object is error [12, 2]."""
        [answer] = self.ask(self.stage.client(), 1, 0, ["bench", "absent"])
        self.assertEqual((answer[1], answer[2][0]), (1, [12, 2]))
        self.assertIn(b"No such file or directory", answer[2][1])

    def test_strange_names(self):
        """Names are bytes to clients: what is not UTF-8 is stored, found and read again."""
        client = self.stage.client()
        self.ask(client, 1, 1, ["c", b"\xff\xfe", b"blob", [b"t\xff"]])
        self.assertEqual(self.ask(client, 2, 3, ["c", [b"t\xff"]])[0][2], [[b"\xff\xfe"]])
        self.assertEqual(self.ask(client, 3, 0, ["c", b"\xff\xfe"])[0][2], [b"blob"])

    def test_unusable_name(self):
        """A name that would leave the collection is refused, and the connection goes on."""
        client = self.stage.client()
        [answer] = self.ask(client, 1, 1, ["c", "../x", b"blob"])
        self.assertEqual((answer[1], answer[2][0][0]), (1, 12))
        self.assertEqual(len(self.ask(client, 2, 0, ["bench", "k100"])), 1)

    def test_anonymous(self):
        """An authorization header, empty or not, changes nothing."""
        client = self.stage.client()
        for number, value in ((1, b""), (2, b"TVM xyz")):
            headers = [[False, "authorization", value]]
            self.assertEqual(self.ask(client, number, 0, ["bench", "k100"], headers)[0][2], [b"x" * 100])

    def test_remove_absent(self):
        """Removing what is not there succeeds."""
        [answer] = self.ask(self.stage.client(), 1, 2, ["bench", "absent"])
        self.assertEqual(answer[1:3], [0, []])
