"""
The platform as its users meet it: real daemons on free ports in a folder of their own, and plain blocking clients.

The daemons are those of ``bench.processes``; here they are also killed, restarted and looked at. The clients know
nothing of our own code but sockets and msgpack, so that a mistake in it cannot hide itself.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from bench import processes

ROOT = Path(__file__).resolve().parents[2]
PATIENT = Path(__file__).with_name("patient")
HELLO = ROOT / "examples" / "hello"
#: Seconds that anything may take before a test gives up; nothing is expected to need them.
PATIENCE = 30.0


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Wait until it is so; what the condition returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds:g} seconds")
        time.sleep(0.02)
    return found


def mentioning(text: str) -> dict[int, str]:
    """Processes, ourselves apart, that have a text in their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in words:
                found[int(entry.name)] = words
    return found


def heed_hangups(test: SynchronousTestCase) -> None:
    """What a test starts heeds SIGHUP, also where the tests themselves run under ``nohup``."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        test.addCleanup(signal.signal, signal.SIGHUP, signal.SIG_IGN)


class Platform(processes.Platform):
    """A node and a proxy that a test may treat badly."""

    def remove(self) -> None:
        """End everything, whatever the test has left of it."""
        self.__exit__()
        for pid in mentioning(str(self.folder)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def port(self, service: str) -> int:
        """Where a service is, by the locator."""
        with Peer(self.locator) as locator:
            (endpoints, _, _) = locator.call(0, service)
        port: int = endpoints[0][1]
        return port

    def start_app(self, name: str, folder: Path = PATIENT, profile: str = '{"pool-limit": 2}') -> int:
        """Upload and start an app; its port."""
        self.run_app(name, folder, profile)
        return self.port(name)

    def workers(self) -> list[int]:
        """Processes that the node has started."""
        return processes.descendants(self.node.pid) if self.node is not None else []

    def log(self) -> str:
        """What the daemons have logged, for a test that fails."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


class ServiceError(Exception):
    """The error that a service answered: category, code, reason."""

    def __init__(self, category: int, code: int, reason: str) -> None:
        super().__init__(category, code, reason)
        self.pair = (category, code)
        self.reason = reason


class Peer:
    """
    One connection to a service.

    :param where: a port on loopback, or the path of a UNIX socket.
    """

    def __init__(self, where: int | str) -> None:
        if isinstance(where, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            self.socket.connect(where)
        else:
            self.socket = socket.create_connection(("127.0.0.1", where), PATIENCE)
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        self._channel = 0

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def open(self, message: int, *args: Any) -> int:
        """Begin a call; its channel."""
        self._channel += 1
        self.send(self._channel, message, *args)
        return self._channel

    def send(self, channel: int, message: int, *args: Any) -> None:
        """One frame."""
        self.socket.sendall(msgpack.packb([channel, message, list(args), []], use_bin_type=False))

    def read(self, channel: int) -> tuple[int, list[Any]] | None:
        """The next message on a channel and its arguments; None when the connection ends instead."""
        while True:
            for found, message, args, *_ in self._unpacker:
                if found == channel:
                    return message, args
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._unpacker.feed(data)

    def call(self, message: int, *args: Any) -> list[Any]:
        """
        A call that answers once.

        :raises ServiceError: the service answered one.
        """
        answer = self.read(self.open(message, *args))
        if answer is None:
            raise ConnectionError("the service has closed the connection")
        if answer[0] == 1:
            (category, code), reason = answer[1]
            raise ServiceError(category, code, reason.decode())
        return answer[1]

    def ask(self, event: str, *chunks: bytes) -> list[tuple[int, list[Any]] | None]:
        """A whole event of an app: every message of the answer, and None where the connection ended."""
        channel = self.open(0, event)
        for chunk in chunks:
            self.send(channel, 0, chunk)
        self.send(channel, 2)
        said = [self.read(channel)]
        while said[-1] is not None and said[-1][0] == 0:
            said.append(self.read(channel))
        return said


def get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Regular:
    """
    A client that goes on asking, a request at a time, while a test does its worst.

    :param ask: one request; false, or an exception, is a failure.
    :ivar answered: how many were answered well.
    :ivar failures: what went wrong, in words.
    """

    def __init__(self, ask: Callable[[], bool]) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._ask = ask
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        while not self._over.is_set():
            try:
                if self._ask():
                    self.answered += 1
                else:
                    self.failures.append("a wrong answer")
            except (OSError, http.client.HTTPException) as problem:
                self.failures.append(repr(problem))

    def stop(self) -> None:
        """No more requests."""
        self._over.set()
        self._thread.join(PATIENCE)


def twistd(*words: str, **variables: str) -> subprocess.Popen[str]:
    """A daemon as a person would start it in the foreground; its log is thrown away, its stderr is kept."""
    command = [processes.sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    return subprocess.Popen(
        [*command, "--nodaemon", "--pidfile=", "--logfile=/dev/null", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, start_new_session=True,
    )  # fmt: skip


def listening(pid: int) -> set[str]:
    """The addresses, as the kernel writes them in hex, on which a process listens for TCP."""
    own = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it closes some while we look
            link = os.readlink(path)
            if link.startswith("socket:["):
                own.add(link[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own:
                found.add(fields[1].partition(":")[0])
    return found
