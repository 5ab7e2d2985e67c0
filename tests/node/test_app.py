"""An app's career: started, paused, replaced, drained, broken, and found by its clients."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import ArchiveError, PublishError
from cocaine_tx.interfaces import Exit
from cocaine_tx.node.career import begin_career
from cocaine_tx.node.lifecycle import state_of
from cocaine_tx.testing.isolate import MemoryIsolate

from .stage import Stage, answer, deaf, echo, idle

NOT_RUNNING, STOPPED, STARTED = (0x51FF, 6), (12, 32), (0x51FF, 5)


class CareerTests(SynchronousTestCase):
    def test_every_pair(self) -> None:
        """Each input in each state leads where the table says and does that."""
        ways: dict[str, list[str]] = {
            "stopped": [], "spooling": ["start"], "running": ["start", "spooled"], "broken": ["start", "failed"],
            "stopping": ["start", "stop"],
        }  # fmt: skip
        table = {
            ("stopped", "start"): ("spooling", "spool"),
            ("spooling", "spooled"): ("running", "opened"),
            ("spooling", "failed"): ("broken", "broke"),
            ("spooling", "stop"): ("stopping", "abandon"),
            ("running", "stop"): ("stopping", "close"),
            ("broken", "stop"): ("stopping", "close"),
            ("stopping", "gone"): ("stopped", "finished"),
        }
        for state, way in ways.items():
            for name in ("start", "spooled", "failed", "stop", "gone"):
                acts = mock.Mock()
                career = begin_career(acts)
                for step in way:
                    getattr(career, step)()
                acts.reset_mock()
                getattr(career, name)()
                following, act = table.get((state, name), (state, None))
                done = [call[0] for call in acts.method_calls]
                self.assertEqual((state_of(career), done), (following, [act] if act else []), f"{name} in {state}")


class AppCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.client = self.stage.client()

    def later(self, method: str, *args: Any) -> list[Any]:
        """A call whose answer is awaited elsewhere."""
        result: list[Any] = []
        self.client.remote.call(method, *args).addBoth(lambda done: result.append(answer([done])))
        self.stage.settle()
        return result


class StartTests(AppCase):
    def test_thresholds(self) -> None:
        """Lesson 28: the service is offered from publish-on active workers and withdrawn below unpublish-under."""
        stage = self.stage
        stage.start(profile={"publish-on": 2, "unpublish-under": 2, "pool-min": 2})
        self.assertEqual(list(stage.published), ["hello"])
        dispatch = stage.published["hello"]
        stage.end(stage.isolate.processes[0], Exit(signal=9))
        self.assertEqual(list(stage.published), [])
        self.assertIs(self.client.call("info", "hello")[b"publushed"], False)
        stage.wait(1.5)
        self.assertIs(stage.published["hello"], dispatch)

    def test_not_before(self) -> None:
        """An app with publish-on is running, and served through the node, before it is offered."""
        self.stage.act = None
        self.stage.start(profile={"publish-on": 1, "pool-min": 1})
        self.assertEqual(self.stage.published, {})
        self.assertEqual(self.client.call("info", "hello")[b"state"], b"running")
        self.stage.bring_up(self.stage.isolate.processes[0])
        self.assertEqual(list(self.stage.published), ["hello"])

    def test_publish_fails(self) -> None:
        """Lesson 27: a service that cannot be offered breaks the start with a reason, and frees what it had."""
        stage = self.stage
        stage.upload()
        for refusal, expected in (
            (PublishError("no ports left"), (0x51FF, 8, "no ports left")),
            (OSError("odd"), (0x51FF, 8, "app 'hello' cannot be published: odd")),
        ):
            stage.refusal = refusal
            self.assertEqual(self.client.call("start_app", "hello", "hello"), expected)
            shown = self.client.call("info", "hello", 1)
            self.assertEqual((shown[b"state"], shown[b"error"]), (b"broken", 8))
            self.assertEqual((stage.leftovers(), stage.machine.sockets), ([], {}))
            self.assertEqual(self.client.call("pause_app", "hello"), ())

    def test_unwritable_folder(self) -> None:
        """A runtime folder that cannot be written breaks the start with the socket's path in the reason."""
        self.stage.machine.unwritable = True
        self.stage.upload()
        category, code, text = self.client.call("start_app", "hello", "hello")
        self.assertEqual((category, code), (0x51FF, 8))
        self.assertRegex(text, r"the workers' socket run/hello\.\d+ cannot be opened: .*Permission denied")
        self.assertEqual(self.stage.leftovers(), [])

    def test_spool_fails(self) -> None:
        """A damaged archive leaves the app broken with its error; pausing and starting again mends it."""
        stage = self.stage
        fault: list[Exception] = [ArchiveError("cut off"), ValueError("what")]

        def spooling(app: str) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            done.errback(fault.pop(0)) if fault else done.callback(None)
            return done

        stage.isolate = MemoryIsolate(spooling)
        stage.upload()
        self.assertEqual(self.client.call("start_app", "hello", "hello"), (255, 84, "cut off"))
        self.assertEqual(
            self.client.call("info", "hello", 1), {b"state": b"broken", b"error": 84, b"cause": b"cut off"}
        )
        self.assertEqual(
            self.client.call("start_app", "hello", "hello"),
            (*STARTED, "app 'hello' is broken: application has already been started"),
        )
        self.assertEqual(self.client.call("pause_app", "hello"), ())
        self.assertEqual(self.client.call("start_app", "hello", "hello"), (0x51FF, 7, "ValueError: what"))
        self.flushLoggedErrors(ValueError)
        self.client.call("pause_app", "hello")
        self.assertEqual(self.client.call("start_app", "hello", "hello"), ())
        self.assertEqual(stage.client().enqueue().error, None)

    def test_pause_while_spooling(self) -> None:
        """Lesson 22: an app can be paused while its code comes; the late end of that finds nobody."""
        stage, late = self.stage, Deferred[None]()
        given_up: list[str] = []
        stage.isolate = MemoryIsolate(lambda app: Deferred(lambda _: given_up.append(app)))
        stage.upload()
        started = self.later("start_app", "hello", "hello")
        self.assertEqual(self.client.call("info", "hello", 1), {b"state": b"spooling"})
        self.assertEqual(self.client.enqueue().ends, [])
        self.assertEqual(self.client.call("pause_app", "hello"), ())
        self.assertEqual(started, [(*NOT_RUNNING, "app 'hello' was stopped while it was being started")])
        self.assertEqual((given_up, stage.leftovers()), (["hello"], []))
        stage.isolate = MemoryIsolate(lambda app: late)
        started = self.later("start_app", "hello", "hello")
        late.callback(None)
        stage.settle()
        self.assertEqual(started, [()])


