"""Routing groups from end to end: ``cocaine-tool`` edits them at a gateway, and clients are sent where they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import free_port
from tests.integration.daemons import HELLO, PATIENCE, ROOT, Peer, Platform, ServiceError, twistd, until

SEEDS = [b"seed %d" % number for number in range(200)]


class GroupTests(SynchronousTestCase):
    """A node with two versions of an app, and a gateway before it."""

    def setUp(self) -> None:
        self.platform = Platform()
        self.addCleanup(self.platform.remove)
        self.platform.start_node()
        for name in ("hello_v1", "hello_v2"):
            self.platform.run_app(name, HELLO, '{"pool-limit": 1}')
        self.port = free_port()
        nodes = {"type": "predefined", "args": {"nodes": {"node": f"127.0.0.1:{self.platform.locator}"}}}
        settings = {
            "network": {"pinned": {"locator": self.port}},
            "paths": {"state": str(self.platform.folder / "gateway")},
            "services": {"locator": {"type": "locator", "args": {"cluster": nodes}}},
            "storages": {"core": {"type": "files", "args": {"path": str(self.platform.folder / "storage")}}},
        }
        config = self.platform.folder / "gateway.yaml"
        config.write_text(json.dumps(settings))
        gateway = twistd("cocaine-gateway", "-c", str(config))
        self.addCleanup(gateway.stderr.close)
        self.addCleanup(gateway.wait, PATIENCE)
        self.addCleanup(gateway.terminate)
        self.places = {until(lambda name=name: self.place(name), f"{name} is there"): name
                       for name in ("hello_v1", "hello_v2")}  # fmt: skip

    def place(self, name: str, *seed: bytes) -> int | None:
        """The port that the gateway gives; None when it knows nobody."""
        try:
            with Peer(self.port) as locator:
                port: int = locator.call(0, name, *seed)[0][0][1]
                return port
        except (ServiceError, ConnectionRefusedError):
            return None

    def members(self, name: str) -> list[str]:
        """Where each of the seeds leads."""
        with Peer(self.port) as locator:
            return [self.places[locator.call(0, name, seed)[0][0][1]] for seed in SEEDS]

    def tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The tool, at the gateway."""
        return subprocess.run(
            [sys.executable, "-m", "cocaine_tx.tool", *words, "--json", "--host", "127.0.0.1",
             "--port", str(self.port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def said(self, *words: str) -> object:
        """What the tool says when all is well."""
        done = self.tool(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout or "null")

    def test_edited(self) -> None:
        """A group is created, seen, edited and refreshed: seeds lead by weight, always to the same app, at once."""
        self.said("group", "create", "-n", "hello", "-c", '{"hello_v1": 3}')
        self.assertEqual(self.said("group", "view", "-n", "hello"), {"hello_v1": 3})
        self.assertIsNone(self.place("hello", b"seed"))
        self.assertNotEqual(self.tool("routing", "-n", "hello").returncode, 0)

        self.said("group", "refresh", "-n", "hello")
        self.assertEqual(self.said("routing", "-n", "hello"), {"hello": {"hello_v1": 1.0}})
        self.assertEqual(set(self.members("hello")), {"hello_v1"})

        self.said("group", "push", "-n", "hello", "--app", "hello_v2", "-w", "1")
        self.assertEqual(self.said("group", "view", "-n", "hello"), {"hello_v1": 3, "hello_v2": 1})
        self.assertEqual(set(self.members("hello")), {"hello_v1"})
        self.said("group", "refresh")
        shares = self.said("routing", "-n", "hello")["hello"]
        self.assertAlmostEqual(sum(shares.values()), 1.0)
        self.assertApproximates(shares["hello_v1"], 0.75, 0.1)

        spread = self.members("hello")
        self.assertEqual(spread, self.members("hello"))
        self.assertApproximates(spread.count("hello_v1") / len(spread), shares["hello_v1"], 0.1)
