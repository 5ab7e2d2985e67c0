"""Configuration as real daemons take it: the original's file, safe defaults, and what is said about mistakes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import PATIENCE, free_port
from tests.integration.daemons import Peer, Platform, ServiceError, listening, twistd, until

#: As the original's documentation has it, but for paths and the port; with what its dialect of JSON allows.
ORIGINAL = """
// A node of the production cluster.
{ "version": 4,
  "logging": {"severity": "info", "loggers": {"core": []}},
  "network": {"pinned": {"locator": %(port)d}, "shared": [32768, 61000]},
  "paths": {"runtime": "%(folder)s/run"},
  "services": {
    "locator": {"type": "locator", "args": {
        "restrict": ["storage", "logging"],
        "extra_param": {"x-cocaine-cluster": "production"}}},
    "logging": {"type": "logging"},
    "storage": {"type": "storage"},
    "node": {"type": "node::v2", "args": {"runlist": "default"}}},
  "storages": {"core": {"type": "files", "args": {"path": "%(folder)s/storage"}}},
  "authentications": {"core": {"type": "promiscuous"}}, /* means nothing here */
  "authorizations": {"event": {"type": "disabled"}, "storage": {"type": "disabled"}},
}
"""


class ConfigTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.addCleanup(self.platform.remove)
        self.folder = self.platform.folder
        self.port = free_port()

    def write(self, name: str, text: str) -> str:
        path: Path = self.folder / name
        path.write_text(text)
        return str(path)

    def start(self, daemon: str, *words: str, **variables: str):
        process = twistd(daemon, *words, **variables)

        def end() -> None:
            process.terminate()
            process.wait(PATIENCE)
            process.stderr.close()

        self.addCleanup(end)
        return process

    def up(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def test_original(self) -> None:
        """A version 4 file of cocaine-runtime runs a node unchanged: services, restrictions, ports, storage."""
        config = self.write("cocaine.conf", ORIGINAL % {"port": self.port, "folder": self.folder})
        self.start("cocaine-node", "-c", config)
        until(self.up, "the node is up")
        with Peer(self.port) as locator:
            for service in ("node", "logging", "storage", "locator"):
                endpoints, _, _ = until(lambda name=service: self._found(locator, name), f"{service} is there")
                port = endpoints[0][1]
                self.assertTrue(port == self.port if service == "locator" else 32768 <= port < 61000, port)
        with Peer(self._port("storage")) as storage:
            storage.call(1, "c", "k", b"v", [])
        self.assertTrue((self.folder / "storage" / "c" / "k").exists())

    def test_storage_backend(self) -> None:
        """The storage service offers the storage that its backend names, and no other."""
        config = self.write("l.yaml", json.dumps({
            "network": {"pinned": {"locator": self.port}},
            "paths": {"state": str(self.folder)},
            "services": {"storage": {"args": {"backend": "archive"}}},
            "storages": {"archive": {"type": "files", "args": {"path": str(self.folder / "archive")}}},
        }))  # fmt: skip
        self.start("cocaine-locator", "-c", config)
        until(self.up, "the locator is up")
        with Peer(self.port) as locator:
            until(lambda: self._found(locator, "storage"), "the storage is there")
        with Peer(self._port("storage")) as storage:
            storage.call(1, "c", "k", b"v", [])
        self.assertTrue((self.folder / "archive" / "c" / "k").exists())
        self.assertFalse((self.folder / "storage" / "c").exists())

    def _found(self, locator: Peer, name: str):
        try:
            return locator.call(0, name)
        except ServiceError:
            return None

    def _port(self, name: str) -> int:
        with Peer(self.port) as locator:
            return locator.call(0, name)[0][0][1]

    def test_shared_ports(self) -> None:
        """A shared port that somebody else has is passed over, and a range without free ones is told."""
        block = self._block(8)
        free, taken = block[::3], [number for number in block if number not in block[::3]]
        for number in taken:
            self._occupy(number)
        config = self.write("node.yaml", json.dumps({
            "network": {"pinned": {"locator": self.port}, "shared": [block[0], block[-1] + 1]},
            "paths": {"state": str(self.folder)},
        }))  # fmt: skip
        first = self.start("cocaine-node", "-c", config)
        until(self.up, "the node is up")
        with Peer(self.port) as locator:
            for service in ("node", "logging", "storage"):
                endpoints, _, _ = until(lambda name=service: self._found(locator, name), f"{service} is there")
                self.assertIn(endpoints[0][1], free)
        first.terminate()
        first.wait(PATIENCE)
        for number in free:
            self._occupy(number)
        second = self.start("cocaine-node", "-c", config)
        self.assertEqual(second.wait(PATIENCE), 1)
        said = second.stderr.read()
        self.assertIn(f"{config}: network.shared: no port for logging: ", said)
        self.assertEqual(said.count("\n"), 1)

    def _occupy(self, number: int) -> None:
        self.addCleanup(socket.create_server(("127.0.0.1", number)).close)

    def _block(self, size: int) -> list[int]:
        """Ports behind one another, all free."""
        for first in range(20000, 30000, size):
            block = list(range(first, first + size))
            try:
                for number in block:
                    socket.create_server(("127.0.0.1", number)).close()
                return block
            except OSError:
                continue
        raise AssertionError("there are no free ports")

    def test_loopback(self) -> None:
        """Where nothing is said about addresses, nothing but loopback listens."""
        node = self.start(
            "cocaine-node", "-c", self.write("n.yaml", f"network: {{pinned: {{locator: {self.port}}}}}"),
            STATE_DIRECTORY=str(self.folder / "state"),
        )  # fmt: skip
        until(self.up, "the node is up")
        with Peer(self.port) as locator:
            until(lambda: self._found(locator, "node"), "the last of its services is up")
        self.assertEqual(listening(node.pid), {"0100007F"})
        self.assertTrue((self.folder / "state" / "storage").is_dir())

    def test_mistakes(self) -> None:
        """A daemon that cannot start says so in one line with file, key and mend, and its exit status is 1."""
        anywhere = "network: {pinned: {locator: 0}}"
        state = f"paths: {{state: {self.folder}/s}}"
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            cases = [
                ("cocaine-node", f"network: {{pinned: {{locator: {taken}}}}}", "network.pinned.locator"),
                ("cocaine-node", "network: {endpoint: localhost}", "network.endpoint"),
                ("cocaine-node", "network: {pinned: [", "line 1"),
                ("cocaine-node", f"{anywhere}\npaths: {{runtime: {__file__}}}", "paths.runtime"),
                ("cocaine-node", f"{anywhere}\npaths: {{runtime: {self.folder}/{'r' * 100}}}", "paths.runtime"),
                ("cocaine-locator", "storages: {core: {type: clay}}", "storages.core.type"),
                (
                    "cocaine-locator",
                    f"{anywhere}\nservices: {{storage: {{args: {{backend: x}}}}}}\nstorages: {{x: {{type: s3}}}}",
                    "storages.x.type",
                ),
                ("cocaine-gateway", f"network: {{pinned: {{locator: {taken}}}}}\n{state}", "network.pinned.locator"),
                ("cocaine-proxy", f"endpoints: ['tcp:{taken}:interface=127.0.0.1']", "endpoints"),
                ("cocaine-proxy", "timeouts: {chunk: soon}", "timeouts.chunk"),
            ]
            started = []
            for place, (daemon, text, key) in enumerate(cases):
                file = self.write(f"{place}.yaml", text)
                started.append((twistd(daemon, "-c", file), f"{daemon}: {file}: {key}"))
            for process, beginning in started:
                _, line = process.communicate(timeout=PATIENCE)
                self.assertEqual((process.returncode, line.count("\n")), (1, 1), line)
                self.assertTrue(line.startswith(beginning), line)

    def test_unknown_keys(self) -> None:
        """A key that nobody knows does not stop the start."""
        tree = {"network": {"pinned": {"locator": self.port}}, "netwrok": {}, "paths": {"state": f"{self.folder}/s"}}
        self.start("cocaine-locator", "-c", self.write("l.yaml", json.dumps(tree)))
        until(self.up, "the locator is up")
