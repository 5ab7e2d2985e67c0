"""``make run``, as a newcomer sees it."""

from __future__ import annotations

import json
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
from cocaine_tx.daemon.quickstart import PROFILE
from tests.integration.daemons import PATIENCE, ROOT, get, mentioning, until


class RunTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="cocaine run-"))
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

    def up(self) -> tuple[subprocess.Popen[str], str]:
        """It has come up and printed this line."""
        run = self.start()
        line = next((line.strip() for line in run.stdout if line.strip().startswith("curl ")), None)
        self.assertIsNotNone(line, run.stderr.read() if line is None else "")
        return run, line

    def test_from_nothing_to_an_answer_and_back(self) -> None:
        """
        The line that is printed answers; Ctrl-C leaves nothing but the data, and so does closing the terminal. It can
        be run on that again, and then finds the profile as it was left.
        """
        for number, profile in ((signal.SIGINT, PROFILE), (signal.SIGHUP, {"pool-limit": 2})):
            run, line = self.up()
            self.assertEqual(self._answer(line), "Hello, world!\n")
            self.assertEqual(json.loads(self.tool("profile", "view", "-n", "default")), profile)
            self.tool("profile", "upload", "-n", "default", "--profile", '{"pool-limit": 2}')
            run.send_signal(number)
            said, complaints = run.communicate(timeout=PATIENCE)
            self.assertEqual((run.returncode, complaints), (0, ""), said)
            self.assertEqual(mentioning(str(self.data)), {})
            self.assertEqual(list((self.data / "run").iterdir()), [])
            for port in (self.http, self.locator):
                with socket.socket() as probe:
                    self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0)

    def tool(self, *words: str) -> str:
        command = [sys.executable, "-m", "cocaine_tx.tool", *words, "--host", "127.0.0.1", "--port", str(self.locator)]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE
        ).stdout

    def test_killed(self) -> None:
        """
        While it runs, a second one in its folder is told who is there. What an app prints is in the node's log.
        When it is killed, nothing that it has started outlives it for long.
        """
        folder = self.data / "talker"
        shutil.copytree(ROOT / "examples" / "hello", folder)
        program = folder / "main.py"
        program.write_text(program.read_text().replace("    name =", "    print('who is it?', flush=True)\n    name ="))
        run, line = self.up()
        self.http, self.locator, first = free_port(), free_port(), self.locator
        self._complains(f"make run: DATA_DIR: {self.data}: process {run.pid} runs there already; ")
        self.locator = first
        self.tool("app", "upload", str(folder))
        self.tool("app", "start", "-n", "talker", "-r", "default")
        self.assertEqual(self._answer(line.replace("/hello/", "/talker/")), "Hello, world!\n")
        until(lambda: "who is it?" in (self.data / "cocaine-node.log").read_text(), "the line in the log")
        run.kill()
        until(lambda: not mentioning(str(self.data)), "the end of everything")

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        # These tests may have been started by make themselves.
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        return subprocess.run(
            ["make", *words], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=PATIENCE
        )  # fmt: skip

    def test_folder_with_a_space(self) -> None:
        """``make`` hands DATA_DIR on as it is."""
        words = shlex.split(self.make("--dry-run", "run", "DATA_DIR=a folder").stdout.replace("\\\n", " "))
        self.assertEqual(words[words.index("--data") + 1], "a folder")

    def test_no_environment(self) -> None:
        """Where the environment cannot be made, what to install is told, and nothing half-made is left to be used."""
        folder = Path(tempfile.mkdtemp(prefix="cocaine-run-"))
        self.addCleanup(shutil.rmtree, folder)
        python = folder / "python"
        python.write_text('#!/bin/sh\n[ "$2" = venv ] || exit 0\nmkdir -p "$3/bin" && touch "$3/bin/python"\nexit 1\n')
        python.chmod(0o755)
        made = self.make(f"{folder}/venv/bin/python", f"VENV={folder}/venv", f"PYTHON={python}")
        self.assertNotEqual(made.returncode, 0)
        self.assertIn("on Debian and Ubuntu install python3-venv", made.stderr)
        self.assertFalse((folder / "venv").exists())

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
        self.http, kept = 0, self.http
        self._complains("make run: HTTP_PORT: 0 is no port; ")
        self.http = kept
        shutil.rmtree(self.data)
        self.data.touch()
        self._complains(f"make run: DATA_DIR: {self.data}: ")
        self.data.unlink()
        self.data = self.data / ("deep" * 20)
        self._complains(f"make run: DATA_DIR: {self.data}: too long for ")
        self.assertFalse(self.data.exists())

    def _complains(self, beginning: str) -> None:
        run = self.start()
        said, complaints = run.communicate(timeout=PATIENCE)
        self.assertEqual((run.returncode, said, complaints.count("\n")), (1, "", 1), complaints)
        self.assertTrue(complaints.startswith(beginning), complaints)
