"""
A configuration file in memory, before anything in it has a meaning: found, parsed, its dialect known.

PyYAML is taken for YAML (safe loader only, duplicate keys refused); the original's JSON is read by `legacy`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ..errors import ConfigError
from . import legacy
from .section import Section, Source

#: What complaints call the configuration where no file is given.
BUILT_IN = "built-in configuration"


@dataclass(frozen=True, slots=True)
class Document:
    """
    One configuration.

    :ivar root: the whole tree.
    :ivar original: a file of the original runtime, which had other defaults.
    :ivar state: the folder for everything the daemon keeps, unless the tree names another.
    """

    root: Section
    original: bool
    state: str


def read(path: str | None, environ: Mapping[str, str]) -> Document:
    """
    Read a file, or take the built-in defaults for None.

    :raise ConfigError: it cannot be read or parsed.
    """
    return parse(text_of(path), path or BUILT_IN, environ)


def text_of(path: str | None) -> str:
    """
    What is in a file; nothing for None, which makes the built-in defaults.

    :raise ConfigError: it cannot be read.
    """
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}; give a file that this user may read") from e


def parse(text: str, file: str, environ: Mapping[str, str]) -> Document:
    """
    :param file: the name that complaints show; relative paths begin at its folder.
    :raise ConfigError: it cannot be parsed.
    """
    original = not file.endswith((".yaml", ".yml")) and legacy.looks_original(text)
    source = Source(file, os.path.dirname(os.path.abspath(file)))
    try:
        tree = legacy.parse(text) if original else yaml.load(text, _Loader)
        tree = {} if tree is None else tree
        if not isinstance(tree, Mapping):
            raise ValueError("give a map at the top level")
        if original:
            tree = legacy.to_version_4(tree)
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        raise ConfigError(f"{file}: {_where(e)}") from e
    return Document(Section(source, "", tree), original, state_folder(environ))


def _where(problem: Exception) -> str:
    """What is wrong with a file that cannot be parsed, and where, on one line."""
    if isinstance(problem, yaml.MarkedYAMLError) and problem.problem_mark is not None:
        mark = problem.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem.problem}"
    return " ".join(str(problem).split())


def state_folder(environ: Mapping[str, str]) -> str:
    """What systemd made for us, or the user's folder for state (the XDG rule)."""
    if given := environ.get("STATE_DIRECTORY"):
        return given.split(":")[0]
    if home := environ.get("XDG_STATE_HOME"):
        return os.path.join(home, "cocaine_tx")
    if home := environ.get("HOME"):
        return os.path.join(home, ".local", "state", "cocaine_tx")
    return "/var/lib/cocaine_tx"


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing a key that is given twice in one map."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)
