"""The node service as tools and gateways see it: its answers, its error pairs and its texts."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred, fail
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import CocaineError, ComponentNotFound
from cocaine_tx.node.crashlog import AWAY, CrashLogs, Output
from cocaine_tx.wire.frames import pack, unpack

from .stage import Call, Stage, echo, idle

#: The keys of ``info`` with flag 1: the original's (capture ``app-info``) and those that are ours.
OURS = {b"published", b"load-median", b"credits", b"http-streaming"}
KEYS = OURS | {
    b"state", b"publushed", b"uptime", b"profile", b"requests", b"queue", b"rate", b"rate_mean", b"timings",
    b"timings_reversed", b"load", b"pool",
}  # fmt: skip


class ServiceCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.client = self.stage.client()


class StartTests(ServiceCase):
    def refused(self, expected: tuple[int, int, str], manifest: Any = None, profile: Any = None) -> None:
        """The start fails with that, and the app does not hold its name."""
        for collection, value in (("manifests", manifest), ("profiles", profile)):
            if value is not None:
                self.stage.storage.write(collection, "x", value, [])
        self.assertEqual(self.client.call("start_app", "x", "x"), expected)
        self.assertEqual(self.client.call("list"), ())

    def test_refusals(self) -> None:
        """Lessons 21, 29, 30: each thing wrong in storage has its own clear answer, and nothing is half made."""
        self.refused((12, 2, "manifests/x: No such file or directory"))
        for blob in (b"\xc1", b"\x05", b""):
            self.stage.storage.write("manifests", "x", blob, [])
            category, code, text = self.client.call("start_app", "x", "x")
            self.assertEqual((category, code), (7, 7), text)
        self.refused((12, 22, "runnable object has not been specified"), pack({}))
        self.refused(
            (12, 22, "environment should be a map of string -> string"), pack({"slave": "x", "environment": {"a": 1}})
        )
        self.refused((12, 2, "profiles/x: No such file or directory"), pack({"slave": "x"}))
        self.refused((12, 22, "engine pool limit must be positive"), None, pack({"pool-limit": 0}))
        self.refused((12, 22, "slave heartbeat timeout must be positive"), None, pack({"heartbeat-timeout": 0}))

    def test_unknown_isolate(self) -> None:
        """A profile whose isolate nobody has is refused before the app holds its name."""

        def isolate(type: str, args: Any) -> Any:
            raise ComponentNotFound(f"isolate.type: {type!r} is not known here")

        object.__setattr__(self.stage.around, "isolate", isolate)
        self.stage.upload("x", profile={"isolate": {"type": "vm"}})
        self.assertEqual(self.client.call("start_app", "x", "x"), (8, 7, "isolate.type: 'vm' is not known here"))
        self.assertEqual(self.client.call("list"), ())

    def test_core_service(self) -> None:
        """Lesson 26: an app named like a core service is refused, and the service is not touched."""
        self.stage.upload("storage")
        self.assertEqual(
            self.client.call("start_app", "storage", "storage"), (12, 22, "service 'storage' already exists")
        )
        self.assertEqual(self.client.call("list"), ())

    def test_twice(self) -> None:
        """Starting what is there says in which state it is."""
        self.stage.start()
        self.assertEqual(
            self.client.call("start_app", "hello", "hello"),
            (0x51FF, 5, "app 'hello' is running: application has already been started"),
        )

    def test_slow_storage(self) -> None:
        """Two starts of one app at the same time: one wins, however slow storage is; other calls do not wait."""
        answers: list[Deferred[bytes]] = []

        def read(collection: str, key: str) -> Deferred[bytes]:
            answers.append(Deferred())
            return answers[-1]

        self.stage.storage.read = read  # type: ignore[method-assign]
        results: list[list[Any]] = [[], []]
        for result in results:
            self.client.remote.call("start_app", "x", "x").addErrback(lambda failure: failure.value.pair).addBoth(
                result.append
            )
        self.stage.settle()
        self.assertEqual((results, len(answers)), ([[], [(0x51FF, 5)]], 1))
        self.assertEqual(self.client.call("list"), ())
        answers.pop().errback(CocaineError("storage is down"))
        self.stage.settle()
        self.assertEqual(results[0], [(12, 22)])

    def test_run_list(self) -> None:
        """Apps of the runlist start; what cannot, and even a core service's name, hinders nobody else."""
        stage = self.stage
        for name in ("a", "c", "storage"):
            stage.upload(name)
        runlist = {"a": "a", "b": "b", "c": "c", "storage": "storage"}
        stage.storage.write("runlists", "default", pack(runlist), [])
        for name in ("default", "nosuch"):
            done = Deferred.fromCoroutine(stage.service.run_list(name))
            stage.settle()
            self.successResultOf(done)
        stage.storage.write("runlists", "bad", b"\x01", [])
        self.successResultOf(Deferred.fromCoroutine(stage.service.run_list("bad")))
        self.assertEqual(self.client.call("list"), (b"a", b"c"))


