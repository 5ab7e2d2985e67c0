"""What the node, the locator and the metrics service say."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cocaine_tx.errors import InvalidArgument
from cocaine_tx.tool import locator
from cocaine_tx.tool.exits import WrongValue
from cocaine_tx.tool.locator import shares
from cocaine_tx.tool.mql import compiled

from .stage import Stage


class Staged(TestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.close()))

    async def json(self, *words: str) -> Any:
        seen = await self.stage.tool(*words)
        self.assertEqual((seen.status, seen.err), (0, ""))
        return json.loads(seen.out)


class Info(Staged):
    async def test_all(self) -> None:
        """Every app is reported, however many there are, under either name of the command."""
        self.stage.node.apps = {f"app{number}": "p" for number in range(60)}
        for word in ("info", "i"):
            told = await self.json(word)
            self.assertEqual((told["count"], len(told["apps"])), (60, 60))
            self.assertEqual(told["apps"]["app7"], {"state": "running", "profile": {"name": "p"}})

    async def test_flags(self) -> None:
        """The parts asked for are asked of the node."""
        self.stage.node.apps = {"a": "p"}
        for words, flags in (((), 1), (("-m",), 3), (("-p",), 5), (("-m", "-p"), 7), (("-b", "-m"), 0)):
            await self.json("info", *words)
            self.assertEqual(self.stage.node.flags.pop(), flags)

    async def test_pattern(self) -> None:
        """A name is a pattern, unless -w says that it is a name."""
        self.stage.node.apps = {"a1": "p", "a2": "p", "b": "p", "a*": "p"}
        self.assertEqual(sorted((await self.json("info", "-n", "a?"))["apps"]), ["a*", "a1", "a2"])
        self.assertEqual(sorted((await self.json("info", "-n", "a*", "-w"))["apps"]), ["a*"])
        self.assertEqual((await self.json("info", "-n", "x*"))["count"], 0)

    async def test_failures(self) -> None:
        """An app that fails or is silent does not hide the others."""
        self.stage.node.apps = {"bad": "p", "good": "p", "silent": "p"}
        self.stage.node.reports = {"bad": InvalidArgument("broken thing"), "silent": Deferred()}
        told = await self.json("info", "--timeout", "0.1")
        self.assertEqual(told["apps"]["bad"], 'Error in service "node" - broken thing [22]')
        self.assertEqual(told["apps"]["good"]["state"], "running")
        self.assertEqual(
            told["apps"]["silent"],
            {"error": "Operation timed out after 0.1 seconds", "state": "unresponsive", "meta": {"name": "silent"}},
        )


class Locator(Staged):
    async def test_locate(self) -> None:
        """A service's address, version and messages."""
        told = await self.json("locate", "-n", "storage")
        self.assertEqual(told["endpoints"], [f"127.0.0.1:{self.stage.addresses['storage']}"])
        self.assertEqual(told["version"], 1)
        self.assertEqual({number: told["api"][number] for number in "0123"},
                         {"0": "read", "1": "write", "2": "remove", "3": "find"})  # fmt: skip

    async def test_locate_absent(self) -> None:
        """A service that nobody offers is the locator's error."""
        seen = await self.stage.tool("locate", "-n", "x")
        self.assertEqual((seen.status, seen.out), (128, ""))
        self.assertEqual(seen.err, 'Error in service "locator" - service is not available [1]\n')

    async def test_cluster(self) -> None:
        """Nodes are shown by host name, or by address when that is wished."""
        self.patch(locator, "host_of", lambda address: "name.of." + address)
        self.assertEqual(
            await self.json("cluster"),
            {"uuid-1": ["name.of.127.0.0.1", 10054], "uuid-2": ["name.of.127.0.0.1", 10053]},
        )
        for words in (("--resolve", "false"), ("--resolve",)):
            self.assertEqual((await self.json("cluster", *words))["uuid-1"], ["127.0.0.1", 10054])

    async def test_uuid(self) -> None:
        """The node's uuid as JSON."""
        self.assertEqual((await self.stage.tool("uuid")).out, '"uuid-0"\n')

    async def test_version(self) -> None:
        """The version as text."""
        self.assertRegex((await self.stage.tool("version")).out, r"^\d+\.\d+\.\d+\n$")

    async def test_routing(self) -> None:
        """A group's apps with their shares of the ring."""
        self.stage.rings = {"g": [[2**30, "a"], [2**31, "b"]]}
        self.assertEqual(await self.json("routing", "-n", "g"), {"g": {"a": 0.75, "b": 0.25}})
        seen = await self.stage.tool("routing", "-n", "x")
        self.assertEqual((seen.status, seen.err), (128, 'Routing group "x" does not exist\n'))

    def test_shares(self) -> None:
        """Shares add up to one; a single point owns everything."""
        self.assertEqual(shares([[5, "a"]]), {"a": 1.0})
        self.assertEqual(shares([]), {})
        self.assertEqual(sum(shares([[1, "a"], [2**32 - 1, "b"], [77, "a"]]).values()), 1.0)


class Metrics(Staged):
    async def test_fetch(self) -> None:
        """The type and the query reach the service as it takes them."""
        self.assertEqual(await self.json("metrics"), {"a.b": 1})
        await self.json("metrics", "--type", "json", "--query", "name() == a.b")
        await self.json("metrics", "--query-type", "ast", "--query", '{"contains": [{"name": []}, "x"]}')
        self.assertEqual(
            self.stage.metrics,
            [
                (b"plain", None),
                (b"json", {b"eq": ({b"name": ()}, {b"const": (b"a.b",)})}),
                (b"plain", {b"contains": ({b"name": ()}, b"x")}),
            ],
        )

    async def test_bad_query(self) -> None:
        """A query that is none is 22."""
        seen = await self.stage.tool("metrics", "--query", "name( ==")
        self.assertEqual((seen.status, seen.err), (22, "Query: unexpected '=='\n"))


class Queries(SynchronousTestCase):
    def test_trees(self) -> None:
        """Queries and their trees."""
        name, kind = {"name": []}, {"type": []}
        meter = {"const": ["meter"]}
        for text, tree in (
            ("name() == x", {"eq": [name, {"const": ["x"]}]}),
            ("contains(type(), meter) || name() == a.b",
             {"or": [{"contains": [kind, meter]}, {"eq": [name, {"const": ["a.b"]}]}]}),
            ("name()==x&&(type()==meter||tag(k)>=2)",
             {"and": [{"eq": [name, {"const": ["x"]}]},
                      {"or": [{"eq": [kind, meter]}, {"ge": [{"tag": ["k"]}, {"const": [2.0]}]}]}]}),
        ):  # fmt: skip
            self.assertEqual(compiled(text), tree)

    def test_nonsense(self) -> None:
        """What is no query is refused, whatever it is."""
        for text in ("", "(", "name(", "a b", "x(", "name(a)", "foo()", "a != b", "&&", "a ==", "'", "tag(name())",
                     "(" * 10_000, "contains(a)", "a,b", "contains(a b)"):  # fmt: skip
            self.assertRaises(WrongValue, compiled, text)
