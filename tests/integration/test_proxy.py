"""The proxy as a process, before a node as a process, behind curl's and nginx's kind of clients."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 20.0

APP = '''#!/usr/bin/env python3
import hashlib, os, signal
from twisted.internet import reactor, task
from cocaine_tx.worker import Worker, http

worker = Worker()

@worker.on("http")
@http
async def hello(request, response):
    response.write_head(200, {"Content-Type": "text/plain"})
    response.write(f"{request.method} {request.uri} ")
    response.write(request.body)

@worker.on("sum")
@http
async def sum(request, response):
    digest = hashlib.sha256()
    async for piece in request:
        digest.update(piece)
    response.write_head(200, {})
    response.write(digest.hexdigest())

@worker.on("big")
@http
async def big(request, response):
    response.write_head(200, {})
    for _ in range(int(request.path.strip("/"))):
        await response.write(bytes(65536))

@worker.on("slow")
@http
async def slow(request, response):
    await task.deferLater(reactor, 0.5)
    response.write_head(200, {})
    response.write("slow")

@worker.on("endless")
@http
async def endless(request, response):
    response.write_head(200, {})
    while True:
        response.write("more")
        await task.deferLater(reactor, 0.05)

@worker.on("die")
@http
async def die(request, response):
    os.kill(os.getpid(), signal.SIGKILL)

worker.run()
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Platform:
    """A node with one app ``shop``, in a folder of its own; proxies are started beside it."""

    def __init__(self) -> None:
        # Short, for the workers' sockets live in it.
        self.folder = Path(tempfile.mkdtemp(prefix="ctx"))
        self.locator = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def daemon(self, name: str, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
        config = self.folder / f"{name}{len(self.processes)}.yaml"
        config.write_text(json.dumps(settings))
        command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
        log = open(self.folder / f"{config.stem}.log", "wb")  # noqa: SIM115 - the process has it
        process = subprocess.Popen(
            [*command, name, "-c", str(config)], cwd=self.folder, env=self._environment, stdout=log, stderr=log
        )
        log.close()
        self.processes.append(process)
        return process

    def start(self) -> None:
        folder = str(self.folder)
        self.daemon("cocaine-node", {
            "network": {"endpoint": "127.0.0.1", "pinned": {"locator": self.locator}},
            "paths": {"state": folder, "runtime": folder + "/run", "spool": folder + "/spool"},
            "storages": {"core": {"type": "files", "args": {"path": folder + "/storage"}}},
        })  # fmt: skip
        app = self.folder / "app"
        app.mkdir()
        (app / "main.py").write_text(APP)
        (app / "main.py").chmod(0o755)
        (app / "manifest.json").write_text('{"slave": "main.py", "http-streaming": true}')
        until(lambda: self.tool("locate", "-n", "node") is None, "the node does not answer")
        for words in (
            ("profile", "upload", "-n", "default", "-r", '{"pool-limit": 1, "concurrency": 100}'),
            ("app", "upload", str(app), "-n", "shop"),
            ("app", "start", "-n", "shop", "-r", "default"),
        ):
            problem = self.tool(*words)
            assert problem is None, problem

    def tool(self, *words: str) -> str | None:
        """What went wrong, if anything did."""
        where = ["--host", "127.0.0.1", "--port", str(self.locator)]
        command = [sys.executable, "-m", "cocaine_tx.tool", *words, *where]
        done = subprocess.run(command, env=self._environment, capture_output=True, timeout=PATIENCE)
        return f"{words}: {done.stderr.decode()}" if done.returncode else None

    def proxy(self, **settings: Any) -> tuple[int, subprocess.Popen[bytes]]:
        port = free_port()
        process = self.daemon("cocaine-proxy", {
            "endpoints": [f"tcp:{port}:interface=127.0.0.1"], "locators": [f"127.0.0.1:{self.locator}"], **settings
        })  # fmt: skip
        until(lambda: ask(port, "/ping")[0] == 200, "the proxy does not answer")
        return port, process

    def stop(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def until(ready: Any, otherwise: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if ready():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise AssertionError(otherwise)
        time.sleep(0.05)


def ask(port: int, target: str, method: str = "GET", body: Any = None, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


_platform: list[Platform] = []


def platform() -> Platform:
    """One for all tests of this file; it goes when the interpreter does."""
    if not _platform:
        import atexit

        made = Platform()
        _platform.append(made)
        atexit.register(made.stop)
        made.start()
    return _platform[0]


class ProxyTests(SynchronousTestCase):
    def proxy(self, **settings: Any) -> tuple[int, subprocess.Popen[bytes]]:
        port, process = platform().proxy(**settings)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)
        return port, process

    def test_requests(self) -> None:
        """Small and large requests, small and large answers, all through node and worker."""
        port, _ = self.proxy()
        self.assertEqual(ask(port, "/shop/http/x?y"), (200, b"GET /x?y "))
        routed = {"X_Cocaine_Service": "shop", "X_Cocaine_Handle": "http"}
        self.assertEqual(ask(port, "/", "POST", b"hi", **routed), (200, b"POST / hi"))
        self.assertEqual(ask(port, "/nope/http/")[0], 503)
        self.assertEqual(ask(port, "/shop/nope/")[0], 500)
        blob = os.urandom(5_000_000)
        import hashlib

        status, said = ask(port, "/shop/sum/", "PUT", blob)
        self.assertEqual((status, said.decode()), (200, hashlib.sha256(blob).hexdigest()))
        status, body = ask(port, "/shop/big/160")
        self.assertEqual((status, len(body)), (200, 160 * 65536))

    def test_json_rpc(self) -> None:
        """A listed service answers JSON-RPC, another does not."""
        port, _ = self.proxy(**{"json-rpc": {"services": ["storage"]}})
        call = {"jsonrpc": "2.0", "id": 1, "method": "storage.find", "params": ["manifests", ["app"]]}
        status, body = ask(port, "/", "POST", json.dumps(call), X_Cocaine_JSON_RPC="1")
        self.assertEqual((status, json.loads(body)), (200, {"jsonrpc": "2.0", "id": 1, "result": ["shop"]}))
        for method, params, code in (
            ("node.list", [], -32601), ("storage.find", [1], -32602), ("storage.read", ["manifests", "x"], -32000)
        ):
            call |= {"method": method, "params": params}
            status, body = ask(port, "/", "POST", json.dumps(call), Content_Type="application/json-rpc")
            self.assertEqual((status, json.loads(body)["error"]["code"]), (200, code))

    def test_killed_worker(self) -> None:
        """A worker that dies under a request is an error to that client at once; the next request works."""
        port, _ = self.proxy(retry={"attempts": 1})
        begun = time.monotonic()
        self.assertEqual(ask(port, "/shop/die/")[0], 502)
        self.assertLess(time.monotonic() - begun, PATIENCE)
        self.assertEqual(ask(port, "/shop/http/"), (200, b"GET / "))

    def test_drain(self) -> None:
        """SIGTERM lets a running request end, and takes no new one."""
        port, process = self.proxy()
        answers: list[tuple[int, bytes]] = []
        thread = threading.Thread(target=lambda: answers.append(ask(port, "/shop/slow/")))
        thread.start()
        time.sleep(0.2)
        process.terminate()
        thread.join(PATIENCE)
        self.assertEqual(answers, [(200, b"slow")])
        # twistd ends by the signal it was given, after everything else has ended.
        self.assertIn(process.wait(PATIENCE), (0, -signal.SIGTERM))

    def test_drain_ends(self) -> None:
        """What has not ended in time is broken off; an old client must not take the end for that of its answer."""
        port, process = self.proxy(wire={"drain-timeout": 0.5})
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.sendall(b"GET /shop/endless/ HTTP/1.0\r\n\r\n")
            until(lambda: b"more" in client.recv(65536), "there is no answer")
            process.terminate()
            with self.assertRaises(ConnectionResetError):
                while client.recv(65536):
                    pass
        self.assertIn(process.wait(PATIENCE), (0, -signal.SIGTERM))

    def test_processes(self) -> None:
        """Several processes share the port; one that is killed is replaced; all end with the parent."""
        port, process = self.proxy(processes=2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            raise SkipTest("this kernel does not list children")
        until(lambda: len(children.read_text().split()) == 2, "there are no two children")
        victim = int(children.read_text().split()[0])
        os.kill(victim, signal.SIGKILL)
        until(
            lambda: len(pids := children.read_text().split()) == 2 and str(victim) not in pids, "no child was replaced"
        )
        self.assertEqual(ask(port, "/shop/http/"), (200, b"GET / "))
        process.terminate()
        process.wait(PATIENCE)
        with self.assertRaises(OSError):
            ask(port, "/ping")

    def test_nginx(self) -> None:
        """nginx with our configuration leads a host name to its app."""
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if nginx is None:
            raise SkipTest("nginx is not installed")
        port, _ = self.proxy(**{"json-rpc": {"services": ["node"]}})
        front = free_port()
        folder = Path(tempfile.mkdtemp(prefix="ctx"))
        self.addCleanup(shutil.rmtree, folder, True)
        site = (ROOT / "conf" / "nginx.conf").read_text()
        site = site.replace("127.0.0.1:8080", f"127.0.0.1:{port}").replace("listen 80;", f"listen 127.0.0.1:{front};")
        temporary = "".join(
            f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{site}\n}}\n"
        )
        command = [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.terminate)
        host = {"Host": "shop.apps.example.org"}
        until(lambda: ask(front, "/x", **host)[0] == 200, "nginx does not answer")
        self.assertEqual(ask(front, "/x?y", **host), (200, b"GET /x?y "))
        self.assertEqual(ask(front, "/", "POST", b"hi", **host), (200, b"POST / hi"))
        self.assertEqual(ask(front, "/", Host="nope.apps.example.org")[0], 503)
        # What a client says itself leads it nowhere else, neither to a service nor by path.
        elsewhere = {"X_Cocaine_Service": "nope", "X_Cocaine_Event": "die", "X_Cocaine_Handle": "die"}
        self.assertEqual(ask(front, "/", **host, **elsewhere), (200, b"GET / "))
        call = '{"jsonrpc": "2.0", "id": 1, "method": "node.list"}'
        self.assertEqual(ask(port, "/", "POST", call, X_Cocaine_JSON_RPC="1")[0], 200)
        answer = ask(front, "/", "POST", call, **host, X_Cocaine_JSON_RPC="1")
        self.assertEqual(answer, (200, f"POST / {call}".encode()))
        self.assertEqual(ask(front, "/shop/http/", Host="else.example.org")[0], 404)
