"""The connections of a gateway to one node's app."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.gateway.lines import SILENCE, Lines
from cocaine_tx.interfaces import ServiceInfo
from cocaine_tx.rpc.client import Remote
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.protocols import APP
from cocaine_tx.wire.session import NOBODY, dialing, serving

PLACE = ServiceInfo((("10.0.0.1", 1),), 1, APP.graph())


class OneLine:
    """A dialer that has one line to give."""

    def __init__(self, line, clock):
        self.line = line
        self.reactor = clock

    async def connect(self, addresses, protocol):
        return self.line


class SilenceTests(SynchronousTestCase):
    """A node that has requests and says nothing is asked whether it lives."""

    def setUp(self) -> None:
        self.pair = pair = ConnectionPair(dialing(), serving(APP, NOBODY))
        self.lines = Lines(OneLine(Remote(pair.near, APP, pair.clock), pair.clock), PLACE, APP, lambda: None)
        self.line = self.successResultOf(self.lines.line())
        self.request = Recorder()
        self.line.open("enqueue", b"event", receiver=self.request)
        pair.pump()

    def look(self, seconds: float) -> None:
        self.pair.clock.advance(seconds)
        self.lines.ask()

    def test_silent(self) -> None:
        """One that does not answer is cut off, and its requests are told."""
        self.look(0)
        self.look(SILENCE)
        self.assertTrue(self.pair.near.gone)
        self.assertEqual([name for _, name, _ in self.request.told], ["lost"])

    def test_not_listened_to(self) -> None:
        """One that we do not read from, for a client does not take what it says, is no silent one."""
        self.look(0)
        self.pair.near.hold(self)
        for _ in range(10):
            self.look(SILENCE)
        self.pair.near.release(self)
        self.look(SILENCE / 2)
        self.assertEqual((self.pair.near.gone, self.request.told), (False, []))
        self.look(SILENCE)
        self.assertTrue(self.pair.near.gone)
