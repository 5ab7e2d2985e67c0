"""Profiles, runlists and routing groups."""

import json
import os
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import InvalidArgument, RoutingStorageError
from cocaine_tx.locator import routing
from cocaine_tx.tool import group
from cocaine_tx.wire.frames import pack

from .stage import Stage


class Staged(TestCase):
    def setUp(self) -> None:
        self.patch(tempfile, "tempdir", os.path.dirname(os.path.abspath(self.mktemp())))
        self.stage = Stage()
        self.stage.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.close()))
        self.storage = self.stage.storage

    async def fine(self, *words: str) -> str:
        """Run a command that succeeds; its stdout."""
        seen = await self.stage.tool(*words)
        self.assertEqual(seen.status, 0, seen.err)
        return seen.out

    async def wrong(self, status: int, *words: str) -> str:
        """Run a command that fails so; its stderr. It says nothing on stdout."""
        seen = await self.stage.tool(*words)
        self.assertEqual((seen.status, seen.out), (status, ""))
        return seen.err


class Profiles(Staged):
    async def test_upload(self) -> None:
        """A profile given as JSON or as a file is the same bytes under the same tag."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write('{"pool-limit": 4, "idle-timeout": 1.5}')
        await self.fine("profile", "upload", "-n", "a", "-r", '{"pool-limit": 4, "idle-timeout": 1.5}')
        await self.fine("profile", "upload", "-n", "b", "--profile", path)
        self.assertEqual(
            self.storage.objects["profiles", "a"],
            (b"\x82\xaapool-limit\x04\xacidle-timeout\xcb\x3f\xf8" + bytes(6), ("profile",)),
        )
        self.assertEqual(self.storage.objects["profiles", "a"], self.storage.objects["profiles", "b"])
        self.assertEqual(json.loads(await self.fine("profile", "list")), ["a", "b"])
        self.assertEqual(
            await self.fine("profile", "view", "-n", "a"), '{\n    "idle-timeout": 1.5,\n    "pool-limit": 4\n}\n'
        )

    async def test_upload_nonsense(self) -> None:
        """What is no map, or not there, is not stored."""
        for given, words in (("[]", "A profile must be a map, not a list"), ("x", "cannot read 'x'")):
            self.assertIn(words, await self.wrong(22, "profile", "upload", "-n", "a", "-r", given))
        self.assertEqual(self.storage.objects, {})

    async def test_copy_and_rename(self) -> None:
        """A copy is the same bytes; a renamed one is gone from its old name."""
        self.storage.put("profiles", "a", {b"x": b"\xff"}, "profile")
        made = self.storage.objects["profiles", "a"]
        await self.fine("profile", "copy", "-n", "a", "--copyname", "b")
        self.assertEqual(self.storage.objects, {("profiles", "a"): made, ("profiles", "b"): made})
        await self.fine("profile", "rename", "-n", "a", "--copyname", "c")
        self.assertEqual(self.storage.objects, {("profiles", "c"): made, ("profiles", "b"): made})

    async def test_rename_half_way(self) -> None:
        """A rename that cannot write the new one keeps the old one; onto itself it is refused."""
        self.storage.put("profiles", "a", {}, "profile")
        self.assertIn("onto itself", await self.wrong(128, "profile", "rename", "-n", "a", "--copyname", "a"))
        self.storage.broken["write", "profiles"] = InvalidArgument("disk is full")
        await self.wrong(128, "profile", "rename", "-n", "a", "--copyname", "b")
        self.assertEqual(list(self.storage.objects), [("profiles", "a")])

    async def test_remove(self) -> None:
        """Removing what is there is silent; what is not there is worth a warning."""
        self.storage.put("profiles", "a", {}, "profile")
        self.assertEqual(await self.fine("profile", "remove", "-n", "a"), "")
        seen = await self.stage.tool("profile", "remove", "-n", "a")
        self.assertEqual(seen.status, 0)
        self.assertIn('Warning: profile "a" does not exist\n', seen.err)


class Editing(Staged):
    def setUp(self) -> None:
        super().setUp()
        self.storage.put("profiles", "a", {"n": 1}, "profile")

    async def test_edit(self) -> None:
        """What the editor leaves is what is stored."""
        self.stage.edit = lambda text: text.replace("1", "2")
        await self.fine("profile", "edit", "-n", "a")
        self.assertEqual(self.storage.objects["profiles", "a"], (pack({"n": 2}), ("profile",)))

    async def test_nothing_changed(self) -> None:
        """An untouched text is not written."""
        seen = await self.stage.tool("profile", "edit", "-n", "a")
        self.assertEqual((seen.status, seen.err), (0, "Warning: nothing was changed\n"))
        self.assertNotIn("write", [call[0] for call in self.storage.calls])

    async def test_broken_text_is_kept(self) -> None:
        """A text that is no JSON is not stored and not lost."""
        self.stage.edit = lambda text: "{ my work"
        said = await self.wrong(22, "profile", "edit", "-n", "a")
        self.assertEqual(self.storage.blob("profiles", "a"), pack({"n": 1}))
        self.assertIn("is not JSON", said)
        with open(said.partition("(your text is kept in ")[2].rstrip(")\n")) as file:
            self.assertEqual(file.read(), "{ my work")

    async def test_aborted(self) -> None:
        """Ctrl-C while a text is being saved does not lose it."""
        self.storage.broken["write", "profiles"] = Deferred()
        self.stage.edit = lambda text: text.replace("1", "2")
        working = Deferred.fromCoroutine(self.stage.tool("profile", "edit", "-n", "a"))
        while ("write", "profiles", "a") not in [call[:3] for call in self.storage.calls]:
            await deferLater(reactor, 0)
        working.cancel()
        seen = await working
        self.assertEqual((seen.status, seen.out), (1, ""))
        self.assertIn("\nAborted! (your text is kept in ", seen.err)
        with open(seen.err.partition("(your text is kept in ")[2].rstrip(")\n")) as file:
            self.assertEqual(json.loads(file.read()), {"n": 2})

    async def test_somebody_else(self) -> None:
        """A change by somebody else in the meantime is not overwritten."""

        def meanwhile(text: str) -> str:
            self.storage.put("profiles", "a", {"n": 3}, "profile")
            return text.replace("1", "2")

        self.stage.edit = meanwhile
        said = await self.wrong(128, "profile", "edit", "-n", "a")
        self.assertIn("was changed by somebody else meanwhile (your text is kept in", said)
        self.assertEqual(self.storage.blob("profiles", "a"), pack({"n": 3}))


class Runlists(Staged):
    async def test_create_and_fill(self) -> None:
        """A runlist is created empty, gets apps and loses them; each answer tells what was done."""
        await self.fine("runlist", "create", "-n", "r")
        self.assertEqual(self.storage.objects["runlists", "r"], (b"\x80", ("runlist",)))
        said = await self.fine("runlist", "add-app", "-n", "r", "--app", "a", "--profile", "p")
        self.assertEqual(
            json.loads(said), {"runlist": "r", "status": "modified", "added": {"app": "a", "profile": "p"}}
        )
        self.assertEqual(self.storage.objects["runlists", "r"], (pack({"a": "p"}), ("runlist",)))
        said = await self.fine("runlist", "remove-app", "-n", "r", "--app", "a")
        self.assertEqual(json.loads(said), {"runlist": "r", "app": "a", "status": "removed"})
        self.assertEqual(self.storage.blob("runlists", "r"), b"\x80")
        said = await self.fine("runlist", "remove-app", "-n", "r", "--app", "a")
        self.assertEqual(json.loads(said)["status"], "not found")

    async def test_create_over_a_full_one(self) -> None:
        """A runlist with apps in it is not emptied by mistake; an empty one may be created again."""
        self.storage.put("runlists", "r", {"a": "p"}, "runlist")
        self.assertIn("exists already and is not empty", await self.wrong(128, "runlist", "create", "-n", "r"))
        self.assertEqual(self.storage.blob("runlists", "r"), pack({"a": "p"}))
        await self.fine("runlist", "create", "-n", "r", "--force")
        await self.fine("runlist", "create", "-n", "r")

    async def test_add_to_an_absent_one(self) -> None:
        """Adding to a runlist that is not there needs -f."""
        words = ("runlist", "add-app", "-n", "r", "--app", "a", "--profile", "p")
        self.assertIn("[2]", await self.wrong(128, *words))
        self.assertEqual(json.loads(await self.fine(*words, "-f"))["status"], "created")
        self.assertEqual(json.loads(await self.fine(*words, "-f"))["status"], "modified")

    async def test_failed_write_is_seen(self) -> None:
        """A write that storage refuses fails the command (the original did not wait to see)."""
        self.storage.broken["write", "runlists"] = InvalidArgument("disk is full")
        self.assertIn("disk is full [22]", await self.wrong(128, "runlist", "create", "-n", "r"))

    async def test_upload(self) -> None:
        """A runlist maps apps to profiles, by any way it is given."""
        await self.fine("runlist", "upload", "-n", "r", "--runlist", '{"a": "p"}')
        await self.fine("runlist", "copy", "-n", "r", "-c", "s")
        await self.fine("runlist", "rename", "-n", "s", "-c", "t")
        self.assertEqual(json.loads(await self.fine("runlist", "list")), ["r", "t"])
        said = await self.wrong(22, "runlist", "upload", "-n", "r", "--runlist", '{"a": 1}')
        self.assertIn('that of "a" is not a text', said)


class Groups(Staged):
    async def test_life(self) -> None:
        """A group is created, changed, copied and removed; both tags stay."""
        await self.fine("group", "create", "-n", "g", "-c", '{"a": 1}')
        self.assertEqual(self.storage.objects["groups", "g"], (b"\x81\xa1a\x01", ("group", "active")))
        await self.fine("group", "push", "-n", "g", "--app", "b", "-w", "3")
        self.assertEqual(json.loads(await self.fine("group", "view", "-n", "g")), {"a": 1, "b": 3})
        await self.fine("group", "pop", "-n", "g", "--app", "a")
        self.assertEqual(self.storage.objects["groups", "g"], (b"\x81\xa1b\x03", ("group", "active")))
        await self.fine("group", "copy", "-n", "g", "-c", "h")
        await self.fine("group", "remove", "-n", "g")
        self.assertEqual(json.loads(await self.fine("group", "list")), ["h"])

    async def test_nonsense(self) -> None:
        """Weights that make no group are refused with 22."""
        for content in ("{}", "[]", '{"a": -1}', '{"a": 1.5}', '{"a": true}', '{"a": "1"}', '{"a": 0}'):
            await self.wrong(22, "group", "create", "-n", "g", "-c", content)
        # No locator would load these, and after its next start the group before them would be missed.
        for content in ('{"a": 4294967296}', '{"": 1}', json.dumps({f"a{number}": 1 for number in range(513)})):
            with self.assertRaises(RoutingStorageError):
                routing.weights(pack(json.loads(content)), "g")
            await self.wrong(22, "group", "create", "-n", "g", "-c", content)
        self.assertEqual(self.storage.objects, {})

    async def test_name_of_a_tag(self) -> None:
        """A group called as what groups are listed under is refused with the reason."""
        for name in ("group", "active"):
            said = await self.wrong(22, "group", "create", "-n", name, "-c", '{"a": 1}')
            self.assertIn(f'"{name}" cannot be a name here: storage lists groups under that word', said)
        self.assertEqual(self.storage.objects, {})

    def test_limits(self) -> None:
        """The tool's limits are the locators'."""
        theirs = routing.MEMBER_LIMIT, routing.WEIGHT_LIMIT
        self.assertEqual((group.MEMBER_LIMIT, group.WEIGHT_LIMIT), theirs)

    async def test_bad_changes(self) -> None:
        """A change that would break a group leaves it as it was."""
        self.storage.put("groups", "g", {"a": 1}, "group", "active")
        await self.wrong(22, "group", "push", "-n", "g", "--app", "b", "-w", "-5")
        await self.wrong(22, "group", "pop", "-n", "g", "--app", "a")
        said = await self.wrong(128, "group", "pop", "-n", "g", "--app", "b")
        self.assertIn('App "b" is not in routing group "g"', said)
        self.assertEqual(self.storage.blob("groups", "g"), pack({"a": 1}))

    async def test_refresh(self) -> None:
        """The locator is told which groups to read anew: the one named, or all."""
        self.storage.put("groups", "g", {"a": 1}, "group", "active")
        self.storage.put("groups", "h", {"a": 1}, "group", "active")
        await self.fine("group", "refresh", "-n", "x")
        await self.fine("group", "refresh")
        self.assertEqual(self.stage.refreshed, [["x"], ["g", "h"]])
