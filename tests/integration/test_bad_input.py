"""Strangers and mistakes before real daemons: an error or a closed connection for them, and nothing for others."""

from __future__ import annotations

import io
import random
import socket
import tarfile

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from tests.integration.platform import PATIENCE, Peer, Platform, Regular, ServiceError, get

#: A frame whose argument claims 200 MB; the default limit is 128 MiB.
HUGE = b"\x94\x01\x00\x91\xc6" + (200_000_000).to_bytes(4, "big")


def packed(value: object) -> bytes:
    return msgpack.packb(value, use_bin_type=False)


def tar(*members: tarfile.TarInfo) -> bytes:
    """A compressed archive of empty members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member)
    return out.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


class BadInputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.addCleanup(self.platform.remove)
        self.platform.start_node()

    def serve(self) -> None:
        """Start an app and a good client of it, which must never notice anything."""
        self.app = self.platform.start_app("patient")
        self.platform.start_proxy()
        good = Regular(lambda: get(self.platform.http, "/patient/http/") == (200, b"last\n"))
        self.good = good
        self.addCleanup(good.stop)

    def unharmed(self) -> None:
        """The good client was served all the time, and still is."""
        self.good.stop()
        self.assertEqual(self.good.failures, [])
        self.assertGreater(self.good.answered, 0)
        self.assertEqual(get(self.platform.http, "/patient/http/"), (200, b"last\n"))
        with Peer(self.app) as client:
            self.assertEqual(client.ask("echo", b"still"), [(0, [b"still"]), (2, [])])

    def test_apps(self) -> None:
        """What cannot be an app is refused when it is started, with words; nothing is written outside its folder."""
        good = tar(tarfile.TarInfo("main.py"))
        manifest, profile = {"slave": "main.py"}, {"pool-limit": 1}
        outside = self.platform.folder / "outside"
        absolute = tarfile.TarInfo(str(outside))
        with Peer(self.platform.port("storage")) as storage, Peer(self.platform.port("node")) as node:
            for name, archive, manifest_, profile_, pair, words in (
                ("truncated", good[: len(good) // 2], manifest, profile, (255, 84), ""),
                ("noarchive", b"not an archive", manifest, profile, (255, 84), ""),
                ("above", tar(tarfile.TarInfo("../../outside")), manifest, profile, (255, 84), ".."),
                ("absolute", tar(absolute), manifest, profile, (255, 84), ""),
                ("linked", tar(link("a", str(outside)), tarfile.TarInfo("a")), manifest, profile, (255, 84), ""),
                ("linked-up", tar(link("a", "../../../x")), manifest, profile, (255, 84), ""),
                ("slaveless", good, {}, profile, (12, 22), "runnable object has not been specified"),
                ("poolless", good, manifest, {"pool-limit": 0}, (12, 22), "engine pool limit must be positive"),
                ("storage", good, manifest, profile, None, "storage"),
            ):
                storage.call(1, "apps", name, packed(archive), ["app"])
                storage.call(1, "manifests", name, packed(manifest_), ["app"])
                storage.call(1, "profiles", name, packed(profile_), ["profile"])
                error = self.assertRaises(ServiceError, node.call, 0, name, name)
                if pair is not None:
                    self.assertEqual(error.pair, pair, f"{name}: {error.reason}")
                self.assertIn(words, error.reason, name)
                self.assertNotEqual(error.reason, "", name)
            self.assertFalse(outside.exists())
            # The services and the node have not minded.
            self.assertEqual(storage.call(0, "manifests", "above"), [packed(manifest)])
            self.assertNotIn(b"storage", node.call(2)[0])
        with Peer(self.platform.start_app("patient")) as client:
            self.assertEqual(client.ask("echo", b"x"), [(0, [b"x"]), (2, [])])

    def test_bytes(self) -> None:
        """Garbage and too large frames on every port close that connection, and nobody else notices."""
        self.serve()
        ports: dict[str, int | str] = {name: self.platform.port(name) for name in ("storage", "logging", "node")}
        ports |= {"locator": self.platform.locator, "app": self.app, "proxy": self.platform.http}
        ports["workers"] = str(next((self.platform.folder / "run").glob("patient.*")))
        noise = random.Random(7)
        for name, where in ports.items():
            for garbage in (
                noise.randbytes(65536),
                b"\xc1" * 1000,
                b"GET / HTTP/1.0\r\n\r\n" if name != "proxy" else b"\x16\x03\x01\x02\x00\x01",
                packed([1, 0, []])[:-1],
                packed([0, 0, [], []]),
                packed([1, 4711, ["x"], []]),
                packed({"a": "map"}),
                b"\x91" * 5000,
            ):
                self.assertEqual(self._closed(where, garbage, True), "closed", f"{name}: {garbage[:20]!r}")
            self.assertEqual(self._closed(where, HUGE, False), "closed", f"{name}: a frame of 200 MB")
        self.unharmed()

    def _closed(self, where: int | str, data: bytes, last: bool) -> str:
        """Send, to the end of it or on and on, and see the connection closed by the other side."""
        with Peer(where) as stranger:
            connection = stranger.socket
            try:
                connection.sendall(data)
                if last:
                    connection.shutdown(socket.SHUT_WR)
                else:
                    for _ in range(400):
                        connection.sendall(bytes(500_000))
                while connection.recv(65536):
                    pass
            except (ConnectionResetError, BrokenPipeError):
                pass
            except TimeoutError:
                return f"still open after {PATIENCE:g} seconds"
            return "closed"

    def test_http(self) -> None:
        """A request with two lengths is refused and its connection closed: what follows is not taken for a request."""
        self.serve()
        for lines in (
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
        ):
            smuggled = b"GET /patient/http/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
            with Peer(self.platform.http) as client:
                client.socket.sendall(
                    b"POST /patient/http/ HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n0\r\n\r\n" + smuggled
                )
                answer = b""
                try:
                    while data := client.socket.recv(65536):
                        answer += data
                except ConnectionResetError:
                    pass
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
            self.assertEqual(answer.count(b"HTTP/1.1"), 1, answer)
        self.unharmed()
