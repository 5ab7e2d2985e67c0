"""The application that is checked for types also works."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.testing import WorkerStage
from cocaine_tx.wire.http import pack_request

from .typed_app import copy, worker


class TypedAppTests(SynchronousTestCase):
    def test_handlers(self) -> None:
        """Handlers with annotations are called as those without, and a decorated function stays itself."""
        stage = WorkerStage(worker)
        self.assertEqual(stage.invoke("copy", b"1", b"2").chunks, [b"1", b"2"])
        self.assertEqual(stage.invoke("later").chunks, [b"later"])
        self.assertEqual(stage.invoke("http", pack_request("POST", "/", "1.1", [], b"body")).chunks[1:], [b"body"])
        for event, chunks, answer in (
            ("block", [b"a", b"b"], [b"A", b"B"]),
            ("page", [pack_request("POST", "/p?q", "1.1", [], b"body")], [b"/pbody"]),
            ("wsgi", [pack_request("GET", "/", "1.1", [])], [b"plain"]),
        ):
            open_event = stage.open(event, *chunks)
            open_event.channel.choke()
            stage.wait(lambda seen=open_event: seen.closed)
            self.assertEqual(open_event.chunks[-len(answer):], answer, event)
        self.assertEqual(copy.__name__, "copy")
