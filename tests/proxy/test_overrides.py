"""What operators write of single apps, and what becomes of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.proxy.overrides import (
    LONGEST_NAME,
    MOST_APPS,
    MOST_EVENTS,
    Book,
    Overrides,
    overridden,
    percent,
    share,
    times,
)
from cocaine_tx.proxy.terms import Terms

#: What may come over the wire.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary(max_size=8),
    lambda inner: st.lists(inner).map(tuple) | st.dictionaries(st.binary(max_size=8) | st.integers(), inner),
    max_leaves=10,
)


class OverriddenTests(SynchronousTestCase):
    def test_order(self) -> None:
        """Unicorn's word of an event wins, then its word of the app, then the file's, event before app."""
        terms = Terms(chunk=30, apps={"a": {"": 5, "e": 6}, "b": {"": 7}, "c": {"e": 8}})
        made = overridden(terms, Overrides({"a": {"f": 1.0}, "b": {"": 2.0, "e": 3.0}, "d": {"e": 4.0}}))
        for app, event, seconds in (
            ("a", "f", 1), ("a", "e", 6), ("a", "x", 5), ("b", "e", 3), ("b", "x", 2), ("c", "e", 8), ("c", "x", 30),
            ("d", "e", 4), ("d", "x", 30), ("z", "", 30),
        ):  # fmt: skip
            self.assertEqual(made.chunk_time(app, event), seconds, (app, event))

    def test_chance(self) -> None:
        """An app that unicorn names is traced by its own chance, all others by the file's."""
        made = overridden(Terms(tracing_chance=0.05), Overrides(chances={"a": 1.0, "b": 0.0}))
        self.assertEqual([made.tracing_chance_of(app) for app in ("a", "b", "c", "")], [1.0, 0.0, 0.05, 0.05])

    def test_nothing(self) -> None:
        """Without overrides the terms are what they were."""
        terms = Terms()
        self.assertIs(overridden(terms, Overrides()), terms)


class BookTests(SynchronousTestCase):
    def test_times(self) -> None:
        """An app's node is a map of event to seconds, or seconds for all its events."""
        book = Book(times)
        self.assertEqual(book.enter("a", {b"": 5, b"e": 0.5}), "")
        self.assertEqual(book.enter("b", 7), "")
        self.assertEqual(book.apps, {"a": {"": 5.0, "e": 0.5}, "b": {"": 7.0}})

    def test_chances(self) -> None:
        """One schema has percent, the other shares of one."""
        each, all = Book(percent), Book(share)
        each.enter("a", 50)
        all.enter_all({b"a": 0.25})
        self.assertEqual((each.apps, all.apps), ({"a": 0.5}, {"a": 0.25}))

    def test_last_good_value(self) -> None:
        """What cannot be used is said, and what was said before holds."""
        for bad, words in (
            ({b"": b"5"}, "b'5' is no number from 0.001 to 2.14748e+09"),
            ({b"": 0}, "0 is no number from 0.001 to 2.14748e+09"),
            ({b"": True}, "True is no number from 0.001 to 2.14748e+09"),
            ({b"": float("nan")}, "nan is no number from 0.001 to 2.14748e+09"),
            ({b"\xff": 1}, "b'\\xff' is no name"),
            ({b"": 1, 5: 1}, "5 is no name"),
            ({b"%d" % n: 1 for n in range(MOST_EVENTS + 1)}, f"more than {MOST_EVENTS} events"),
            ({b"x" * (LONGEST_NAME + 1): 1}, f"'{'x' * 40}'... is too long a name"),
            ((1, 2), "a tuple is no number from 0.001 to 2.14748e+09"),
            (b"x" * 1000, f"b'{'x' * 38}... is no number from 0.001 to 2.14748e+09"),
        ):
            book = Book(times)
            book.enter("a", 5)
            self.assertEqual((book.enter("a", bad), book.apps), (words, {"a": {"": 5.0}}))

    def test_one_node_for_all(self) -> None:
        """One app's mistake is that app's alone; an app that is not there any more goes by the file again."""
        book = Book(times)
        self.assertEqual(book.enter_all({b"a": 1, b"b": 2, b"c": 3}), "")
        self.assertEqual(
            book.enter_all({b"a": 9, b"b": b"x", b"d/e": 1}),
            "'d/e' is no app; b: b'x' is no number from 0.001 to 2.14748e+09",
        )
        self.assertEqual(book.apps, {"a": {"": 9.0}, "b": {"": 2.0}})
        self.assertEqual((book.enter_all(b"?"), len(book.apps)), ("it holds no map of apps", 2))
        self.assertEqual((book.enter_all(None), book.apps), ("", {}))

    def test_many_faults(self) -> None:
        """However much is wrong, it is said on a line that can be read."""
        fault = Book(share).enter_all({b"%d" % n: 5 for n in range(100)})
        self.assertTrue(fault.endswith("; and 97 more"), fault)
        self.assertLess(len(fault), 300)

    def test_too_many_apps(self) -> None:
        """Memory is bounded, and always the same apps are kept."""
        apps = {b"%05d" % n: 1 for n in range(MOST_APPS + 10)}
        for given_apps in (apps, dict(reversed(apps.items()))):
            book = Book(times)
            fault = book.enter_all(given_apps)
            self.assertEqual(fault, f"only {MOST_APPS} of its {MOST_APPS + 10} apps are kept")
            self.assertEqual((len(book.apps), "00000" in book.apps, f"{MOST_APPS:05d}" in book.apps), (MOST_APPS, 1, 0))

    @settings(deadline=None)
    @given(ANYTHING, ANYTHING)
    def test_anything(self, first: Any, second: Any) -> None:
        """Whatever unicorn holds, what comes out are times and chances."""
        for book in (Book[Any](times), Book[Any](percent), Book[Any](share)):
            for value in (first, second):
                book.enter("a", value)
                book.enter_all(value)
            terms = overridden(Terms(), Overrides(book.apps) if book._read is times else Overrides(chances=book.apps))
            self.assertTrue(terms.chunk_time("a", "e") >= 0.001)
            self.assertTrue(0 <= terms.tracing_chance_of("a") <= 1)
