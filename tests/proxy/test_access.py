"""The access log: what a client can make a line say, and what happens when lines cannot be written."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.proxy import access
from cocaine_tx.proxy.access import AccessLog, Entry, as_json, combined
from cocaine_tx.proxy.request import RequestHead

HEAD = RequestHead(
    b"GET", b"/a?q", b"1.1",
    [(b"Referer", b'r"\x1b[2J'), (b"User-Agent", b"\xd0\xb6 \\"),
     (b"Authorization", b"hidden"), (b"Cookie", b"hidden")],
    b"h", 0, True, False, b"",
)  # fmt: skip
ENTRY = Entry("::1", 1.5, HEAD, 200, 3, 0.1, b'id"\n\xff', "app", "http", 'bad\n"x')


class LineTests(SynchronousTestCase):
    def test_combined(self) -> None:
        """Nothing that a client says ends a quoted word or the line."""
        self.assertEqual(
            combined(ENTRY),
            '::1 - - [01/Jan/1970:00:00:01 +0000] "GET /a?q HTTP/1.1" 200 3 "r\\x22\\x1b[2J" "\\xd0\\xb6 \\x5c"',
        )

    def test_json(self) -> None:
        """The same as JSON, in ASCII, with nothing of what authorizes."""
        line = as_json(ENTRY)
        self.assertTrue(line.isascii() and line.isprintable())
        self.assertEqual(json.loads(line)["request_id"], 'id"\n\xff')
        self.assertNotIn("hidden", line + combined(ENTRY))


class SlowTests(SynchronousTestCase):
    def test_dropped(self) -> None:
        """Lines that find no room are lost, and the daemon's log says how many."""
        clock, batches, told = Clock(), list[tuple[str, Any]](), list[Any]()
        log = AccessLog(lambda entry: "x" * 9, clock.callLater, lambda batch, done: batches.append((batch, done)))
        globalLogPublisher.addObserver(told.append)
        self.addCleanup(globalLogPublisher.removeObserver, told.append)
        with mock.patch.object(access, "LIMIT", 20):
            for _ in range(5):
                log.add(ENTRY)
        clock.advance(1)
        self.assertEqual((len(batches[0][0].splitlines()), log.dropped), (3, 2))
        self.assertEqual([event["count"] for event in told if "access log" in event["log_format"]], [2])
        batches[0][1]()
        log.add(ENTRY)
        clock.advance(1)
        self.assertEqual(len(batches), 2)
