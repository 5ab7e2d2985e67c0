"""
Draw the state machines from the code, as tables, so that the manual cannot lie about them.

``conf.py`` calls `write` at the start of each build. Tables rather than pictures, because they need no program beside
Sphinx, and because what a reader looks for, a pair that is missing, is a row in a table and nothing in a picture.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from automat import TypeMachine
from tables import list_table, write_changed

import cocaine_tx

HEAD = ("State", "Input", "Act", "Then")


def modules(package: Path) -> list[str]:
    """
    Dotted names of the files below a package's folder that mention Automat's builder, in order.

    Found rather than listed, so that no machine can be forgotten; only these files are imported.
    """
    return [
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        for path in sorted(package.rglob("*.py"))
        if "TypeMachineBuilder" in path.read_text(encoding="utf-8")
    ]


def machines(module: ModuleType) -> Iterator[tuple[str, TypeMachine]]:
    """Each machine a module builds, with the name it is bound to, in the order of names."""
    for name, value in sorted(vars(module).items()):
        if isinstance(value, TypeMachine):
            yield name, value


def rows(machine: TypeMachine) -> list[tuple[str, str, str, str]]:
    """
    State, input, act and the state afterwards (empty where it stays) of every pair, the initial state first.

    A pair that is not declared is not left out: its act is "refused", for that input raises `NoTransition` there. One
    that is declared to do nothing has the act "ignored".
    """
    automaton = machine.__automat_automaton__
    declared = {
        (state.name, entry): (", ".join(_act(output.name) for output in outputs), after.name)
        for state, entry, after, outputs in automaton.allTransitions()
    }
    first = automaton.initialState.name
    others = sorted({state.name for state in automaton.states()} - {first})
    made = []
    for state in (first, *others):
        for entry in sorted(automaton.inputAlphabet()):
            act, after = declared.get((state, entry), ("refused", state))
            made.append((state, entry, act, "" if after == state else after))
    return made


def _act(name: str) -> str:
    # How Automat calls the act of `.returns(None)`.
    return "ignored" if name == "returns(None)" else name


def page(names: Sequence[str]) -> str:
    """The generated part of ``machines.rst`` for modules of these dotted names."""
    lines: list[str] = []
    for name in names:
        module = importlib.import_module(name)
        found = list(machines(module))
        if not found:
            continue
        title = f"``{name}``"
        lines += [title, "-" * len(title), "", (module.__doc__ or "").strip().split("\n\n")[0], ""]
        for bound, machine in found:
            first = machine.__automat_automaton__.initialState.name
            lines += [f"``{bound}`` begins in **{first}**.", "", *list_table(HEAD, rows(machine))]
    return "\n".join(lines or ["There is no machine yet.", ""])


def write(folder: Path) -> None:
    """Write the generated part of ``machines.rst`` into ``folder``."""
    write_changed(folder / "machines.txt", page(modules(Path(cocaine_tx.__file__).parent)))
