"""Apps in storage and on the node."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import ArchiveError, InvalidArgument, NotFound
from cocaine_tx.tool import app

from .stage import OLD_NODE, Stage


def using(stage: Stage, test: TestCase, **how: Any) -> Stage:
    """An open stage that is closed at the test's end."""
    stage.open(**how)
    test.addCleanup(lambda: Deferred.fromCoroutine(stage.close()))
    return stage


class InStorage(TestCase):
    def setUp(self) -> None:
        self.stage = using(Stage(), self)
        self.stage.storage.put("manifests", "b", {"slave": "x"}, "app")
        self.stage.storage.put("manifests", "a", {"slave": "y", "environment": {"K": b"\xff"}}, "app")
        self.stage.storage.put("apps", "a", b"code", "app")

    async def test_list(self) -> None:
        """Apps are listed as sorted JSON on stdout, and nothing else is said."""
        seen = await self.stage.tool("app", "list")
        self.assertEqual((seen.status, seen.out, seen.err), (0, '[\n    "a",\n    "b"\n]\n', ""))

    async def test_view(self) -> None:
        """A manifest is shown as JSON, also with bytes that are no text."""
        seen = await self.stage.tool("app", "view", "-n", "a")
        self.assertEqual(json.loads(seen.out), {"slave": "y", "environment": {"K": "\udcff"}})

    async def test_view_absent(self) -> None:
        """The manifest of an app that is not there is an error of storage."""
        seen = await self.stage.tool("app", "view", "-n", "c")
        self.assertEqual((seen.status, seen.out), (128, ""))
        self.assertEqual(seen.err, 'Error in service "storage" - No such file or directory [2]\n')

    async def test_remove(self) -> None:
        """A removed app leaves neither manifest nor code."""
        seen = await self.stage.tool("app", "remove", "-n", "a")
        self.assertEqual((seen.status, seen.out, seen.err), (0, "", '[✔] Removing application "a"\n'))
        self.assertEqual(list(self.stage.storage.objects), [("manifests", "b")])

    async def test_remove_absent(self) -> None:
        """Removing what is not there fails and says so."""
        seen = await self.stage.tool("app", "remove", "-n", "c")
        self.assertEqual(seen.status, 128)
        self.assertIn('Application "c" does not exist\n', seen.err)

    async def test_remove_code_fails(self) -> None:
        """Code that cannot be removed is worth a warning, not a failure."""
        self.stage.storage.broken["remove", "apps"] = InvalidArgument("no")
        seen = await self.stage.tool("app", "remove", "-n", "a")
        self.assertEqual(seen.status, 0)
        self.assertIn("Warning: the code stays in storage", seen.err)

    async def test_name_missing(self) -> None:
        """A command without a name fails with 22 before anybody is asked."""
        for verb in ("view", "remove", "start", "stop", "pause", "restart", "check"):
            seen = await self.stage.tool("app", verb)
            self.assertEqual((seen.status, seen.out, seen.err), (22, "", "Please specify application name\n"))
        self.assertEqual(self.stage.storage.calls, [])

    async def test_docker_is_missing(self) -> None:
        """Importing an image is refused in plain words."""
        seen = await self.stage.tool("app", "import", ".", "--container_url", "u", "--docker_address", "a")
        self.assertEqual(seen.status, 128)
        self.assertIn("needs docker", seen.err)