class PauseTests(AppCase):
    def test_waiting_and_running(self) -> None:
        """Pausing refuses what waits, lets workers finish within terminate-timeout, and ends the rest as discarded."""
        stage = self.stage
        stage.act = idle
        stage.start(profile={"pool-limit": 1, "concurrency": 2})
        direct = stage.client(stage.published["hello"])
        calls = [self.client.enqueue() for _ in range(4)]
        stage.settle()
        (puppet,) = stage.alive
        puppet.act = deaf
        paused = self.later("pause_app", "hello")
        self.assertEqual([call.error for call in calls], [None, None, NOT_RUNNING, NOT_RUNNING])
        self.assertEqual(puppet.heard[-1], [1, 1, [11, b"overseer is shutting down"]])
        late = direct.enqueue()
        stage.settle()
        self.assertEqual((late.ends[0], paused), ((*STOPPED, "the application has been stopped: Broken pipe"), []))
        stage.wait(2)
        puppet.say([2, 2, []])
        stage.wait(2.5)
        self.assertEqual(calls[0].ends, ["close"])
        self.assertEqual(calls[1].ends, [(2, 125, "slave has been discarded")])
        self.assertEqual((paused, stage.leftovers(), puppet.process.kills), ([()], [], 1))
        self.assertEqual(stage.network.getDelayedCalls(), [])

    def test_polite_worker(self) -> None:
        """A worker that obeys is not killed in the middle of its own end."""
        stage = self.stage
        stage.start()
        self.client.enqueue()
        stage.settle()
        (puppet,) = stage.alive
        puppet.act = idle
        process = puppet.process

        def obey(puppet: Any, frame: list[Any]) -> None:
            if frame[:2] == [1, 1]:
                puppet.say([1, 1, frame[2]])

        puppet.act = obey
        paused = self.later("pause_app", "hello")
        self.assertEqual((process.kills, paused), (0, []))
        process.end(Exit(code=0))
        stage.settle()
        self.assertEqual((paused, stage.leftovers()), ([()], []))

    def test_says_yes_and_stays(self) -> None:
        """A worker that says it goes and does not is killed two seconds later."""
        stage = self.stage
        stage.act = lambda puppet, frame: puppet.say([1, 1, frame[2]]) if frame[:2] == [1, 1] else None
        stage.start(profile={"pool-min": 1})
        paused = self.later("pause_app", "hello")
        stage.wait(1.5)
        self.assertEqual(paused, [])
        stage.wait(1)
        self.assertEqual((paused, stage.leftovers()), ([()], []))

    def test_unkillable(self) -> None:
        """A process that cannot be killed does not hold up the answer for ever."""
        stage = self.stage
        stage.act = None
        stage.start(profile={"pool-min": 1})
        (process,) = stage.isolate.processes
        stage.bring_up(process).act = deaf
        process.kill = lambda: None  # type: ignore[method-assign]
        paused = self.later("pause_app", "hello")
        stage.wait(35)
        self.assertEqual(paused, [])
        stage.wait(2)
        self.assertEqual(paused, [()])
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_starting_worker(self) -> None:
        """Workers that are still starting are ended at once."""
        stage = self.stage
        stage.act = None
        stage.start(profile={"pool-min": 2})
        stage.isolate.processes[0].start()
        self.assertEqual(self.client.call("pause_app", "hello"), ())
        self.assertEqual(stage.leftovers(), [])

    def test_others_do_not_wait(self) -> None:
        """Lesson 23: while one app stops slowly, all other calls answer, and its name is taken until it is gone."""
        stage = self.stage
        for name in ("a", "b", "c"):
            stage.start(name, profile={"pool-min": 1})
        for puppet in stage.alive:
            puppet.act = deaf
        paused = self.later("pause_app", "c")
        self.assertEqual(self.client.call("list"), (b"a", b"b"))
        self.assertEqual(self.client.call("info", "a")[b"state"], b"running")
        self.assertEqual(
            self.client.call("start_app", "c", "c"),
            (*STARTED, "app 'c' is stopping: application has already been started"),
        )
        self.assertEqual(self.client.call("pause_app", "c")[:2], NOT_RUNNING)
        stage.wait(5)
        self.assertEqual(paused, [()])
        self.assertEqual(self.client.call("start_app", "c", "c"), ())

    def test_every_order(self) -> None:
        """Lesson 23: three apps are paused in every order, the last by name and the only one too."""
        for order in ("abc", "acb", "bac", "bca", "cab", "cba"):
            stage = Stage()
            client = stage.client()
            for name in "abc":
                stage.start(name)
            for place, name in enumerate(order):
                self.assertEqual(client.call("pause_app", name), ())
                left = sorted(order[place + 1 :])
                self.assertEqual(client.call("list"), tuple(name.encode() for name in left))

    def test_thousand_cycles(self) -> None:
        """Lessons 24 and 25: a thousand starts and pauses leave nothing, and each start counts from zero."""
        stage = self.stage
        stage.upload()
        for _ in range(1000):
            self.client.call("start_app", "hello", "hello")
            call = self.client.enqueue(b"x")
            stage.settle()
            self.assertEqual(call.ends, ["close"])
            self.assertEqual(stage.pool().tally.accepted, 1)
            self.client.call("pause_app", "hello")
            del stage.puppets[:], stage.isolate.images[:]
            stage._staged.clear()
        self.assertEqual((stage.leftovers(), stage.network.getDelayedCalls()), ([], []))
        self.assertEqual((stage.service.apps, stage.service._stopping), ({}, {}))
        self.assertEqual(len(self.client.server.session), 0)

    def test_freed(self) -> None:
        """Lesson 25: a paused app's objects are freed though its client stays connected."""
        import gc
        import weakref

        stage = self.stage
        app = weakref.ref(stage.start())
        self.client.enqueue(b"x")
        stage.settle()
        pool = weakref.ref(stage.pool())
        worker = weakref.ref(next(iter(stage.pool().workers.values())))
        self.client.call("pause_app", "hello")
        del stage.puppets[:], stage.isolate.images[:]
        stage._staged.clear()
        gc.collect()
        self.assertEqual((app(), pool(), worker()), (None, None, None))


