"""
Real workers that die, hang, lie and flood: each accepted request still has one end, and nothing is left behind.

Every test ends with the same look around: descriptors, processes, zombies, sockets and folders are as at its start.
"""

from __future__ import annotations

import os
import shutil
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import CocaineError

from .stand import Stand, zombies

GONE, DISCARDED, NOT_RUNNING, TIMED_OUT = (5, 2), (2, 125), (0x51FF, 6), (0x51FF, 3)


class Chaos(TestCase):
    timeout = 120

    async def setUp(self) -> None:
        self.stand = Stand(reactor)
        await self.stand.start()
        # What is opened once and stays: threads, the resolver, a first connection.
        await self.stand.service.call("list")
        self.before = self.stand.descriptors()

    async def tearDown(self) -> None:
        stand = self.stand
        try:
            assert stand.node.service is not None
            for name in list(stand.node.service.apps):
                await stand.pause(name)
            for remote in stand.remotes[1:]:
                remote.close()
            await stand.until(lambda: not stand.processes(), "all processes have ended")
            await stand.until(lambda: stand.descriptors() <= self.before, "all descriptors are closed", 10)
            await stand.until(lambda: zombies() == 0, "all processes are reaped", 5)
            self.assertEqual((stand.files("run"), stand.files("spool")), ([], []))
        finally:
            await stand.stop()
            shutil.rmtree(stand.folder, ignore_errors=True)

    async def moment(self, seconds: float = 0.1) -> None:
        await deferLater(reactor, seconds)

    def pid(self, name: str) -> int:
        """Of the app's only worker."""
        (worker,) = self.stand.pool(name).workers.values()
        pid: int = worker.process.pid
        return pid

    async def test_killed_while_active(self) -> None:
        """SIGKILL with requests running: they end as discarded, those that come next are served."""
        stand = self.stand
        app = await stand.run("play", pool_limit=1)
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
        hanging = [stand.ask(app, "ping", b"hang") for _ in range(5)]
        dying = stand.ask(app, "die")
        after = [stand.ask(app, "ping", b"x") for _ in range(3)]
        ends = await stand.all([*hanging, dying])
        self.assertEqual(ends, [GONE] * 6)
        self.assertEqual(len(await stand.all(after)), 3)
        self.assertEqual(await stand.ask(app, "ping", b"y"), [b"y"])

    async def test_killed_before_handshake(self) -> None:
        """SIGKILL while a worker is handshaking: the request waits for the next one and is served."""
        stand = self.stand
        await stand.upload("play", "silent", pool_limit=1)
        await stand.service.call("start_app", "play", "play")
        app = await stand.dial("play")
        request = stand.ask(app, "ping", b"x")
        await stand.until(lambda: bool(stand.processes()), "a worker")
        await stand.until(
            lambda: [w.state for w in stand.pool("play").workers.values()] == ["handshaking"], "it is handshaking"
        )
        os.kill(self.pid("play"), signal.SIGKILL)
        await stand.until(lambda: stand.pool("play").tally.crashed == 1, "the crash is seen")
        stand.pool("play").manifest.environment["ACT"] = ""
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
        self.assertEqual(await stand.all([request]), [[b"x"]])

    async def test_killed_while_sealing_and_terminating(self) -> None:
        """SIGKILL of a worker that is being sealed, and of one that is being terminated: each request one end."""
        stand = self.stand
        app = await stand.run("play", "stubborn", pool_limit=1, terminate_timeout=8)
        hanging = stand.ask(app, "ping", b"hang")
        channel, stream = app.stream("enqueue", "ping")
        await stand.until(lambda: stand.pool("play").load == 2, "both run")
        (worker,) = stand.pool("play").workers.values()
        worker.life.seal()
        self.assertEqual(worker.state, "sealing")
        os.kill(worker.process.pid, signal.SIGKILL)
        self.assertEqual(await stand.all([hanging]), [GONE])
        with self.assertRaises(CocaineError):
            await stream.read()
        channel, stream = app.stream("enqueue", "ping")
        await stand.until(lambda: stand.pool("play").load == 1, "it runs")
        paused = Deferred.fromCoroutine(stand.pause("play"))
        pid = next(iter(stand.processes()))
        await self.moment()
        os.kill(pid, signal.SIGKILL)
        with self.assertRaises(CocaineError):
            await stream.read()
        await paused

    async def test_stopped(self) -> None:
        """SIGSTOP: cut off after heartbeat-timeout, killed for good, and the next worker serves."""
        stand = self.stand
        app = await stand.run("play", pool_limit=1, heartbeat_timeout=1.5)
        frozen = stand.ask(app, "freeze")
        await self.moment()
        waiting = stand.ask(app, "ping", b"x")
        ends = await stand.all([frozen, waiting])
        self.assertEqual(ends[0], DISCARDED)
        self.assertIn(ends[1], (DISCARDED, [b"x"]))
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])

    async def test_strangers(self) -> None:
        """Workers that never shake hands, say a wrong uuid, or quit: requests wait, and end at their deadline."""
        stand = self.stand
        for act in ("mute", "silent", "stranger", "quits"):
            app = await stand.run(act, act, pool_limit=1, handshake_timeout=0.6, request_timeout=2)
            self.assertEqual(await stand.all([stand.ask(app), stand.ask(app)]), [(0x51FF, 1)] * 2, act)
            self.assertGreaterEqual(stand.pool(act).tally.crashed, 1)
            await stand.pause(act)
        keys = await stand.storage.find("crashlogs", ["quits"])
        log = await stand.storage.read("crashlogs", keys[0])
        self.assertEqual(log, b"\x92\xadno, thank you\xb2an unfinished line")

    async def test_repeated_uuid(self) -> None:
        """A second connection with the same uuid is closed; the first one serves."""
        app = await self.stand.run("play", "double")
        self.assertEqual(await self.stand.ask(app, "ping", b"x"), [b"x"])

    async def test_flood(self) -> None:
        """A worker that prints without end costs its own log lines; requests are served, memory does not grow."""
        stand = self.stand
        app = await stand.run("play", "flood", pool_limit=1)
        await stand.ask(app, "ping", b"x")
        before = resident()
        for _ in range(20):
            self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
            await self.moment(0.05)
        self.assertLess(resident() - before, 20_000)
        (worker,) = stand.pool("play").workers.values()
        self.assertLessEqual(len(worker.output.lines()), 51)

    async def test_answers_twice(self) -> None:
        """A worker that ends a channel twice is cut off; each request still has one end."""
        app = await self.stand.run("play", "twice", pool_limit=1, concurrency=3)
        ends = await self.stand.all([self.stand.ask(app, "ping", b"x") for _ in range(6)])
        self.assertTrue(all(end in ([b"x"], GONE) for end in ends), ends)
        self.assertIn([b"x"], ends)

    async def test_hangs_up(self) -> None:
        """A worker that closes its socket in the middle of an answer: what it said, then an error; it is killed."""
        stand = self.stand
        app = await stand.run("play", pool_limit=1)
        channel, stream = app.stream("enqueue", "hangup")
        self.assertEqual(await stream.read(), (b"half an ans",))
        with self.assertRaises(CocaineError) as caught:
            await stream.read()
        self.assertEqual(caught.exception.pair, GONE)
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])

    async def test_clients_vanish(self) -> None:
        """Clients that go while they wait and mid-stream: no worker's time for the first, the place free after both."""
        stand = self.stand
        app = await stand.run("play", "late", pool_limit=1, concurrency=1)
        leavers = [await stand.dial("play") for _ in range(4)]
        for leaver in leavers:
            leaver.stream("enqueue", "ping")[0].chunk(b"hang")
        await stand.until(lambda: len(stand.pool("play").queue) == 4, "they wait")
        for leaver in leavers[2:]:
            leaver.connection.abort()
        await stand.until(lambda: len(stand.pool("play").queue) == 2, "two have gone")
        await stand.until(lambda: stand.pool("play").load == 1, "one is at a worker")
        for leaver in leavers[:2]:
            leaver.connection.abort()
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
        self.assertLessEqual(stand.pool("play").tally.unwanted, 2)

    async def test_pause_with_a_stubborn_worker(self) -> None:
        """A worker that neither obeys nor heeds SIGTERM is gone after terminate-timeout and the kill's own."""
        stand = self.stand
        app = await stand.run("play", "stubborn", pool_limit=1, concurrency=1, terminate_timeout=0.5)
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
        channel, stream = app.stream("enqueue", "ping")
        await stand.until(lambda: stand.pool("play").load == 1, "it is at a worker")
        waiting = stand.ask(app, "ping", b"x")
        await self.moment()
        paused = Deferred.fromCoroutine(stand.pause("play"))
        self.assertEqual(await stand.all([waiting]), [NOT_RUNNING])
        await stand.service.call("list", timeout=1)
        with self.assertRaises(CocaineError) as caught:
            await stream.read()
        self.assertEqual(caught.exception.pair, DISCARDED)
        await paused

    async def test_pause_while_spooling(self) -> None:
        """Paused while its archive is being unpacked: the start's caller is told, and nothing is left of it."""
        stand = self.stand
        await stand.upload("play", program="#!/bin/sh\n" + os.urandom(4_000_000).hex())
        for pause in (0.0, 0.002, 0.01, 0.05):
            started = stand.service.call("start_app", "play", "play")
            await self.moment(pause)
            try:
                await stand.pause("play")
            except CocaineError as error:
                self.assertEqual(error.pair, NOT_RUNNING)
                await started
                await stand.pause("play")
                continue
            try:
                await started
            except CocaineError as error:
                self.assertEqual(error.pair, NOT_RUNNING)

    async def test_cycles(self) -> None:
        """Fifty starts and pauses with real processes, each serving a request."""
        stand = self.stand
        await stand.upload("play", pool_limit=1)
        memory = 0
        for cycle in range(50):
            await stand.service.call("start_app", "play", "play")
            app = await stand.dial("play")
            self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
            await stand.pause("play")
            app.close()
            stand.remotes.remove(app)
            if cycle == 10:
                memory = resident()
        self.assertLess(resident() - memory, 6_000)

    async def test_replacement_under_load(self) -> None:
        """Replacing an app again and again under load: every request is answered, none refused."""
        stand = self.stand
        app = await stand.run("play", pool_limit=2, queue_limit=500, concurrency=10)
        ends: list[Any] = []
        stopping: list[bool] = []

        async def lane() -> None:
            while not stopping:
                ends.append(await stand.ask(app, "ping", b"x"))

        lanes = [Deferred.fromCoroutine(lane()) for _ in range(30)]
        for _ in range(3):
            await stand.service.call("restart_app", "play", timeout=30)
            await self.moment(0.2)
        stopping.append(True)
        await stand.all(lanes)
        self.assertEqual([end for end in ends if end != [b"x"]], [])
        self.assertGreater(len(ends), 100)

    async def test_bad_replacement(self) -> None:
        """New code that does not come up: its last words are the reason, and the old code goes on."""
        stand = self.stand
        app = await stand.run("play", pool_limit=1)
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])
        await stand.upload("play", "quits", pool_limit=1)
        with self.assertRaises(CocaineError) as caught:
            await stand.service.call("restart_app", "play", timeout=30)
        self.assertEqual(
            caught.exception.reason, "no, thank you\nan unfinished line\n[the process has ended; exit status 3]"
        )
        self.assertEqual(await stand.ask(app, "ping", b"x"), [b"x"])

    async def test_thousand_first_requests(self) -> None:
        """A thousand requests at once onto no worker: all answered."""
        stand = self.stand
        app = await stand.run("play", pool_limit=2, queue_limit=1000, concurrency=50, grow_threshold=100)
        ends = await stand.all([stand.ask(app, "ping", b"x") for _ in range(1000)])
        self.assertEqual([end for end in ends if end != [b"x"]], [])

    async def test_drain(self) -> None:
        """At SIGTERM what was accepted is finished, workers end, and late requests are told."""
        stand = self.stand
        app = await stand.run("play", "late", pool_limit=1, concurrency=2)
        requests = [stand.ask(app, "ping", b"x") for _ in range(20)]
        await stand.until(lambda: stand.pool("play").tally.accepted == 20, "they are accepted")
        assert stand.node.service is not None
        await stand.node.service.drain()
        self.assertEqual(await stand.all(requests), [[b"x"]] * 20)
        self.assertEqual(await stand.ask(app), (12, 32))
        stand.node.service._draining = False


def resident() -> int:
    """Memory of this process in kB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
