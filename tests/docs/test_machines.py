"""The manual's tables of state machines say what the code says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Protocol
from unittest import mock

from automat import TypeMachineBuilder
from twisted.trial.unittest import SynchronousTestCase

import cocaine_tx
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


_shut.upon(Door.lock).to(_shut).returns(None)

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
        """Every pair has a row, also those that do nothing and those that were never declared."""
        self.assertEqual(
            machines.rows(DOOR),
            [
                ("Shut", "lock", "ignored", ""),
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

    def test_nothing_to_show(self) -> None:
        """A page without a machine says so."""
        with self.modules(attic=None):
            self.assertIn("no machine", machines.page(["attic"]))

    def test_found_by_the_builder(self) -> None:
        """Modules that build machines are found in a package, and no others are imported for it."""
        package = Path(self.mktemp()) / "house"
        (package / "hall").mkdir(parents=True)
        (package / "hall" / "door.py").write_text("from automat import TypeMachineBuilder\n")
        (package / "hall" / "window.py").write_text("raise SystemExit\n")
        self.assertEqual(machines.modules(package), ["house.hall.door"])

    def test_ours(self) -> None:
        """Every machine of this package can be shown."""
        machines.page(machines.modules(Path(cocaine_tx.__file__).parent))
