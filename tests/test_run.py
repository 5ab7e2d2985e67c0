"""The test runner tells the truth: also when it is bad news."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests import run

MIXED = """
from twisted.trial.unittest import SynchronousTestCase

class Mixed(SynchronousTestCase):
    def test_good(self): pass
    def test_bad(self): self.fail("on purpose")
    def test_error(self): 1 / 0
    def test_absent(self): self.skipTest("no such machine")
    def test_impossible(self): self.skipTest("impossible here: the kernel cannot")
    def test_expected(self): self.fail("known")
    test_expected.todo = "not yet"
    def test_mended(self): pass
    test_mended.todo = "stale"
    def test_twice(self):
        self.addCleanup(lambda: 1 / 0)
        self.fail("and its cleanup fails too")
"""


class RunnerTests(SynchronousTestCase):
    """One made-up project of tests, run the way ours is."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).resolve()
        (self.root / "tests").mkdir(parents=True)
        (self.root / "tests" / "__init__.py").write_text("")
        (self.root / "tests" / "run.py").write_bytes(Path(run.__file__).read_bytes())

    def package(self, name: str, source: str) -> None:
        """Give the made-up project a package of tests."""
        folder = self.root / "tests" / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        (folder / "test_it.py").write_text(source)

    def play(self, *names: str, **environment: str) -> tuple[int, list[str]]:
        """Exit status and lines printed."""
        clean = {key: value for key, value in os.environ.items() if key not in ("CI", "TEST_DEADLINE")}
        done = subprocess.run(
            [sys.executable, "-m", "tests.run", *names],
            cwd=self.root, env={**clean, "PYTHONPATH": str(self.root), **environment},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout.splitlines() + done.stderr.splitlines()

    def test_counts(self) -> None:
        """Every kind of end is counted once, failures are named, skips have their reasons, the last line sums up."""
        self.package("mixed", MIXED)
        self.package("integration", "from tests.mixed.test_it import Mixed as M\nclass Last(M): pass\ndel M\n")
        status, lines = self.play()
        self.assertEqual((status, lines[-1]), (1, "4 passed, 8 failed, 4 skipped"))
        self.assertIn("skipped: tests.mixed.test_it.Mixed.test_absent: no such machine", lines)
        self.assertIn("FAILED: tests.integration.test_it.Last.test_twice", lines)

    def test_good(self) -> None:
        """Only passes and skips are a success, and one package can be run alone."""
        self.package("mixed", MIXED)
        self.package("fine", MIXED.split("    def test_bad")[0])
        self.assertEqual(self.play("tests.fine", CI="true")[0], 0)
        self.assertEqual(self.play("tests.fine")[1][-1], "1 passed, 0 failed, 0 skipped")

    def test_nothing_ran(self) -> None:
        """A run without any test is not a success."""
        self.package("empty", "")
        status, lines = self.play()
        self.assertEqual((status, lines[-1]), (1, "0 passed, 0 failed, 0 skipped"))

    def test_unknown_name(self) -> None:
        """A misspelled package is a failure."""
        self.assertEqual(self.play("tests.wrie")[0], 1)

    def test_import_error(self) -> None:
        """A module that cannot be imported is a failure that says why."""
        self.package("broken", "import no_such_thing\n")
        status, lines = self.play()
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))
        self.assertTrue(any("no_such_thing" in line for line in lines), lines)

    def test_death(self) -> None:
        """A process of tests that dies is one failure with its last words; the others still count."""
        self.package("fine", MIXED.split("    def test_bad")[0])
        self.package("dead", "import os\nprint('last words', flush=True)\nos._exit(0)\n")
        status, lines = self.play()
        self.assertEqual((status, lines[-1]), (1, "1 passed, 1 failed, 0 skipped"))
        self.assertIn("last words", lines)

    def test_silence(self) -> None:
        """Tests that never end are stopped and are one failure."""
        self.package("stuck", "import threading\nthreading.Event().wait()\n")
        status, lines = self.play(TEST_DEADLINE="2")
        self.assertEqual((status, lines[-1]), (1, "0 passed, 1 failed, 0 skipped"))
        self.assertIn("FAILED: tests.stuck was stopped after 2 seconds before its tests were done", lines)


class TallyTests(SynchronousTestCase):
    """Adding up, and CI's stricter view."""

    def test_skips_in_ci(self) -> None:
        """Where everything should run, a skip is a failure unless the machine cannot do it at all."""
        tally = run.Tally(3, (), (("a", "no qemu"), ("b", "impossible here: no /dev/kvm")))
        self.assertEqual(run.strict(tally), run.Tally(3, ("a",), (("b", "impossible here: no /dev/kvm"),)))

    def test_everything(self) -> None:
        """This very module is among the tests that run when nothing is named."""
        self.assertIn("tests.test_run", run.everything())
