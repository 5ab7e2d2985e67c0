"""Several proxy processes: counted together, started again, told to reload, and heard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from tests.daemon.proxies import ROOT, TWISTD, ProxyCase, ask, until


class ProxyChildrenTests(ProxyCase):
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
