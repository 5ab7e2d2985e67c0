"""``make run``, as a newcomer sees it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import free_port
from tests.integration.platform import PATIENCE, ROOT, get, mentioning


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="cocaine-run-"))
        self.addCleanup(shutil.rmtree, self.data, ignore_errors=True)
        self.http, self.locator = free_port(), free_port()

    def start(self) -> subprocess.Popen[str]:
        """What ``make run`` starts when it has made its environment."""
        run = subprocess.Popen(
            [sys.executable, "-m", "cocaine_tx.daemon.quickstart", "--http-port", str(self.http),
             "--locator-port", str(self.locator), "--data", str(self.data)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.addCleanup(self.end, run)
        return run

    def end(self, run: subprocess.Popen[str]) -> None:
        if run.poll() is None:
            run.kill()
        run.communicate()
        for pid in mentioning(str(self.data)):
            os.kill(pid, signal.SIGKILL)

    def test_from_nothing_to_an_answer_and_back(self) -> None:
        """The line that is printed answers; Ctrl-C leaves nothing but the data; it can be run on that again."""
        for _ in range(2):
            run = self.start()
            line = next((line.strip() for line in run.stdout if line.strip().startswith("curl ")), None)
            self.assertIsNotNone(line, run.stderr.read() if line is None else "")
            self.assertEqual(self._answer(line), "Hello, world!\n")
            run.send_signal(signal.SIGINT)
            said, complaints = run.communicate(timeout=PATIENCE)
            self.assertEqual((run.returncode, complaints), (0, ""), said)
            self.assertEqual(mentioning(str(self.data)), {})
            self.assertEqual(list((self.data / "run").iterdir()), [])
            for port in (self.http, self.locator):
                with socket.socket() as probe:
                    self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0)

    def _answer(self, line: str) -> str:
        if shutil.which("curl") is None:
            *_, url = shlex.split(line)
            return get(self.http, url.partition(f":{self.http}")[2])[1].decode()
        return subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=PATIENCE).stdout

    def test_complaints(self) -> None:
        """What is in the way is told in one line that names what to type instead."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            for name in ("http", "locator"):
                kept = getattr(self, name)
                setattr(self, name, taken)
                self._complains(f"make run: {name.upper()}_PORT: port {taken}: ")
                setattr(self, name, kept)
        self.data.rmdir()
        self.data.touch()
        self._complains(f"make run: DATA_DIR: {self.data}: ")
        self.data.unlink()

    def _complains(self, beginning: str) -> None:
        run = self.start()
        said, complaints = run.communicate(timeout=PATIENCE)
        self.assertEqual((run.returncode, said, complaints.count("\n")), (1, "", 1), complaints)
        self.assertTrue(complaints.startswith(beginning), complaints)
