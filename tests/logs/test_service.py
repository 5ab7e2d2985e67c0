"""The logging service: what an app says ends in the daemon's log, and nothing else does."""

import msgpack
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.logs.service import ATTRIBUTES_LIMIT, BYTES, TEXT_LIMIT, LoggingService
from tests.wire.captures import Stage, decoded


class Logging(SynchronousTestCase):
    def setUp(self):
        self.events = []
        self.time = 1000.0
        self.service = LoggingService(0, self.events.append, lambda: self.time, rate=5)
        self.stage = Stage(self.service.dispatch)

    def say(self, client, *frames):
        return decoded(self.stage.say(client, *(msgpack.packb(frame, use_bin_type=False) for frame in frames)))

    def lines(self):
        return [formatEvent(event) for event in self.events]

    def test_recorded(self):
        """The exchange recorded from the original is answered byte for byte, and its records arrive."""
        recorded, client = self.stage.play("logging-emit")
        self.assertEqual(client.data.hex(), recorded.answered.hex())
        self.assertEqual(client.closed, recorded.closed)
        self.assertEqual(self.lines(), ["hello from client", "with attrs k='v' n=5"])
        self.assertEqual({event["log_namespace"] for event in self.events}, {"app/x"})
        self.assertEqual({event["log_level"] for event in self.events}, {LogLevel.warn})

    def test_verbosity(self):
        """Records below the verbosity are dropped; an operator can change it."""
        client = self.stage.client()
        self.assertEqual(self.say(client, [1, 2, [2]])[0][:3], [1, 0, []])
        self.say(client, [2, 0, [1, "app/x", "no"]], [3, 0, [3, "app/x", "yes"]])
        self.assertEqual(self.lines(), ["yes"])
        [answer] = self.say(client, [4, 2, [17]])
        self.assertEqual((answer[1], answer[2][0]), (1, [12, 22]))
        self.assertEqual(self.say(client, [5, 1, []])[0][2], [2])

    def test_not_a_format(self):
        """Braces and bytes in a message are text, not instructions."""
        client = self.stage.client()
        self.say(client, [1, 0, [1, "app/{x}", b"{log_time} \xff", [["{a}", "{b}"]]]])
        self.assertEqual(self.lines(), ["{log_time} \N{REPLACEMENT CHARACTER} {a}='{b}'"])

    def test_odd_severity(self):
        """A severity beyond the scale is the nearest one that exists."""
        self.say(self.stage.client(), [1, 0, [99, "x", "y"]])
        self.assertEqual(self.events[0]["log_level"], LogLevel.error)

    def test_malformed(self):
        """A record of a wrong shape costs its sender the connection, and nobody else anything."""
        other = self.stage.client()
        for attributes in ([1], [["a"]], [[1, 2]], [["a", None]], [["a", [1]]], {"a": 1}, None):
            client = self.stage.client()
            self.say(client, [1, 0, [3, "app/x", "bad", attributes]])
            self.assertTrue(client.closed, attributes)
        self.assertEqual(self.events, [])
        self.assertEqual(self.say(other, [1, 1, []])[0][2], [0])

    def test_long(self):
        """A long record is cut, and says how long it was."""
        attributes = [[str(number), 1] for number in range(ATTRIBUTES_LIMIT + 10)]
        self.say(self.stage.client(), [1, 0, [1, "x", "y" * (TEXT_LIMIT + 1), attributes]])
        [event] = self.events
        self.assertTrue(event["message"].endswith(f"... ({TEXT_LIMIT + 1} bytes)"))
        self.assertEqual(len(event["attributes"]), ATTRIBUTES_LIMIT)

    def test_flood(self):
        """Of a flood the first records of each second are kept."""
        client = self.stage.client()
        self.say(client, *([number, 0, [1, "x", "y"]] for number in range(1, 20)))
        self.assertEqual(len(self.events), 5)
        self.time += 1
        self.say(client, [20, 0, [1, "x", "z"]])
        self.assertEqual(self.lines()[-1], "z")

    def test_large_flood(self):
        """Of large records only as many are kept as fit into some megabytes of each second, and the rest is counted."""
        self.service = LoggingService(0, self.events.append, lambda: self.time)
        self.stage = Stage(self.service.dispatch)
        client = self.stage.client()
        self.say(client, *([number, 0, [1, "x", "y" * TEXT_LIMIT]] for number in range(1, 200)))
        self.assertEqual(len(self.events), BYTES // TEXT_LIMIT)
        self.time += 1
        large = [["a", "y" * TEXT_LIMIT]] * 10
        with capturedLogs() as said:
            self.say(client, *([number, 0, [1, "x", "z", large]] for number in range(200, 250)))
        self.assertEqual(len(self.events), BYTES // TEXT_LIMIT + BYTES // (10 * TEXT_LIMIT + 1))
        self.assertEqual([event["count"] for event in said], [199 - BYTES // TEXT_LIMIT])
