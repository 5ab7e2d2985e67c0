"""The manual's tables say what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.isolate.archive import Limits
from cocaine_tx.isolate.settings import ProcessSettings
from cocaine_tx.node.profile import Profile
from tests.docs import tables


class TablesTests(SynchronousTestCase):
    """Tables as a reader of the manual sees them."""

    def row(self, lines: list[str], *start: str) -> list[str]:
        """The cells of the row that begins with these."""
        rows = "\n".join(lines).split("   * - ")[1:]
        cells = [[cell.strip() for cell in row.replace("\n     -", "\n     - ").split("\n     - ")] for row in rows]
        return next(row for row in cells if row[: len(start)] == list(start))

    def test_table(self) -> None:
        """Each row becomes as many cells as there are headings, also when one is empty."""
        self.assertEqual(
            tables.list_table(("A", "B"), [("1", ""), ("2", "x")])[3:],
            ["   * - A", "     - B", "   * - 1", "     -", "   * - 2", "     - x", ""],
        )
        self.assertRaises(ValueError, tables.list_table, ("A", "B"), [("1",)])

    def test_services(self) -> None:
        """A service's calls are shown with what they take and what comes back."""
        lines = list(tables.services())
        self.assertEqual(
            self.row(lines, "0", "``resolve``"), ["0", "``resolve``", "raw, raw?", "nothing", "value or error"]
        )
        self.assertEqual(self.row(lines, "4", "``publish``")[3], "0 ``discard``")

    def test_errors(self) -> None:
        """An error is found by its pair, with what it means."""
        self.assertEqual(
            self.row(tables.error_pairs(), "10", "1"), ["10", "1", "503", "The locator knows no such service."]
        )

    def test_headers(self) -> None:
        """Static headers keep their index; the reserved ones are not shown."""
        lines = tables.static_headers()
        self.assertEqual(self.row(lines, "80")[:3], ["80", "``trace_id``", "8 zero bytes"])
        self.assertRaises(StopIteration, self.row, lines, "62")

    def test_written_when_changed(self) -> None:
        """An unchanged table keeps its file, so that the manual is not built again for nothing."""
        folder = Path(self.mktemp())
        tables.write(folder)
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        tables.write(folder)
        self.assertEqual({path.name: path.stat().st_mtime_ns for path in folder.iterdir()}, before)
        self.assertEqual(sorted(before), ["errors.txt", "headers.txt", "limits.txt", "services.txt"])

    def test_limits(self) -> None:
        """Limits are shown under their names in a daemon's file, with the defaults that are there."""
        text = (Path(__file__).resolve().parents[2] / "conf" / "node.yaml").read_text(encoding="utf-8")
        lines = tables.limits()
        for key, value in yaml.safe_load(text)["limits"].items():
            if isinstance(value, int) and not key.endswith("-timeout"):
                self.assertEqual(self.row(lines, f"``limits.{key}``")[1], f"{value:,}", key)

    def test_profiles(self) -> None:
        """The page for authors has every key of a profile with its default, and of the process isolate's arguments."""
        page = (Path(__file__).resolve().parents[2] / "docs" / "apps.rst").read_text(encoding="utf-8")
        lines = page[page.index(".. list-table::") :].splitlines()
        for key, value in Profile.from_dict({}).expanded().items():
            shown = self.row(lines, f"``{key}``")[1]
            if key in ("grow-threshold", "isolate"):
                continue
            if key in ("idle-timeout", "half-closed-timeout"):
                words = "off"
            elif isinstance(value, str):
                words = f"``{value}``"
            else:
                words = json.dumps(int(value) if isinstance(value, float) else value)
            self.assertEqual(shown, words, key)
        settings, limits = ProcessSettings("spool"), Limits()
        for key, words in (
            ("user", "the node's own"), ("rlimits", "none"), ("spool", "the node's ``paths.spool``"),
            ("kill_timeout", f"{settings.kill_timeout:g}"), ("warm_timeout", f"{settings.warm_timeout:g}"),
            ("archive_size", str(limits.size)), ("archive_members", str(limits.members)),
        ):  # fmt: skip
            self.assertEqual(self.row(lines, f"``{key}``")[1], words, key)
