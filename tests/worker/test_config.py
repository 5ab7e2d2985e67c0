from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import ConfigError
from cocaine_tx.worker import WorkerConfig

ARGV = ["main.py", "--app", "echo", "--endpoint", "/run/echo.1", "--locator", "127.0.0.1:10053,[::1]:10054",
        "--protocol", "1", "--uuid", "U"]  # fmt: skip


class WorkerConfigTests(SynchronousTestCase):
    def test_original_command_line(self):
        """The words a node writes are understood, IPv6 brackets included."""
        config = WorkerConfig.from_argv(ARGV, {})
        self.assertEqual(
            (config.app, config.endpoint, config.uuid, config.protocol, config.locators),
            ("echo", "/run/echo.1", "U", 1, (("127.0.0.1", 10053), ("::1", 10054))),
        )
        self.assertIsNone(config.token)

    def test_own_options_of_the_app(self):
        """An app may have options of its own, and a value may look like an option's name."""
        config = WorkerConfig.from_argv([*ARGV, "--verbose", "--uuid=no", "--app"], {})
        self.assertEqual((config.uuid, config.app), ("U", "echo"))

    def test_without_locator(self):
        """Without a locator the one of this machine is meant, and the app is a standalone one."""
        config = WorkerConfig.from_argv(["x", "--endpoint", "e", "--uuid", "u"], {})
        self.assertEqual((config.locators, config.app), ((("127.0.0.1", 10053),), "app/standalone"))

    def test_by_hand(self):
        """Whoever starts a worker by hand is told what is missing."""
        error = self.assertRaises(ConfigError, WorkerConfig.from_argv, ["main.py"], {})
        self.assertIn("--endpoint", error.reason)
        error = self.assertRaises(ConfigError, WorkerConfig.from_argv, ["x", "--endpoint", "e"], {})
        self.assertIn("--uuid", error.reason)

    def test_wrong_locator(self):
        """A locator that is no address is named."""
        for text in ("localhost", "a:b", ":1", "h:0", "h:70000"):
            with self.subTest(text):
                error = self.assertRaises(
                    ConfigError, WorkerConfig.from_argv, [*ARGV[:5], "--uuid", "u", "--locator", text], {}
                )
                self.assertIn(text, error.reason)

    def test_environment(self):
        """Timings and the token come from the environment; nonsense is named."""
        config = WorkerConfig.from_argv(
            ARGV,
            {
                "COCAINE_TX_HEARTBEAT": "0.5",
                "COCAINE_TX_THREADS": "3",
                "COCAINE_APP_TOKEN_TYPE": "TVM",
                "COCAINE_APP_TOKEN_BODY": "b",
            },  # fmt: skip
        )
        self.assertEqual((config.heartbeat, config.threads, config.token), (0.5, 3, ("TVM", "b")))
        error = self.assertRaises(ConfigError, WorkerConfig.from_argv, ARGV, {"COCAINE_TX_DRAIN": "soon"})
        self.assertIn("COCAINE_TX_DRAIN=soon", error.reason)
