"""
The proxy's line to the locators: names to addresses, and which names are routing groups.

One connection is kept and made again when somebody asks; locators are tried in their order, but one that could not be
reached or did not answer comes last for a while. Groups are followed by the ``routing`` stream, so that a sticky
request finds its member here, without a question.

Source: reference ``protocol-v12.md`` section 10; ``http-tools-sdk.md`` section A.2 for the sticky header.
"""

from __future__ import annotations

import hashlib
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..errors import CocaineError, ConnectionGone, Unreachable
from ..interfaces import Endpoint, ServiceInfo
from ..rpc.client import Dialer, Remote, service_info
from ..wire.headers import Headers
from ..wire.idl import Message, Slot
from ..wire.session import Channel

#: Seconds between attempts to follow the groups, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 32.0
#: Seconds in which a locator that has failed is tried after the others.
DOUBTED = 30.0
#: What those who wait are told at the end.
STOPPING = "the proxy is being stopped"

#: A group: points in ascending order, and the app at each.
Ring = tuple[list[int], list[str]]


class Locators:
    """
    :param addresses: of locators, in order of preference.
    :param patience: seconds for an answer.
    :param regrouped: told the names of the groups that have changed.
    :ivar healthy: a locator has answered, and no later attempt to reach one has failed.
    """

    _log = Logger()

    def __init__(
        self,
        dialer: Dialer,
        addresses: Sequence[Endpoint],
        patience: float = 5.0,
        regrouped: Callable[[set[str]], None] = lambda names: None,
    ) -> None:
        self.healthy = False
        self.patience = patience
        self.rings: dict[str, Ring] = {}
        self.regrouped = regrouped
        self._dialer = dialer
        self._addresses = tuple(addresses)
        self._doubted: dict[Endpoint, float] = {}
        self._address: Endpoint | None = None
        self._remote: Remote | None = None
        self._attempt: Deferred[None] | None = None
        self._waiting: list[Deferred[Remote]] = []
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._uid = f"proxy:{os.getpid()}:{os.urandom(8).hex()}"

    # -- one connection

    def _connected(self) -> Deferred[Remote]:
        waiting: Deferred[Remote] = Deferred(self._unwait)
        if self._remote is not None and not self._remote.connection.over:
            waiting.callback(self._remote)
            return waiting
        if self._stopped:
            waiting.errback(ConnectionGone(STOPPING))
            return waiting
        self._waiting.append(waiting)
        if self._attempt is None:
            attempt = Deferred.fromCoroutine(self._connect())
            if not attempt.called:
                self._attempt = attempt
        return waiting

    def _unwait(self, waiting: Deferred[Remote]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)

    async def _connect(self) -> None:
        remote: Remote | None = None
        problem: CocaineError = ConnectionGone("there is no locator")
        now = self._dialer.reactor.seconds()
        doubted = {place: until for place, until in self._doubted.items() if until > now}
        for address in sorted(self._addresses, key=lambda place: doubted.get(place, 0.0)):
            try:
                remote = await self._dialer.locator([address])
            except CocaineError as error:
                problem = error
                self._doubt(address)
            except CancelledError:
                problem = ConnectionGone(STOPPING)
                break
            else:
                self._address = address
                break
        self._remote, self._attempt = remote, None
        if remote is None:  # to be connected is not yet to be answered
            self.healthy = False
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if remote is not None:
                one.callback(remote)
            else:
                one.errback(problem)

    def _doubt(self, address: Endpoint | None) -> None:
        if address is not None:
            self._doubted[address] = self._dialer.reactor.seconds() + DOUBTED

    async def _ask(self, method: str, *args: Any) -> tuple[Any, ...]:
        """
        What a locator answers; another one is asked if the first says nothing.

        :raises Unreachable: none answers.
        """
        problem = Unreachable()
        for _ in range(2):
            try:
                remote = await self._connected()
            except ConnectionGone as gone:
                problem = Unreachable(f"no locator answers: {gone.reason}")
                continue
            try:
                answer = await remote.call(method, *args, timeout=self.patience)
            except ConnectionGone as gone:
                # An idle connection may have died unseen; a fresh one decides.
                problem = Unreachable(f"no locator answers: {gone.reason}")
            except TooLate:
                problem = Unreachable("the locator does not answer in time")
                if remote is self._remote:
                    self._doubt(self._address)
                    self.hang_up()
                if len(self._addresses) < 2:
                    break
            else:
                self.healthy = True
                return answer
        self.healthy = False
        raise problem

    async def resolve(self, name: str) -> ServiceInfo:
        """
        Where a service is now.

        :raises ServiceNotFound: no such service.
        :raises Unreachable: no locator answers.
        """
        return service_info(await self._ask("resolve", name))

    async def check(self) -> None:
        """Ask for the cluster, as the originals do, to know whether anybody answers."""
        try:
            await self._ask("cluster")
        except CocaineError:
            self.healthy = False
            self.hang_up()

    def hang_up(self) -> None:
        """Forget the connection; the next question makes a new one."""
        remote, self._remote = self._remote, None
        if remote is not None:
            remote.close()

    # -- groups

    def follow(self) -> None:
        """Begin to follow the routing groups; for ever, with pauses after failures."""
        Deferred.fromCoroutine(self._follow())

    async def _follow(self) -> None:
        try:
            remote = await self._connected()
            if not self._stopped:
                remote.open("routing", self._uid, True, receiver=self)
        except CocaineError:
            self._follow_later()

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message.name != "write":
            self._follow_later()
            return
        self._pause = FIRST_PAUSE
        rings = read_rings(args[0]) if args else {}
        changed = {name for name in rings.keys() | self.rings.keys() if rings.get(name) != self.rings.get(name)}
        self.rings = rings
        if changed:
            self.regrouped(changed)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self._follow_later()

    def _follow_later(self) -> None:
        if not self._stopped:
            self._timer = self._dialer.reactor.callLater(self._pause, self.follow)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def member(self, name: str, seed: bytes) -> str:
        """The app that a sticky value finds behind a name; the name itself if it is no group."""
        ring = self.rings.get(name)
        if ring is None or not ring[0]:
            return name
        points, apps = ring
        at = bisect_right(points, seed_key(seed))
        return apps[at if at < len(apps) else 0]

    def stop(self) -> None:
        """Ask nobody any more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        self.hang_up()


def seed_key(seed: bytes) -> int:
    """Where a seed stands on every ring: 32 bits."""
    a, b, c, d = struct.unpack("<4I", hashlib.md5(seed, usedforsecurity=False).digest())
    return int(a ^ b ^ c ^ d)


def read_rings(value: Any) -> dict[str, Ring]:
    """The groups of one write of the ``routing`` stream; what has another shape is left out."""
    rings: dict[str, Ring] = {}
    if not isinstance(value, dict):
        return rings
    for name, entries in value.items():
        try:
            points = [int(point) for point, _ in entries]
            apps = [app.decode("utf-8", "surrogateescape") for _, app in entries]
            rings[name.decode("utf-8", "surrogateescape")] = (points, apps)
        except (TypeError, ValueError, AttributeError):
            continue
    return rings
