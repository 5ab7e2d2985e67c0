"""The proxy as processes, with nothing behind it: how it listens, reloads and ends."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
from typing import Any
from unittest import SkipTest

from tests.daemon.proxies import PATIENCE, ROOT, SYSTEMD, TWISTD, ProxyCase, ask, until


class ProxyProcessTests(ProxyCase):
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

    def test_told_before_background(self) -> None:
        """What keeps a proxy from starting is said on the terminal, also when it was to go into the background."""
        port, _ = self.port()
        pidfile = self.folder / "pid"
        # One that has gone into the background, against what is asserted, must not stay there.
        self.addCleanup(lambda: pidfile.exists() and os.kill(int(pidfile.read_text()), signal.SIGTERM))
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
                [sys.executable, "-c", TWISTD, f"--pidfile={pidfile}", "cocaine-proxy", "-c", "proxy.yaml"],
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

    def certify(self, name: str) -> None:
        """A new key and certificate in the folder."""
        key, certificate = str(self.folder / "key.pem"), str(self.folder / "cert.pem")
        words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        subprocess.run(
            ["openssl", *words, "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL
        )

    def test_protocols(self) -> None:
        """A TLS client may offer HTTP/1.0 alone, as ``curl -0`` does; one that offers more is spoken to in HTTP/1.1."""
        if shutil.which("openssl") is None or importlib.util.find_spec("OpenSSL") is None:
            raise SkipTest("there is no openssl, or no pyOpenSSL")
        port, plain = self.free(), self.free()
        self.certify("first")
        files = f"privateKey={self.folder}/key.pem:certKey={self.folder}/cert.pem"
        self.write(endpoints=[f"tcp:{plain}:interface=127.0.0.1", f"ssl:{port}:interface=127.0.0.1:{files}"])
        process = self.start(plain)
        for offered, chosen in (
            (["http/1.0"], "http/1.0"), (["h2", "http/1.0", "http/1.1"], "http/1.1"), (None, None),
        ):  # fmt: skip
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            if offered is not None:
                context.set_alpn_protocols(offered)
            with context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE)) as client:
                self.assertEqual(client.selected_alpn_protocol(), chosen)
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                self.assertEqual(client.recv(12), b"HTTP/1.1 404")
        self.end(process)

    def test_certificates(self) -> None:
        """SIGHUP has new clients see a new certificate, and those who are there stay; a faulty one changes nothing."""
        if shutil.which("openssl") is None or importlib.util.find_spec("OpenSSL") is None:
            raise SkipTest("there is no openssl, or no pyOpenSSL")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def secure(port: int) -> ssl.SSLSocket:
            return context.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE))

        def shown(port: int) -> bytes:
            with secure(port) as client:
                return client.getpeercert(True) or b""

        for processes in (1, 2):
            port, plain = self.free(), self.free()
            self.certify("first")
            files = f"privateKey={self.folder}/key.pem:certKey={self.folder}/cert.pem"
            endpoints = [f"tcp:{plain}:interface=127.0.0.1", f"ssl:{port}:interface=127.0.0.1:{files}"]
            self.write(endpoints=endpoints, processes=processes)
            process = self.start(plain)
            first = shown(port)

            def changed(port: int = port, first: bytes = first) -> bool:
                return first not in [shown(port) for _ in range(10)]

            with secure(port) as client:
                self.certify("second")
                process.send_signal(signal.SIGHUP)
                until(changed, "the new certificate is not shown")
                (self.folder / "cert.pem").write_text("junk")
                process.send_signal(signal.SIGHUP)
                until(lambda: "stays as it was" in (self.folder / "log").read_text(), "the fault is not told")
                self.assertNotEqual(shown(port), first)
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                self.assertEqual(client.recv(12), b"HTTP/1.1 404")
            self.end(process)

    def test_open_files(self) -> None:
        """A shell's limit of open files does not keep clients out, and a hard one is told."""
        port = self.free()
        self.write(endpoints=[f"tcp:{port}:interface=127.0.0.1"], limits={"connections": 2000})
        for hard, words in (("4096", ""), ("256", "limits.connections: 2000 clients need 3024 open files and 256 are")):
            limited = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (100, {hard})); "
            process = self.start(port, limited + TWISTD)
            clients = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(150)]
            self.assertEqual(ask(port)[0], 404)
            for client in clients:
                client.close()
            self.end(process)
            log = (self.folder / "log").read_text()
            self.assertEqual("limits.connections" in log, bool(words))
            self.assertIn(words, log)

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
