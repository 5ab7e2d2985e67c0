"""Apps that ask to be warm."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.testing.isolate import MemoryIsolate

from .stage import Stage


class WarmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.warming: list[Deferred[None]] = []

        def warm(launch: object) -> Deferred[None]:
            self.warming.append(Deferred())
            return self.warming[-1]

        self.stage.isolate = MemoryIsolate(warming=warm)

    def begin(self, **manifest: object) -> list[object]:
        self.stage.upload(**manifest)
        done: list[object] = []
        Deferred.fromCoroutine(self.stage.service.start("hello", "hello")).addBoth(done.append)
        self.stage.settle()
        return done

    def test_cold(self) -> None:
        """An app that does not ask for it is not prepared."""
        self.assertEqual(self.begin(), [None])
        self.assertEqual(self.warming, [])

    def test_offered_when_ready(self) -> None:
        """A warm app is offered to clients once it is ready, and its workers start as the template did."""
        done = self.begin(warm=True, environment={"A": "1"})
        self.assertEqual((done, self.stage.published), ([], {}))
        self.warming[0].callback(None)
        self.stage.settle()
        self.assertEqual(done, [None])
        self.assertIn("hello", self.stage.published)
        call = self.stage.client().enqueue(b"x")
        self.stage.settle()
        self.assertEqual((call.chunks, call.ends), ([b"x"], ["close"]))
        image = self.stage.isolate.images[0]
        launch, common = image.processes[0].launch, image.warmed[0]
        self.assertEqual({**launch.arguments, **common.arguments}, launch.arguments)
        self.assertEqual(set(launch.arguments) - set(common.arguments), {"--uuid"})
        self.assertEqual((launch.environment, launch.executable), (common.environment, common.executable))
        self.assertEqual(launch.environment["A"], "1")

    def test_stopped_meanwhile(self) -> None:
        """An app that is paused while it gets ready leaves nothing behind."""
        self.begin(warm=True)
        self.stage.client().call("pause_app", "hello")
        self.stage.wait(20)
        self.assertEqual(self.stage.leftovers(), [])
        self.assertEqual(len(self.stage.isolate.images), 1)

    def test_replaced(self) -> None:
        """New code gets ready beside the old before its first worker is started."""
        self.begin(warm=True)
        self.warming[0].callback(None)
        self.stage.settle()
        app = self.stage.service.apps["hello"]
        replaced = app.replace(app.manifest, app.profile)
        self.stage.settle()
        old, new = self.stage.isolate.images
        self.assertEqual((len(new.warmed), new.processes, old.discarded), (1, [], False))
        self.warming[1].callback(None)
        self.stage.settle()
        self.successResultOf(replaced)
        self.assertEqual(len(new.processes), 1)
        self.assertTrue(old.discarded)
