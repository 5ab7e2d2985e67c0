"""
One node's offer of an app, as a relaying gateway uses it, and who chooses among them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol as Shape

from twisted.internet.interfaces import IReactorTime

from ..interfaces import ServiceInfo
from ..rpc.client import Dialer
from ..wire.idl import Protocol
from .choice import Rules, Standing
from .lines import Lines


class Offer(Standing):
    """
    A node that has the app: how it stands, and the lines to it. Most offers are never asked, and have none.

    :ivar session: of the link by which it is known.
    :ivar credits: the node knows windows and credits; to another one a credit would be a breach.
    """

    __slots__ = ("_dialer", "_lines", "credits", "info", "protocol", "session", "uuid")

    def __init__(
        self,
        since: float,
        weight: float,
        session: object,
        uuid: str,
        info: ServiceInfo,
        protocol: Protocol,
        dialer: Dialer,
        credits: bool = False,
    ) -> None:
        super().__init__(since, weight)
        self.session = session
        self.uuid = uuid
        self.info = info
        self.protocol = protocol
        self.credits = credits
        self._dialer = dialer
        self._lines: Lines | None = None

    @property
    def connected(self) -> bool:
        """It has been asked before."""
        return self._lines is not None

    @property
    def lines(self) -> Lines:
        """The connections to it."""
        if self._lines is None:
            self._lines = Lines(self._dialer, self.info, self.protocol, self._alive)
        return self._lines

    def _alive(self) -> None:
        self.spoke(self._dialer.reactor.seconds())


class Seeker(Shape):
    """What a request needs of its app; `virtual.VirtualApp` is the one."""

    name: str
    clock: IReactorTime
    rules: Rules

    def choose(self, tried: Collection[Offer]) -> Offer | None:
        "The node for a request, or None."

    def failed(self, offer: Offer) -> None:
        "The node could not be reached, was lost, or does not run the app."
