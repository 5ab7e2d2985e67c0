"""
The proxy's line to the locators: names to addresses, and which names are routing groups.

One connection is kept and made again when somebody asks; locators are tried in their order. Groups are followed by the
``routing`` stream, so that a sticky request finds its member here, without a question.

Source: reference ``protocol-v12.md`` section 10; ``http-tools-sdk.md`` section A.2 for the sticky header.
"""

from __future__ import annotations

import hashlib
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
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
        self._remote: Remote | None = None
        self._attempt: Deferred[None] | None = None
        self._waiting: list[Deferred[Remote]] = []
        self._pause = FIRST_PAUSE
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._uid = f"proxy:{os.getpid()}:{os.urandom(8).hex()}"

    # -- one connection

    def _connected(self) -> Deferred[Remote]:
        waiting: Deferred[Remote] = Deferred(lambda gone: self._waiting.remove(gone))
        if self._remote is not None and not self._remote.connection.gone:
            waiting.callback(self._remote)
            return waiting
        self._waiting.append(waiting)
        if self._attempt is None:
            self._attempt = Deferred.fromCoroutine(self._connect())
        return waiting

    async def _connect(self) -> None:
        problem: CocaineError | None = None
        try:
            self._remote = await self._dialer.locator(self._addresses)
        except CocaineError as error:
            problem = error
        if problem is not None:  # to be connected is not yet to be answered
            self.healthy = False
        self._attempt = None
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if problem is None and self._remote is not None:
                one.callback(self._remote)
            else:
                one.errback(problem or ConnectionGone())

    async def resolve(self, name: str) -> ServiceInfo:
        """
        Where a service is now.

        :raises ServiceNotFound: no such service.
        :raises Unreachable: no locator answers.
        """
        for last in (False, True):
            try:
                remote = await self._connected()
                info = service_info(await remote.call("resolve", name, timeout=self.patience))
                self.healthy = True
                return info
            except ConnectionGone as problem:
                # An idle connection may have died unseen; a fresh one decides.
                if last:
                    raise Unreachable(f"no locator answers: {problem.reason}") from problem
            except TooLate as problem:
                self.healthy = False
                self.hang_up()
                raise Unreachable("the locator does not answer in time") from problem
        raise Unreachable()

    async def check(self) -> None:
        """Ask for the cluster, as the originals do, to know whether anybody answers."""
        try:
            remote = await self._connected()
            await remote.call("cluster", timeout=self.patience)
            self.healthy = True
        except (CocaineError, TooLate):
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