class CallsTests(ServiceCase):
    def test_not_here(self) -> None:
        """What does not run here answers with the original's pairs and texts."""
        self.assertEqual(
            self.client.call("pause_app", "x"), (0x51FF, 6, "app 'x' is not running: application is not running")
        )
        self.assertEqual(self.client.call("info", "x")[:2], (12, 22))

    def test_enqueue_unknown(self) -> None:
        """An event for an unknown app is refused; the rest of its stream is swallowed and the connection serves on."""
        call = Call()
        call.channel = self.client.remote.open("enqueue", "x", "ping", receiver=call)
        call.channel.chunk(b"1")
        self.stage.settle()
        self.assertEqual(call.ends, [(0x51FF, 6, "application x is not found")])
        call.channel.send("write", b"2")
        call.channel.send("close")
        self.assertEqual(self.client.call("list"), ())
        self.assertEqual(len(self.client.server.session), 0)

    def test_control_unknown(self) -> None:
        """Manual control of an unknown app does nothing, and does not cost the connection."""
        channel = self.client.remote.open("control", "x")
        channel.chunk(3)
        channel.choke()
        self.assertEqual(self.client.call("list"), ())

    def test_control_nonsense(self) -> None:
        """A controller that sends text is cut off, and the pool is automatic again."""
        stage = self.stage
        stage.start(profile={"pool-limit": 3})
        other = stage.client()
        channel = other.remote.open("control", "hello")
        channel.chunk(2)
        stage.settle()
        self.assertEqual(len(stage.alive), 2)
        channel.send("write", "many")
        stage.settle()
        self.assertEqual((other.server.gone, stage.pool()._manual), (True, 0))

    def test_app_service(self) -> None:
        """The app's own service takes events and a tag, shows its info, and outlives the app for those connected."""
        stage = self.stage
        stage.start()
        client = stage.client(stage.published["hello"])
        call = client.enqueue(b"x")
        call_2 = Call()
        channel = client.remote.open("enqueue", "ping", "tag", receiver=call_2)
        channel.choke()
        stage.settle()
        self.assertEqual((call.ends, call_2.ends), (["close"], ["close"]))
        shown = client.call("info")
        self.assertEqual(set(shown), KEYS - {b"state", b"publushed", b"published"})
        control = client.remote.open("control")
        control.chunk(2)
        stage.settle()
        self.assertEqual(len(stage.alive), 2)
        self.client.call("pause_app", "hello")
        late = client.enqueue()
        self.assertEqual(client.call("info"), (12, 32, "the application has been stopped: Broken pipe"))
        self.assertEqual(late.error, (12, 32))


class InfoTests(ServiceCase):
    def test_keys(self) -> None:
        """Every key of the original is there, at every depth, and ours beside them."""
        stage = self.stage
        stage.start(profile={"queue-limit": 7, "pool-limit": 1, "concurrency": 2}, owner="me")
        stage.act = idle
        for _ in range(3):
            self.client.enqueue()
        stage.settle()
        stage.wait(1.5)
        shown = self.client.call("info", "hello", 7)
        self.assertEqual(set(shown), KEYS | {b"manifest"})
        self.assertEqual(set(shown[b"requests"]), {b"accepted", b"rejected", b"worked-for-nobody"})
        self.assertEqual(set(shown[b"queue"]), {b"capacity", b"depth", b"depth_average", b"oldest_event_age"})
        self.assertEqual((shown[b"queue"][b"capacity"], shown[b"queue"][b"depth"]), (7, 1))
        self.assertGreater(shown[b"queue"][b"oldest_event_age"], 1400)
        pool = shown[b"pool"]
        self.assertEqual(
            set(pool), {b"active", b"idle", b"capacity", b"total:spawned", b"total:crashed", b"slaves"}
        )
        self.assertEqual((pool[b"active"], pool[b"idle"], pool[b"capacity"], shown[b"load"]), (1, 0, 1, 2))
        (worker,) = pool[b"slaves"].values()
        self.assertEqual(
            {key: worker[key] for key in (b"state", b"accepted", b"load:tx", b"load:rx", b"load:total", b"uptime")},
            {b"state": b"active", b"accepted": 2, b"load:tx": 0, b"load:rx": 2, b"load:total": 2, b"uptime": 1},
        )
        self.assertEqual(set(worker) - {b"state", b"accepted", b"load:tx", b"load:rx", b"load:total", b"uptime"},
                         {b"oldest_channel_age", b"profile"})  # fmt: skip
        self.assertEqual((shown[b"manifest"][b"owner"], shown[b"profile"][b"data"][b"queue-limit"]), (b"me", 7))

    def test_brief(self) -> None:
        """Without flags there is little; any number is a set of flags."""
        self.stage.start()
        self.assertEqual(
            self.client.call("info", "hello"),
            {b"state": b"running", b"uptime": 0, b"publushed": True, b"published": True},
        )
        for flags in (-1, 2**40, 6):
            self.assertEqual(self.client.call("info", "hello", flags)[b"state"], b"running")

    def test_cheap(self) -> None:
        """A report looks at each worker a few times, and at what it has already counted, never at its history."""
        stage = self.stage
        stage.start(profile={"pool-min": 10})
        pool = stage.pool()
        for _ in range(1000):
            pool.tally.timings.record(0.01, 0.0)
        looks: list[str] = []
        with mock.patch("cocaine_tx.node.workers.state_of", lambda life: looks.append("look") or "active"):
            stage.service.info("hello", 1)
        self.assertEqual(len(looks), 10)

    def test_states_of_workers(self) -> None:
        """A worker's state is shown by the original's names."""
        stage = self.stage
        stage.act = None
        stage.start(profile={"pool-min": 1})

        def state() -> bytes:
            (worker,) = self.client.call("info", "hello", 1)[b"pool"][b"slaves"].values()
            shown: bytes = worker[b"state"]
            return shown

        (process,) = stage.isolate.processes
        self.assertEqual(state(), b"spawning")
        process.start()
        self.assertEqual(state(), b"handshaking")
        puppet = stage.connect(process)
        puppet.act = lambda puppet, frame: None
        puppet.say([1, 0, [puppet.uuid]])
        self.assertEqual(state(), b"active")


class CrashLogTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Lesson 14: lines are put together from pieces; long ones are cut into several; the tail is kept."""
        output = Output(3)
        for piece in (b"a", b"b\nc", b"\n\nlast"):
            output.write(piece)
        self.assertEqual(output.lines(), [b"ab", b"c", b"", b"last"])
        output.write(b"x" * 20000 + b"\n")
        self.assertEqual([len(line) for line in output.lines()], [8192, 8192, 3620])

    def test_flood(self) -> None:
        """Whatever a worker prints, only so much is kept."""
        output = Output(50)
        for _ in range(200):
            output.write(b"y" * 65536)
        self.assertLessEqual(sum(map(len, output.lines())), 51 * 8192)

    def test_every_line_is_told(self) -> None:
        """With log-output each line goes to the log, in order."""
        told: list[bytes] = []
        output = Output(1, told.append)
        output.write(b"1\n2\n3")
        output.write(b"\n")
        self.assertEqual(told, [b"1", b"2", b"3"])

    def test_limit(self) -> None:
        """Storage keeps the newest crash logs of an app, and no more than so many; what is no time goes first."""
        stage = Stage()
        self.successResultOf(stage.storage.write("crashlogs", "\u00b2:foreign", b"", ["hello"]))
        moments = iter(range(1, 100))
        logs = CrashLogs(stage.storage, "hello", kept=3, now=lambda: float(next(moments)))
        for number in range(5):
            self.successResultOf(Deferred.fromCoroutine(logs.store(f"u{number}", [b"x"])))
        self.assertEqual(
            self.successResultOf(stage.storage.find("crashlogs", ["hello"])),
            ["3000000:u2", "4000000:u3", "5000000:u4"],
        )
        self.assertEqual(len(self.successResultOf(stage.storage.find("crashlogs", ["cocaine-1970-01-01"]))), 3)

    def test_storage_down(self) -> None:
        """Storage that fails costs the log; storage that never answers does not fill the memory."""
        stage = Stage()
        stage.storage.write = lambda *args: fail(CocaineError("down"))  # type: ignore[method-assign]
        logs = CrashLogs(stage.storage, "hello")
        self.successResultOf(Deferred.fromCoroutine(logs.store("u", [b"x"])))
        stage.storage.write = lambda *args: Deferred()  # type: ignore[method-assign]
        pending = [Deferred.fromCoroutine(logs.store("u", [b"x"])) for _ in range(AWAY)]
        self.successResultOf(Deferred.fromCoroutine(logs.store("u", [b"x"])))
        for each in pending:
            self.assertNoResult(each)

    def test_program_that_cannot_start(self) -> None:
        """Why a program could not be started is in its crash log, once."""
        stage = Stage()
        stage.act = None
        stage.start(profile={"pool-min": 1})
        stage.isolate.processes[0].refuse("main: Permission denied")
        stage.settle()
        (key,) = self.successResultOf(stage.storage.find("crashlogs", ["hello"]))
        lines = unpack(self.successResultOf(stage.storage.read("crashlogs", key)))
        self.assertEqual(lines, (b"main: Permission denied",))

    def logged(self) -> list[Any]:
        """What is said from now on."""
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def test_strange_key(self) -> None:
        """A misspelt key of a profile is said in the node's log; the old names of keys are not."""
        events = self.logged()
        stage = Stage()
        stage.act = echo
        stage.start(profile={"pool-limt": 3, "startup-timeout": 2, "queue-limit": 5})
        self.assertEqual([event["key"] for event in events if "key" in event], ["pool-limt"])

    def test_log_output(self) -> None:
        """With log-output a worker's lines are in the node's log under the app's name."""
        events = self.logged()
        stage = Stage()
        stage.act = echo
        stage.start(profile={"pool-min": 1, "log-output": True})
        stage.isolate.processes[0].say(b"hello from the worker\n")
        lines = [event["line"] for event in events if event.get("app") == "hello" and "line" in event]
        self.assertEqual(lines, ["hello from the worker"])
