"""The contract of `IStorage`, as a TestCase that every provider in this package, and any stranger's, can run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from ..errors import CocaineError, InvalidArgument, NotFound
from ..interfaces import IStorage

BAD_NAMES = ("", ".", "..", "a/b", "/", "../up", "nul\0nul", "x" * 256, "\u20ac" * 86, "\ud800", ".~writing.1")
GOOD_NAMES = (".collection-acls", "1234567890123456:6ba7b810-9dad", "raw\udcff\udc80", "x" * 255, "...", "sp ace", "-n")


def storage_contract(make: Callable[[TestCase], IStorage]) -> type[TestCase]:
    """
    The contract for one provider.

    :param make: gives a new, empty storage; told the running test, for its ``addCleanup`` and ``mktemp``.
    :return: a TestCase; bind it to a name in a test module.
    """

    class StorageContract(TestCase):
        def setUp(self) -> None:
            self.storage = make(self)

        async def names(self, collection: str, *tags: str) -> list[str]:
            return await self.storage.find(collection, tags)

        async def refused(self, answer: Deferred[Any], kind: type[CocaineError]) -> CocaineError:
            try:
                await answer
            except kind as error:
                return error
            self.fail(f"{kind.__name__} was expected")

        def test_provides_the_interface(self) -> None:
            """It can stand wherever a storage is asked for."""
            verifyObject(IStorage, self.storage)

        async def test_what_was_written_is_read(self) -> None:
            """Bytes of any size and content come back as they went in."""
            for size in (0, 1, 100, 4095, 4096, 4097, 70_000, 1_000_000):
                blob = Random(size).randbytes(size)
                await self.storage.write("manifests", "app", blob, [])
                self.assertEqual(await self.storage.read("manifests", "app"), blob)

        async def test_too_many_tags(self) -> None:
            """Nobody waits for an object with thousands of tags to be written."""
            tags = [f"tag{number}" for number in range(257)]
            await self.storage.write("manifests", "app", b"", tags[:256])
            self.assertEqual(await self.names("manifests", "tag0", "tag255"), ["app"])
            await self.refused(self.storage.write("manifests", "other", b"", tags), InvalidArgument)
            await self.refused(self.storage.read("manifests", "other"), NotFound)

        async def test_absent_objects(self) -> None:
            """Who reads what is not there is told so, by the names he used."""
            error = await self.refused(self.storage.read("manifests", "app"), NotFound)
            self.assertEqual(error.reason, "manifests/app: No such file or directory")
            await self.storage.write("manifests", "other", b"", ["app"])
            await self.refused(self.storage.read("manifests", "app"), NotFound)
            await self.refused(self.storage.read("manifests", "oth"), NotFound)

        async def test_remove(self) -> None:
            """A removed object is gone, its tags too; removing again, or what never was, succeeds."""
            await self.storage.write("apps", "one", b"1", ["app"])
            await self.storage.remove("apps", "one")
            await self.storage.remove("apps", "one")
            await self.storage.remove("nowhere", "one")
            await self.refused(self.storage.read("apps", "one"), NotFound)
            self.assertEqual(await self.names("apps", "app"), [])

        async def test_removing_a_tag_by_name(self) -> None:
            """A tag is not an object: removing its name leaves the tagged objects alone."""
            await self.storage.write("apps", "one", b"1", ["app"])
            await self.storage.remove("apps", "app")
            self.assertEqual(await self.names("apps", "app"), ["one"])

        async def test_find_wants_all_tags(self) -> None:
            """Found are the keys with every tag asked for, sorted; none for no tags, strange tags or collections."""
            await self.storage.write("groups", "b", b"", ["group", "active"])
            await self.storage.write("groups", "a", b"", ["active", "group", "group"])
            await self.storage.write("groups", "c", b"", ["group"])
            self.assertEqual(await self.names("groups", "group"), ["a", "b", "c"])
            self.assertEqual(await self.names("groups", "group", "active"), ["a", "b"])
            self.assertEqual(await self.names("groups", "active", "active"), ["a", "b"])
            for tags in ((), ("strange",), ("group", "strange"), ("a",), ("group", "a")):
                self.assertEqual(await self.names("groups", *tags), [])
            self.assertEqual(await self.names("strange", "group"), [])

        async def test_tags_are_exactly_the_given(self) -> None:
            """Writing again without a tag takes it away."""
            await self.storage.write("groups", "g", b"1", ["group", "active"])
            await self.storage.write("groups", "g", b"2", ["group", "new"])
            self.assertEqual(await self.names("groups", "active"), [])
            self.assertEqual(await self.names("groups", "new"), ["g"])
            await self.storage.write("groups", "g", b"3", [])
            self.assertEqual(await self.names("groups", "group"), [])
            self.assertEqual(await self.storage.read("groups", "g"), b"3")

        async def test_usable_names(self) -> None:
            """Odd names work everywhere, also bytes that are no UTF-8."""
            for name in GOOD_NAMES:
                await self.storage.write(name, name, name.encode("utf-8", "surrogateescape"), ["t", name[:-1] + "T"])
                self.assertEqual(
                    await self.storage.read(name, name), name.encode("utf-8", "surrogateescape"), repr(name)
                )
                self.assertEqual(await self.names(name, "t", name[:-1] + "T"), [name])
                await self.storage.remove(name, name)

        async def test_unusable_names(self) -> None:
            """A name that cannot be used is refused wherever it stands, and nothing changes."""
            await self.storage.write("c", "k", b"kept", ["t"])
            for name in BAD_NAMES:
                attempts: tuple[Callable[[], Deferred[Any]], ...] = (
                    partial(self.storage.read, name, "k"),
                    partial(self.storage.read, "c", name),
                    partial(self.storage.write, name, "k", b"", []),
                    partial(self.storage.write, "c", name, b"", []),
                    partial(self.storage.write, "c", "k", b"", ["t", name]),
                    partial(self.storage.remove, name, "k"),
                    partial(self.storage.remove, "c", name),
                    partial(self.storage.find, name, ["t"]),
                    partial(self.storage.find, "c", [name]),
                )
                for attempt in attempts:
                    await self.refused(attempt(), InvalidArgument)
            self.assertEqual(await self.storage.read("c", "k"), b"kept")
            self.assertEqual(await self.names("c", "t"), ["k"])

        async def test_a_key_called_as_a_tag(self) -> None:
            """An object cannot take the name of a tag in use, nor a tag that of an object; both stay as they were."""
            await self.storage.write("c", "k", b"old", ["t"])
            for key, tags in (("t", []), ("other", ["k"]), ("same", ["same"])):
                await self.refused(self.storage.write("c", key, b"new", tags), InvalidArgument)
            self.assertEqual(await self.storage.read("c", "k"), b"old")
            self.assertEqual(await self.names("c", "t"), ["k"])
            await self.refused(self.storage.read("c", "other"), NotFound)

        async def test_a_tag_out_of_use(self) -> None:
            """The name of a tag that no object carries any more is free."""
            await self.storage.write("c", "k", b"old", ["t"])
            await self.storage.remove("c", "k")
            await self.storage.write("c", "t", b"new", ["k"])
            self.assertEqual(await self.storage.read("c", "t"), b"new")

        async def test_order(self) -> None:
            """Operations asked for without waiting take effect in the order they were asked for."""
            answers = []
            for number in range(20):
                self.storage.write("c", "k", b"%d" % number, ["t"])
                answers.append(self.storage.read("c", "k"))
            self.storage.remove("c", "k")
            gone = self.storage.read("c", "k")
            self.assertEqual([await answer for answer in answers], [b"%d" % number for number in range(20)])
            await self.refused(gone, NotFound)

        async def test_any_history(self) -> None:
            """After any history of writes and removals it holds what a plain table would hold."""
            random = Random(12)
            table: dict[tuple[str, str], tuple[bytes, set[str]]] = {}
            collections, keys, tags = ("a", "b"), ("k1", "k2", "k3"), ("t1", "t2", "t3")
            for _ in range(120):
                collection, key = random.choice(collections), random.choice(keys)
                if random.random() < 0.7:
                    blob, carried = random.randbytes(random.randrange(200)), random.sample(tags, random.randrange(4))
                    await self.storage.write(collection, key, blob, carried)
                    table[collection, key] = (blob, set(carried))
                else:
                    await self.storage.remove(collection, key)
                    table.pop((collection, key), None)
                asked = random.sample(tags, random.randrange(1, 3))
                expected = sorted(k for (c, k), (_, had) in table.items() if c == collection and had >= set(asked))
                self.assertEqual(await self.names(collection, *asked), expected)
            for (collection, key), (blob, _) in table.items():
                self.assertEqual(await self.storage.read(collection, key), blob)

    return StorageContract
