"""What goes to which stream, and with which paint."""

import io
import json

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import NotRunning
from cocaine_tx.tool.console import Console, Data, Done, Text, table
from cocaine_tx.tool.exits import Refused, ServiceError

from .stage import Terminal


class Streams(SynchronousTestCase):
    def setUp(self) -> None:
        self.out, self.err, self.screen = io.StringIO(), io.StringIO(), Terminal()

    def test_results_on_stdout(self) -> None:
        """Results are on stdout; data as sorted JSON with four blanks."""
        console = Console(self.out, self.err)
        for result in (Data({"b": 1, "a": []}), Text("words", []), Done("It is done", {}), None):
            console.show(result)
        self.assertEqual(self.out.getvalue(), '{\n    "a": [],\n    "b": 1\n}\nwords\nIt is done\n')
        self.assertEqual(self.err.getvalue(), "")

    def test_json(self) -> None:
        """With --json each result is JSON, and so is an error."""
        console = Console(self.out, self.err, json=True)
        console.show(Text("words", ["w"]))
        self.assertEqual(json.loads(self.out.getvalue()), ["w"])
        console.failed(ServiceError("node", NotRunning()))
        self.assertEqual(
            json.loads(self.err.getvalue()),
            {"error": {
                "message": 'Error in service "node" - application is not running [6]', "status": 128, "service": "node",
                "reason": "application is not running", "category": 0x51FF, "code": 6,
            }},
        )  # fmt: skip

    def test_quiet(self) -> None:
        """With --quiet only what was asked for is shown, and errors."""
        console = Console(self.out, self.err, quiet=True)
        console.show(Done("It is done", {}))
        console.warn("careful")
        with console.step("Working"):
            pass
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("", ""))
        console.show(Text("words", []))
        console.failed(Refused("no"))
        self.assertEqual((self.out.getvalue(), self.err.getvalue()), ("words\n", "No\n"))

    def test_no_paint_in_files(self) -> None:
        """A stream that is no terminal gets no colours and no overwritten lines."""
        console = Console(self.out, self.err)
        with console.step("Working"):
            pass
        console.failed(Refused("no"))
        self.assertEqual(self.err.getvalue(), "[✔] Working\nNo\n")

    def test_paint_on_terminals(self) -> None:
        """On a terminal the step is shown while it lasts, then with a green tick or a red cross."""
        console = Console(self.out, self.screen)
        with console.step("Working"):
            self.assertEqual(self.screen.getvalue(), "[ ] Working\r")
        with self.assertRaises(Refused), console.step("More"):
            raise Refused("no")
        self.assertIn("\r[\x1b[32m✔\x1b[0m] Working\n", self.screen.getvalue())
        self.assertIn("\r[\x1b[31m✘\x1b[0m] More\n", self.screen.getvalue())

    def test_no_colour_by_wish(self) -> None:
        """Who wants no colours gets none, also on a terminal."""
        Console(self.out, self.screen, colours=False).failed(Refused("no"))
        self.assertEqual(self.screen.getvalue(), "No\n")

    def test_old_encodings(self) -> None:
        """A terminal that knows no ticks gets a sign it knows."""
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii")
        with Console(self.out, stream).step("Working"):
            pass
        self.assertEqual(raw.getvalue(), b"[+] Working\n")
        stream.detach()

    def test_traceback_only_on_demand(self) -> None:
        """Where in the code it happened is told to those who asked by -vvvv only."""
        Console(self.out, self.err, verbosity=3).failed(Refused("no"))
        self.assertNotIn("Refused", self.err.getvalue())
        Console(self.out, self.err, verbosity=4).failed(Refused("no"))
        self.assertIn("exits.Refused: no", self.err.getvalue())

    def test_table(self) -> None:
        """Rows are aligned, without blanks at their ends."""
        self.assertEqual(table([("a", "bb", "c"), ("aaa", "b", "")]), "a    bb  c\naaa  b")
        self.assertEqual(table([]), "")
