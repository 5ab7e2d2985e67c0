"""A daemon that is told to end while it comes up."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.twistd import DaemonService


class Reactor:
    """One that runs, and notes who wants to know of its end."""

    running = True

    def __init__(self) -> None:
        self.played: list[str] = []

    def callWhenRunning(self, act: Any) -> None:
        act()

    def addSystemEventTrigger(self, *words: Any) -> None:
        self.played.append("will exit with 1")

    def stop(self) -> None:
        self.played.append("stop")


class StopTests(SynchronousTestCase):
    def test_while_starting(self) -> None:
        """It begins nothing more, is taken down, and has not failed."""
        reactor, step = Reactor(), Deferred[None]()
        played = reactor.played

        async def start() -> None:
            played.append("first step")
            await step
            played.append("second step")

        async def stop() -> None:
            played.append("taken down")

        daemon = DaemonService("cocaine-x", "x.yaml", reactor, start, stop)
        daemon.startService()
        self.successResultOf(daemon.stopService())
        step.callback(None)
        self.assertEqual(played, ["first step", "taken down"])
        self.assertEqual(self.flushLoggedErrors(), [])
