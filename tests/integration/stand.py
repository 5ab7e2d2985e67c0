"""
A node with real workers inside the test's own process: the daemon's wiring, the real reactor, real processes.

`Stand` also counts what a node may leave behind: descriptors, processes, sockets, folders.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater

from cocaine_tx.daemon.document import parse
from cocaine_tx.daemon.node import Node
from cocaine_tx.daemon.runtime_reader import Role, runtime_settings
from cocaine_tx.errors import CocaineError
from cocaine_tx.rpc.client import Dialer, Remote
from cocaine_tx.wire.frames import pack
from cocaine_tx.wire.headers import Headers

WORKERS = Path(__file__).with_name("workers")
#: Seconds that anything here may take.
PATIENCE = 30.0




def configuration(folder: str, **services: Any) -> dict[str, Any]:
    """The settings of a node that keeps everything in a folder and takes any ports."""
    return {
        "network": {"endpoint": "127.0.0.1", "pinned": {"locator": 0}},
        "paths": {"runtime": f"{folder}/run", "spool": f"{folder}/spool"},
        "storages": {"core": {"type": "files", "args": {"path": f"{folder}/storage"}}},
        "services": {"node": {"type": "node"}, "storage": {"type": "storage"}, "locator": {"type": "locator"},
                     **services},
    }  # fmt: skip


def archive(**files: str) -> bytes:
    """A tar of programs by name."""
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w:gz") as tar:
        for name, text in files.items():
            data = text.encode()
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return blob.getvalue()


class Stand:
    """One node, its storage and a client of it."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        # Short, since a socket's path may have 107 bytes only.
        self.folder = tempfile.mkdtemp(prefix="cxe")
        tree = configuration(self.folder)
        document = parse(yaml.safe_dump(tree), f"{self.folder}/node.yaml", {"HOME": self.folder})
        self.node = Node(reactor, runtime_settings(document, Role.NODE))
        self.remotes: list[Remote] = []
        self._program = (WORKERS / "actor.py").read_text()

    async def start(self) -> None:
        await self.node.start()
        self.service = await self.dial("node")
        self.storage = self.node.runtime.storage

    async def stop(self) -> None:
        for remote in self.remotes:
            remote.close()
        await self.node.stop()

    async def dial(self, name: str) -> Remote:
        """A new connection to a service."""
        dialer = Dialer(self.reactor, self.node.runtime.turn)
        remote = await dialer.service(self.node.runtime.endpoints(), name)
        self.remotes.append(remote)
        return remote

    # -- apps

    async def upload(self, name: str, act: str = "", program: str | None = None, **profile: Any) -> None:
        """An app whose workers act like that, and its profile (of the same name)."""
        blob = archive(main=program or self._program)
        environment = {"ACT": act} if act else {}
        settings: Mapping[str, Any] = {
            "spawn-timeout": 10, "handshake-timeout": 10, "terminate-timeout": 5, "heartbeat-timeout": 10,
            "isolate": {"type": "process", "args": {"kill_timeout": 1}},
            **{key.replace("_", "-"): value for key, value in profile.items()},
        }  # fmt: skip
        await self.storage.write("apps", name, pack(blob), ["app"])
        await self.storage.write("manifests", name, pack({"slave": "main", "environment": environment}), ["app"])
        await self.storage.write("profiles", name, pack(settings), ["profile"])

    async def run(self, name: str, act: str = "", **profile: Any) -> Remote:
        """Upload, start, and a connection to its service."""
        await self.upload(name, act, **profile)
        await self.service.call("start_app", name, name)
        return await self.dial(name)

    async def pause(self, name: str) -> None:
        await self.service.call("pause_app", name, timeout=PATIENCE)

    def pool(self, name: str) -> Any:
        assert self.node.service is not None
        return self.node.service.apps[name].pool

    # -- requests

    def ask(self, app: Remote, event: str = "ping", *chunks: bytes, headers: Headers = ()) -> Deferred[Any]:
        """One request: fires with its chunks, or with the pair of its error."""
        return Deferred.fromCoroutine(self._ask(app, event, chunks, headers))

    async def _ask(self, app: Remote, event: str, chunks: tuple[bytes, ...], headers: Headers) -> Any:
        channel, stream = app.stream("enqueue", event, headers=headers)
        for chunk in chunks:
            channel.chunk(chunk)
        channel.choke()
        try:
            return [args[0] async for args in stream]
        except CocaineError as error:
            return error.pair

    async def all(self, requests: list[Deferred[Any]]) -> list[Any]:
        """The ends of all of them, in time."""
        waiting = DeferredList(requests)
        waiting.addTimeout(PATIENCE, self.reactor)
        return [result for _, result in await waiting]

    # -- what there is

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait until it is so."""
        begun = self.reactor.seconds()
        while not condition():
            if self.reactor.seconds() - begun > seconds:
                raise AssertionError(f"{what}: not within {seconds} seconds")
            await deferLater(self.reactor, 0.05)

    def processes(self) -> dict[int, str]:
        """Processes that run from this stand's folders."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if self.folder in words and int(entry.name) != os.getpid() and state != "Z":
                found[int(entry.name)] = words
        return found

    def files(self, place: str) -> list[str]:
        """Names below the folder, but for the locks that an isolate keeps."""
        root = Path(self.folder) / place
        return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.name.startswith("."))

    def descriptors(self) -> int:
        """Open ones of this process."""
        gc.collect()
        return len(os.listdir("/proc/self/fd"))


def zombies() -> int:
    """Children of ours that nobody has reaped."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        count += words[0] == "Z" and int(words[1]) == os.getpid()
    return count


def python() -> str:
    """The interpreter of these tests."""
    return sys.executable
