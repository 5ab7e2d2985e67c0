"""
Reading a configuration's tree: every value checked, every complaint one line that names the file, the key and the mend.

What has not been asked for when a section is closed is unknown: warned about, with the nearest name that is known.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import ConfigError

T = TypeVar("T")

#: The largest count, size or number of seconds a configuration may ask for.
LARGEST = 2**53


@dataclass(slots=True)
class Source:
    """
    Where a tree came from.

    :ivar file: its name as complaints show it.
    :ivar folder: what its relative paths are relative to.
    :ivar warnings: what was found odd, one line each, without repetition.
    """

    file: str
    folder: str
    warnings: list[str] = field(default_factory=list)

    def warn(self, key: str, words: str) -> None:
        """Note something odd about a key."""
        line = f"{self.file}: {key}: {words}"
        if line not in self.warnings:
            self.warnings.append(line)


class Section:
    """
    One map of the tree. Absent keys and null give the default; every reader raises `ConfigError`.

    :param path: the dotted key of this map, empty for the whole tree.
    """

    def __init__(self, source: Source, path: str, values: Mapping[str, Any]) -> None:
        self.source = source
        self.path = path
        self.values = values
        self._asked: dict[str, None] = {}

    def value(self, key: str) -> Any:
        """Whatever is given for a key, unchecked; None if nothing is."""
        self._asked[key] = None
        return self.values.get(key)

    def key(self, key: str) -> str:
        """The full name of a key."""
        return f"{self.path}.{key}" if self.path else key

    def complaint(self, key: str, mend: str) -> ConfigError:
        """The error for a key, saying how to mend it."""
        return ConfigError(f"{self.source.file}: {self.key(key)}: {mend}, not {_shown(self.values.get(key))}")

    def text(self, key: str, default: str) -> str:
        """Text that is not empty unless the default is."""
        value = self.value(key)
        if value is None:
            return default
        if not isinstance(value, str) or (default and not value) or "\0" in value:
            raise self.complaint(key, "give text")
        return value

    def optional_text(self, key: str) -> str | None:
        """Text, or None if nothing is given."""
        return self.text(key, "") or None

    def choice(self, key: str, default: str, choices: Collection[str]) -> str:
        """One of some words."""
        value = self.value(key)
        if value is None:
            return default
        if value not in choices:
            raise self.complaint(key, f"give one of {', '.join(choices)}")
        return str(value)

    def whole(self, key: str, default: int, least: int = 0, most: int = LARGEST) -> int:
        """A whole number within bounds."""
        value = self.value(key)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise self.complaint(key, f"give a whole number {_bounds(least, most)}")
        return value

    def number(self, key: str, default: float, least: float = 0, most: float = LARGEST) -> float:
        """A number within bounds, fractions allowed; for times, seconds."""
        value = self.value(key)
        if value is None:
            return default
        if type(value) not in (int, float) or not least <= value <= most:
            raise self.complaint(key, f"give a number {_bounds(least, most)}")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.complaint(key, "give true or false")
        return value

    def texts(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        """A list of texts; a single text is a list of one."""
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.complaint(key, "give a list of texts")
        return tuple(value)

    def path_to(self, key: str, default: str) -> str:
        """A path: ``~`` is the home folder, a relative one begins at the file's folder."""
        value = self.text(key, default)
        return os.path.normpath(os.path.join(self.source.folder, os.path.expanduser(value)))

    def table(self, key: str, default: Mapping[str, T], read: Callable[[Section, str], T]) -> dict[str, T]:
        """The default map with the given entries over it; ``read(section, name)`` reads one entry."""
        section = self.section(key)
        return {**default, **{name: read(section, name) for name in section.names()}}

    def plain(self, key: str) -> dict[str, Any]:
        """A map whose content is somebody else's to check."""
        section = self.section(key)
        return {name: section.value(name) for name in section.names()}

    def section(self, key: str) -> Section:
        """The map below a key, empty if nothing is given."""
        value = self.value(key)
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            raise self.complaint(key, "give a map")
        return Section(self.source, self.key(key), value)

    def off(self, key: str) -> bool:
        """Whether the key is given as ``false``: something that is on by default is not wanted."""
        return self.value(key) is False

    def names(self) -> list[str]:
        """The keys given here."""
        for name in self.values:
            if not isinstance(name, str):
                raise ConfigError(f"{self.source.file}: {self.path or 'top level'}: write the key {name!r} in quotes")
        return list(self.values)

    def meaningless(self, *keys: str, because: str = "means nothing here and is ignored") -> None:
        """Keys of the original that have no effect; warned about if given."""
        for key in keys:
            if self.value(key) is not None:
                self.source.warn(self.key(key), because)

    def close(self) -> None:
        """Warn about everything that nobody asked for."""
        for name in self.unasked():
            near = difflib.get_close_matches(name, self._asked, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.source.warn(self.key(name), f"unknown key, ignored{hint}")

    def asked(self) -> set[str]:
        """The keys that somebody has asked for, given or not."""
        return set(self._asked)

    def unasked(self) -> list[str]:
        """The keys given here that nobody has asked for yet."""
        return [name for name in self.names() if name not in self._asked]


def _shown(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return "a map"
        case list():
            return "a list"
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _bounds(least: float, most: float) -> str:
    return f"from {least} up" if most == LARGEST else f"from {least} to {most}"
