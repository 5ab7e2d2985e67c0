"""The floors of the house hold, and the check that says so can fail."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import cocaine_tx
from tests.layers import LONGEST_FILE, MAY_IMPORT, ROOMS, violations


class HouseTests(SynchronousTestCase):
    """Our own source."""

    def test_nothing_is_broken(self) -> None:
        """Imports go down only, rooms do not open into each other, files are short and well named."""
        package = Path(cocaine_tx.__file__).parent
        self.assertEqual([str(violation) for violation in violations(package)], [])

    def test_every_room_has_a_floor(self) -> None:
        """The table of floors has a row for every room, and no row that lets one room into another."""
        for room in ROOMS:
            self.assertFalse(MAY_IMPORT[room] & ROOMS, room)
        self.assertNotIn("daemon", MAY_IMPORT["testing"])


class BadHouseTests(SynchronousTestCase):
    """Made-up packages, each with one thing wrong or with something that only looks wrong."""

    def rules(self, sources: dict[str, str]) -> list[tuple[str, str]]:
        """``(rule, where)`` of each violation in a package of these files, given as path and text."""
        package = Path(self.mktemp()) / "cocaine_tx"
        for name, source in sources.items():
            path = package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source, encoding="utf-8")
        return [(violation.rule, violation.where) for violation in violations(package)]

    def test_upward(self) -> None:
        """A lower floor that imports a higher one is named, with its line."""
        self.assertEqual(
            self.rules({"wire/frames.py": "import os\nfrom cocaine_tx.rpc.channel import Channel\n"}),
            [("floor", "wire/frames.py:2")],
        )
        self.assertEqual(self.rules({"rpc/client.py": "import cocaine_tx.node.app\n"}), [("floor", "rpc/client.py:1")])
        self.assertEqual(self.rules({"errors.py": "from cocaine_tx import wire\n"}), [("floor", "errors.py:1")])
        self.assertEqual(self.rules({"node/app.py": "import cocaine_tx.daemon\n"}), [("floor", "node/app.py:1")])

    def test_relative(self) -> None:
        """Relative imports are resolved first: from a module, from a package's own file, and with only dots."""
        self.assertEqual(self.rules({"wire/frames.py": "from ..rpc import channel\n"}), [("floor", "wire/frames.py:1")])
        self.assertEqual(self.rules({"wire/frames.py": "from .. import rpc\n"}), [("floor", "wire/frames.py:1")])
        self.assertEqual(
            self.rules({"wire/__init__.py": "from ..rpc import channel\n"}), [("floor", "wire/__init__.py:1")]
        )
        self.assertEqual(self.rules({"wire/__init__.py": "from . import frames\n"}), [])
        self.assertEqual(self.rules({"node/app.py": "from .pool import Pool\nfrom ..rpc.channel import Channel\n"}), [])

    def test_out_of_the_package(self) -> None:
        """An import that climbs out of the package, and one of the tests, are named."""
        self.assertEqual(
            self.rules({"wire/frames.py": "from ...elsewhere import x\n"}), [("outside", "wire/frames.py:1")]
        )
        self.assertEqual(
            self.rules({"node/app.py": "from tests.layers import ROOMS\n"}), [("outside", "node/app.py:1")]
        )

    def test_sideways(self) -> None:
        """A room that opens into another is named, also from inside a function and for type checking only."""
        late = "def start():\n    from cocaine_tx.storage.files import Files\n"
        typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..locator import directory\n"
        self.assertEqual(self.rules({"node/app.py": late}), [("sideways", "node/app.py:2")])
        self.assertEqual(self.rules({"node/app.py": typed}), [("sideways", "node/app.py:3")])

    def test_worker_and_tool_reach_less(self) -> None:
        """An app's author and an operator do not get the platform's rooms or seams."""
        self.assertEqual(
            self.rules({"worker/request.py": "from ..interfaces import X\n"}), [("floor", "worker/request.py:1")]
        )
        self.assertEqual(self.rules({"tool/apps.py": "from ..storage import files\n"}), [("floor", "tool/apps.py:1")])
        self.assertEqual(self.rules({"tool/apps.py": "from ..daemon import node\n"}), [("floor", "tool/apps.py:1")])
        self.assertEqual(self.rules({"tool/main.py": "from .. import __version__\nfrom ..rpc import client\n"}), [])

    def test_testing(self) -> None:
        """Nobody imports the doubles but tests; the doubles reach everything but the daemons."""
        self.assertEqual(self.rules({"node/pool.py": "from ..testing import fakes\n"}), [("testing", "node/pool.py:1")])
        self.assertEqual(
            self.rules({"daemon/node.py": "import cocaine_tx.testing\n"}), [("testing", "daemon/node.py:1")]
        )
        self.assertEqual(
            self.rules({"testing/pairs.py": "from ..daemon import node\n"}), [("floor", "testing/pairs.py:1")]
        )
        self.assertEqual(self.rules({"testing/pairs.py": "from ..node import app\nfrom ..storage import files\n"}), [])

    def test_unknown_part(self) -> None:
        """A new folder must be given its floor before it can be used."""
        self.assertEqual(self.rules({"attic/box.py": "x = 1\n"}), [("unknown part", "attic/box.py")])

    def test_wire_knows_no_loop_and_no_clock(self) -> None:
        """Twisted, Automat, asyncio and time are refused in wire/, and only there."""
        for name in ("twisted.internet.defer", "automat", "asyncio", "time"):
            self.assertEqual(self.rules({"wire/session.py": f"import {name}\n"}), [("wire", "wire/session.py:1")], name)
            self.assertEqual(self.rules({"rpc/client.py": f"import {name}\n"}), [], name)
        self.assertEqual(
            self.rules({"wire/session.py": "from time import monotonic\n"}), [("wire", "wire/session.py:1")]
        )

    def test_wire_never_waits(self) -> None:
        """Every way to write a wait is found in wire/."""
        for source, line in (
            ("async def f():\n    pass\n", 1),
            ("async def f(x):\n    await x\n", 2),
            ("async def f(x):\n    async for y in x: pass\n", 2),
            ("async def f(x):\n    return [y async for y in x]\n", 2),
        ):
            self.assertIn(("await", f"wire/session.py:{line}"), self.rules({"wire/session.py": source}), source)
        self.assertEqual(self.rules({"rpc/client.py": "async def f(x):\n    await x\n"}), [])

    def test_reactor(self) -> None:
        """Only the entries of processes take the global reactor, however it is spelled."""
        plain = "from twisted.internet import reactor\n"
        late = "def run():\n    from twisted.internet import reactor\n"
        for source in (plain, "import twisted.internet.reactor\n", "from twisted.internet.reactor import callLater\n"):
            self.assertEqual(self.rules({"node/pool.py": source}), [("reactor", "node/pool.py:1")], source)
        self.assertEqual(self.rules({"node/pool.py": late}), [("reactor", "node/pool.py:2")])
        self.assertEqual(self.rules({"tool/apps.py": plain}), [("reactor", "tool/apps.py:1")])
        self.assertEqual(self.rules({"worker/worker.py": plain}), [("reactor", "worker/worker.py:1")])
        self.assertEqual(self.rules({"worker/worker.py": late, "daemon/node.py": plain, "tool/main.py": plain}), [])

    def test_names(self) -> None:
        """A file, a folder or a function whose name says nothing is named."""
        self.assertEqual(self.rules({"node/utils.py": ""}), [("name", "node/utils.py")])
        self.assertEqual(self.rules({"node/pool_manager.py": ""}), [("name", "node/pool_manager.py")])
        self.assertEqual(self.rules({"rpc/common/__init__.py": ""}), [("name", "rpc/common/__init__.py")])
        self.assertEqual(self.rules({"node/pool.py": "def _handle_exit(): ...\n"}), [("name", "node/pool.py:1")])
        self.assertEqual(self.rules({"isolate/process.py": "process_group = 1\n", "wire/base64_keys.py": ""}), [])

    def test_length(self) -> None:
        """A file may be full, and not one line fuller."""
        self.assertEqual(self.rules({"node/pool.py": "x = 1\n" * LONGEST_FILE}), [])
        self.assertEqual(self.rules({"node/pool.py": "x = 1\n" * (LONGEST_FILE + 1)}), [("length", "node/pool.py")])

    def test_broken_source(self) -> None:
        """A file that is not Python is a violation, not an end to the check."""
        found = self.rules({"node/pool.py": "def (:\n", "wire/frames.py": "import twisted\n"})
        self.assertEqual([rule for rule, _ in found], ["syntax", "wire"])
