"""The node daemon itself is killed, or told to end, as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import yaml
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import CocaineError
from cocaine_tx.rpc.client import Dialer, Remote
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.wire.frames import pack

from .stand import PATIENCE, Stand, archive, configuration

ROOT = Path(__file__).resolve().parents[2]
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NodeKilledTests(TestCase):
    timeout = 120

    async def setUp(self) -> None:
        # The stand is only asked for its folder and for uploading; its node is not started.
        self.stand = Stand(reactor)
        self.addCleanup(shutil.rmtree, self.stand.folder, ignore_errors=True)
        self.port = free_port()
        tree = configuration(self.stand.folder, node={"type": "node", "args": {"runlist": "default"}})
        tree["network"]["pinned"] = {"locator": self.port}
        self.config = Path(self.stand.folder) / "node.yaml"
        self.config.write_text(yaml.safe_dump(tree))
        self.daemon: subprocess.Popen[bytes] | None = None
        self.addCleanup(self.end)
        self.remotes: list[Remote] = []

    def tearDown(self) -> None:
        for remote in self.remotes:
            remote.close()

    def end(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.daemon.kill()
            self.daemon.wait()

    async def launch(self) -> Remote:
        """Start the daemon; its storage service."""
        log = open(Path(self.stand.folder) / "log", "ab")  # noqa: SIM115
        self.addCleanup(log.close)
        self.daemon = subprocess.Popen(
            [*TWISTD, "cocaine-node", "-c", str(self.config)], cwd=self.stand.folder, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return await self.dial("storage")

    async def dial(self, name: str) -> Remote:
        """A service of the daemon, when it is there."""
        dialer = Dialer(reactor, Turn(reactor))
        begun = reactor.seconds()  # type: ignore[attr-defined]
        while True:
            try:
                remote = await dialer.service([("127.0.0.1", self.port)], name)
                self.remotes.append(remote)
                return remote
            except CocaineError:
                if reactor.seconds() - begun > PATIENCE:  # type: ignore[attr-defined]
                    raise
                await deferLater(reactor, 0.1)

    async def install(self, storage: Remote) -> None:
        """The app ``play`` on the runlist, two workers warm."""
        program = self.stand._program
        await storage.call("write", "apps", "play", pack(archive(main=program)), ["app"])
        await storage.call("write", "manifests", "play", pack({"slave": "main"}), ["app"])
        profile = {"pool-min": 2, "spawn-timeout": 10, "handshake-timeout": 10, "terminate-timeout": 5}
        await storage.call("write", "profiles", "play", pack(profile), ["profile"])
        await storage.call("write", "runlists", "default", pack({"play": "play"}), ["runlist"])

    async def test_killed(self) -> None:
        """SIGKILL: no worker is left after ten seconds; started again, the node cleans up and serves as before."""
        await self.install(await self.launch())
        node = await self.dial("node")
        await node.call("start_app", "play", "play", timeout=PATIENCE)
        app = await self.dial("play")
        self.assertEqual(await self.stand.ask(app, "ping", b"x"), [b"x"])
        await self.stand.until(lambda: len(self.workers()) == 2, "two workers")
        hanging = self.stand.ask(app, "ping", b"hang")
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()
        self.assertEqual(await self.stand.all([hanging]), [(5, 2)])
        await self.stand.until(lambda: not self.workers(), "no worker is left", 10)
        await self.launch()
        app = await self.dial("play")
        self.assertEqual(await self.stand.ask(app, "ping", b"x"), [b"x"])
        self.assertEqual(len(self.stand.files("run")), 1)
        self.assertEqual(len([name for name in self.stand.files("spool") if name.endswith("/main")]), 1)
        self.daemon.send_signal(signal.SIGTERM)
        # twistd ends by the signal that it was sent, once all is done.
        self.assertEqual(self.daemon.wait(20), -signal.SIGTERM)
        self.assertEqual((self.workers(), self.stand.files("run")), ({}, []))

    async def test_told_to_end(self) -> None:
        """SIGTERM with requests running and waiting: all are answered before the daemon ends."""
        storage = await self.launch()
        await self.install(storage)
        node = await self.dial("node")
        await node.call("start_app", "play", "play", timeout=PATIENCE)
        app = await self.dial("play")
        channel, stream = app.stream("enqueue", "ping")
        channel.chunk(b"1")
        self.assertEqual(await stream.read(), (b"1",))
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        await deferLater(reactor, 0.5)
        self.assertEqual(await self.stand.ask(app), (12, 32))
        channel.chunk(b"2")
        channel.choke()
        self.assertEqual(await stream.read(), (b"2",))
        self.assertIsNone(await stream.read())
        daemon = self.daemon
        await self.stand.until(lambda: daemon.poll() is not None, "the daemon has ended")
        self.assertEqual((daemon.returncode, self.workers()), (-signal.SIGTERM, {}))

    def workers(self) -> dict[int, str]:
        return {pid: words for pid, words in self.stand.processes().items() if "--uuid" in words}
