"""
``cocaine-tool``: from the command line to a command's end.

The only place of the tool that knows the reactor, the process's streams and its signals.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogBeginner, textFileLogObserver

from ..rpc.client import Dialer
from ..rpc.turn import Turn
from . import settings
from .command import Job, Workplace
from .console import TRACEBACKS, Console
from .editing import Editor
from .exits import ABORTED, FAILED, SUCCESS, Aborted, ToolError
from .parser import parse
from .platform import Platform, Wait


async def carry_out(job: Job) -> int:
    """
    Run a command, show what came of it, and give its exit code.

    Never raises for what a command does; stdout that nobody reads any more is a success.
    """
    try:
        job.console.show(await job.args.command.run(job))
    except CancelledError:
        job.console.failed(Aborted("Aborted!"))
        return ABORTED
    except BrokenPipeError:
        return SUCCESS
    except ToolError as problem:
        job.console.failed(problem)
        return problem.status
    except Exception as problem:
        job.console.failed(problem)
        return FAILED
    finally:
        job.platform.close()
    return SUCCESS


def job_of(args: Namespace, reactor: Any, console: Console, workplace: Workplace) -> Job:
    """
    What a command gets to do its work with.

    :raises ToolError: the configuration files or the locator's address cannot be used.
    """
    # A command that asks nobody must not fail for a configuration file.
    content = settings.read() if args.command.path != ("version",) else {}
    chosen = settings.settings(content, args.host, args.port)
    dialer = Dialer(reactor, Turn(reactor))
    platform = Platform(dialer, chosen.locator, Wait(reactor, args.timeout), chosen.secure)
    return Job(args, platform, console, workplace)


def main(words: Sequence[str] | None = None) -> None:
    """The command ``cocaine-tool``; ends the process with the command's exit code."""
    sys.exit(_quietly(sys.stdout, lambda: run(sys.argv[1:] if words is None else words)))


def run(words: Sequence[str]) -> int:
    """Carry out a command line in this process; the exit code."""
    args = parse(words)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names and workers' output may hold what this terminal cannot show; that must not fail a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console(
        sys.stdout, sys.stderr, json=args.json, quiet=args.quiet, verbosity=args.verbose,
        colours="NO_COLOR" not in os.environ,
    )  # fmt: skip
    _log_to(sys.stderr if args.verbose >= TRACEBACKS else None)
    from twisted.internet import reactor

    aside = _aside(reactor)
    editor = Editor(aside)
    try:
        job = job_of(args, reactor, console, Workplace(aside, editor, time.time))
    except ToolError as problem:
        console.failed(problem)
        return problem.status
    return _in_reactor(reactor, job, editor)


def _aside(reactor: Any) -> Callable[..., Deferred[Any]]:
    """Runs functions that may wait in the reactor's threads."""
    return lambda act, *given: deferToThreadPool(reactor, reactor.getThreadPool(), act, *given)


def _in_reactor(reactor: Any, job: Job, editor: Editor) -> int:
    """
    Run the reactor for as long as the command takes. The first Ctrl-C cancels it, the second ends the process.

    One while the editor is open reaches the editor as well, and is left to it: a text on its way must not be lost.
    """
    status = ABORTED
    work: Deferred[int] = Deferred()

    def begin() -> None:
        nonlocal work
        # Only now: of SIGTERM the reactor has just made a stop, which would cut off what is to be put back.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, interrupted)
        work = Deferred.fromCoroutine(carry_out(job))
        work.addBoth(end)

    def end(code: Any) -> None:
        nonlocal status
        status = code if isinstance(code, int) else FAILED
        reactor.stop()

    def interrupted(number: int, _: Any) -> None:
        if number == signal.SIGINT and editor.open:
            return
        signal.signal(number, signal.SIG_DFL)
        reactor.callFromThread(work.cancel)

    reactor.callWhenRunning(begin)
    # Without Twisted's own handlers a signal would not wake the reactor.
    reactor.run(installSignalHandlers=True)
    return status


def _log_to(stream: TextIO | None) -> None:
    """Twisted's log goes there, or nowhere: a user's terminal is no log."""

    observers = [] if stream is None else [textFileLogObserver(stream)]
    globalLogBeginner.beginLoggingTo(observers, redirectStandardIO=False, discardBuffer=True)


def _quietly(out: TextIO, act: Callable[[], int]) -> int:
    """A reader that has gone (``| head``) is no reason for a complaint at the interpreter's end."""
    try:
        status = act()
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        status = SUCCESS
    return status
