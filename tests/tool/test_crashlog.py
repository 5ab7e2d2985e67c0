"""Crash logs: which there are, what is in them, and which are removed."""

import json
from datetime import UTC, date, datetime

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cocaine_tx.tool.days import between, day, microseconds, tag
from cocaine_tx.tool.exits import WrongValue

from .stage import NOW, Stage


def moment(number: int, hour: int = 0) -> int:
    """Microseconds of a day of March 2026, UTC."""
    return int(datetime(2026, 3, number, hour, tzinfo=UTC).timestamp()) * 1_000_000


class Crashlogs(TestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.close()))
        self.put("a", 2, 1)
        self.put("a", 4, 1)
        self.put("a", 4, 3)
        self.put("a", 3, 9)
        self.put("b", 3, 2)
        for app in ("a", "b", "c"):
            self.stage.storage.put("manifests", app, {}, "app")

    def put(self, app: str, number: int, hour: int) -> None:
        key = f"{moment(number, hour)}:uuid-{number}-{hour}"
        self.stage.storage.put("crashlogs", key, [f"{app} {number}", "end\n"], app, f"cocaine-2026-03-{number:02}")

    def left(self) -> list[str]:
        return sorted(key.partition(":")[2] for where, key in self.stage.storage.objects if where == "crashlogs")

    async def test_list(self) -> None:
        """An app's crash logs are listed by time; scripts get numbers."""
        seen = await self.stage.tool("crashlog", "list", "-n", "a")
        workers = [line.split()[-1] for line in seen.out.splitlines()]
        self.assertEqual(workers, ["uuid-2-1", "uuid-3-9", "uuid-4-1", "uuid-4-3"])
        seen = await self.stage.tool("crashlog", "list", "-n", "a", "--json")
        self.assertEqual([each["timestamp"] for each in json.loads(seen.out)][:2], [moment(2, 1), moment(3, 9)])

    async def test_list_day(self) -> None:
        """A day given in any of its ways shows that UTC day only."""
        for word, expected in (("tod", ["uuid-4-1", "uuid-4-3"]), ("y", ["uuid-3-9"]), ("2", ["uuid-2-1"]),
                               ("02-03", ["uuid-2-1"]), ("2-3-2026", ["uuid-2-1"]), ("1", [])):  # fmt: skip
            seen = await self.stage.tool("crashlog", "list", "-n", "a", "-d", word)
            self.assertEqual([line.split()[-1] for line in seen.out.splitlines()], expected)

    async def test_view(self) -> None:
        """The latest crash log is shown line by line, or that of a moment."""
        seen = await self.stage.tool("crashlog", "view", "-n", "a")
        self.assertEqual((seen.status, seen.out), (0, "a 4\nend\n"))
        seen = await self.stage.tool("crashlog", "view", "-n", "a", "-t", str(moment(2, 1)))
        self.assertEqual(seen.out, "a 2\nend\n")

    async def test_view_any_bytes(self) -> None:
        """What a worker printed may be no text at all."""
        self.stage.storage.put("crashlogs", f"{moment(5)}:u", [b"\xff\xfe"], "a")
        seen = await self.stage.tool("crashlog", "view", "-n", "a")
        self.assertEqual((seen.status, seen.out), (0, "\ufffd\ufffd\n"))

    async def test_view_nothing(self) -> None:
        """No crash log is 22, and says so."""
        for words in (("-n", "c"), ("-n", "a", "-t", "5")):
            seen = await self.stage.tool("crashlog", "view", *words)
            self.assertEqual((seen.status, seen.out), (22, ""))
            self.assertIn("There is no crashlog of", seen.err)

    async def test_status(self) -> None:
        """Each app with crash logs is shown with their number and the latest."""
        seen = await self.stage.tool("crashlog", "status", "--json")
        self.assertEqual(
            [(each["app"], each["count"], each["last"]["uuid"]) for each in json.loads(seen.out)],
            [("a", 4, "uuid-4-3"), ("b", 1, "uuid-3-2")],
        )
        seen = await self.stage.tool("crashlog", "status")
        self.assertEqual(len(seen.out.splitlines()), 2)

    async def test_remove(self) -> None:
        """One moment is removed, or all on purpose, never all by forgetting the moment."""
        seen = await self.stage.tool("crashlog", "remove", "-n", "a")
        self.assertEqual(seen.status, 22)
        await self.stage.tool("crashlog", "remove", "-n", "a", "-t", str(moment(2, 1)))
        self.assertEqual(self.left(), ["uuid-3-2", "uuid-3-9", "uuid-4-1", "uuid-4-3"])
        await self.stage.tool("crashlog", "removeall", "-n", "a")
        self.assertEqual(self.left(), ["uuid-3-2"])

    async def test_clean_by_time(self) -> None:
        """What is older than a moment goes."""
        await self.stage.tool("crashlog", "clean", "-n", "a", "-t", str(moment(4)))
        self.assertEqual(self.left(), ["uuid-3-2", "uuid-4-1", "uuid-4-3"])

    async def test_clean_by_count(self) -> None:
        """The newest stay, as many as wanted (the original crashed here)."""
        seen = await self.stage.tool("crashlog", "clean", "-n", "a", "-s", "1")
        self.assertEqual(seen.status, 0)
        self.assertEqual(self.left(), ["uuid-3-2", "uuid-4-3"])
        seen = await self.stage.tool("crashlog", "clean", "-n", "a", "-s", "-1")
        self.assertEqual(seen.status, 22)

    async def test_clean_range(self) -> None:
        """A range of days is cleaned for all apps, also when they have few (the original did nothing then)."""
        seen = await self.stage.tool("crashlog", "cleanrange", "--from_day", "2")
        self.assertEqual(seen.err, "[✔] Removing 3 crashlogs\n")
        self.assertEqual(self.left(), ["uuid-4-1", "uuid-4-3"])
        await self.stage.tool("crashlog", "cleanrange", "--from_day", "4-3", "--up_to_day", "today")
        self.assertEqual(self.left(), [])

    async def test_many(self) -> None:
        """Hundreds are removed in batches."""
        for number in range(130):
            self.stage.storage.put("crashlogs", f"{number}:u{number}", [], "c", "cocaine-2026-03-01")
        await self.stage.tool("crashlog", "removeall", "-n", "c")
        self.assertEqual(len(self.left()), 5)


