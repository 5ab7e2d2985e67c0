"""
Several hosts on one machine: network namespaces joined by a bridge in a namespace of its own, and daemons in them.

Needs root and iproute2. Everything is named after this process, and removed by `Hosts.remove`.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ECHO = Path(__file__).with_name("echo")
LOAD = Path(__file__).with_name("load.py")
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def missing() -> str:
    """Why hosts cannot be made here; empty when they can."""
    if os.geteuid():
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2"
    probe = f"cxt{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return ""


class Hosts:
    """Hosts named by number: 10.77.0.N."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cxt"))
        self.prefix = f"cxt{os.getpid()}"
        self.switch = f"{self.prefix}s"
        self.daemons: dict[str, subprocess.Popen] = {}
        self.numbers: list[int] = []
        self._run("ip", "netns", "add", self.switch)
        self._inside(self.switch, "ip", "link", "add", "br0", "type", "bridge")
        self._inside(self.switch, "ip", "link", "set", "br0", "up")

    def _run(self, *words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def _inside(self, namespace: str, *words: str) -> str:
        return self._run("ip", "netns", "exec", namespace, *words)

    def address(self, number: int) -> str:
        return f"10.77.0.{number}"

    def space(self, number: int) -> str:
        return f"{self.prefix}h{number}"

    def add(self, number: int) -> None:
        """A host."""
        space, port = self.space(number), f"p{number}"
        self.numbers.append(number)
        self._run("ip", "netns", "add", space)
        self._run("ip", "-n", space, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self.switch)
        self._run("ip", "-n", self.switch, "link", "set", port, "master", "br0", "up")
        self._run("ip", "-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        self._run("ip", "-n", space, "link", "set", "lo", "up")
        self._run("ip", "-n", space, "link", "set", "eth0", "up")
        self._run("ip", "-n", space, "route", "add", "default", "dev", "eth0")

    def unplug(self, number: int) -> None:
        """The cable is cut beyond the host's own plug: nobody is told."""
        self._run("ip", "-n", self.switch, "link", "set", f"p{number}", "nomaster")

    def plug(self, number: int) -> None:
        self._run("ip", "-n", self.switch, "link", "set", f"p{number}", "master", "br0")

    def start(self, number: int, daemon: str, settings: dict) -> subprocess.Popen:
        """A daemon on a host."""
        state = self.folder / f"h{number}"
        tree = {
            "network": {"endpoint": self.address(number), "pinned": {"locator": 10053}},
            "paths": {"state": str(state)},
            "storages": {"core": {"type": "files", "args": {"path": str(self.folder / "storage")}}},
            **settings,
        }
        return self._daemon(number, daemon, tree)

    def start_proxy(self, number: int, locator: int) -> subprocess.Popen:
        """An HTTP proxy on a host, port 8080, before another's locator."""
        return self._daemon(number, "cocaine-proxy", {
            "endpoints": [f"tcp:8080:interface={self.address(number)}"],
            "locators": [f"{self.address(locator)}:10053"],
            "access-log": {"format": "none"},
        })  # fmt: skip

    def _daemon(self, number: int, daemon: str, tree: dict) -> subprocess.Popen:
        name = f"{daemon}{number}"
        config = self.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(tree))
        log = self.folder / f"{name}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.space(number), *TWISTD, "--nodaemon", "--pidfile=", f"--logfile={log}",
             daemon, "-c", str(config)],
            env=environment, cwd=self.folder, start_new_session=True,
        )  # fmt: skip
        self.daemons[name] = process
        return process

    def tool(self, number: int, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ip", "netns", "exec", self.space(number), sys.executable, "-m", "cocaine_tx.tool", *words,
             "--host", self.address(number), "--port", "10053"],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def load(self, number: int, locator: int, app: str, connections: int, *visitors: int) -> "Load":
        """Steady load from a host; ``visitors`` is the host of a proxy, and how many connections go through it."""
        visits = [self.address(visitors[0]), str(visitors[1])] if visitors else []
        return Load(subprocess.Popen(
            ["ip", "netns", "exec", self.space(number), sys.executable, str(LOAD), self.address(locator), app,
             str(connections), *visits],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        ))  # fmt: skip

    def signal(self, name: str, number: int) -> None:
        """To a daemon and all its workers."""
        for pid in self.family(self.daemons[name].pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def family(self, pid: int) -> list[int]:
        """A process and everything it has started."""
        found = [pid]
        for child in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = child.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[1]) == pid:
                found += self.family(int(child.parent.name))
        return found

    def kill(self, name: str) -> None:
        """The host's power goes: the daemon and its workers at once."""
        pids = self.family(self.daemons[name].pid)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.daemons.pop(name).wait(10)

    def remove(self) -> None:
        """End everything."""
        for name in list(self.daemons):
            self.signal(name, signal.SIGCONT)
            self.kill(name)
        for number in self.numbers:
            subprocess.run(["ip", "netns", "del", self.space(number)], check=False)
        subprocess.run(["ip", "netns", "del", self.switch], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class Load:
    """A running load program."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process = process

    def report(self) -> dict:
        """How it went so far; ``recent`` is since the last report."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> dict:
        """Let what is on its way end; how it went in all."""
        self.process.stdin.close()
        line = self.process.stdout.readline()
        self.process.wait(30)
        return json.loads(line)

    def kill(self) -> None:
        """Whatever happened to the test, this ends."""
        self.process.kill()
        self.process.wait(10)
        self.process.stdin.close()
        self.process.stdout.close()


def until(condition, seconds: float, what: str) -> float:
    """Seconds until it was so; fails when it has not become so in time."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"{what}: not within {seconds} seconds")
        time.sleep(0.1)
    return time.monotonic() - begun
