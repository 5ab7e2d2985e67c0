"""
Where an app's workers live: what one pool of them leaves to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from ..interfaces import Launch
from ..rpc.turn import Turn
from ..wire.protocols import CREDITS_VARIABLE
from .crashlog import CrashLogs
from .manifest import Manifest
from .tally import Tally


@dataclass(frozen=True, slots=True)
class Premises:
    """
    What an app's pools share, one after the other.

    :ivar arguments: what every worker is told on its command line beside its uuid.
    :ivar endpoint: path of the socket where workers connect.
    :ivar changed: called when the number of active workers has changed.
    """

    arguments: Mapping[str, str]
    endpoint: str
    crashlogs: CrashLogs
    tally: Tally
    clock: IReactorTime
    turn: Turn
    changed: Callable[[], None]

    def launch(self, manifest: Manifest, **own: str) -> Launch:
        """A worker of that app; ``own`` is what it alone is told on its command line, without the dashes."""
        arguments = {**self.arguments, **{f"--{name}": value for name, value in own.items()}}
        return Launch(manifest.slave, arguments, {**manifest.environment, CREDITS_VARIABLE: "1"}, self.endpoint)
