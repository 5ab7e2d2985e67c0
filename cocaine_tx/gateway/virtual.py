"""
An app as a relaying gateway offers it: one service for all the nodes that have it, every request balanced on its own.

Source: reference ``node-engine.md`` section 8.3, ``protocol-v12.md`` section 14.
"""

from __future__ import annotations

from collections.abc import Collection, Coroutine
from random import random
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..errors import CocaineError, InvalidArgument, NotRunning, RemoteProtocolError
from ..interfaces import ServiceInfo
from ..rpc.client import Dialer
from ..rpc.deadlines import Deadlines
from ..rpc.dispatch import Dispatch
from ..rpc.relay import Relay
from ..wire.headers import Headers, timeout_of
from ..wire.idl import STREAMING, Protocol, parse_protocol
from ..wire.protocols import APP
from ..wire.session import Channel
from .choice import Rules, choose
from .errand import Errand
from .lines import Lines
from .offer import Offer

#: Seconds to wait for a node's ``info``.
INFO_TIMEOUT = 10.0
#: Seconds after a request's deadline in which the node may still say so itself.
GRACE = 0.5
#: Bytes kept of one request for another try.
KEPT = 1024 * 1024


def app_protocol(name: str, info: ServiceInfo) -> Protocol | None:
    """The protocol of a service if it is an app's, whatever its message numbers are; None otherwise."""
    try:
        protocol = parse_protocol(name, info.version, info.graph)
    except RemoteProtocolError:
        return None
    enqueue = protocol.named("enqueue")
    if enqueue is None or protocol.named("info") is None or protocol.named("control") is None:
        return None
    return protocol if enqueue.downstream is STREAMING and enqueue.upstream is STREAMING else None


class VirtualApp:
    """
    One app on many nodes; ``dispatch`` is what its port serves.

    :ivar offers: the nodes that have it, by uuid.
    :ivar errands: requests on their way.
    :ivar emptied: the clock's time since which no node has it; None while one does.
    """

    _log = Logger()

    def __init__(self, name: str, dialer: Dialer, rules: Rules, kept: int = KEPT) -> None:
        self.name = name
        self.rules = rules
        self.clock: IReactorTime = dialer.reactor
        self.offers: dict[str, Offer] = {}
        self.errands: set[Errand] = set()
        self.emptied: float | None = None
        self.dispatch = Dispatch(APP, {"info": self._info}, {"enqueue": self._enqueue, "control": self._control})
        self._dialer = dialer
        self._kept = kept
        self._candidates: list[Offer] = []
        self._heaviest = 1.0
        self._leaving: set[Lines] = set()
        self._deadlines: Deadlines[Errand] = Deadlines(self.clock, Errand.late)

    # -- nodes

    def consume(self, session: object, uuid: str, info: ServiceInfo, protocol: Protocol, weight: float) -> None:
        """A node has the app there."""
        offer = self.offers.get(uuid)
        if offer is not None and offer.lines.info == info:
            offer.session = session
            offer.weight = weight
        else:
            if offer is not None:
                self._part(offer)
            self.offers[uuid] = made = Offer(self.clock.seconds(), weight, session, uuid)
            made.lines = Lines(self._dialer, info, protocol, lambda: made.spoke(self.clock.seconds()))
        self._changed()

    def withdraw(self, session: object, uuid: str) -> None:
        """The node has it no more; what is in flight there goes on while the node lives."""
        offer = self.offers.get(uuid)
        if offer is None or offer.session is not session:
            return
        del self.offers[uuid]
        self._part(offer)
        self._changed()

    def _part(self, offer: Offer) -> None:
        offer.lines.retire()
        self._leaving.add(offer.lines)

    def _changed(self) -> None:
        self._candidates = list(self.offers.values())
        self._heaviest = max((offer.weight for offer in self._candidates), default=1.0)
        if self._candidates:
            self.emptied = None
        elif self.emptied is None:
            self.emptied = self.clock.seconds()

    def watch(self) -> None:
        """Ask those whether they live who have requests and say nothing, or are not offered any more."""
        if self.errands:
            now = self.clock.seconds()
            for offer in self._candidates:
                if offer.in_flight and offer.quiet(now):
                    offer.lines.ask()
        for lines in self._leaving:
            lines.ask()

    def sweep(self) -> None:
        """Close lines that nobody uses."""
        for offer in self._candidates:
            offer.lines.close_idle()
        self._leaving = {lines for lines in self._leaving if len(lines)}

    def stop(self) -> None:
        """Close all lines; requests that still run fail."""
        self._deadlines.stop()
        for lines in [*(offer.lines for offer in self._candidates), *self._leaving]:
            lines.stop()

    # -- choosing

    def choose(self, tried: Collection[Offer]) -> Offer | None:
        candidates = self._candidates
        if len(candidates) == 1 and not tried:
            return candidates[0]
        return choose(candidates, tried, self.clock.seconds(), self.rules, random, self._heaviest)

    def failed(self, offer: Offer) -> None:
        if offer.failed(self.clock.seconds(), self.rules):
            self._log.warn("{app}: node {uuid} fails and is left out for a while", app=self.name, uuid=offer.uuid)

    # -- the service

    def _enqueue(self, channel: Channel, headers: Headers, *args: Any) -> None:
        seconds = timeout_of(headers)
        deadline = None if seconds is None else self.clock.seconds() + min(seconds, 365 * 86400.0)
        errand = Errand(self, channel, headers, args, deadline, self._kept, self._ended)
        self.errands.add(errand)
        if deadline is not None and seconds is not None:
            errand.bin = self._deadlines.enter(errand, deadline + GRACE, seconds)
        errand.start()

    def _ended(self, errand: Errand) -> None:
        self.errands.discard(errand)
        if errand.bin:
            self._deadlines.leave(errand, errand.bin)

    def _some(self) -> Offer:
        offer = self.choose(())
        if offer is None:
            raise NotRunning(f"no node runs {self.name} now")
        return offer

    def _info(self, headers: Headers) -> Coroutine[Any, Any, tuple[Any, ...]]:
        """One node's view: nodes do not know of one another, and no sum of theirs is anybody's state."""
        offer = self._some()

        async def asking() -> tuple[Any, ...]:
            line = offer.lines.ready() or await offer.lines.line()
            return await line.call("info", timeout=INFO_TIMEOUT)

        return asking()

    def _control(self, channel: Channel, headers: Headers) -> None:
        """The pool of one node; the only way when there is one, and of little use when there are more."""
        if len(self._candidates) > 1:
            raise InvalidArgument(f"{self.name} runs on {len(self._candidates)} nodes: control it on each of them")
        line = self._some().lines.ready()
        if line is None:
            raise NotRunning(f"{self.name}: the node is not connected yet; try again")
        try:
            far = line.open("control", headers=headers)
        except CocaineError as problem:
            raise NotRunning(problem.reason) from problem
        Relay(channel, far, _over)


def _over(relay: Relay) -> None:
    """Nothing is counted for it."""
