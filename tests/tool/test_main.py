"""The command as a process: exit codes, streams, signals."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

import cocaine_tx
from cocaine_tx.wire.frames import pack

from .stage import Stage

COMMAND = (sys.executable, "-m", "cocaine_tx.tool")


def environment() -> dict[str, str]:
    """Ours, with a home that has no configuration and the package in reach."""
    return {**os.environ, "HOME": os.devnull, "PYTHONPATH": str(Path(cocaine_tx.__file__).resolve().parent.parent)}


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, env=environment(), timeout=60)


class Process(SynchronousTestCase):
    def check(self, words: Sequence[str], status: int, said: str) -> None:
        done = tool(*words)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertIn(said, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        self.assertNotIn("\x1b", done.stderr)

    def test_wrong_usage(self) -> None:
        """Wrong words are 2 and help on stderr."""
        self.check(["app", "fly"], 2, "invalid choice: 'fly'")
        self.check(["locate"], 2, "the following arguments are required: -n/--name")
        self.check(["app", "list", "--timeout", "-1"], 2, "not a positive number of seconds")

    def test_wrong_port(self) -> None:
        """A port that is none is 22."""
        self.check(["app", "list", "--port", "x"], 22, "Port must be a number from 1 to 65535, not 'x'")

    def test_nobody_there(self) -> None:
        """A locator that nobody runs is 128, one line, and its address in it."""
        with socket.socket() as idle:
            idle.bind(("127.0.0.1", 0))
            port = idle.getsockname()[1]
            done = tool("app", "list", "--host", "localhost", "--port", str(port))
        self.assertEqual((done.returncode, done.stdout), (128, ""))
        self.assertEqual(len(done.stderr.splitlines()), 1)
        self.assertIn(f"Unable to establish connection: localhost:{port}: Connection was refused", done.stderr)
        self.assertIn("; is the platform up? --host and --port say where its locator is\n", done.stderr)

    def test_version(self) -> None:
        """The version needs no platform."""
        done = tool("version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"^\d+\.\d+\.\d+\n$")

    def test_interrupted(self) -> None:
        """Ctrl-C ends a command that waits, with 1 and one word."""
        self.interrupted(signal.SIGINT)

    def test_terminated(self) -> None:
        """SIGTERM, as of a service manager or `timeout`, is the same as Ctrl-C: what was begun is put back."""
        self.interrupted(signal.SIGTERM)

    def interrupted(self, number: int) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            silent.settimeout(60)
            words = ("uuid", "--host", "127.0.0.1", "--port", str(silent.getsockname()[1]))
            process = subprocess.Popen(
                [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
            )
            try:
                connection, _ = silent.accept()
                with connection:
                    connection.settimeout(60)
                    connection.recv(1)
                    process.send_signal(number)
                    out, err = process.communicate(timeout=60)
            finally:
                process.kill()
                process.wait()
        self.assertEqual((process.returncode, out, err), (1, "", "Aborted!\n"))


#: Says that it is open, waits for a Ctrl-C, and writes a text if it has survived that, as ``vim`` does.
EDITOR = """#!{python}
import signal, sys, time
try:
    with open({begun!r}, "w") as file:
        file.write("open")
    time.sleep(1000)
except KeyboardInterrupt:
    {then}
with open(sys.argv[1], "w") as file:
    file.write('{{"n": 2}}')
"""


class InEditor(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.close()))
        self.stage.storage.put("profiles", "a", {"n": 1}, "profile")

    async def interrupted(self, then: str) -> tuple[int, str]:
        """Edit the profile and press Ctrl-C while the editor is open; the exit code and stderr."""
        editor, begun = Path(self.mktemp()).resolve(), self.mktemp()
        os.mkfifo(begun)
        editor.write_text(EDITOR.format(python=sys.executable, then=then, begun=os.path.abspath(begun)))
        editor.chmod(0o755)
        words = ("profile", "edit", "-n", "a", "--port", str(self.stage.addresses["locator"]), "--host", "127.0.0.1")

        def run() -> tuple[int, str]:
            process = subprocess.Popen(
                [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
                env={**environment(), "VISUAL": str(editor)},
            )  # fmt: skip
            try:
                Path(begun).read_text()
                os.killpg(process.pid, signal.SIGINT)
                _, said = process.communicate(timeout=30)
                return process.returncode, said
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the editor too, whatever has become of the tool
                process.wait()

        return await deferToThread(run)

    async def test_survives(self) -> None:
        """Ctrl-C in an editor that has a use for it does not end the command, and the text is saved."""
        self.assertEqual(await self.interrupted("pass"), (0, '[✔] Saving profile "a"\n'))
        self.assertEqual(self.stage.storage.blob("profiles", "a"), pack({"n": 2}))

    async def test_ends(self) -> None:
        """An editor that ends by it ends the command, and nothing is changed."""
        status, said = await self.interrupted("signal.signal(2, signal.SIG_DFL); signal.raise_signal(2)")
        self.assertEqual(status, 128)
        self.assertIn("ended with status -2; nothing was changed\n", said)
        self.assertEqual(self.stage.storage.blob("profiles", "a"), pack({"n": 1}))
