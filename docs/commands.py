"""The manual's reference of ``cocaine-tool``, out of the tree of commands. ``conf.py`` calls `write` at each build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tables import write_changed

from cocaine_tx.tool.command import Command, Option
from cocaine_tx.tool.parser import COMMON
from cocaine_tx.tool.tree import COMMANDS, NOUNS


def _literal(text: str) -> str:
    """Our words' single backquotes as reST's double ones."""
    return text.replace("`", "``").replace("*", "\\*")


def _option(option: Option) -> Iterator[str]:
    word = option.settings.get("metavar", "")
    choices = option.settings.get("choices")
    value = f" {{{','.join(choices)}}}" if choices else f" {word}" if word else ""
    if option.flags[0].startswith("-"):
        flags = ", ".join(f"``{flag}{value}``" for flag in option.flags)
    else:
        flags = f"``{word}``"
    needed = " Required." if option.settings.get("required") else ""
    yield f"{flags}"
    yield f"   {_literal(option.settings['help'])}.{needed}"


def _command(command: Command, mark: str) -> Iterator[str]:
    title = " ".join(command.path)
    yield from (title, mark * len(title), "", _literal(command.summary), "")
    if command.details:
        yield from (_literal(command.details), "")
    if command.aliases:
        also = ", ".join(f"``{' '.join((*command.path[:-1], alias))}``" for alias in command.aliases)
        yield from (f"The same as {also}.", "")
    for option in command.options:
        yield from (*_option(option), "")


def reference() -> Iterator[str]:
    """Every command, under its noun."""
    for option in COMMON:
        yield from (*_option(option), "")
    ordered = sorted(COMMANDS, key=lambda command: (len(command.path) > 1, command.path))
    last: tuple[str, ...] = ("",)
    for command in ordered:
        above = command.path[:-1]
        if above != last:
            title = " ".join(above) or "By themselves"
            yield from (title, "~" * len(title), "")
            if above:
                yield from (_literal(NOUNS[above]), "")
            last = above
        yield from _command(command, "^")


def write(folder: Path) -> None:
    """Write the reference into ``folder``."""
    write_changed(folder / "commands.txt", "\n".join(reference()))
