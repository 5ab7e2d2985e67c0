"""
Run the tests and tell the truth about them: what ``make test`` calls.

    python -m tests.run [NAME ...]

Every test package is run by trial in a process of its own, as many at once as there are cores; ``tests.integration``
comes after the others, alone, because it starts real daemons. Without names everything under ``tests/`` runs. Every
skip is printed with its reason, and the last line is ``N passed, N failed, N skipped``. The exit status is 1 if
anything failed, if nothing ran, or, where ``CI`` is set, if anything was skipped for a reason that does not begin with
``impossible here:``.

trial has a ``-j`` of its own; it is not used because it tells its totals only in prose, and because a process that dies
or hangs takes the whole run along. Here it is one failure with a name, and its output is kept.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
ALONE = "tests.integration"
IMPOSSIBLE = "impossible here:"
#: Seconds that one package may take before it is stopped and counted as failed.
DEADLINE = float(os.environ.get("TEST_DEADLINE", "900"))
_ONE = "--one"
#: Leaders of the process groups that run now; an interrupted run takes them along.
_running: set[int] = set()


@dataclass(frozen=True, slots=True)
class Tally:
    """
    How some tests went.

    :ivar passed: also those that failed as they were expected to.
    :ivar failed: the tests' names; a test that both failed and left something behind is there once.
    :ivar skipped: name and reason.
    """

    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = field(default=())

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"


def strict(tally: Tally) -> Tally:
    """The same tests where nothing may be skipped that could have run: each such skip is a failure."""
    impossible = tuple(skip for skip in tally.skipped if skip[1].startswith(IMPOSSIBLE))
    guilty = tuple(name for name, reason in tally.skipped if not reason.startswith(IMPOSSIBLE))
    return Tally(tally.passed, tally.failed + guilty, impossible)


def run_here(name: str, scratch: str) -> Tally:
    """
    Run one package or module with trial in this process.

    :param name: a dotted name; one that cannot be imported is a failure.
    :param scratch: the folder tests write into; trial empties it first.
    """
    # Inside the function: importing trial installs nothing, but running it installs the reactor.
    from twisted.trial.reporter import TreeReporter
    from twisted.trial.runner import TestLoader, TrialRunner

    result = TrialRunner(TreeReporter, workingDirectory=scratch).run(TestLoader().loadByNames([name], recurse=True))
    # A test marked `todo` that passes has a mark that no longer tells the truth.
    bad = [*result.failures, *result.errors, *result.unexpectedSuccesses]
    return Tally(
        passed=result.successes + len(result.expectedFailures),
        failed=tuple(sorted({test.id() for test, *_ in bad})),
        skipped=tuple((test.id(), str(reason)) for test, reason in result.skips),
    )


def run_apart(name: str) -> tuple[Tally, str]:
    """Run one package or module in a process of its own; the tally and everything it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with TemporaryDirectory() as folder:
        answer, output = Path(folder) / "tally.json", Path(folder) / "output"
        # A file, not a pipe: what a test started and forgot must not keep us waiting for the pipe's end.
        with output.open("wb") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.run", _ONE, name, str(answer)],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        _running.add(child.pid)
        try:
            ended = f"ended with status {child.wait(DEADLINE)}"
        except subprocess.TimeoutExpired:
            ended = f"was stopped after {DEADLINE:g} seconds"
        finally:
            _kill_group(child.pid)
            _running.discard(child.pid)
            child.wait()
        text = output.read_text(errors="replace")
        try:
            told = json.loads(answer.read_text())
        except (OSError, ValueError):
            return Tally(failed=(f"{name} {ended} before its tests were done",)), text
    return Tally(told["passed"], tuple(told["failed"]), tuple((who, why) for who, why in told["skipped"])), text


def _kill_group(leader: int) -> None:
    """Stop a child and what it started; the group is empty already when the tests were tidy."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


def everything() -> list[str]:
    """Each package of tests and each module beside this one, as dotted names."""
    here = ROOT / "tests"
    packages = [path.parent.name for path in here.glob("*/__init__.py")]
    modules = [path.stem for path in here.glob("test_*.py")]
    return [f"tests.{name}" for name in sorted(packages) + sorted(modules)]


def _report(name: str, took: float, tally: Tally, output: str) -> None:
    print(f"{name}: {tally} ({took:.1f} s)", flush=True)
    if tally.failed:
        print(output, flush=True)


def _run_and_report(name: str) -> Tally:
    started = time.monotonic()
    tally, output = run_apart(name)
    _report(name, time.monotonic() - started, tally, output)
    return tally


def main(names: Sequence[str]) -> int:
    """Run what is named, or everything; the exit status."""
    wanted = list(names) or everything()
    alone = [name for name in wanted if name == ALONE or name.startswith(ALONE + ".")]
    together = [name for name in wanted if name not in alone]
    total = Tally()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        try:
            total = sum(pool.map(_run_and_report, together), total)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for leader in tuple(_running):
                _kill_group(leader)
            raise
    total = sum(map(_run_and_report, alone), total)

    for name, reason in sorted(total.skipped):
        print(f"skipped: {name}: {reason}")
    if os.environ.get("CI", "") not in ("", "0", "false"):
        total = strict(total)
    for name in total.failed:
        print(f"FAILED: {name}")
    if not total.passed and not total.failed and not total.skipped:
        print("no test ran: " + ", ".join(wanted))
    print(total, flush=True)
    return 0 if total.passed and not total.failed else 1


def _main_of_one(name: str, answer: Path) -> None:
    """The child's side of `run_apart`."""
    faulthandler.dump_traceback_later(DEADLINE * 0.98, exit=False)
    scratch = f"_trial_temp.{name.removeprefix('tests.')}"
    answer.write_text(json.dumps(asdict(run_here(name, str(ROOT / scratch)))))


if __name__ == "__main__":
    if sys.argv[1:2] == [_ONE]:
        _main_of_one(sys.argv[2], Path(sys.argv[3]))
    else:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            sys.exit(main(sys.argv[1:]))
        except KeyboardInterrupt:
            sys.exit("interrupted")
