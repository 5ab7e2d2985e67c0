"""
What a command is: its words, its options, and the coroutine that carries it out.

The tree of commands is data (`tree`), read by the parser and by the reference page alike.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, gatherResults

from .console import Console, Result
from .exits import WrongValue
from .platform import Platform

T = TypeVar("T")
R = TypeVar("R")
#: Calls under way at once, where a command makes one for each of many things.
BATCH = 25


@dataclass(frozen=True, slots=True)
class Workplace:
    """
    The machine the tool runs on, as far as commands need it.

    :ivar aside: runs a function that may wait (disk, DNS, an editor) off the reactor.
    :ivar edit: gives a person a text to edit; fires with what became of it.
    :ivar now: seconds since the epoch.
    """

    aside: Callable[..., Deferred[Any]]
    edit: Callable[[str], Deferred[str]]
    now: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Job:
    """One command being carried out: what was asked, of whom, and where to talk."""

    args: Namespace
    platform: Platform
    console: Console
    workplace: Workplace

    def named(self, what: str) -> str:
        """
        The value of ``-n``.

        :raises WrongValue: there is none.
        """
        if not self.args.name:
            raise WrongValue(f"Please specify {what} name")
        return str(self.args.name)


#: Carries a command out and returns what to show.
Act = Callable[[Job], Coroutine[Any, Any, Result]]


@dataclass(frozen=True, slots=True)
class Option:
    """An option or a positional argument, in the words of ``argparse.add_argument``."""

    flags: tuple[str, ...]
    settings: dict[str, Any]


def option(*flags: str, **settings: Any) -> Option:
    """An option; one without a leading dash is positional."""
    return Option(flags, settings)


def name_of(what: str, *, required: bool = True) -> Option:
    """``-n/--name``. Where it is not required by the parser, `Job.named` asks for it."""
    return option("-n", "--name", metavar="NAME", required=required, help=f"{what} name")


@dataclass(frozen=True, slots=True)
class Command:
    """
    A leaf of the tree.

    :ivar path: the words that call it.
    :ivar summary: one sentence.
    :ivar run: carries it out.
    :ivar details: more for ``--help`` and the reference page.
    :ivar aliases: other last words for it.
    """

    path: tuple[str, ...]
    summary: str
    run: Act
    options: tuple[Option, ...] = ()
    details: str = ""
    aliases: tuple[str, ...] = ()


async def in_batches(items: Iterable[T], act: Callable[[T], Coroutine[Any, Any, R]]) -> list[tuple[T, R | Exception]]:
    """
    Do the same with many things, a batch at a time; every thing comes back with its outcome, in order.
    """

    async def tried(item: T) -> tuple[T, R | Exception]:
        try:
            return item, await act(item)
        except CancelledError:
            raise
        except Exception as problem:
            return item, problem

    waiting = list(items)
    outcomes: list[tuple[T, R | Exception]] = []
    while waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        outcomes += await gatherResults([Deferred.fromCoroutine(tried(item)) for item in batch], consumeErrors=True)
    return outcomes


async def all_of(items: Iterable[T], act: Callable[[T], Coroutine[Any, Any, R]]) -> list[R]:
    """`in_batches` where the first failure, if any, is raised after all have been tried."""
    results: list[R] = []
    problem: Exception | None = None
    for _, outcome in await in_batches(items, act):
        if isinstance(outcome, Exception):
            problem = problem or outcome
        else:
            results.append(outcome)
    if problem is not None:
        raise problem
    return results
