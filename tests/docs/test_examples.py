"""The programs in the README and in the manual do what the text around them says."""

from __future__ import annotations

import re
import textwrap
import unittest
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.testing import WorkerStage
from cocaine_tx.wire.http import pack_request, unpack_head
from cocaine_tx.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"::\n\n((?:    .*\n|\n)+)")


def programs(name: str) -> list[str]:
    """The Python programs in a page, in their order."""
    blocks = (textwrap.dedent(found) for found in _BLOCK.findall((ROOT / name).read_text(encoding="utf-8") + "\n"))
    return [block for block in blocks if "import " in block]


class ExampleTests(SynchronousTestCase):
    def run_program(self, text: str) -> dict[str, Any]:
        """What a program defines; it is not left to serve."""
        self.patch(Worker, "run", lambda worker: None)
        namespace: dict[str, Any] = {"__name__": "example"}
        exec(compile(text, "<example>", "exec"), namespace)
        return namespace

    def stage(self, page: str, event: str) -> WorkerStage:
        """The first program of a page that has a handler for an event."""
        text = next(text for text in programs(page) if f'@worker.on("{event}"' in text)
        return WorkerStage(self.run_program(text)["worker"])

    def get(self, page: str, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        event = self.stage(page, "http").invoke("http", pack_request(method, "/", "1.1", [("Host", "x")], body))
        self.assertIsNone(event.error)
        status, _ = unpack_head(event.chunks[0])
        return status, b"".join(event.chunks[1:])

    def test_all_run(self) -> None:
        """Every program can be executed, and is a whole one."""
        for page, least in (("README.rst", 1), ("docs/apps.rst", 7)):
            found = programs(page)
            self.assertGreaterEqual(len(found), least)
            for text in found:
                self.run_program(text)

    def test_hello(self) -> None:
        """The worker on the first page, and its twin in the manual, greet."""
        for page in ("README.rst", "docs/apps.rst"):
            self.assertEqual(self.get(page), (200, b"Hello\n"), page)

    def test_kinds(self) -> None:
        """Handlers of all kinds answer."""
        stage = self.stage("docs/apps.rst", "wait")
        self.assertEqual(stage.invoke("later", b"a", b"b").chunks, [b"ab"])
        event = stage.open("block", b"shout")
        event.channel.choke()
        stage.wait(lambda: event.closed)
        self.assertEqual(event.chunks, [b"SHOUT"])

    def test_asyncio(self) -> None:
        """A program with an asyncio handler leaves the choice of the reactor to `run`."""
        text = next(text for text in programs("docs/apps.rst") if 'run="asyncio"' in text)
        self.assertEqual(self.run_program(text)["worker"].kinds, {"asyncio"})
        self.assertNotIn("internet import reactor", text)

    def test_streams(self) -> None:
        """Chunks come back one by one; an error of the app's own reaches its client."""
        stage = self.stage("docs/apps.rst", "reverse")
        self.assertEqual(stage.invoke("copy", b"1", b"2").chunks, [b"1", b"2"])
        self.assertEqual(stage.invoke("reverse", b"ab", b"c").chunks, [b"cba"])
        failed = stage.invoke("reverse")
        self.assertEqual((failed.error.pair, failed.error.reason), ((42, 7), "there is nothing to reverse"))

    def test_http(self) -> None:
        """A method that is not meant is told so; a body comes back."""
        text = next(text for text in programs("docs/apps.rst") if "405" in text)
        stage = WorkerStage(self.run_program(text)["worker"])
        refused = stage.invoke("http", pack_request("GET", "/", "1.1", []))
        self.assertEqual(unpack_head(refused.chunks[0])[0], 405)
        taken = stage.invoke("http", pack_request("POST", "/", "1.1", [], b"body"))
        self.assertEqual((unpack_head(taken.chunks[0])[0], taken.chunks[1:]), (200, [b"body"]))

    def test_testing(self) -> None:
        """The tests that the manual shows pass."""
        for case, names in (("CopyTests", ("test_copy",)), ("HelloTests", ("test_hello", "test_wrong"))):
            text = next(text for text in programs("docs/apps.rst") if f"class {case}" in text)
            made = self.run_program(text)[case]
            result = unittest.TestResult()
            for name in names:
                made(name).run(result)
            self.assertEqual((result.testsRun, result.failures, result.errors), (len(names), [], []))
