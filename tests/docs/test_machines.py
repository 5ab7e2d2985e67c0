"""The manual's tables of state machines say what the code says."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Protocol
from unittest import mock

from automat import TypeMachineBuilder
from twisted.trial.unittest import SynchronousTestCase

from tests.docs import machines


class Door(Protocol):
    """A machine small enough to write its table by hand."""

    def push(self) -> None: ...
    def lock(self) -> None: ...


class Core:
    """Nothing to keep."""


_builder = TypeMachineBuilder(Door, Core)
_shut = _builder.state("Shut")
_open = _builder.state("Open")


@_shut.upon(Door.push).to(_open)
def swing(door: Door, core: Core) -> None:
    """Opens."""


@_open.upon(Door.push).to(_open)
def nothing(door: Door, core: Core) -> None:
    """Is open already."""


@_shut.upon(Door.lock).to(_shut)
def click(door: Door, core: Core) -> None:
    """Stays shut."""


DOOR = _builder.build()


class MachinesTests(SynchronousTestCase):
    """Pages made from modules."""

    def modules(self, **contents: object) -> object:
        """Modules that can be imported while the patch lasts."""
        made = {}
        for name, value in contents.items():
            made[name] = ModuleType(name, "What this room does.\n\nAnd more.")
            made[name].machine = value  # type: ignore[attr-defined]
        return mock.patch.dict(sys.modules, made)

    def test_rows(self) -> None:
        """Every pair has a row: declared ones with act and next state, undeclared ones as refused."""
        self.assertEqual(
            machines.rows(DOOR),
            [
                ("Shut", "lock", "click", ""),
                ("Shut", "push", "swing", "Open"),
                ("Open", "lock", "refused", ""),
                ("Open", "push", "nothing", ""),
            ],
        )

    def test_page(self) -> None:
        """A module's page begins with its own first words."""
        with self.modules(hall=DOOR):
            text = machines.page(["hall"])
        self.assertIn("``hall``\n--------\n\nWhat this room does.\n\n``machine`` begins in **Shut**.", text)
        self.assertNotIn("And more", text)

    def test_module_without_machine(self) -> None:
        """A module on the list that has lost its machine fails the build, by name."""
        with self.modules(attic=None):
            self.assertIn("attic", str(self.assertRaises(LookupError, machines.page, ["attic"])))

    def test_no_modules(self) -> None:
        """An empty list is a page that says so."""
        self.assertIn("No module", machines.page([]))

    def test_listed_modules(self) -> None:
        """Every module that the manual lists builds a machine."""
        machines.page(machines.MODULES)
