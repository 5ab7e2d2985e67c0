"""
``make run``: the whole platform on this machine's loopback, with one app, in the foreground until Ctrl-C.

Nothing here is a shortcut: it writes two configuration files, starts ``twistd cocaine-node`` and ``twistd
cocaine-proxy`` as processes of their own, and uses ``cocaine-tool`` as any operator would.
"""

from __future__ import annotations

import argparse
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

import yaml

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "hello"
#: Its handlers are coroutines: a worker can have many events at a time, and few workers do for many clients.
PROFILE = {"pool-limit": 4, "concurrency": 100, "queue-limit": 1000}
#: Seconds until a daemon must answer.
PATIENCE = 30.0


def main() -> int:
    """Run until a signal or the end of a daemon; the exit status is 0 only for a signal."""
    wanted = _arguments()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for key, port in (("HTTP_PORT", wanted.http_port), ("LOCATOR_PORT", wanted.locator_port)):
            _try_port(key, port)
        data = _data(wanted.data)
        node = _configure(data / "node.yaml", _node(data, wanted.locator_port))
        daemons.append(_daemon(data, "cocaine-node", node))
        _operate(wanted.locator_port, daemons, stop)
        proxy = _configure(data / "proxy.yaml", _proxy(wanted.http_port, wanted.locator_port))
        daemons.append(_daemon(data, "cocaine-proxy", proxy))
        url = f"http://127.0.0.1:{wanted.http_port}"
        _until(lambda: _answers(url), daemons, stop, "the proxy does not answer")
        if not stop.is_set():
            _say(f"\nThe platform is up; its files are in {data}. In another terminal:\n\n    curl {url}/hello/http/\n")
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
    data = Path(folder).resolve()
    try:
        data.mkdir(parents=True, exist_ok=True)
        _configure(data / "node.yaml", {})
    except OSError as problem:
        mend = "give one that can be written in, such as make run DATA_DIR=./var"
        raise Unready(f"DATA_DIR: {data}: {problem.strerror}; {mend}") from None
    return data


def _node(data: Path, port: int) -> dict[str, object]:
    return {
        "network": {"endpoint": "127.0.0.1", "pinned": {"locator": port}},
        "paths": {"state": str(data), "runtime": str(data / "run"), "spool": str(data / "spool")},
        "storages": {"core": {"type": "files", "args": {"path": str(data / "storage")}}},
    }


def _proxy(http: int, locator: int) -> dict[str, object]:
    return {"endpoints": [f"tcp:{http}:interface=127.0.0.1"], "locators": [f"127.0.0.1:{locator}"]}


def _configure(path: Path, tree: dict[str, object]) -> Path:
    path.write_text("# Written by `make run` at every start.\n" + yaml.safe_dump(tree, sort_keys=False))
    return path


def _daemon(data: Path, name: str, config: Path) -> subprocess.Popen[bytes]:
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    log = data / f"{name}.log"
    # Its own session: Ctrl-C reaches us alone, and we end the daemons in order.
    return subprocess.Popen(
        [*twistd, "--nodaemon", "--pidfile=", f"--logfile={log}", name, "-c", str(config)], start_new_session=True
    )


def _operate(port: int, daemons: list[subprocess.Popen[bytes]], stop: threading.Event) -> None:
    """Upload the example, its profile, and start it."""
    where = ["--host", "127.0.0.1", "--port", str(port)]
    tool = [sys.executable, "-m", "cocaine_tx.tool"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*tool, *words, *where], capture_output=True, text=True, timeout=60)

    _until(lambda: run("locate", "-n", "node").returncode == 0, daemons, stop, "the node does not answer")
    for words in (
        ("profile", "upload", "-n", "hello", "-r", json.dumps(PROFILE)),
        ("app", "upload", str(EXAMPLE), "-n", "hello"),
        ("app", "start", "-n", "hello", "-r", "hello"),
    ):
        done = run(*words)
        if done.returncode:
            raise Unready(f"cocaine-tool {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/ping", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _until(
    ready: Callable[[], bool], daemons: list[subprocess.Popen[bytes]], stop: threading.Event, otherwise: str
) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        _look(daemons)
        if time.monotonic() > end:
            raise Unready(f"{otherwise} after {PATIENCE:.0f} seconds; see the logs beside its data")
        if stop.wait(0.1):
            raise Unready("interrupted")


def _look(daemons: list[subprocess.Popen[bytes]]) -> None:
    for daemon in daemons:
        status = daemon.poll()
        if status is not None:
            raise Unready(f"a daemon has ended with status {status}; see the logs beside its data")


def _end(daemons: list[subprocess.Popen[bytes]]) -> None:
    """The proxy first, so that nobody is sent to a node that is leaving."""
    for daemon in reversed(daemons):
        if daemon.poll() is None:
            daemon.terminate()
            try:
                daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