class OnTheNode(TestCase):
    def setUp(self) -> None:
        self.stage = using(Stage(), self)

    async def test_start(self) -> None:
        """A started app is announced on stdout, in the original's words."""
        seen = await self.stage.tool("app", "start", "-n", "a", "-r", "p")
        self.assertEqual((seen.status, seen.out), (0, "Application `a` has been started with profile `p`\n"))
        self.assertEqual(seen.err, '[✔] Starting application "a"\n')
        self.assertEqual(self.stage.node.apps, {"a": "p"})

    async def test_start_for_scripts(self) -> None:
        """With --json --quiet a script gets facts and nothing else."""
        seen = await self.stage.tool("app", "start", "-n", "a", "--profile", "p", "--json", "--quiet")
        self.assertEqual(json.loads(seen.out), {"app": "a", "profile": "p", "status": "started"})
        self.assertEqual(seen.err, "")

    async def test_start_twice(self) -> None:
        """The second start fails with the node's reason and code."""
        self.stage.node.apps["a"] = "p"
        seen = await self.stage.tool("app", "start", "-n", "a", "-r", "p")
        self.assertEqual((seen.status, seen.out), (128, ""))
        self.assertIn(
            'Error in service "node" - app \'a\' is running: application has already been started [5]\n', seen.err
        )

    async def test_start_of_a_broken_app(self) -> None:
        """An app that was broken by its last start is not started again: the cause and the way out are told."""
        self.stage.node.apps["a"] = "p"
        self.stage.node.reports["a"] = {"state": "broken", "cause": "no code"}
        seen = await self.stage.tool("app", "start", "-n", "a", "-r", "p")
        self.assertEqual(seen.status, 128)
        self.assertIn(" [5]; the cause: no code; when it is mended, see cocaine-tool app restart --profile\n", seen.err)

    async def test_start_of_what_is_not_there(self) -> None:
        """What the node does not find in storage is named, and the command that brings it there."""
        self.stage.node.refusal = NotFound("x: No such file or directory")
        told = '[✘] Starting application "a"\nError in service "node" - x: No such file or directory [2]'
        for collection, key, mend in (
            ("manifests", "a", '; there is no application "a" in storage: see cocaine-tool app upload'),
            ("profiles", "p", '; there is no profile "p" in storage: see cocaine-tool profile upload'),
            ("apps", "a", '; there is no code of "a" in storage: see cocaine-tool app upload'),
            ("apps", "a", ""),
        ):
            seen = await self.stage.tool("app", "start", "-n", "a", "-r", "p")
            self.assertEqual((seen.status, seen.err), (128, f"{told}{mend}\n"))
            self.stage.storage.put(collection, key, {}, "app")
        self.stage.storage.broken["read", "manifests"] = InvalidArgument("no")
        seen = await self.stage.tool("app", "start", "-n", "a", "-r", "p")
        self.assertEqual((seen.status, seen.err), (128, f"{told}\n"))
        self.stage.storage.broken.clear()
        self.stage.node.apps["a"] = "p"
        seen = await self.stage.tool("app", "restart", "-n", "a", "-r", "q", "--json", "--quiet")
        error = json.loads(seen.err)["error"]
        self.assertIn('; there is no profile "q" in storage: ', error.pop("message"))
        self.assertEqual((error["status"], error["service"], error["code"]), (128, "node", 2))

    async def test_start_without_profile(self) -> None:
        """A start needs a profile's name."""
        seen = await self.stage.tool("app", "start", "-n", "a")
        self.assertEqual((seen.status, seen.err), (22, "Please specify profile name\n"))

    async def test_stop(self) -> None:
        """Both words stop an app; a stopped one cannot be stopped again."""
        for verb in ("stop", "pause"):
            self.stage.node.apps["a"] = "p"
            seen = await self.stage.tool("app", verb, "-n", "a")
            self.assertEqual((seen.status, seen.out), (0, "Application `a` has been stopped\n"))
        seen = await self.stage.tool("app", "stop", "-n", "a")
        self.assertEqual(seen.status, 128)
        self.assertIn('Error in service "node" - application is not running [6]\n', seen.err)

    async def test_restart(self) -> None:
        """A node that can replace an app is asked to, and the app is never stopped."""
        self.stage.node.apps["a"] = "p"
        seen = await self.stage.tool("app", "restart", "-n", "a")
        self.assertEqual((seen.status, seen.out), (0, "Application `a` has been restarted with profile `p`\n"))
        seen = await self.stage.tool("app", "restart", "-n", "a", "-r", "q")
        self.assertEqual(seen.out, "Application `a` has been restarted with profile `q`\n")
        self.assertEqual(self.stage.node.calls, [("restart", "a"), ("restart", "a", "q")])

    async def test_restart_stopped(self) -> None:
        """Restarting an app that does not run starts it, if the profile is named and everything is there."""
        self.stage.storage.put("manifests", "a", {}, "app")
        self.stage.storage.put("profiles", "p", {}, "profile")
        seen = await self.stage.tool("app", "restart", "-n", "a", "-r", "p")
        self.assertEqual(seen.status, 0)
        self.assertEqual(self.stage.node.apps, {"a": "p"})
        seen = await self.stage.tool("app", "restart", "-n", "b")
        self.assertEqual(seen.status, 128)
        self.assertIn("app 'b' is not running [22]; name a profile by --profile to start it\n", seen.err)

    async def test_restart_refused(self) -> None:
        """A new version that does not boot is the node's error; nothing is stopped."""
        self.stage.node.apps["a"] = "p"
        self.stage.node.refusal = ArchiveError()
        seen = await self.stage.tool("app", "restart", "-n", "a")
        self.assertEqual((seen.status, seen.out), (128, ""))
        self.assertIn("the archive cannot be unpacked [84]\n", seen.err)
        self.assertEqual((self.stage.node.apps, self.stage.node.calls), ({"a": "p"}, [("restart", "a")]))

    async def test_check(self) -> None:
        """The exit code tells whether an app runs; nothing is said about one that does."""
        seen = await self.stage.tool("app", "check", "-n", "a")
        self.assertEqual((seen.status, seen.out, seen.err), (128, "", "Not running\n"))
        self.stage.node.apps["a"] = "p"
        seen = await self.stage.tool("app", "check", "-n", "a")
        self.assertEqual((seen.status, seen.out, seen.err), (0, "", ""))
        self.stage.node.reports["a"] = {"state": "broken", "cause": "no code"}
        seen = await self.stage.tool("app", "check", "-n", "a")
        self.assertEqual((seen.status, seen.err), (128, "Broken: no code\n"))

    async def test_silent_node(self) -> None:
        """A node that does not answer costs no more than the timeout."""
        self.stage.node.apps["a"] = "p"
        self.stage.node.reports["a"] = Deferred()
        seen = await self.stage.tool("app", "check", "-n", "a", "--timeout", "0.05")
        self.assertEqual((seen.status, seen.err), (128, "Operation timed out after 0.05 seconds\n"))

    async def test_no_node(self) -> None:
        """A locator without a node is said to have none."""
        del self.stage.known["node"]
        seen = await self.stage.tool("app", "stop", "-n", "a")
        self.assertEqual(seen.err, 'Error in service "node" - service is not available [1]\n')

    async def test_node_gone(self) -> None:
        """A node that the locator knows and nobody reaches is named by its address."""
        await self.stage.ports["node"].stopListening()
        seen = await self.stage.tool("app", "stop", "-n", "a")
        self.assertEqual(seen.status, 128)
        self.assertIn(f"Unable to establish connection: 127.0.0.1:{self.stage.addresses['node']}: ", seen.err)

    async def test_no_locator(self) -> None:
        """A port where somebody else listens and hangs up is not blamed on a service."""
        self.stage.addresses["locator"] = self.stage.addresses["node"]
        seen = await self.stage.tool("app", "stop", "-n", "a")
        where = f"127.0.0.1:{self.stage.addresses['node']}"
        self.assertEqual((seen.status, seen.out), (128, ""))
        self.assertEqual(
            seen.err, f"Error in service \"locator\" - End of file [2]; is {where} a locator's address?\n"
        )

    async def test_surprise(self) -> None:
        """A mistake of our own is one line and 128; its traceback is for -vvvv."""

        async def surprised(*_: Any) -> Any:
            raise ZeroDivisionError("surprise")

        self.patch(app, "app_names", surprised)
        seen = await self.stage.tool("app", "check", "-n", "a")
        self.assertEqual((seen.status, seen.err), (128, "Surprise\n"))
        seen = await self.stage.tool("app", "check", "-n", "a", "-vvvv")
        self.assertIn("Traceback", seen.err)


class OnAnOriginalNode(TestCase):
    def setUp(self) -> None:
        self.stage = using(Stage(), self, node_protocol=OLD_NODE)
        self.stage.node.apps["a"] = "p"
        self.stage.storage.put("manifests", "a", {}, "app")
        self.stage.storage.put("profiles", "p", {}, "profile")

    async def test_restart(self) -> None:
        """A node that cannot replace an app stops it and starts it with the profile it had."""
        seen = await self.stage.tool("app", "restart", "-n", "a")
        self.assertEqual((seen.status, seen.out), (0, "Application `a` has been restarted with profile `p`\n"))
        self.assertEqual(self.stage.node.calls, [("pause", "a"), ("start", "a", "p")])

    async def test_restart_with_absent_profile(self) -> None:
        """An app is not stopped when it could not be started again."""
        seen = await self.stage.tool("app", "restart", "-n", "a", "-r", "absent")
        self.assertEqual(seen.status, 128)
        self.assertIn('There is no profile "absent" in storage: see cocaine-tool profile upload; ', seen.err)
        self.assertIn('; application "a" is left as it is\n', seen.err)
        self.assertEqual((self.stage.node.apps, self.stage.node.calls), ({"a": "p"}, []))