class DrainTests(AppCase):
    def drain(self) -> list[Any]:
        drained: list[Any] = []
        Deferred.fromCoroutine(self.stage.service.drain()).addBoth(drained.append)
        self.stage.settle()
        return drained

    def test_nothing_accepted_is_dropped(self) -> None:
        """At SIGTERM requests that run and that wait are finished; new ones are refused; then all is gone."""
        stage = self.stage
        stage.act = idle
        stage.start(profile={"pool-limit": 1, "concurrency": 1})
        direct = stage.client(stage.published["hello"])
        calls = [self.client.enqueue() for _ in range(3)]
        stage.settle()
        drained = self.drain()
        refused, late = self.client.enqueue(), direct.enqueue()
        stage.settle()
        self.assertEqual((refused.error, late.error, stage.published), (NOT_RUNNING, STOPPED, {}))
        (puppet,) = stage.alive
        for _ in range(3):
            stage.wait(1)
            for number in puppet.unanswered():
                puppet.say([number, 2, []])
        stage.settle()
        self.assertEqual([call.ends for call in calls], [["close"]] * 3)
        self.assertEqual((drained, stage.leftovers(), stage.network.getDelayedCalls()), ([None], [], []))

    def test_bounded(self) -> None:
        """Whatever is not done after terminate-timeout ends then, all apps at the same time."""
        stage = self.stage
        stage.act = deaf
        stage.start("a", profile={"pool-min": 1})
        stage.start("hello", profile={"pool-limit": 1, "concurrency": 1})
        calls = [self.client.enqueue() for _ in range(2)]
        stage.settle()
        started = stage.network.seconds()
        drained = self.drain()
        stage.wait(5)
        self.assertEqual([call.error for call in calls], [(2, 125), NOT_RUNNING])
        self.assertEqual((drained, stage.leftovers()), ([None], []))
        self.assertLess(stage.network.seconds() - started, 5.5)

    def test_starts_are_refused(self) -> None:
        """An app whose start had just begun does not appear after the node has drained."""
        stage = self.stage
        stage.upload()
        read: Deferred[bytes] = Deferred()
        with mock.patch.object(stage.storage, "read", lambda collection, key: read):
            started = self.later("start_app", "hello", "hello")
            drained = self.drain()
        read.callback(b"\x81\xa5slave\xa1x")
        stage.settle()
        self.assertEqual((drained, stage.service.apps, started[0][:2]), ([None], {}, NOT_RUNNING))

    def test_while_spooling_and_stopping(self) -> None:
        """Apps that are being started or paused are gone too when the node has drained."""
        stage = self.stage
        stage.act = deaf
        stage.start("a", profile={"pool-min": 1})
        paused = self.later("pause_app", "a")
        stage.isolate = MemoryIsolate(lambda app: Deferred())
        stage.upload()
        started = self.later("start_app", "hello", "hello")
        drained = self.drain()
        self.assertEqual((started[0][:2], drained, paused), (NOT_RUNNING, [], []))
        stage.isolate, spare = MemoryIsolate(), stage.isolate
        stage.network.advance(5)
        stage.end(stage.puppets[0].process, Exit(signal=15))
        stage.settle()
        self.assertEqual((drained, paused, spare.processes), ([None], [()], []))


