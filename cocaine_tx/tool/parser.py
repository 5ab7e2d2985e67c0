"""
Words to a command and its arguments.

`argparse` and not click: the tree is data here, and what is left to do the standard library does well enough.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from .command import Command, Option, option
from .settings import HOST, PORT, TIMEOUT
from .tree import COMMANDS, NOUNS


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e7:
        raise ArgumentTypeError(f"not a positive number of seconds: {text!r}")
    return number


#: Options of every command, after its own words.
COMMON: tuple[Option, ...] = (
    option("--host", metavar="HOST", help=f"the locator's host ({HOST}, or as the configuration files say)"),
    option("--port", metavar="PORT", help=f"the locator's port ({PORT}, or as the configuration files say)"),
    option(
        "--timeout", metavar="SECONDS", type=_seconds, default=TIMEOUT,
        help=f"how long to wait for each answer ({TIMEOUT:g})",
    ),
    option("--json", action="store_true", help="results and errors as JSON"),
    option("-q", "--quiet", action="store_true", help="no progress, no warnings, no words of success"),
    option(
        "-v", "--verbose", action="count", default=0,
        help="say more on stderr; -vv what is done, -vvvv where in the code an error arose and the log",
    ),
)  # fmt: skip


def parser() -> ArgumentParser:
    """The whole tree; what it parses has the chosen `Command` as ``command``."""
    root = ArgumentParser(
        prog="cocaine-tool", allow_abbrev=False, description="Look at and change a Cocaine platform.",
        epilog="Options follow the command's words. `cocaine-tool COMMAND --help` explains each.",
    )  # fmt: skip
    branches: dict[tuple[str, ...], Any] = {(): _branch(root)}
    for command in sorted(COMMANDS, key=lambda command: command.path):
        *above, last = command.path
        _grow(branches, tuple(above))
        leaf = branches[tuple(above)].add_parser(
            last, aliases=list(command.aliases), help=command.summary, allow_abbrev=False,
            formatter_class=RawDescriptionHelpFormatter,
            description="\n\n".join(fill(text, 78) for text in (command.summary, command.details) if text),
        )  # fmt: skip
        leaf.set_defaults(command=command)
        _furnish(leaf, command)
    return root


def _branch(above: ArgumentParser) -> _SubParsersAction[ArgumentParser]:
    return above.add_subparsers(metavar="COMMAND", required=True, title="commands")


def _grow(branches: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> None:
    """The branch that the words lead to, with all below it."""
    if path in branches:
        return
    _grow(branches, path[:-1])
    words = NOUNS[path]
    below = branches[path[:-1]].add_parser(path[-1], help=words, description=words, allow_abbrev=False)
    branches[path] = _branch(below)


def _furnish(leaf: ArgumentParser, command: Command) -> None:
    for each in command.options:
        leaf.add_argument(*each.flags, **each.settings)
    common = leaf.add_argument_group("common options")
    for each in commons_of(command):
        common.add_argument(*each.flags, **each.settings)


def commons_of(command: Command) -> list[Option]:
    """The options of every command, without the short forms that the command itself uses for something else."""
    taken = {flag for each in command.options for flag in each.flags}
    return [Option(tuple(flag for flag in each.flags if flag not in taken), each.settings) for each in COMMON]


def parse(words: Sequence[str]) -> Namespace:
    """
    The arguments of a command line.

    :raises SystemExit: with 2 after a complaint on stderr, with 0 after ``--help``.
    """
    return parser().parse_args(words)
