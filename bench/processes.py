"""The platform as processes of its own, for measuring: on free ports, in a temporary folder, and stopped for sure."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
TICK = os.sysconf("SC_CLK_TCK")
#: Seconds a daemon has to come up, and to go away.
PATIENCE = 30.0


def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu(pid: int) -> float:
    """
    Seconds of CPU, user and system, of a process so far; 0 when it is gone.

    By the scheduler's own clock where the kernel shows it: the usual figures are samples, a hundred a second, and miss
    much of what processes do that run for a tenth of a millisecond at a time.
    """
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def rss(pid: int) -> int:
    """Kilobytes of memory of its own: proportional set size, so that shared pages are shared fairly."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def children(pid: int) -> list[int]:
    """Processes that a process has started and that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    found = children(pid)
    for child in list(found):
        found += descendants(child)
    return found


class Platform:
    """
    A node and, when asked, a proxy.

    :ivar locator: the locator's port; ``http``: the proxy's.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cocaine-bench-"))
        self.locator = free_port()
        self.http = free_port()
        self.node: subprocess.Popen[bytes] | None = None
        self.proxy: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Platform:
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in (self.proxy, self.node):
            if daemon is not None and daemon.poll() is None:
                daemon.send_signal(signal.SIGTERM)
                try:
                    daemon.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_node(self, **more: object) -> subprocess.Popen[bytes]:
        """A node on loopback, with more settings by their section."""
        folder = str(self.folder)
        self.node = self._daemon("cocaine-node", {
            "network": {"endpoint": "127.0.0.1", "pinned": {"locator": self.locator}},
            "paths": {"state": folder, "runtime": f"{folder}/run", "spool": f"{folder}/spool"},
            "storages": {"core": {"type": "files", "args": {"path": f"{folder}/storage"}}},
            **more,
        })  # fmt: skip
        self._until(self.node, lambda: _listens(self.locator))
        return self.node

    def start_proxy(self, **more: object) -> subprocess.Popen[bytes]:
        """An HTTP proxy before it, with more settings by their section."""
        self.proxy = self._daemon("cocaine-proxy", {
            "endpoints": [f"tcp:{self.http}:interface=127.0.0.1"],
            "locators": [f"127.0.0.1:{self.locator}"],
            "access-log": {"format": "none"},
            **more,
        })  # fmt: skip
        self._until(self.proxy, lambda: _listens(self.http))
        return self.proxy

    def _daemon(self, name: str, tree: dict[str, object]) -> subprocess.Popen[bytes]:
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(tree))
        words = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
        log = self.folder / f"{name}.log"
        return subprocess.Popen(
            [*words, f"--logfile={log}", name, "-c", str(config)], stdin=subprocess.DEVNULL, env=_environment()
        )

    def _until(self, daemon: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not ready():
            if daemon.poll() is not None:
                raise ChildProcessError(f"a daemon has ended with status {daemon.returncode}")
            if time.monotonic() > end:
                raise TimeoutError("a daemon does not come up; its log is in the bench folder")
            time.sleep(0.05)

    def tool(self, *words: str) -> str:
        """Run ``cocaine-tool``; its standard output."""
        where = ["--host", "127.0.0.1", "--port", str(self.locator)]
        done = subprocess.run(
            [sys.executable, "-m", "cocaine_tx.tool", *words, *where],
            capture_output=True, text=True, timeout=60, env=_environment(),
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"cocaine-tool {' '.join(words)}: {done.stderr or done.stdout}")
        return done.stdout

    def run_app(self, name: str, folder: Path, profile: str) -> None:
        """Upload an app with a profile of its own, given as JSON, and start it."""
        self.tool("profile", "upload", "-n", name, "-r", profile)
        self.tool("app", "upload", str(folder), "-n", name)
        self.tool("app", "start", "-n", name, "-r", name)


def _environment() -> dict[str, str]:
    """Ours, where the package is found whatever folder we are in."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def archive(files: dict[str, str]) -> bytes:
    """A tar.gz of executable text files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            member.mode = 0o755
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()