class ReplaceTests(AppCase):
    def setUp(self) -> None:
        super().setUp()
        stage = self.stage
        stage.act = idle
        stage.start(profile={"pool-limit": 3, "concurrency": 1, "grow-threshold": 1})

    def test_success(self) -> None:
        """New code serves, requests that ran finish with the old, those that waited go to the new; none is lost."""
        stage = self.stage
        calls = [self.client.enqueue(b"%d" % number) for number in range(6)]
        stage.settle()
        old = list(stage.alive)
        self.assertEqual(len(old), 3)
        stage.act = echo
        stage.upload(slave="new", profile={"pool-limit": 4, "concurrency": 2})
        replaced = self.later("restart_app", "hello")
        self.assertEqual(replaced, [()])
        self.assertEqual([call.ends for call in calls], [[], [], [], ["close"], ["close"], ["close"]])
        self.assertEqual(stage.pool().manifest.slave, "new")
        for puppet in old:
            self.assertEqual(puppet.invoked, 1)
            puppet.say([2, 2, []])
        stage.wait(1)
        self.assertEqual([call.ends for call in calls], [["close"]] * 6)
        self.assertTrue(all(puppet.lost for puppet in old))
        self.assertEqual([image.discarded for image in stage.isolate.images], [True, False])
        shown = self.client.call("info", "hello", 1)
        self.assertEqual((shown[b"requests"][b"accepted"], shown[b"queue"][b"depth"]), (6, 0))
        self.assertEqual(stage.service.apps["hello"]._others, [])

    def test_at_full_strength(self) -> None:
        """The change is made when as many new workers serve as old ones did, so that a busy queue does not overflow."""
        stage = self.stage
        calls = [self.client.enqueue() for _ in range(3)]
        stage.settle()
        stage.act = None
        replaced = self.later("restart_app", "hello", "hello")
        fresh = stage.isolate.images[1].processes
        self.assertEqual(len(fresh), 1)
        stage.bring_up(fresh[0])
        stage.settle()
        self.assertEqual((len(fresh), replaced), (3, []))
        for process in fresh[1:]:
            stage.bring_up(process)
        stage.settle()
        self.assertEqual((replaced, len(stage.pool().active), [call.ends for call in calls]), ([()], 3, [[]] * 3))

    def test_idle_meanwhile(self) -> None:
        """New workers that are up do not leave as idle while the others still start: there would never be a change."""
        stage = self.stage
        calls = [self.client.enqueue() for _ in range(3)]
        stage.settle()
        stage.act = None
        stage.upload(profile={"pool-limit": 3, "concurrency": 1, "idle-timeout": 1, "spawn-timeout": 9})
        replaced = self.later("restart_app", "hello", "hello")
        fresh = stage.isolate.images[1].processes
        stage.bring_up(fresh[0])
        stage.settle()
        stage.wait(3)
        for process in fresh[1:]:
            stage.bring_up(process)
        stage.settle()
        self.assertEqual((replaced, len(stage.pool().active), [call.ends for call in calls]), ([()], 3, [[]] * 3))
        stage.wait(3)
        self.assertEqual(len(stage.pool().active), 0)

    def test_does_not_boot(self) -> None:
        """New code that does not come up: the caller is told its last words, and the old serves as if nothing was."""
        stage = self.stage
        before = self.client.enqueue()
        stage.settle()
        pool = stage.pool()
        stage.act = None
        stage.upload(slave="bad")
        replaced = self.later("restart_app", "hello")
        (process,) = stage.isolate.images[1].processes
        process.start()
        process.say(b"Traceback:\nImportError: no module named spam\n")
        stage.end(process, Exit(code=1))
        stage.settle()
        (error,) = replaced
        self.assertEqual(error[0], 0x53FF)
        self.assertEqual(
            error[2], "Traceback:\nImportError: no module named spam\n[the process has ended; exit status 1]"
        )
        self.assertIs(stage.pool(), pool)
        self.assertEqual([image.discarded for image in stage.isolate.images], [False, True])
        stage.alive[0].say([2, 2, []])
        stage.settle()
        self.assertEqual(before.ends, ["close"])
        self.assertEqual((stage.pool().manifest.slave, stage.service.apps["hello"]._others), ("run", []))

    def test_cannot_be_spooled(self) -> None:
        """New code that is missing or damaged: its error, and the old serves."""
        stage = self.stage

        def refuse(app: str) -> Deferred[None]:
            raise ArchiveError("cut off")

        stage.isolate = MemoryIsolate(refuse)
        self.assertEqual(self.client.call("restart_app", "hello"), (255, 84, "cut off"))
        self.assertEqual(self.client.call("restart_app", "hello", "nosuch")[:2], (12, 2))
        self.assertEqual(self.client.call("info", "hello")[b"state"], b"running")

    def test_pause_meanwhile(self) -> None:
        """Pausing wins over a replacement that is going on; both callers are told."""
        stage = self.stage
        stage.act = None
        replaced = self.later("restart_app", "hello")
        stage.isolate.images[1].processes[0].start()
        self.assertEqual(self.client.call("restart_app", "hello")[:2], STARTED)
        paused = self.later("pause_app", "hello")
        self.assertEqual(replaced, [(*NOT_RUNNING, "app 'hello' was stopped while it was being replaced")])
        self.assertEqual((paused, stage.leftovers()), ([()], []))

    def test_pause_right_after(self) -> None:
        """Pausing does not wait for seal-timeout of the workers that a replacement left finishing."""
        stage = self.stage
        call = self.client.enqueue()
        stage.settle()
        stage.alive[0].act = deaf
        self.assertEqual(self.client.call("restart_app", "hello"), ())
        paused = self.later("pause_app", "hello")
        stage.wait(4.5)
        self.assertEqual((paused, call.error, stage.leftovers()), ([()], (2, 125), []))

    def test_manual_control_stays(self) -> None:
        """A controller's number holds for the new workers too."""
        controller = self.stage.client()
        channel = controller.remote.open("control", "hello")
        channel.chunk(2)
        self.stage.settle()
        self.assertEqual(self.client.call("restart_app", "hello"), ())
        self.stage.wait(1)
        self.assertEqual((len(self.stage.pool().active), self.stage.pool()._manual), (2, 2))

    def test_crash_of_the_old_meanwhile(self) -> None:
        """An old worker that crashes while the new code boots fails its own request only."""
        stage = self.stage
        calls = [self.client.enqueue() for _ in range(2)]
        stage.settle()
        stage.act = None
        replaced = self.later("restart_app", "hello")
        stage.end(stage.isolate.images[0].processes[0], Exit(signal=9))
        stage.act = echo
        stage.bring_up(stage.isolate.images[1].processes[0])
        stage.settle()
        self.assertEqual((replaced, calls[0].error, calls[1].ends), ([()], (5, 2), []))
        fresh = self.client.enqueue(b"x")
        stage.settle()
        self.assertEqual(fresh.ends, ["close"])

    def test_only_running(self) -> None:
        """What does not run cannot be replaced."""
        self.assertEqual(self.client.call("restart_app", "nosuch")[:2], NOT_RUNNING)
