"""What is said of endpoint strings that cannot be listened at, before a daemon goes into the background."""

from __future__ import annotations

import os
import socket
import tempfile

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.endpoints import try_endpoints
from cocaine_tx.errors import ConfigError


class EndpointTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="ctx")
        self.addCleanup(self.folder.cleanup)

    def refused(self, description: str) -> str:
        problem = self.assertRaises(ConfigError, try_endpoints, reactor, "operations", [description])
        assert problem is not None
        self.assertIn(f"operations: {description!r} ", problem.reason)
        self.assertNotIn("\n", problem.reason)
        return problem.reason

    def test_taken(self) -> None:
        """A port or a path that another process listens at."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            number = listening.getsockname()[1]
            self.assertIn("Address already in use; stop who has it", self.refused(f"tcp:{number}:interface=127.0.0.1"))
        path = os.path.join(self.folder.name, "s")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(0)
            for _ in range(2):  # one waits to be accepted already
                self.assertIn("Address already in use; stop who has it", self.refused(f"unix:{path}"))
        try_endpoints(reactor, "endpoints", [f"unix:{path}", "tcp:0:interface=127.0.0.1"])

    def test_not_to_be_had(self) -> None:
        """Each kind has a mend of its own."""
        junk = os.path.join(self.folder.name, "junk")
        with open(junk, "w", encoding="ascii") as file:
            file.write("junk")
        for description, words in (
            ("tcp:0:interface=192.0.2.1", "Cannot assign requested address; give an address of this host"),
            (f"unix:{junk}/s", "name a path in a folder"),
            (f"unix:{self.folder.name}/{'x' * 120}", "AF_UNIX path too long; name a path"),
            ("systemd:domain=INET:index=0", "systemd has given no such socket; start us by a socket unit"),
            ("tcp:99999", "port must be 0-65535; give one such as tcp:"),
            ("tcp:0:interfce=::1", "give one such as tcp:"),
            ("nothing", "give one such as tcp:"),
            ("", "give one such as tcp:"),
        ):
            self.assertIn(words, self.refused(description))

    def test_certificates(self) -> None:
        """Of TLS files the one that is missing is named."""
        try:
            import OpenSSL  # noqa: F401
        except ImportError:
            self.assertIn("pip install 'twisted[tls]'", self.refused("ssl:0"))
            return
        missing, junk = os.path.join(self.folder.name, "missing.pem"), os.path.join(self.folder.name, "junk.pem")
        with open(junk, "w", encoding="ascii") as file:
            file.write("junk")
        said = self.refused(f"ssl:0:privateKey={missing}")
        self.assertIn(f"{missing}: No such file or directory; let privateKey", said)
        self.assertIn("let privateKey and certKey name", self.refused(f"ssl:0:privateKey={junk}"))

    def test_added_by_others(self) -> None:
        """A kind that this program does not know is left for the start."""
        try_endpoints(reactor, "endpoints", ["onion:80"])
