"""Stored values and JSON."""

import os

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.tool.console import dump
from cocaine_tx.tool.documents import decode, encode, load, mapping, parse
from cocaine_tx.tool.exits import Refused, WrongValue


class Documents(SynchronousTestCase):
    def test_old_raw(self) -> None:
        """What the tool writes is old-spec raw, as every original component reads it."""
        text = "x" * 40
        self.assertEqual(encode({"a": text}, "it"), b"\x81\xa1a\xda\x00\x28" + text.encode())

    def test_any_bytes_survive(self) -> None:
        """A value with bytes that are no text is the same bytes after a trip through an editor."""
        blob = encode({b"k\xff": [b"\x80abc", 1, 2.5, None, True]}, "it")
        self.assertEqual(encode(parse(dump(decode(blob, "it")), "it"), "it"), blob)

    def test_numeric_keys_sort_as_numbers(self) -> None:
        """Tables of numbers are printed in the order of the numbers."""
        self.assertEqual(dump(decode(encode({10: 0, 2: 0}, "it"), "it")), '{\n    "2": 0,\n    "10": 0\n}')
        self.assertEqual(decode(encode({10: 0, "a": 0}, "it"), "it"), {"10": 0, "a": 0})

    def test_damaged(self) -> None:
        """An object that is no msgpack is complained about by its name."""
        problem = self.assertRaises(Refused, decode, b"\xc1", 'Profile "p"')
        self.assertIn('Profile "p" is damaged in storage', str(problem))

    def test_huge_number(self) -> None:
        """A number that no peer could read is refused."""
        self.assertRaises(WrongValue, encode, {"a": 2**70}, "it")

    def test_json_complaint_says_where(self) -> None:
        """Broken JSON is reported with its line and column."""
        problem = self.assertRaises(WrongValue, parse, '{\n "a": }', "profile")
        self.assertIn("line 2, column 7", str(problem))

    def test_no_numbers(self) -> None:
        """NaN and the like, which JSON does not have, are refused; so is nesting without end."""
        self.assertRaises(WrongValue, parse, '{"a": NaN}', "profile")
        self.assertRaises(WrongValue, parse, "[" * 100_000, "profile")

    def test_inline_or_file(self) -> None:
        """A document is given as a file or written out in the option."""
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write('\ufeff{"a": 1}')
        self.assertEqual(load(path, "profile"), {"a": 1})
        self.assertEqual(load(' {"a": 2}', "profile"), {"a": 2})

    def test_unreadable_file(self) -> None:
        """A file that is not there, or is no text, is named."""
        problem = self.assertRaises(WrongValue, load, "absent.json", "profile")
        self.assertIn("cannot read 'absent.json': No such file or directory", str(problem))
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"\xff\xfe")
        self.assertRaises(WrongValue, load, path, "profile")
        os.remove(path)

    def test_mapping(self) -> None:
        """What must be a map is complained about by what it is instead."""
        problem = self.assertRaises(WrongValue, mapping, [], "a profile")
        self.assertEqual(str(problem), "a profile must be a map, not a list")
