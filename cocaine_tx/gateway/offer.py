"""
One node's offer of an app, as a relaying gateway uses it, and who chooses among them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from .choice import Rules, Standing
from .lines import Lines


class Offer(Standing):
    """
    A node that has the app: how it stands, and the lines to it.

    :ivar session: of the link by which it is known.
    """

    __slots__ = ("lines", "session", "uuid")

    lines: Lines

    def __init__(self, since: float, weight: float, session: object, uuid: str) -> None:
        super().__init__(since, weight)
        self.session = session
        self.uuid = uuid


class Seeker(Protocol):
    """What a request needs of its app; `virtual.VirtualApp` is the one."""

    name: str
    clock: IReactorTime
    rules: Rules

    def choose(self, tried: Collection[Offer]) -> Offer | None:
        "The node for a request, or None."

    def failed(self, offer: Offer) -> None:
        "The node could not be reached, was lost, or does not run the app."
