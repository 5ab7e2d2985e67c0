"""An isolate whose processes the test itself plays, and the contract it shares with the real ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from ..errors import NotFound, SpawnFailed
from ..interfaces import Exit, IImage, IIsolate, IWorkerProcess, Launch


@implementer(IWorkerProcess)
class MemoryProcess:
    """
    A process that does what the test says.

    :ivar launch: what it was started with.
    :ivar kills: how often it was asked to end; it ends when the test calls `end`.
    """

    def __init__(self, pid: int, launch: Launch, output: Callable[[bytes], None], gone: Callable[[], None]) -> None:
        self.pid: int | None = None
        self.started: Deferred[None] = Deferred()
        self.exited: Deferred[Exit] = Deferred()
        self.launch = launch
        self.kills = 0
        self.running = False
        self.ended = False
        self._pid = pid
        self._output = output
        self._on_gone = gone

    def start(self) -> None:
        """The program runs."""
        self.pid = self._pid
        self.running = True
        self.started.callback(None)

    def refuse(self, reason: str) -> None:
        """The program cannot be run."""
        self._finish(Exit(code=127), reason)

    def say(self, data: bytes) -> None:
        """The program prints."""
        self._output(data)

    def end(self, how: Exit) -> None:
        """The program ends."""
        self._finish(how)

    def kill(self) -> None:
        if self.ended:
            return
        self.kills += 1
        if not self.running:
            self._finish(Exit(signal=9), "killed before it was started")

    def _finish(self, how: Exit, refusal: str | None = None) -> None:
        self.running = False
        self.ended = True
        self._on_gone()
        if refusal is not None:
            self._output(refusal.encode() + b"\n")
            self.started.errback(SpawnFailed(refusal))
        self.exited.callback(how)


@implementer(IImage)
class MemoryImage:
    """
    A version of an app.

    :ivar processes: what was spawned from it, oldest first.
    :ivar warmed: what it was told to get ready for.
    :ivar discarded: the isolate's user has no use for it any more.
    """

    def __init__(self, app: str, warming: Callable[[Launch], Deferred[None]] = lambda launch: succeed(None)) -> None:
        self.app = app
        self.processes: list[MemoryProcess] = []
        self.warmed: list[Launch] = []
        self.discarded = False
        self._warming = warming
        self._waiting: list[Deferred[None]] = []

    def warm(self, launch: Launch) -> Deferred[None]:
        self.warmed.append(launch)
        return self._warming(launch)

    def spawn(self, launch: Launch, output: Callable[[bytes], None]) -> MemoryProcess:
        process = MemoryProcess(1000 + len(self.processes), launch, output, self._gone)
        self.processes.append(process)
        return process

    def discard(self) -> Deferred[None]:
        self.discarded = True
        answer: Deferred[None] = Deferred()
        self._waiting.append(answer)
        self._gone()
        return answer

    def _gone(self) -> None:
        if self.discarded and all(process.ended for process in self.processes):
            waiting, self._waiting = self._waiting, []
            for answer in waiting:
                answer.callback(None)


@implementer(IIsolate)
class MemoryIsolate:
    """
    Spools at once, or as the test says.

    :param spooling: called with the app's name for each spool, which waits for its answer and fails as it fails.
    :param warming: the same for each image that is to get ready.
    :ivar images: all that was spooled, oldest first.
    :ivar sweeps: how often it was swept.
    """

    def __init__(
        self,
        spooling: Callable[[str], Deferred[Any]] = lambda app: succeed(None),
        warming: Callable[[Launch], Deferred[None]] = lambda launch: succeed(None),
    ) -> None:
        self.images: list[MemoryImage] = []
        self.sweeps = 0
        self._spooling = spooling
        self._warming = warming

    @property
    def processes(self) -> list[MemoryProcess]:
        """What was spawned from any image."""
        return [process for image in self.images for process in image.processes]

    def spool(self, app: str) -> Deferred[IImage]:
        return Deferred.fromCoroutine(self._spool(app))

    def sweep(self) -> Deferred[None]:
        self.sweeps += 1
        return succeed(None)

    async def _spool(self, app: str) -> IImage:
        await self._spooling(app)
        image = MemoryImage(app, self._warming)
        self.images.append(image)
        return image


class IsolateBench(Protocol):
    """How the contract plays the programs of one isolate. Every app but ``missing`` can be spooled."""

    @property
    def isolate(self) -> IIsolate: ...

    def launch(self) -> Launch:
        """A program that runs until it is told to end; each time another one."""

    def broken(self) -> Launch:
        """A program that cannot be run."""

    def begins(self, process: IWorkerProcess) -> None:
        """Let its program run, or fail to."""

    def says(self, process: IWorkerProcess, launch: Launch, word: str) -> None:
        """Let the program print the word and a newline."""

    def ends(self, process: IWorkerProcess, launch: Launch, code: int) -> None:
        """Let the program end by itself."""

    def obeys(self, process: IWorkerProcess) -> None:
        """Let the program end as it was told to by ``kill``."""

    def moment(self) -> Awaitable[object]:
        """Give it time to do what it has to."""


def isolate_contract(make: Callable[[TestCase], IsolateBench]) -> type[TestCase]:
    """
    The contract for one isolate.

    :param make: gives a new bench; told the running test.
    :return: a TestCase; bind it to a name in a test module.
    """

    class IsolateContract(TestCase):
        def setUp(self) -> None:
            self.bench = make(self)
            self.isolate = self.bench.isolate

        async def until(self, told: Callable[[], bool]) -> None:
            while not told():
                await self.bench.moment()

        async def refused(self, answer: Deferred[Any], kind: type[Exception]) -> None:
            try:
                await answer
            except kind:
                return
            self.fail(f"{kind.__name__} was expected")

        async def running(self) -> tuple[IImage, IWorkerProcess, Launch, list[bytes]]:
            image = await self.isolate.spool("app")
            launch, output = self.bench.launch(), list[bytes]()
            process = image.spawn(launch, output.append)
            self.bench.begins(process)
            await process.started
            return image, process, launch, output

        async def test_interfaces(self) -> None:
            """It can stand wherever an isolate is asked for."""
            verifyObject(IIsolate, self.isolate)
            image, process, launch, _ = await self.running()
            verifyObject(IImage, image)
            verifyObject(IWorkerProcess, process)
            self.bench.ends(process, launch, 0)
            await process.exited
            await image.discard()

        async def test_life(self) -> None:
            """A program runs, its words reach the owner as they come, and its status at the end."""
            image, process, launch, output = await self.running()
            self.assertIsInstance(process.pid, int)
            self.bench.says(process, launch, "hello")
            await self.until(lambda: b"".join(output) == b"hello\n")
            self.assertFalse(process.exited.called)
            self.bench.says(process, launch, "bye")
            self.bench.ends(process, launch, 3)
            self.assertEqual(await process.exited, Exit(code=3))
            self.assertEqual(b"".join(output), b"hello\nbye\n")
            process.kill()
            await image.discard()

        async def test_kill(self) -> None:
            """A killed program ends once, however often it is told."""
            image, process, _, _ = await self.running()
            process.kill()
            process.kill()
            self.bench.obeys(process)
            self.assertEqual(await process.exited, Exit(signal=15))
            process.kill()
            await image.discard()

        async def test_kill_before_start(self) -> None:
            """A program killed before it was started never starts, and its owner is told both."""
            image = await self.isolate.spool("app")
            process = image.spawn(self.bench.launch(), lambda data: None)
            process.kill()
            await self.refused(process.started, SpawnFailed)
            await process.exited
            await image.discard()

        async def test_cannot_be_run(self) -> None:
            """A program that cannot be run fails its start, says why in its output, and ends."""
            image = await self.isolate.spool("app")
            output: list[bytes] = []
            process = image.spawn(self.bench.broken(), output.append)
            self.bench.begins(process)
            await self.refused(process.started, SpawnFailed)
            self.assertEqual(await process.exited, Exit(code=127))
            self.assertTrue(b"".join(output))
            process.kill()
            await image.discard()

        async def test_warm(self) -> None:
            """Getting ready comes to its end, twice too, whatever the program is, and workers start as ever."""
            image = await self.isolate.spool("app")
            launch, output = self.bench.launch(), list[bytes]()
            await image.warm(self.bench.broken())
            await image.warm(self.bench.broken())
            process = image.spawn(launch, output.append)
            self.bench.begins(process)
            await process.started
            self.bench.says(process, launch, "hello")
            await self.until(lambda: b"".join(output) == b"hello\n")
            self.bench.ends(process, launch, 3)
            self.assertEqual(await process.exited, Exit(code=3))
            await image.discard()

        async def test_missing_app(self) -> None:
            """An app that was never uploaded cannot be spooled."""
            await self.refused(self.isolate.spool("missing"), NotFound)

        async def test_versions(self) -> None:
            """Two versions of an app stand side by side, and one goes without the other."""
            image, process, launch, _ = await self.running()
            other, second, launch_2, output = await self.running()
            self.bench.ends(process, launch, 0)
            await process.exited
            await image.discard()
            self.bench.says(second, launch_2, "still here")
            await self.until(lambda: bool(output))
            self.bench.ends(second, launch_2, 0)
            await second.exited
            await other.discard()

        async def test_discard_waits(self) -> None:
            """A version is not taken from under a process that runs from it, and can be discarded twice."""
            image, process, launch, _ = await self.running()
            first = image.discard()
            await self.bench.moment()
            self.assertFalse(first.called)
            self.bench.ends(process, launch, 0)
            await first
            await process.exited
            await image.discard()

        async def test_sweep(self) -> None:
            """A sweep leaves alone what is in use."""
            image, process, launch, output = await self.running()
            await self.isolate.sweep()
            self.bench.says(process, launch, "alive")
            await self.until(lambda: bool(output))
            self.bench.ends(process, launch, 0)
            self.assertEqual(await process.exited, Exit(code=0))
            await image.discard()

    return IsolateContract
