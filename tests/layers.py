"""
The house rules that can be read off the source: who may import whom, what a file may be called, how long it may be.

`violations` reads a package's folder with `ast` and imports nothing, so it works on broken and on made-up packages
alike; `tests.test_layers` runs it on ours and, so that it is a check that can fail, on bad ones.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Rooms stand side by side on one floor and never open into each other.
ROOMS = frozenset({"locator", "gateway", "node", "isolate", "storage", "logs", "proxy", "build"})

_BELOW_ROOMS = frozenset({"errors", "interfaces", "wire", "rpc"})

#: What each part may import of the package besides itself and ``__version__``; a part that is not here may not exist.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "__init__": frozenset(),
    "errors": frozenset(),
    "interfaces": frozenset({"errors"}),
    # Not `interfaces`: that file mentions Deferreds, and so would bring Twisted in.
    "wire": frozenset({"errors"}),
    "rpc": frozenset({"errors", "interfaces", "wire"}),
    **dict.fromkeys(ROOMS, _BELOW_ROOMS),
    "worker": frozenset({"errors", "wire", "rpc"}),
    "tool": frozenset({"errors", "interfaces", "wire", "rpc"}),
    "daemon": _BELOW_ROOMS | ROOMS | {"worker"},
    "testing": _BELOW_ROOMS | ROOMS | {"worker", "tool"},
}

#: What ``wire/`` does without: other people's loops, and time.
WIRE_REFUSES = frozenset({"twisted", "automat", "asyncio", "time"})

#: Names that say nothing about what is inside.
EMPTY_NAMES = frozenset({"util", "utils", "common", "manager", "helper", "helpers", "base"})
EMPTY_PREFIXES = ("handle_", "process_")

LONGEST_FILE = 400


@dataclass(frozen=True, slots=True)
class Violation:
    """
    One broken rule.

    :ivar rule: the rule's short name: ``floor``, ``sideways``, ``testing``, ``unknown part``, ``outside``, ``wire``,
        ``await``, ``reactor``, ``name``, ``length`` or ``syntax``.
    :ivar where: the file, relative to the package, and the line in it.
    :ivar why: one clause for whoever has to mend it.
    """

    rule: str
    where: str
    why: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}: {self.why}"


@dataclass(frozen=True, slots=True)
class _Import:
    """One imported name, made absolute: ``cocaine_tx.rpc.channel`` or ``twisted.internet.reactor``."""

    name: str
    line: int
    inside_function: bool


def violations(package: Path) -> list[Violation]:
    """
    Every broken rule below a package's folder, in the order of files and lines.

    :param package: the folder; its own name is the package's name.
    """
    found: list[Violation] = []
    for path in sorted(package.rglob("*.py")):
        if "__pycache__" not in path.parts:
            found.extend(_file_violations(package, path))
    return found


def _file_violations(package: Path, path: Path) -> Iterator[Violation]:
    inside = path.relative_to(package)
    parts = inside.with_suffix("").parts
    part = parts[0]
    source = path.read_text(encoding="utf-8")

    for name in parts:
        if EMPTY_NAMES.intersection(name.strip("_").split("_")):
            yield Violation("name", str(inside), f"'{name}' says nothing about what is inside")
    length = len(source.splitlines())
    if length > LONGEST_FILE:
        yield Violation("length", str(inside), f"{length} lines; a file is one noun, at most {LONGEST_FILE} lines")
    if part not in MAY_IMPORT:
        yield Violation("unknown part", str(inside), f"'{part}' has no floor; give it one in tests/layers.py")
        return
    try:
        tree = ast.parse(source, str(path))
    except SyntaxError as error:
        yield Violation("syntax", f"{inside}:{error.lineno}", str(error.msg))
        return

    module = (package.name, *(parts[:-1] if path.name == "__init__.py" else parts))
    is_package = path.name == "__init__.py"
    for imported in _imports(tree, module, is_package):
        for rule, why in _import_complaints(package.name, inside, part, imported):
            yield Violation(rule, f"{inside}:{imported.line}", why)
    for line, name in _functions_with_empty_names(tree):
        yield Violation("name", f"{inside}:{line}", f"'{name}' does not say what it does or what happened")
    if part == "wire":
        for line in _awaits(tree):
            yield Violation("await", f"{inside}:{line}", "wire/ answers at once: no async, no await")


def _import_complaints(package: str, inside: Path, part: str, imported: _Import) -> Iterator[tuple[str, str]]:
    """``(rule, why)`` for each rule that one import breaks."""
    top, *rest = imported.name.split(".")
    if top == "":
        yield "outside", "the relative import leaves the package"
    elif top == package:
        target = rest[0] if rest else "__init__"
        if target in (part, "__init__") or target in MAY_IMPORT[part]:
            return
        if target == "testing":
            yield "testing", "cocaine_tx.testing is for tests only"
        elif target in ROOMS and part in ROOMS:
            yield "sideways", f"room '{part}' opens into room '{target}'; let daemon/ hand it over"
        else:
            yield "floor", f"'{part}' may not import '{target}'"
    elif top == "tests":
        yield "outside", "the package does not know its tests"
    elif part == "wire" and top in WIRE_REFUSES:
        yield "wire", f"wire/ does without {top}"
    elif imported.name.startswith("twisted.internet.reactor") and not _may_hold_the_reactor(inside, part, imported):
        yield "reactor", "the reactor is a constructor argument"


def _may_hold_the_reactor(inside: Path, part: str, imported: _Import) -> bool:
    """
    Entries of processes may import the reactor.

    A worker's entry is a function of the SDK: importing the SDK must not install a reactor before the app's author
    could choose one, so there the import stands inside that function.
    """
    if part == "worker":
        return imported.inside_function
    return part == "daemon" or inside.as_posix() == "tool/main.py"


def _imports(tree: ast.AST, module: tuple[str, ...], is_package: bool) -> Iterator[_Import]:
    """
    Every import of a file, also those in functions and under ``TYPE_CHECKING``, relative ones resolved.

    ``from x import y`` gives ``x.y``: whether ``y`` is a module or a name in one, rules ask for the first parts only.
    An import that climbs out of the package gives a name beginning with a dot.
    """
    for node, inside_function in _walk(tree, inside_function=False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _Import(alias.name, node.lineno, inside_function)
        elif isinstance(node, ast.ImportFrom):
            prefix: tuple[str, ...] = ()
            if node.level:
                keep = len(module) - node.level + is_package
                prefix = module[:keep] if keep > 0 else ("",)
            prefix += tuple(node.module.split(".")) if node.module else ()
            for alias in node.names:
                # The root package holds only its version: `from .. import __version__` names the root itself.
                last = () if alias.name.startswith("__") or alias.name == "*" else (alias.name,)
                yield _Import(".".join(prefix + last), node.lineno, inside_function)


def _walk(node: ast.AST, inside_function: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        yield child, inside_function
        deeper = inside_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, deeper)


def _functions_with_empty_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.lstrip("_").startswith(EMPTY_PREFIXES):
                    yield node.lineno, name


def _awaits(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
            yield node.lineno
        elif isinstance(node, ast.comprehension) and node.is_async:
            yield node.target.lineno
