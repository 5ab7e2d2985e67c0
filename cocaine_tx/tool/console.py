"""
What a person or a script sees: results on stdout, everything else on stderr.

Results can be piped, so nothing but results is ever on stdout. Colours and overwritten lines are for terminals only.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from .exits import ToolError

_RED, _GREEN, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
#: How often ``-v`` must be given for details of the way, and for the place in our code where a failure arose.
DETAILS, TRACEBACKS = 2, 4


@dataclass(frozen=True, slots=True)
class Data:
    """A result that is data: always shown, as JSON."""

    value: Any


@dataclass(frozen=True, slots=True)
class Text:
    """A result that people read as text and scripts as JSON; always shown."""

    text: str
    value: Any


@dataclass(frozen=True, slots=True)
class Done:
    """A sentence saying that it is done; ``--quiet`` hides it and ``--json`` shows its facts instead."""

    sentence: str
    value: Any


Result = Data | Text | Done | None


def dump(value: Any) -> str:
    """JSON as the original tool prints it: sorted keys, four spaces."""
    return json.dumps(value, sort_keys=True, indent=4)


class Console:
    """
    The two streams and how much may be said on them.

    :param verbosity: how often ``-v`` was given.
    :param colours: whether a terminal may have them at all; a stream that is no terminal never has.
    """

    def __init__(
        self, out: TextIO, err: TextIO, *, json: bool = False, quiet: bool = False, verbosity: int = 0,
        colours: bool = True,
    ) -> None:  # fmt: skip
        self._out = out
        self._err = err
        self._json = json
        self._quiet = quiet
        self._verbosity = verbosity
        self._terminal = err.isatty()
        self._colours = colours and self._terminal

    def show(self, result: Result) -> None:
        """A command's result, on stdout."""
        if result is None:
            return
        if self._json or isinstance(result, Data):
            text = dump(result.value)
        elif isinstance(result, Text):
            text = result.text
        elif self._quiet:
            return
        else:
            text = result.sentence
        if text:
            self._out.write(text + "\n")
        self._out.flush()

    def failed(self, error: BaseException) -> None:
        """Why the command failed, on stderr."""
        if self._verbosity >= TRACEBACKS:
            self._say("".join(traceback.format_exception(error)).rstrip())
        if self._json:
            told = error.details() if isinstance(error, ToolError) else {"message": str(error)}
            self._say(dump({"error": told}))
        else:
            self._say(self._coloured(_RED, _capitalised(str(error) or type(error).__name__)))

    def warn(self, text: str) -> None:
        """Something the person should know although the command goes on."""
        if not self._quiet:
            self._say(self._coloured(_YELLOW, f"Warning: {text}"))

    def detail(self, text: str) -> None:
        """What is being done, for those who asked by ``-vv``."""
        if self._verbosity >= DETAILS:
            self._say(text)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Progress: the step while it lasts (on a terminal), then a tick or a cross."""
        if self._quiet:
            yield
            return
        if self._terminal:
            self._err.write(f"[ ] {text}\r")
            self._err.flush()
        try:
            yield
        except BaseException:
            self._say(f"[{self._coloured(_RED, self._sign('✘', 'x'))}] {text}")
            raise
        self._say(f"[{self._coloured(_GREEN, self._sign('✔', '+'))}] {text}")

    def _say(self, text: str) -> None:
        self._err.write(text + "\n")
        self._err.flush()

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def _sign(self, sign: str, plain: str) -> str:
        try:
            sign.encode(getattr(self._err, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            return plain
        return sign


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows as aligned columns, two blanks apart."""
    if not rows:
        return ""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
