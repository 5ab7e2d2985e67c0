"""Commands for services that a platform may have or not: filters of logs, authorization groups, gateways."""

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cocaine_tx.wire.idl import ANY, INT, PRIMITIVE, RAW, VOID, Optional, Slot, protocol

from .stage import Stage

FILTERS = protocol("logging", 2, (
    Slot(5, "list_loggers", VOID, PRIMITIVE, ()),
    Slot(6, "set_filter", VOID, PRIMITIVE, (RAW, ANY, INT)),
    Slot(7, "remove_filter", VOID, PRIMITIVE, (INT,)),
))  # fmt: skip
VICODYN = protocol("vicodyn", 1, (Slot(1, "peers", VOID, PRIMITIVE, (Optional(RAW),)),))


class Staged(TestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.close()))

    async def told(self, *words: str) -> Any:
        seen = await self.stage.tool(*words)
        self.assertEqual(seen.status, 0, seen.err)
        return json.loads(seen.out) if seen.out else None


class Filters(Staged):
    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.stage.serve(FILTERS, {
            "list_loggers": lambda headers: (["a", "b"],),
            "set_filter": lambda headers, *args: self.calls.append(args) or (7,),
            "remove_filter": lambda headers, number: self.calls.append(number) or (True,),
        })  # fmt: skip

    async def test_filters(self) -> None:
        """Filters are set as the service takes them, and answers are shown as JSON."""
        self.assertEqual(await self.told("logging", "list_loggers"), ["a", "b"])
        words = ("logging", "set_filter", "-n", "a", "--filter_def", '["severity", 2]', "--ttl", "60")
        self.assertEqual(await self.told(*words), 7)
        self.assertIs(await self.told("logging", "remove_filter", "-i", "7"), True)
        self.assertEqual(self.calls, [(b"a", (b"severity", 2), 60), 7])

    async def test_nonsense(self) -> None:
        """A time to live that is no number is 22; what the service does not know is 128."""
        words = ("logging", "set_filter", "-n", "a", "--filter_def", "[]", "--ttl", "soon")
        self.assertEqual((await self.stage.tool(*words)).status, 22)
        seen = await self.stage.tool("logging", "list_filters")
        self.assertEqual(seen.status, 128)
        self.assertIn("service logging has no method 'list_filters'", seen.err)


class Gateway(Staged):
    async def test_peers(self) -> None:
        """The gateway's answer, about all or about one."""
        self.stage.serve(VICODYN, {"peers": lambda headers, *name: ([*name],)})
        self.assertEqual(await self.told("vicodyn", "peers"), [])
        self.assertEqual(await self.told("vicodyn", "peers", "-n", "u"), ["u"])


class Groups(Staged):
    async def test_life(self) -> None:
        """A token is stored as it is, given to members, and taken away again."""
        objects = self.stage.storage.objects
        await self.told("auth", "create", "-n", "g", "--token", "1:s")
        self.assertEqual(objects, {("auth-groups", "g"): (b"1:s", ("auth",))})
        await self.told("auth", "add", "-n", "g", "--service", "a")
        self.assertEqual(objects["tokens", "a"], (b"1:s", ("auth", "tokens", "g")))
        self.assertEqual((await self.stage.tool("auth", "create", "-n", "g", "--token", "2:s")).status, 128)
        await self.told("auth", "create", "-n", "g", "--token", "2:s", "--force")
        self.assertEqual(await self.told("auth", "view", "-n", "g"), {"token": "2:s", "members": ["a"]})
        self.assertEqual(objects["tokens", "a"][0], b"2:s")
        self.assertEqual((await self.stage.tool("auth", "exclude", "-n", "g", "--service", "b")).status, 128)
        await self.told("auth", "rm", "-n", "g")
        self.assertEqual(list(objects), [("tokens", "a")])
        await self.told("auth", "rm", "-n", "g", "--drop")
        self.assertEqual(objects, {})
