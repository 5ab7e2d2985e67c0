"""
``make run``: the whole platform on this machine's loopback, with one app, in the foreground until Ctrl-C.

Nothing here is a shortcut: it writes two configuration files, starts ``twistd cocaine-node`` and ``twistd
cocaine-proxy`` as processes of their own, and uses ``cocaine-tool`` as any operator would.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import yaml

from ..errors import InvalidArgument
from ..node.manifest import LARGEST_PID, socket_path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hello"
#: Its handlers are coroutines: a worker can have many events at a time, and few workers do for many clients.
PROFILE = {"pool-limit": 4, "concurrency": 100, "queue-limit": 1000, "log-output": True}
#: Seconds until a daemon must answer.
PATIENCE = 30.0
_PR_SET_PDEATHSIG = 1


class Daemon(NamedTuple):
    """A daemon that was started, and where it says what it does."""

    process: subprocess.Popen[bytes]
    log: Path


def main() -> int:
    """Run until a signal or the end of a daemon; the exit status is 0 only for a signal."""
    wanted = _arguments()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A terminal that is closed says SIGHUP; `nohup` has it ignored.
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    daemons: list[Daemon] = []
    try:
        data = _data(wanted.data)
        # Held until this process ends, however it does.
        _lock = _claimed(data)
        for key, port in (("HTTP_PORT", wanted.http_port), ("LOCATOR_PORT", wanted.locator_port)):
            _try_port(key, port)
        node = _configure(data / "node.yaml", _node(data, wanted.locator_port))
        daemons.append(_daemon(data, "cocaine-node", node))
        _operate(wanted.locator_port, daemons, stop)
        proxy = _configure(data / "proxy.yaml", _proxy(wanted.http_port, wanted.locator_port))
        daemons.append(_daemon(data, "cocaine-proxy", proxy))
        url = f"http://127.0.0.1:{wanted.http_port}"
        _until(lambda: _answers(url), daemons, stop, lambda: "the proxy does not answer")
        if not stop.is_set():
            _say(f"\nThe platform is up; its files and logs are in {data}. In another terminal:")
            _say(f"\n    curl {url}/hello/http/\n")
            _say("Ctrl-C ends it.")
        while not stop.wait(0.5):
            _look(daemons)
        return 0
    except Unready as problem:
        if not stop.is_set():
            sys.stderr.write(f"make run: {problem}\n")
            return 1
        return 0
    finally:
        _end(daemons)


class Unready(Exception):
    """Something did not come up; the text says what and where to look."""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quickstart", description="The whole platform on loopback, with one app.")
    parser.add_argument("--http-port", type=int, default=8080)
    parser.add_argument("--locator-port", type=int, default=10053)
    parser.add_argument("--data", default="./var", help="folder for everything it keeps")
    return parser.parse_args()


def _try_port(key: str, port: int) -> None:
    """See that a port is free, so that whoever typed ``make run`` is told what to type instead."""
    try:
        if not port:
            raise OverflowError
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
    except OverflowError:
        raise Unready(f"{key}: {port} is no port; give another, such as make run {key}=18080") from None
    except OSError as problem:
        mend = f"stop who has it, or give another, such as make run {key}={port + 1}"
        raise Unready(f"{key}: port {port}: {problem.strerror}; {mend}") from None


def _data(folder: str) -> Path:
    """The folder for everything, made if it is not there."""
    data = Path(folder).expanduser().resolve()
    try:
        socket_path(str(data / "run"), EXAMPLE.name, LARGEST_PID)
    except InvalidArgument:
        mend = "give a shorter one, such as make run DATA_DIR=/tmp/cocaine"
        raise Unready(f"DATA_DIR: {data}: too long for the path of a worker's socket; {mend}") from None
    try:
        data.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise _unwritable(data, problem) from None
    return data


def _unwritable(data: Path, problem: OSError) -> Unready:
    mend = "give one that can be written in, such as make run DATA_DIR=./var"
    return Unready(f"DATA_DIR: {data}: {problem.strerror}; {mend}")


def _claimed(data: Path) -> IO[str]:
    """A lock on the folder: a second platform in it would write into the first one's files."""
    try:
        file = (data / "make-run.pid").open("a+")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        mend = "stop it, or start one beside it: make run DATA_DIR=./var2 HTTP_PORT=18080 LOCATOR_PORT=20053"
        raise Unready(f"DATA_DIR: {data}: process {file.read().strip()} runs there already; {mend}") from None
    except OSError as problem:
        raise _unwritable(data, problem) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _node(data: Path, port: int) -> dict[str, object]:
    return {
        "network": {"endpoint": "127.0.0.1", "pinned": {"locator": port}},
        "paths": {"state": str(data), "runtime": str(data / "run"), "spool": str(data / "spool")},
        "storages": {"core": {"type": "files", "args": {"path": str(data / "storage")}}},
        # At this level are the lines of workers whose profile has log-output.
        "logging": {"severity": "debug"},
    }


