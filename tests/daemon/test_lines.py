"""The access log's file: no line is lost when it is moved away, and it is tried before the start."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.lines import LogFile, try_file
from cocaine_tx.errors import ConfigError


class Stopped:
    """A reactor that does not run yet; what is for a thread is done at once."""

    running = False

    def callInThread(self, act: Any) -> None:
        act()


class LogFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="ctx")
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "log"

    def test_moved_while_written(self) -> None:
        """SIGHUP while a batch is on its way: this one is in the file that was, the next in the new one."""
        log = LogFile(Stopped(), str(self.path))
        moved = self.path.with_suffix(".1")
        path = self.path

        class Batch(str):
            def encode(self, *how: str) -> bytes:
                path.rename(moved)
                log.reopen()
                return super().encode(*how)

        log.write("one\n", lambda: None)
        log.write(Batch("two\n"), lambda: None)
        log.write("three\n", lambda: None)
        self.assertEqual((moved.read_text(), path.read_text()), ("one\ntwo\n", "three\n"))

    def test_tried(self) -> None:
        """What cannot be written is told with its key; a pipe that nobody reads yet delays nothing."""
        try_file(str(self.path))
        for path in (self.path.parent, self.path / "x", self.path.parent / "nowhere" / "log"):
            problem = self.assertRaises(ConfigError, try_file, str(path))
            assert problem is not None
            self.assertIn(f"access-log.file: {path}: ", problem.reason)
        pipe = self.path.with_name("pipe")
        os.mkfifo(pipe)
        self.assertRaises(ConfigError, try_file, str(pipe))
