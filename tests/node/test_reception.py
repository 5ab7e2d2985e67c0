"""Where workers connect: strangers, impostors and the silent."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.reception import PATIENCE, STRANGERS, sweep

from .stage import Puppet, Stage, echo


class ReceptionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = stage = Stage()
        stage.act = None
        stage.start(profile={"pool-min": 1, "handshake-timeout": 100, "spawn-timeout": 100})
        (self.process,) = stage.isolate.processes
        self.process.start()

    def say(self, *frames: list[Any]) -> Puppet:
        """Somebody connects and says that."""
        puppet = self.stage.connect(self.process)
        puppet.say(*frames)
        self.stage.settle()
        return puppet

    def works(self) -> None:
        """The app answers."""
        client = self.stage.client()
        call = client.enqueue(b"x")
        self.stage.settle()
        self.assertEqual(call.ends, ["close"])

    def worker(self) -> Puppet:
        puppet = self.say()
        puppet.act = echo
        puppet.say([1, 0, [puppet.uuid]])
        self.stage.settle()
        return puppet

    def test_wrong_uuid(self) -> None:
        """Whoever says a uuid that nobody expects is cut off; the real worker is not disturbed."""
        for uuid in ("nosuch", b"\xff\xfe", "", self.process.launch.arguments["--uuid"].upper()):
            self.assertTrue(self.say([1, 0, [uuid]]).lost)
        self.worker()
        self.works()

    def test_repeated_uuid(self) -> None:
        """The second to say a uuid is cut off, whether on its own connection or on the same."""
        worker = self.worker()
        self.assertTrue(self.say([1, 0, [worker.uuid]]).lost)
        self.works()
        worker.say([9, 0, [worker.uuid]])
        self.stage.settle()
        self.assertTrue(worker.lost)

    def test_garbage(self) -> None:
        """Anything that is not a handshake ends that connection and nothing else."""
        for frame in ([1, 1, [11, "x"]], [1, 0, []], [1, 0, [5]], [2, 0, ["ping"]], [], 7, {"a": 1}):
            self.assertTrue(self.say(frame).lost, frame)  # type: ignore[arg-type]
        puppet = self.say()
        puppet.transport.write(b"\xc1\xc1\xc1")
        self.stage.settle()
        self.assertTrue(puppet.lost)
        self.worker()
        self.works()

    def test_silence(self) -> None:
        """Whoever says nothing is cut off in time; whoever leaves before that leaves no timer."""
        timers = len(self.stage.network.getDelayedCalls())
        silent, leaver = self.say(), self.say()
        leaver.transport.loseConnection()
        self.stage.wait(PATIENCE - 0.5)
        self.assertFalse(silent.lost)
        self.stage.wait(1)
        self.assertTrue(silent.lost)
        self.assertEqual(len(self.stage.network.getDelayedCalls()), timers)

    def test_flood(self) -> None:
        """Only so many strangers are let in at once, and the place is free again when they have gone."""
        strangers = [self.say() for _ in range(STRANGERS + 5)]
        self.assertEqual(sum(stranger.lost for stranger in strangers), 5)
        for stranger in strangers:
            if not stranger.lost:
                stranger.transport.loseConnection()
        self.stage.settle()
        self.worker()
        self.works()

    def test_stop_with_strangers(self) -> None:
        """Pausing the app sends strangers away and removes the socket."""
        self.say()
        client = self.stage.client()
        self.assertEqual(client.call("pause_app", "hello"), ())
        self.assertEqual(self.stage.leftovers(), [])


class SweepTests(SynchronousTestCase):
    def test_sweep(self) -> None:
        """Sockets of a killed node are removed; those that somebody listens on, and what is not ours, stay."""
        folder = tempfile.mkdtemp(prefix="cxs")
        self.addCleanup(shutil.rmtree, folder)
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.bind(os.path.join(folder, "a.1"))
        listening.listen()
        for name in ("b.2", "other"):
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(os.path.join(folder, name))
        with open(os.path.join(folder, "file.3"), "w"):
            pass
        self.assertEqual(sweep(folder), [os.path.join(folder, "b.2")])
        self.assertEqual(sorted(os.listdir(folder)), ["a.1", "file.3", "other"])
        self.assertEqual(sweep(os.path.join(folder, "nosuch")), [])