def _proxy(http: int, locator: int) -> dict[str, object]:
    return {"endpoints": [f"tcp:{http}:interface=127.0.0.1"], "locators": [f"127.0.0.1:{locator}"]}


def _configure(path: Path, tree: dict[str, object]) -> Path:
    path.write_text("# Written by `make run` at every start.\n" + yaml.safe_dump(tree, sort_keys=False))
    return path


def _daemon(data: Path, name: str, config: Path) -> Daemon:
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    log = data / f"{name}.log"
    # Its own session: Ctrl-C reaches us alone, and we end the daemons in order.
    process = subprocess.Popen(
        [*twistd, "--nodaemon", "--pidfile=", f"--logfile={log}", name, "-c", str(config)],
        start_new_session=True, preexec_fn=_ending_with_us(),
    )  # fmt: skip
    return Daemon(process, log)


def _ending_with_us() -> Callable[[], None] | None:
    """For a process between fork and exec: it gets SIGTERM when we have gone without a word, as after SIGKILL."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None:
        return None
    us = os.getpid()

    def follow() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != us:
            os._exit(1)

    return follow


def _operate(port: int, daemons: list[Daemon], stop: threading.Event) -> None:
    """Upload the example, and a profile unless an earlier run has left one, and start it."""
    tool = _Tool(port)
    _until(lambda: tool.does("locate", "-n", "node"), daemons, stop, lambda: f"the node does not answer: {tool.said}")
    if not tool.does("profile", "view", "-n", "default"):
        tool.must("profile", "upload", "-n", "default", "-r", json.dumps(PROFILE))
    tool.must("app", "upload", str(EXAMPLE), "-n", EXAMPLE.name)
    tool.must("app", "start", "-n", EXAMPLE.name, "-r", "default")


class _Tool:
    """
    ``cocaine-tool`` for a locator on this host.

    :ivar said: what it complained of last.
    """

    def __init__(self, port: int) -> None:
        self.said = ""
        self._where = ("--host", "127.0.0.1", "--port", str(port), "--quiet")

    def does(self, *words: str) -> bool:
        """Run a command; whether it has succeeded."""
        command = [sys.executable, "-m", "cocaine_tx.tool", *words, *self._where]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.said = f"no answer in {PATIENCE:.0f} seconds"
            return False
        self.said = done.stderr.strip()
        return done.returncode == 0

    def must(self, *words: str) -> None:
        """
        Run a command.

        :raises Unready: it failed.
        """
        if not self.does(*words):
            raise Unready(f"cocaine-tool {' '.join(words)}: {self.said}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _until(
    ready: Callable[[], bool], daemons: list[Daemon], stop: threading.Event, otherwise: Callable[[], str]
) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        _look(daemons)
        if time.monotonic() > end:
            raise Unready(f"{otherwise()}; see {daemons[-1].log}")
        if stop.wait(0.1):
            raise Unready("interrupted")


def _look(daemons: list[Daemon]) -> None:
    for daemon in daemons:
        status = daemon.process.poll()
        if status is not None:
            raise Unready(f"a daemon has ended with status {status}; see {daemon.log}")


def _end(daemons: list[Daemon]) -> None:
    """The proxy first, so that nobody is sent to a node that is leaving."""
    for daemon in reversed(daemons):
        process = daemon.process
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
