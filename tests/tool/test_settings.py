"""Configuration files and the options over them."""

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.tool.exits import Refused, WrongValue
from cocaine_tx.tool.settings import Secure, Settings, read, settings


class Files(SynchronousTestCase):
    def file(self, text: str) -> str:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(text)
        return path

    def test_merged(self) -> None:
        """The user's file wins over the machine's, key by key; absent and empty ones are nothing."""
        machine = self.file("locator: {host: here, port: 1}")
        user = self.file("locator: {port: 2}")
        together = read([machine, "absent", self.file(""), user])
        self.assertEqual(together, {"locator": {"host": "here", "port": 2}})
        self.assertEqual(settings(together, None, None), Settings(("here", 2)))

    def test_options_win(self) -> None:
        """--host and --port are stronger than files; without any it is the local locator."""
        content = {"locator": {"host": "here", "port": 2}}
        self.assertEqual(settings(content, "there", "3"), Settings(("there", 3)))
        self.assertEqual(settings({}, None, None), Settings(("localhost", 10053)))

    def test_complaints(self) -> None:
        """Whatever is wrong in a file is named with the file and the key."""
        for text, words in (
            ("a: 1", "unknown key 'a'"),
            ("locator: {hosts: x}", "unknown key locator.hosts"),
            ("locator: {port: x}", "locator.port must be of type int"),
            ("locator: 5", "locator must be a map"),
            ("[]", "must be a map"),
            ("a: [", "cannot be read"),
        ):
            path = self.file(text)
            problem = str(self.assertRaises(Refused, read, [path]))
            self.assertTrue(problem.startswith(path), problem)
            self.assertIn(words, problem)

    def test_port(self) -> None:
        """A port is a port."""
        for text in ("x", "0", "65536", ""):
            self.assertRaises(WrongValue, settings, {}, None, text)

    def test_secure(self) -> None:
        """Who we are is complete or refused."""
        whole = {"mod": "TVM", "client_id": 5, "client_secret": "s"}
        self.assertEqual(settings({"secure": whole}, None, None).secure, Secure(5, "s"))
        self.assertRaises(Refused, settings, {"secure": {"mod": "X"}}, None, None)
        self.assertRaises(Refused, settings, {"secure": {"mod": "TVM", "client_id": 5}}, None, None)
