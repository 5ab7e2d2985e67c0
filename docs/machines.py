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

#: Every module that builds a machine; a module that has none any more fails the build.
MODULES: tuple[str, ...] = ()

HEAD = ("State", "Input", "Act", "Then")


def machines(module: ModuleType) -> Iterator[tuple[str, TypeMachine]]:
    """Each machine a module builds, with the name it is bound to, in the order of names."""
    for name, value in sorted(vars(module).items()):
        if isinstance(value, TypeMachine):
            yield name, value


def rows(machine: TypeMachine) -> list[tuple[str, str, str, str]]:
    """
    State, input, act and the state afterwards (empty where it stays) of every pair, the initial state first.

    A pair that is not declared is not left out: its act is "refused", for that input raises `NoTransition` there.
    """
    automaton = machine.__automat_automaton__
    declared = {
        (state.name, entry): (", ".join(output.name for output in outputs), after.name)
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


def page(names: Sequence[str]) -> str:
    """The generated part of ``machines.rst`` for modules of these dotted names."""
    lines: list[str] = []
    for name in names:
        module = importlib.import_module(name)
        found = list(machines(module))
        if not found:
            raise LookupError(f"{name} builds no machine; take it off the list in docs/machines.py")
        title = f"``{name}``"
        lines += [title, "-" * len(title), "", (module.__doc__ or "").strip().split("\n\n")[0], ""]
        for bound, machine in found:
            first = machine.__automat_automaton__.initialState.name
            lines += [f"``{bound}`` begins in **{first}**.", "", *list_table(HEAD, rows(machine))]
    return "\n".join(lines or ["No module is listed yet.", ""])


def write(folder: Path) -> None:
    """Write the generated part of ``machines.rst`` into ``folder``."""
    write_changed(folder / "machines.txt", page(MODULES))
