"""
An app as a relaying gateway offers it: one service for all the nodes that have it, every request balanced on its own.

Source: reference ``node-engine.md`` section 8.3, ``protocol-v12.md`` section 14.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..errors import CocaineError, InvalidArgument, NotRunning, RemoteProtocolError
from ..interfaces import ServiceInfo
from ..rpc.client import Dialer
from ..rpc.deadlines import Deadlines, grain
from ..rpc.dispatch import Dispatch
from ..rpc.relay import Relay
from ..wire.headers import KNOWS_ONCE, Headers, timeout_of
from ..wire.idl import Protocol, parse_protocol
from ..wire.protocols import APP, is_app
from ..wire.session import Channel
from .choice import Rules, choose
from .errand import Errand
from .lines import Lines
from .offer import Offer

#: Seconds to wait for a node's ``info``.
INFO_TIMEOUT = 10.0
#: Seconds after a request's deadline in which the node may still say so itself.
GRACE = 0.5
#: Seconds in which lines to a node out of sight are kept: it may only be its announcements that are late.
LOST = 10.0
#: Bytes kept of one request for another try.
KEPT = 1024 * 1024


#: Protocols by the identity of their graphs, which are kept with them; `locator.news` makes equal ones one.
_protocols: dict[int, tuple[Mapping[int, Any], Protocol | None]] = {}
PROTOCOLS = 1024


def app_protocol(info: ServiceInfo) -> Protocol | None:
    """The protocol of a service if it is an app's, whatever its message numbers are; None otherwise."""
    known = _protocols.get(id(info.graph))
    if known is None:
        if len(_protocols) >= PROTOCOLS:
            _protocols.clear()
        known = _protocols[id(info.graph)] = (info.graph, _read(info))
    return known[1]


def _read(info: ServiceInfo) -> Protocol | None:
    try:
        protocol = parse_protocol(APP.name, info.version, info.graph)
    except RemoteProtocolError:
        return None
    if protocol.named("info") is None or protocol.named("control") is None:
        return None
    return protocol if is_app(protocol) else None


class VirtualApp:
    """
    One app on many nodes; ``dispatch`` is what its port serves.

    :ivar offers: the nodes that have it, by uuid.
    :ivar errands: requests on their way.
    :ivar emptied: the clock's time since which no node has it; None while one does.
    """

    _log = Logger()

    def __init__(self, name: str, dialer: Dialer, rules: Rules, chance: Callable[[], float], kept: int = KEPT) -> None:
        self.name = name
        self.rules = rules
        self.clock: IReactorTime = dialer.reactor
        self.offers: dict[str, Offer] = {}
        self.errands: set[Errand] = set()
        self.emptied: float | None = None
        self.dispatch = Dispatch(APP, {"info": self._info}, {"enqueue": self._enqueue, "control": self._control})
        self._dialer = dialer
        self._chance = chance
        self._kept = kept
        self._candidates: list[Offer] | None = []
        self._heaviest = 1.0
        self._lost: dict[str, Offer] = {}
        self._leaving: set[Lines] = set()
        self._deadlines: Deadlines[Errand] = Deadlines(self.clock, Errand.late)

    # -- nodes

    def consume(
        self, session: object, uuid: str, info: ServiceInfo, protocol: Protocol, weight: float, credits: bool = False
    ) -> None:
        """A node has the app there, and knows credits or not."""
        offer = self.offers.pop(uuid, None) or self._lost.pop(uuid, None)
        if offer is not None and offer.info == info:
            offer.session = session
            offer.weight = weight
            offer.credits = credits
            self.offers[uuid] = offer
        else:
            if offer is not None:
                self._part(offer)
            self.offers[uuid] = Offer(
                self.clock.seconds(), weight, session, uuid, info, protocol, self._dialer, credits
            )
        self._changed()

    def withdraw(self, session: object, uuid: str) -> None:
        """The node has it no more; what is in flight there goes on while the node lives."""
        offer = self.offers.get(uuid)
        if offer is None or offer.session is not session:
            return
        del self.offers[uuid]
        self._part(offer)
        self._changed()

    def forget(self, session: object, uuid: str) -> None:
        """
        The node is out of sight.

        It gets no more requests as long as there is another. Where there is none, lines that still stand are used for a
        while: what has failed may be the link to its locator alone.
        """
        offer = self.offers.get(uuid)
        if offer is None or offer.session is not session:
            return
        del self.offers[uuid]
        if offer.connected:
            offer.until = self.clock.seconds() + LOST
            self._lost[uuid] = offer
        self._changed()

    def _part(self, offer: Offer) -> None:
        if offer.connected:
            offer.lines.retire()
            self._leaving.add(offer.lines)

    def _changed(self) -> None:
        # Counted when the next request comes: nodes come in hundreds, and each has all the apps.
        self._candidates = None
        if self.offers:
            self.emptied = None
        elif self.emptied is None:
            self.emptied = self.clock.seconds()

    def _count(self) -> list[Offer]:
        candidates = self._candidates = list(self.offers.values()) or list(self._lost.values())
        self._heaviest = max((offer.weight for offer in candidates), default=1.0)
        return candidates

    def watch(self) -> None:
        """Ask those whether they live who have requests and say nothing, or are not offered any more."""
        if self.errands:
            now = self.clock.seconds()
            for offer in self.offers.values():
                if offer.in_flight and offer.quiet(now):
                    offer.lines.ask()
        for offer in list(self._lost.values()):
            offer.lines.ask()
            if not len(offer.lines) or self.clock.seconds() >= offer.until:
                del self._lost[offer.uuid]
                self._part(offer)
                self._candidates = None
        for lines in self._leaving:
            lines.ask()

    def sweep(self) -> None:
        """Close lines that nobody uses."""
        for offer in self.offers.values():
            if offer.connected:
                offer.lines.close_idle()
        self._leaving = {lines for lines in self._leaving if len(lines)}

    def stop(self) -> None:
        """Close all lines; requests that still run fail."""
        self._deadlines.stop()
        offers = [*self.offers.values(), *self._lost.values()]
        for lines in [*(offer.lines for offer in offers if offer.connected), *self._leaving]:
            lines.stop()

    # -- choosing

    def choose(self, tried: Collection[Offer]) -> Offer | None:
        candidates = self._candidates
        if candidates is None:
            candidates = self._count()
        if not self.offers:
            candidates = [offer for offer in candidates if offer.connected and len(offer.lines)]
        if len(candidates) == 1 and not tried:
            return candidates[0]
        return choose(candidates, tried, self.clock.seconds(), self.rules, self._chance, self._heaviest)

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
            errand.bin = self._deadlines.enter(errand, deadline + GRACE, grain(seconds))
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
        """One node's view, since a sum is nobody's state; and what we know ourselves."""
        offer = self._some()

        async def asking() -> tuple[Any, ...]:
            line = offer.lines.ready() or await offer.lines.line()
            answer = await line.call("info", timeout=INFO_TIMEOUT)
            return ({**answer[0], KNOWS_ONCE: True},) if answer and isinstance(answer[0], dict) else answer

        return asking()

    def _control(self, channel: Channel, headers: Headers) -> None:
        """The pool of one node; the only way when there is one, and of little use when there are more."""
        if len(self.offers) > 1:
            raise InvalidArgument(f"{self.name} runs on {len(self.offers)} nodes: control it on each of them")
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
