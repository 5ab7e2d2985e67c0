"""What a client's odd behaviour may do to the worker that serves it, and to others there."""

from __future__ import annotations

from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.node.invocation import Invocation
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.protocols import APP, EVENTS, WORKER
from cocaine_tx.wire.session import NOBODY, Session, Strangers, dialing, serving


class Listening(Recorder):
    """Hears all of its channels, not only their first words."""

    def received(self, channel, message, args, headers) -> None:
        super().received(channel, message, args, headers)
        channel.receiver = self


class CreditTests(SynchronousTestCase):
    """Credits go to workers that know them, and to no others."""

    def heard(self, *, credits: bool) -> list[str]:
        """What a worker hears of a client that grants credit."""
        clock = Clock()
        worker = Listening()
        back = ConnectionPair(serving(WORKER, NOBODY), Session(EVENTS, worker, Strangers.IGNORED), clock)
        back.near.session.kin = credits

        class Front(Recorder):
            def received(self, channel, message, args, headers) -> None:
                made = Invocation(channel, args[0], headers, 0.0, 60.0, None)
                made.assign(SimpleNamespace(credits=credits), back.near.session, 0.0)

        front = ConnectionPair(dialing(), serving(APP, Front()), clock)
        front.near.session.kin = True
        channel = front.near.session.open(APP.slots[0], (b"ping",), NOBODY)
        channel.credit(100)
        channel.choke()
        front.pump()
        back.pump()
        return [name for _, name, _ in worker.told]

    def test_knows(self) -> None:
        """A worker that knows credits gets them."""
        self.assertEqual(self.heard(credits=True), ["invoke", "credit", "close"])

    def test_knows_not(self) -> None:
        """An original worker would end its connection, and all its requests, by a message it does not know."""
        self.assertEqual(self.heard(credits=False), ["invoke", "close"])
