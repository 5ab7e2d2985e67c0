"""Manifests as tools of every age have stored them."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import CocaineError, InvalidArgument, UncaughtError
from cocaine_tx.node.fields import decode
from cocaine_tx.node.manifest import Manifest, check_app_name, socket_path


class ManifestTests(SynchronousTestCase):
    def test_smallest(self) -> None:
        """A manifest needs nothing but the program."""
        manifest = Manifest.from_dict({"slave": "main.py"}, "echo")
        self.assertEqual(
            (manifest.name, manifest.slave, manifest.environment, manifest.warm, manifest.http_streaming),
            ("echo", "main.py", {}, False, False),
        )

    def test_every_key(self) -> None:
        """All keys are read, and unknown ones are kept for ``info``."""
        raw = {
            "slave": "/usr/bin/app", "environment": {"A": "1"}, "warm": True, "http-streaming": True, "engine": "old",
        }  # fmt: skip
        manifest = Manifest.from_dict(raw, "echo")
        self.assertEqual(
            (manifest.slave, manifest.environment, manifest.warm, manifest.http_streaming),
            ("/usr/bin/app", {"A": "1"}, True, True),
        )
        self.assertEqual(manifest.expanded(), raw)

    def test_old_raw(self) -> None:
        """What a Python 2 tool stored (all raw) and what a tool with ``bin`` stored read the same."""
        raw = {"slave": "main.py", "environment": {"PATH": "/bin"}}
        old = msgpack.packb(raw, use_bin_type=False)
        new = msgpack.packb({b"slave": b"main.py", b"environment": {b"PATH": b"/bin"}}, use_bin_type=True)
        self.assertEqual(Manifest.from_blob(old), Manifest.from_blob(new))

    def test_not_utf8(self) -> None:
        """A value that is not UTF-8 reaches the worker byte for byte."""
        blob = msgpack.packb({b"slave": b"a", b"environment": {b"X": b"\xff"}}, use_bin_type=False)
        manifest = Manifest.from_blob(blob)
        self.assertEqual(manifest.environment["X"].encode("utf-8", "surrogateescape"), b"\xff")

    def test_no_slave(self) -> None:
        """A manifest without a program is refused in the original's words."""
        for raw in ({}, {"slave": ""}, {"slave": None}):
            error = self.assertRaises(InvalidArgument, Manifest.from_dict, raw)
            self.assertEqual((error.pair, error.reason), ((12, 22), "runnable object has not been specified"))

    def test_environment(self) -> None:
        """An environment that is not text to text is refused readably."""
        for value in ("A=1", ["A"], {"A": 1}, {1: "A"}):
            error = self.assertRaises(InvalidArgument, Manifest.from_dict, {"slave": "a", "environment": value})
            self.assertEqual(
                (error.pair, error.reason), ((12, 22), "environment should be a map of string -> string")
            )

    def test_impossible_variable(self) -> None:
        """A variable that no process can have is refused before a worker is started."""
        for value in ({"": "x"}, {"A=B": "x"}, {"A\0": "x"}, {"A": "x\0"}):
            self.assertRaises(InvalidArgument, Manifest.from_dict, {"slave": "a", "environment": value})

    def test_wrong_kinds(self) -> None:
        """Each complaint names the app, the key, the rule and the value."""
        for key, value, words in (
            ("slave", 5, "slave must be text without NUL, not 5"),
            ("slave", "a\0b", "slave must be text without NUL, not text 'a\\x00b'"),
            ("warm", "yes", "warm must be true or false, not text 'yes'"),
            ("http-streaming", 1, "http-streaming must be true or false, not 1"),
        ):
            error = self.assertRaises(InvalidArgument, Manifest.from_dict, {"slave": "a"} | {key: value}, "echo")
            self.assertEqual(error.reason, f"manifest of app 'echo': {words}")

    def test_not_a_map(self) -> None:
        """A stored object of another shape answers [7, 7]."""
        deep: object = 1
        for _ in range(400):
            deep = [deep]
        for blob in (
            b"", b"\xc1", b"\x93\x01", msgpack.packb([1]), msgpack.packb("text"), msgpack.packb({}) + b"\x00",
            msgpack.packb(deep), b"\x81\x90\x01", b"\x81\x80\x01",
        ):  # fmt: skip
            error = self.assertRaises(UncaughtError, Manifest.from_blob, blob)
            self.assertEqual(error.pair, (7, 7))

    @given(st.binary(max_size=64))
    def test_any_bytes(self, blob: bytes) -> None:
        """No stored bytes raise anything but our own error."""
        try:
            decode(blob, "it")
        except CocaineError:
            pass


class NameTests(SynchronousTestCase):
    def test_good(self) -> None:
        """Names in use at real sites pass."""
        for name in ("echo", "app_v1-2.3", "b", "Приложение", "x" * 128, "with space"):
            check_app_name(name, {"storage"})

    def test_bad(self) -> None:
        """Names that would leave the app's folder, or hide, or break a terminal are refused."""
        for name in ("", ".", "..", "../x", "a/b", "a\0b", "a\nb", "\x1b[0m", "-rf", ".hidden", "x" * 129, "a\udcff"):
            self.assertRaises(InvalidArgument, check_app_name, name)

    def test_core_service(self) -> None:
        """An app cannot take the name of a service of the runtime."""
        error = self.assertRaises(InvalidArgument, check_app_name, "storage", {"storage", "locator"})
        self.assertEqual((error.pair, error.reason), ((12, 22), "service 'storage' already exists"))

    def test_socket_path(self) -> None:
        """The socket lies in the runtime folder under the app's name and the pid; too long a path is refused."""
        self.assertEqual(socket_path("/run/cocaine", "echo", 7), "/run/cocaine/echo.7")
        self.assertEqual(len(socket_path("/" + "r" * 98, "echo", 12)), 107)
        error = self.assertRaises(InvalidArgument, socket_path, "/" + "r" * 99, "echo", 12)
        self.assertIn("paths.runtime", error.reason)