class Days(SynchronousTestCase):
    def test_what_is_missing_is_as_today(self) -> None:
        """A day needs its month and year only when they are others."""
        self.assertEqual(day("5", NOW), date(2026, 3, 5))
        self.assertEqual(day("5-1", NOW), date(2026, 1, 5))
        self.assertEqual(day("05-12-2016", NOW), date(2016, 12, 5))
        self.assertEqual(tag(day("today", NOW)), "cocaine-2026-03-04")

    def test_nonsense(self) -> None:
        """What is no day, no moment or no range is complained about."""
        for word in ("", "32", "1-13", "tomorrow", "1-1-1-1", "-"):
            self.assertRaises(WrongValue, day, word, NOW)
        for word in ("", "yesterday", "-5", "2026-03-04", "2026-03-04T25:00:00"):
            self.assertRaises(WrongValue, microseconds, word)
        self.assertRaises(WrongValue, between, date(2026, 3, 2), date(2026, 3, 1))
        self.assertRaises(WrongValue, between, date(1, 1, 1), date(2026, 3, 1))

    def test_moments(self) -> None:
        """A moment is microseconds or local time."""
        self.assertEqual(microseconds("1234567"), 1234567)
        local = datetime(2026, 3, 4, 5, 6, 7).astimezone()
        self.assertEqual(microseconds("2026-03-04T05:06:07"), int(local.timestamp()) * 1_000_000)
