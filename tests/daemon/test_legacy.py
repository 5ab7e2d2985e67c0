"""Files of the original runtime, as found on hosts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.legacy import looks_original, parse, to_version_4


class ParseTests(SynchronousTestCase):
    def test_dialect(self) -> None:
        """Comments of both kinds and trailing commas are allowed, and left alone inside strings."""
        text = """
        // first
        { /* all */ "a": [1, 2, ], // "b": 3,
          "url": "http://x/*y*/,}", "quote": "\\"//,]", }
        """
        self.assertEqual(parse(text), {"a": [1, 2], "url": "http://x/*y*/,}", "quote": '"//,]'})

    def test_position(self) -> None:
        """A mistake is reported where it stands in the file as written."""
        error = self.assertRaises(ValueError, parse, '/* one\ntwo */ {"a": 1,\n  "b" 2}')
        self.assertIn("line 3 column 7", str(error))

    def test_depth(self) -> None:
        """Endless brackets are a mistake like any other."""
        self.assertRaises(ValueError, parse, "[" * 100_000)

    @given(st.text(alphabet='{}[]",:/*\\ \nab1', max_size=40))
    def test_any_text(self, text: str) -> None:
        """No text raises anything but ValueError."""
        try:
            parse(text)
        except ValueError:
            pass

    def test_recognition(self) -> None:
        """A file that begins with a brace, whatever comments come before, is an original one."""
        self.assertTrue(looks_original('// x\n/* { */ {"version": 4}'))
        self.assertFalse(looks_original("version: 4\n"))
        self.assertFalse(looks_original(""))


class VersionTests(SynchronousTestCase):
    def test_version_2(self) -> None:
        """A file of version 0.11 keeps its addresses, ports, discovery group and gateway."""
        new = to_version_4(
            {
                "version": 2,
                "locator": {"hostname": "h", "endpoint": "::", "port": 10099, "port-range": [32768, 61000]},
                "network": {"group": "239.0.100.53", "gateway": {"type": "adhoc", "args": {}}},
                "services": {"node": {"type": "node", "args": {"runlist": "default"}}},
                "loggers": {"core": {"type": "syslog"}},
                "paths": {"runtime": "/run/c"},
            }
        )
        self.assertEqual(
            new,
            {
                "version": 4,
                "network": {"hostname": "h", "endpoint": "::", "shared": [32768, 61000], "pinned": {"locator": 10099}},
                "services": {
                    "node": {"type": "node", "args": {"runlist": "default"}},
                    "locator": {
                        "type": "locator",
                        "args": {
                            "cluster": {"type": "multicast", "args": {"group": "239.0.100.53"}},
                            "gateway": {"type": "adhoc", "args": {}},
                        },
                    },
                },
                "paths": {"runtime": "/run/c"},
            },
        )

    def test_version_3(self) -> None:
        """A file of early version 0.12 differs by its log only."""
        old = {"version": 3, "logging": {"core": {"loggers": [], "verbosity": "info"}}, "paths": {"plugins": "/x"}}
        self.assertEqual(to_version_4(old), {"version": 4, "paths": {"plugins": "/x"}})

    def test_other_versions(self) -> None:
        """Another version, or none, is refused."""
        for tree in ({}, {"version": 1}, {"version": 5}, {"version": "4"}, {"version": True}, {"version": [4]}):
            self.assertRaises(ValueError, to_version_4, tree)

    def test_wrong_kinds(self) -> None:
        """Values of the wrong kind do not stop the mapping; the reader complains of them by name later."""
        to_version_4({"version": 2, "locator": 1, "network": [], "services": None})
