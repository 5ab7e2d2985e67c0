"""The proxy as processes, with nothing behind it: how it listens, reloads, counts and ends."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import stat
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


class ProxyProcessTests(SynchronousTestCase):
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

    def test_counters_of_all(self) -> None:
        """Prometheus sees the sum of all processes, and it never falls, whichever of them ends."""
        port, operations = self.free(), self.free()
        self.write(endpoints=[f"tcp:{port}:interface=127.0.0.1"], processes=2,
                   operations=f"tcp:{operations}:interface=127.0.0.1")  # fmt: skip
        process = self.start(port)

        def counted(status: str) -> int:
            _, text = ask(operations, "/metrics")
            name = f'cocaine_proxy_requests_total{{app="",code="{status}"}} '
            return sum(int(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

        for _ in range(20):
            ask(port, "/ping")
        until(lambda: counted("503") == 20, "the requests are not counted")
        for number in (signal.SIGTERM, signal.SIGKILL):
            victim = self.children(process)[0]
            os.kill(victim, number)
            self.replaced(process, victim)
            self.assertEqual(counted("503"), 20)
        for _ in range(5):
            until(lambda: ask(port, "/ping")[0] == 503, "the proxy does not answer")
        until(lambda: counted("503") >= 25, "the new ones are not counted")
        self.assertEqual(ask(operations, "/ping"), (503, "Failed\n"))
        self.assertEqual(json.loads(ask(operations, "/info")[1])["requests"]["inprogress"], 0)

    def test_unix_socket(self) -> None:
        """A UNIX socket keeps its mode, outlives each child, and goes with the parent."""
        path = self.folder / "http"
        self.write(endpoints=[f"unix:{path}:mode=600"], processes=2)
        process = self.start(path)
        until(lambda: len(self.children(process)) == 2, "there are no two children")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        victim = self.children(process)[0]
        os.kill(victim, signal.SIGTERM)
        self.replaced(process, victim)
        self.assertEqual(ask(path)[0], 404)
        self.end(process)
        self.assertFalse(path.exists())

    def test_systemd(self) -> None:
        """A socket that systemd has opened is served, by one process or by several."""
        for processes in (1, 2):
            port, listening = self.port()
            self.write(endpoints=["systemd:domain=INET:index=0"], processes=processes)
            process = self.start(port, SYSTEMD.format(fd=listening.fileno()), (listening.fileno(),))
            self.assertEqual(ask(port)[0], 404)
            self.end(process)

    def test_systemd_unix(self) -> None:
        """A path that systemd has made is left to systemd."""
        path = self.folder / "given"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            self.write(endpoints=["systemd:domain=UNIX:index=0"])
            process = self.start(path, SYSTEMD.format(fd=listening.fileno()), (listening.fileno(),))
            self.end(process)
            self.assertTrue(path.exists())

    def test_waiting_to_be_accepted(self) -> None:
        """Who was connected when the proxy is stopped gets an answer, though it had no time to accept them all."""
        for processes in (1, 2):
            port = self.free()
            self.write(endpoints=[f"tcp:{port}:interface=127.0.0.1"], processes=processes)
            process = self.start(port)
            family = [process.pid]
            if processes > 1:
                until(lambda process=process: len(self.children(process)) == 2, "there are no two children")
                family += self.children(process)
                until(lambda port=port: all(ask(port)[0] == 404 for _ in range(20)), "the children do not answer")
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            clients = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(100)]
            for client in clients:
                self.addCleanup(client.close)
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            for pid in family:
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGCONT)
            for client in clients:
                self.assertEqual(client.recv(12), b"HTTP/1.1 404")
            process.wait(PATIENCE)
            self.assertRaises(ConnectionRefusedError, socket.create_connection, ("127.0.0.1", port))

    def test_reload(self) -> None:
        """SIGHUP makes new settings hold and begins a new log; a file with a mistake changes nothing."""
        for processes in (1, 2):
            port = self.free()
            log = self.folder / f"access{processes}"
            settings: dict[str, Any] = {"endpoints": [f"tcp:{port}:interface=127.0.0.1"], "processes": processes}
            self.write(**settings, **{"access-log": {"file": str(log), "format": "combined"}})
            process = self.start(port)
            until(lambda log=log: log.exists() and " 404 " in log.read_text(), "there is no access log")

            def call(port: int = port) -> int:
                body = '{"jsonrpc": "2.0", "id": 1, "method": "node.list"}'
                return ask(port, "/", "POST", body, Content_Type="application/json")[0]

            self.assertEqual(call(), 404)
            log.rename(f"{log}.1")
            changed = {"access-log": {"file": str(log), "format": "json"}, "json-rpc": {"services": ["storage"]}}
            self.write(**settings, **changed)
            process.send_signal(signal.SIGHUP)
            until(lambda call=call: all(call() == 200 for _ in range(10)), "the settings do not hold")
            until(lambda log=log: log.exists() and log.read_text(), "there is no new access log")
            self.assertEqual(json.loads(log.read_text().splitlines()[-1])["method"], "POST")
            self.config.write_text("limits: {body: many}")
            process.send_signal(signal.SIGHUP)
            until(lambda: "stays as it was" in (self.folder / "log").read_text(), "the mistake is not told")
            self.assertEqual(call(), 200)
            self.end(process)

    def test_faulty_file(self) -> None:
        """A child that is killed comes back as the others are, though the file would not let a proxy start by now."""
        port = self.free()
        settings: dict[str, Any] = {"endpoints": [f"tcp:{port}:interface=127.0.0.1"], "processes": 2}
        self.write(**settings)
        process = self.start(port)
        until(lambda: len(self.children(process)) == 2, "there are no two children")
        more = [*settings["endpoints"], f"tcp:{self.free()}:interface=127.0.0.1"]
        for text in ("limits: {body: many}", json.dumps({**settings, "endpoints": more})):
            self.config.write_text(text)
            process.send_signal(signal.SIGHUP)
            victims = self.children(process)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            for victim in victims:
                self.replaced(process, victim)
            until(lambda: ask(port)[0] == 404, "the proxy does not answer")
        log = (self.folder / "log").read_text()
        self.assertEqual(log.count("stays as it was"), 1, log)
        self.assertNotIn("Traceback", log)

    def test_reload_while_starting(self) -> None:
        """SIGHUP does not end a process that is not up yet; it reads the new file when it is."""
        port = self.free()
        settings: dict[str, Any] = {"endpoints": [f"tcp:{port}:interface=127.0.0.1"], "processes": 2}
        self.write(**settings)
        process = self.start(port)
        until(lambda: len(self.children(process)) == 2, "there are no two children")
        old = self.children(process)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        for pid in old:
            self.replaced(process, pid)
        young = self.children(process)
        self.write(**settings, tracing={"chanse": 1})
        process.send_signal(signal.SIGHUP)
        said = "tracing.chanse: unknown key, ignored; did you mean chance?"
        until(lambda: (self.folder / "log").read_text().count(said) == 2, "the new file is not read")
        self.assertEqual(self.children(process), young)

    def test_background(self) -> None:
        """What several processes log is in twistd's log, though they have no terminal."""
        port = self.free()
        self.write(endpoints=[f"tcp:{port}:interface=127.0.0.1"], processes=2)
        pidfile, log = self.folder / "pid", self.folder / "twistd.log"
        words = [f"--pidfile={pidfile}", f"--logfile={log}", "cocaine-proxy", "-c", "proxy.yaml"]
        subprocess.run(
            [sys.executable, "-c", TWISTD, *words],
            cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True,
        )  # fmt: skip
        pid = int(until(lambda: pidfile.exists() and pidfile.read_text(), "there is no pid file"))
        self.addCleanup(until, lambda: not pidfile.exists(), "it does not end")
        self.addCleanup(os.kill, pid, signal.SIGTERM)
        until(lambda: ask(port, "/seen")[0] == 404, "the proxy does not answer")
        until(lambda: '"GET /seen HTTP/1.1" 404' in log.read_text(), "its log has no line of the access log")

    def test_told_before_background(self) -> None:
        """What keeps a proxy from starting is said on the terminal, also when it was to go into the background."""
        port, _ = self.port()
        free = f"tcp:{self.free()}:interface=127.0.0.1"
        for settings, words in (
            ({"endpoints": [f"tcp:{port}:interface=127.0.0.1"]}, "endpoints: 'tcp:"),
            ({"endpoints": [free], "operations": f"tcp:{port}:interface=127.0.0.1"}, "operations: 'tcp:"),
            ({"endpoints": [free], "access-log": {"file": "nowhere/log"}}, "access-log.file: /"),
            ({"endpoints": [free], "request-header": "a\r\nb"}, "request-header: give the name"),
            ({"endpoints": [free], "mapped-headers": ["\u0436"]}, "mapped-headers: give the name"),
        ):
            self.write(**settings)
            ended = subprocess.run(
                [sys.executable, "-c", TWISTD, f"--pidfile={self.folder / 'pid'}", "cocaine-proxy", "-c", "proxy.yaml"],
                cwd=self.folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
                timeout=PATIENCE,
            )  # fmt: skip
            self.assertEqual(ended.returncode, 1, words)
            self.assertTrue(ended.stderr.startswith(f"cocaine-proxy: proxy.yaml: {words}"), ended.stderr)
            self.assertEqual(ended.stderr.count("\n"), 1)

    def test_operators(self) -> None:
        """Operators get in when clients have taken all connections, and are not counted among them."""
        port, operations = self.free(), self.free()
        self.write(endpoints=[f"tcp:{port}:interface=127.0.0.1"], operations=f"tcp:{operations}:interface=127.0.0.1",
                   limits={"connections": 2})  # fmt: skip
        self.start(port)
        free = "cocaine_proxy_connections_active 0\n"
        until(lambda: free in ask(operations, "/metrics")[1], "our own connection is still there")
        clients = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(2)]
        for client in clients:
            self.addCleanup(client.close)
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as other:
            self.assertEqual(other.recv(1), b"")
        for _ in range(3):
            text = ask(operations, "/metrics")[1]
        self.assertIn("cocaine_proxy_connections_active 2\n", text)
        self.assertNotIn('code="200"', text)

    def test_no_unicorn(self) -> None:
        """A proxy that is to follow a unicorn that is not there serves nevertheless, says so, and ends when told."""
        port = self.free()
        settings: dict[str, Any] = {"endpoints": [f"tcp:{port}:interface=127.0.0.1"]}
        self.write(**settings, unicorn={"schema": "tornado"})
        process = self.start(port)

        def logged(words: str) -> bool:
            return words in (self.folder / "log").read_text()

        for path in ("/proxy_apps_timeouts", "/zipkin_sampling"):
            until(lambda path=path: logged(f"unicorn: {path} cannot be followed"), "the log does not say it")
        self.write(**settings)
        process.send_signal(signal.SIGHUP)
        until(lambda: logged("change only by a restart"), "the log does not say what a restart is needed for")
        self.end(process)
        self.assertFalse(logged("Traceback"), (self.folder / "log").read_text())
