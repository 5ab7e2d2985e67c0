"""Proxies as processes, with nothing behind them, and how tests speak to them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0
TWISTD = "from twisted.scripts.twistd import run; run()"
#: As systemd starts a daemon: the socket is descriptor 3, and the process knows that it is meant.
SYSTEMD = (
    "import os; os.dup2({fd}, 3); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='http'); " + TWISTD
)


def until(ready: Callable[[], Any], otherwise: str) -> Any:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if found := ready():
                return found
        except OSError:
            pass
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.05)


class Local(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.host)


def ask(where: int | Path, target: str = "/", method: str = "GET", body: Any = None, **headers: str) -> tuple[int, str]:
    connection = (
        http.client.HTTPConnection("127.0.0.1", where, timeout=PATIENCE)
        if isinstance(where, int) else Local(str(where))
    )  # fmt: skip
    fields = {"Host": "a", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        connection.request(method, target, body, fields)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


class ProxyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ctx"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.config = self.folder / "proxy.yaml"

    def port(self) -> tuple[int, socket.socket]:
        """A listening socket, kept until the test has given it away."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        return int(listening.getsockname()[1]), listening

    def free(self) -> int:
        port, listening = self.port()
        listening.close()
        return port

    def write(self, **settings: Any) -> None:
        self.config.write_text(json.dumps({"locators": ["127.0.0.1:1"], **settings}))

    def start(self, where: int | Path, program: str = TWISTD, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        log = open(self.folder / "log", "wb")  # noqa: SIM115 - the process has it
        process = subprocess.Popen(
            [sys.executable, "-c", program, "--nodaemon", "--pidfile=", "cocaine-proxy", "-c", str(self.config)],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log, pass_fds=fds,
        )  # fmt: skip
        log.close()
        self.addCleanup(self.end, process)
        until(lambda: self.alive(process) and ask(where)[0] == 404, "the proxy does not answer")
        return process

    def alive(self, process: subprocess.Popen[bytes]) -> bool:
        self.assertIsNone(process.poll(), (self.folder / "log").read_text())
        return True

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def children(self, process: subprocess.Popen[bytes]) -> list[int]:
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not listed.exists():
            raise SkipTest("this kernel does not list children")
        return [int(pid) for pid in listed.read_text().split()]

    def replaced(self, process: subprocess.Popen[bytes], victim: int) -> None:
        until(
            lambda: len(pids := self.children(process)) == 2 and victim not in pids, "the child was not replaced"
        )
