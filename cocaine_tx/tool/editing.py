"""
A document in a person's editor: out as JSON, back as a checked value, and never lost on the way.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from .command import Job
from .console import dump
from .documents import parse
from .exits import Aborted, Refused, ToolError


@dataclass(frozen=True, slots=True)
class Draft:
    """A changed document that is not saved yet."""

    document: Any
    text: str

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While it is being saved: a failure leaves the text in a file and says where."""
        try:
            yield
        except ToolError as problem:
            problem.args = (f"{problem} (your text is kept in {_keep(self.text)})",)
            raise
        except CancelledError:
            raise Aborted(f"Aborted! (your text is kept in {_keep(self.text)})") from None


async def edited(job: Job, document: Any, what: str, check: Callable[[Any], None]) -> Draft | None:
    """
    What a person made of a document; None if nothing.

    :param check: raises `ToolError` for a document that must not be saved.
    :raises WrongValue: the text is no JSON, or `check` says so; the text is kept in a file that the reason names.
    """
    before = dump(document) + "\n"
    after = await job.workplace.edit(before)
    if after.strip() == before.strip():
        return None
    draft = Draft(None, after)
    with draft.kept():
        changed = parse(after, what)
        check(changed)
    return None if changed == document else Draft(changed, after)


def _keep(text: str) -> str:
    with tempfile.NamedTemporaryFile(
        "w", prefix="cocaine-tool-", suffix=".json", delete=False, encoding="utf-8", errors="surrogateescape"
    ) as file:
        file.write(text)
    return file.name


class Editor:
    """
    `in_editor`, off the reactor.

    :param aside: runs a function that may wait.
    :ivar open: the editor has the terminal. A Ctrl-C is the editor's then; in ``vim`` it only leaves the insert mode.
    """

    def __init__(self, aside: Callable[..., Deferred[Any]]) -> None:
        self.open = False
        self._aside = aside

    def __call__(self, text: str) -> Deferred[str]:
        """What became of the text; fails as `in_editor` does."""
        self.open = True
        return self._aside(in_editor, text).addBoth(self._closed)

    def _closed(self, outcome: Any) -> Any:
        # Here and not in the thread: a Ctrl-C that has ended the editor is ours to hear before its end is.
        self.open = False
        return outcome


def in_editor(text: str) -> str:
    """
    Have a text edited by the program that $VISUAL or $EDITOR names (``vi`` without them).

    :raises Refused: the editor cannot be started or reports a failure.
    """
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="cocaine-tool-") as folder:
        path = os.path.join(folder, "document.json")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        try:
            status = subprocess.call([*words, path])
        except OSError as problem:
            raise Refused(f"cannot start the editor {words[0]!r}: {problem.strerror}") from problem
        if status:
            raise Refused(f"the editor {words[0]!r} ended with status {status}; nothing was changed")
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
