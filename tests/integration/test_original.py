"""The unmodified Python framework of the original, worker and client, on our node."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from cocaine_tx.errors import CocaineError
from cocaine_tx.rpc.client import Remote
from cocaine_tx.wire.frames import pack
from tests.original import original_python

from .stand import Stand, archive

HERE = Path(__file__).parent
GONE, DISCARDED = (5, 2), (2, 125)


class OriginalCase(TestCase):
    timeout = 120
    maxDiff = None
    if original_python() is None:
        skip = "the original framework's environment was not built; make test builds it"

    async def setUp(self) -> None:
        found = original_python()
        assert found is not None
        self.python, self.environment = found
        self.stand = Stand(reactor)
        await self.stand.start()
        self.addCleanup(shutil.rmtree, self.stand.folder, ignore_errors=True)
        self.addCleanup(self.stand.stop)

    async def run_app(self, **profile: Any) -> Remote:
        """The original worker as app ``play``."""
        stand = self.stand
        program = f"#!{self.python}\n" + (HERE / "workers" / "original_worker.py").read_text()
        await stand.upload("play", program=program, **{"pool_limit": 1, **profile})
        environment = {"PYTHONPATH": self.environment["PYTHONPATH"]}
        await stand.storage.write("manifests", "play", pack({"slave": "main", "environment": environment}), ["app"])
        await stand.storage.write("apps", "play", pack(archive(main=program)), ["app"])
        await stand.service.call("start_app", "play", "play")
        return await stand.dial("play")

    def worker(self) -> Any:
        """The app's only worker."""
        (worker,) = self.stand.pool("play").workers.values()
        return worker


class WorkerTests(OriginalCase):
    async def test_life(self) -> None:
        """Handshake, requests, heartbeats for a while, and an end by its own will when it is told to terminate."""
        stand = self.stand
        app = await self.run_app(heartbeat_timeout=5)
        self.assertEqual(await stand.ask(app, "echo", b"a", b"b"), [b"a", b"b"])
        (pid,) = await stand.ask(app, "pid")
        worker = self.worker()
        await deferLater(reactor, 6)
        self.assertEqual(await stand.ask(app, "pid"), [pid])
        started = reactor.seconds()  # type: ignore[attr-defined]
        await stand.pause("play")
        self.assertLess(reactor.seconds() - started, 4)  # type: ignore[attr-defined]
        self.assertEqual((str(worker.exit), stand.processes()), ("exit status 0", {}))

    async def test_errors(self) -> None:
        """Its own errors reach the client as it says them."""
        app = await self.run_app()
        for event, code, words in (
            ("nosuch", 200, "there is no handler for event b'nosuch'"),
            ("fails", 100, "the handler's own words"),
        ):
            channel, stream = app.stream("enqueue", event)
            channel.chunk(b"x")
            with self.assertRaises(CocaineError) as caught:
                await stream.read()
            self.assertEqual((caught.exception.pair, caught.exception.reason), ((42, code), words))

    async def test_crash(self) -> None:
        """It dies in a handler: one error, a crash log with its last words, and another worker."""
        stand = self.stand
        app = await self.run_app()
        (pid,) = await stand.ask(app, "pid")
        self.assertEqual(await stand.ask(app, "dies"), GONE)
        (other,) = await stand.ask(app, "pid")
        self.assertNotEqual(pid, other)
        keys = await stand.storage.find("crashlogs", ["play"])
        self.assertIn(b"last words", await stand.storage.read("crashlogs", keys[0]))

    async def test_blocked(self) -> None:
        """A handler that blocks it for longer than heartbeat-timeout costs that worker."""
        stand = self.stand
        app = await self.run_app(heartbeat_timeout=3.5, concurrency=1)
        self.assertEqual(await stand.ask(app, "blocks"), DISCARDED)
        self.assertEqual(await stand.ask(app, "echo", b"x"), [b"x"])

    async def test_disown(self) -> None:
        """A node that says nothing any more: the worker leaves by itself, and the pool gets another."""
        stand = self.stand
        app = await self.run_app()
        (pid,) = await stand.ask(app, "pid")
        worker = self.worker()
        worker.comfort = lambda: None
        worker.connection.hold(self)
        await stand.until(lambda: worker.exit is not None, "it has left")
        self.assertEqual(str(worker.exit), "exit status 0")
        (other,) = await stand.ask(app, "pid")
        self.assertNotEqual(pid, other)

    async def test_slow_client(self) -> None:
        """While a slow client keeps us from reading its answers, the worker is told that it is not disowned."""
        stand = self.stand
        app = await self.run_app()
        (pid,) = await stand.ask(app, "pid")
        connection = self.worker().connection
        connection.hold(self)
        resting = stand.ask(app, "sleeps", b"1")
        await deferLater(reactor, 7)
        connection.release(self)
        self.assertEqual(await stand.all([resting]), [[b"rested"]])
        self.assertEqual(await stand.ask(app, "pid"), [pid])

    async def test_client_goes(self) -> None:
        """A client that goes before it has said all: the handler is told by an error."""
        stand = self.stand
        await self.run_app()
        leaver = await stand.dial("play")
        channel, _ = leaver.stream("enqueue", "cancelled")
        path = Path(stand.folder) / "heard"
        channel.chunk(str(path).encode())
        await stand.until(lambda: stand.pool("play").load == 1, "it runs")
        leaver.connection.abort()
        await stand.until(lambda: path.exists() and path.read_text() == "RequestError", "the handler was told")
        self.assertEqual(stand.pool("play").tally.unwanted, 1)


class ClientTests(OriginalCase):
    async def test_everything(self) -> None:
        """The original client resolves, stores, streams and is refused as by the original runtime."""
        stand = self.stand
        await self.run_app()
        ((_, port),) = stand.node.runtime.endpoints()
        output, errors, status = await getProcessOutputAndValue(
            self.python, [str(HERE / "original_client.py"), str(port)], env={**os.environ, **self.environment}
        )
        self.assertEqual(status, 0, errors.decode())
        seen = json.loads(output.decode().splitlines()[-1])
        self.assertEqual(
            seen,
            {
                "resolve": ["127.0.0.1", 1, ["find", "goaway", "ping", "read"]],
                "unknown service": [10, 1, "service is not available"],
                "connect to unknown": [10, 1],
                "write": [],
                "read": "value",
                "find": ["one", "two"],
                "find both": ["one"],
                "remove": [],
                "read removed": [12, 2],
                "unknown method": "b'levitate'",
                "stream": [True, True, True, "EmptyResponse"],
                "nosuch": [42, 200, "there is no handler for event b'nosuch'"],
                "fails": [42, 100, "the handler's own words"],
                "info": True,
                "list": ["play"],
                "start twice": [0x51FF, 5, "app 'play' is running: application has already been started"],
                "pause unknown": [0x51FF, 6, "app 'nosuch' is not running: application is not running"],
                "by the node": "by the node",
                "pause": [],
                "after the pause": [12, 32, "the application has been stopped: Broken pipe"],
            },
        )
