"""Storage in files keeps the contract, off the reactor and within limits."""

import os

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, gatherResults
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import CocaineError, ConfigError, NotFound, Overloaded
from cocaine_tx.storage.files import FileStorage
from cocaine_tx.testing.storage import storage_contract


def started_threads(case):
    threads = ThreadPool(1, 4)
    threads.start()
    case.addCleanup(threads.stop)
    return threads


def make(case, **limits):
    storage = FileStorage(reactor, case.mktemp(), started_threads(case), **limits)
    case.addCleanup(storage.close)
    return storage


FileStorageTests = storage_contract(make)


class LimitTests(TestCase):
    async def test_too_many_waiting(self):
        """When too many operations wait, one more is refused at once and the others are served."""
        storage = make(self, limit=5)
        await storage.write("c", "k", b"v", [])
        answers = [storage.read("c", "k") for _ in range(5)]
        await self.assertFailure(storage.read("c", "k"), Overloaded)
        self.assertEqual(await gatherResults(answers), [b"v"] * 5)
        self.assertEqual(await storage.read("c", "k"), b"v")

    async def test_too_many_bytes_waiting(self):
        """Bytes that wait to be written are limited; one object of any size is not refused."""
        storage = make(self, byte_limit=1000)
        big = storage.write("c", "big", b"x" * 5000, [])
        await self.assertFailure(storage.write("c", "k", b"y", []), Overloaded)
        await big
        await storage.write("c", "k", b"y", [])
        self.assertEqual(len(await storage.read("c", "big")), 5000)

    async def test_given_up(self):
        """Who cancels his question is told so, and the others still get their answers."""
        storage = make(self)
        await storage.write("c", "k", b"v", [])
        first, second = storage.read("c", "k"), storage.read("c", "k")
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.assertEqual(await second, b"v")

    async def test_unusable_folder(self):
        """A folder that cannot be made is told to the operator by its path, and to callers without it."""
        path = self.mktemp()
        open(path, "w").close()
        storage = FileStorage(reactor, path, started_threads(self))
        self.addCleanup(storage.close)
        error = await self.assertFailure(storage.opened, ConfigError)
        self.assertIn(path, error.reason)
        await self.assertFailure(storage.read("c", "k"), NotFound)
        error = await self.assertFailure(storage.write("c", "k", b"", []), CocaineError)
        self.assertNotIn(path, error.reason)

    async def test_after_the_threads_have_stopped(self):
        """A question that comes after shut-down has an answer too."""
        threads = ThreadPool(1, 1)
        threads.start()
        storage = FileStorage(reactor, self.mktemp(), threads)
        await storage.close()
        threads.stop()
        await self.assertFailure(storage.read("c", "k"), CocaineError)

    async def test_descriptors(self):
        """A closed storage holds no descriptor."""
        await make(self).close()  # the reactor has its own descriptors now
        before = len(os.listdir("/proc/self/fd"))
        storage = FileStorage(reactor, self.mktemp(), started_threads(self))
        await storage.write("c", "k", b"v", ["t"])
        await storage.find("c", ["t"])
        await storage.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)
