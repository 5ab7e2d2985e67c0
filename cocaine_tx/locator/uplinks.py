"""
All links of a gateway's locator: what discovery hears becomes links, and each node is spoken for by one of them.

Discovery (`IClusterListener`) calls `Uplinks.link` again and again; the links do the rest. A node may be heard under
several labels, and two nodes may claim one uuid: the first link that stands keeps it, except that the link whose label
*is* the uuid goes before one that only happened to find the node there.

Source: reference ``node-engine.md`` sections 7.3, 7.5 and 9.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import uniform

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from ..errors import InvalidArgument
from ..interfaces import Endpoint, IClusterListener, IGateway
from ..rpc.client import Dialer
from .uplink import Uplink

#: Snapshots asked for at one time. Each costs some milliseconds, and requests must be served between them.
TURNS = 4
#: Most links; more nodes than this are not believed.
LIMIT = 4096


@implementer(IClusterListener)
class Uplinks:
    """
    Links by label.

    :param uuid: our own, which is never linked to.
    :param gateway: learns what the nodes announce.
    :param dialer: makes connections; its reactor is the clock.
    """

    _log = Logger()

    def __init__(self, uuid: str, gateway: IGateway, dialer: Dialer) -> None:
        self.uuid = uuid
        self.gateway = gateway
        self.dialer = dialer
        self.clock: IReactorTime = dialer.reactor
        self._links: dict[str, Uplink] = {}
        self._speaking: dict[str, Uplink] = {}
        self._inside = 0
        self._waiting: deque[_Turn] = deque()

    # -- discovery

    def link(self, label: str, endpoints: Sequence[Endpoint]) -> None:
        if label == self.uuid or not endpoints:
            return
        link = self._links.get(label)
        if link is None:
            if len(self._links) >= LIMIT:
                self._log.warn("{label} is not linked to: there are {limit} links already", label=label, limit=LIMIT)
                return
            link = self._links[label] = Uplink(label, endpoints, self)
            link.life.dial()
            return
        link.wanted = True
        if tuple(endpoints) != link.endpoints and not link.live:
            # It has come back elsewhere: there is no reason to wait for it any longer.
            link.endpoints = tuple(endpoints)
            link.life.dial()

    def drop(self, label: str) -> None:
        """The node is not heard any more. While it answers it stays: lost announcements are no reason to lose it."""
        link = self._links.get(label)
        if link is not None:
            link.wanted = False
            if not link.live:
                link.life.close()
                self._remove(link)

    def stop(self) -> None:
        """End all links."""
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            link.life.close()

    def members(self) -> Mapping[str, Endpoint | None]:
        """Every node linked to, or tried, by its uuid where it is known."""
        return {link.uuid or label: link.place for label, link in self._links.items()}

    def states(self) -> Mapping[str, str]:
        """Every link's state by its label."""
        return {label: link.state for label, link in self._links.items()}

    # -- the links' own

    def claim(self, link: Uplink, uuid: str) -> None:
        """
        The link speaks for that node from now on.

        :raises InvalidArgument: the node is ourselves, or another link speaks for it.
        """
        if uuid == self.uuid:
            raise InvalidArgument("this is our own locator")
        other = self._speaking.get(uuid)
        if other is not None and other is not link:
            if link.label != uuid:
                raise InvalidArgument(f"{uuid} is linked to already, as {other.label}")
            self._log.info("{uuid} is taken over from the link to {label}", uuid=uuid, label=other.label)
            self._speaking[uuid] = link
            self.clock.callLater(0, other.life.broken)
        self._speaking[uuid] = link

    def yielded(self, link: Uplink) -> None:
        for uuid in [uuid for uuid, speaker in self._speaking.items() if speaker is link]:
            del self._speaking[uuid]
        if not link.wanted:
            self._remove(link)

    def _remove(self, link: Uplink) -> None:
        if self._links.get(link.label) is link:
            del self._links[link.label]

    def enter(self, admitted: Callable[[], None]) -> Callable[[], None]:
        turn = _Turn(self, admitted)
        self._waiting.append(turn)
        self.admit()
        return turn.leave

    def admit(self) -> None:
        """Let in as many as there is room for."""
        while self._waiting and self._inside < TURNS:
            turn = self._waiting.popleft()
            if turn.wanted:
                self._inside += 1
                turn.inside = True
                turn.admitted()

    def left(self) -> None:
        """One has left."""
        self._inside -= 1
        # The next snapshot comes in another turn of the reactor, after those who wait for answers.
        self.clock.callLater(0, self.admit)

    def jitter(self) -> float:
        return uniform(0.8, 1.2)


class _Turn:
    """A place in the line for snapshots."""

    __slots__ = ("_owner", "admitted", "inside", "wanted")

    def __init__(self, owner: Uplinks, admitted: Callable[[], None]) -> None:
        self._owner = owner
        self.admitted = admitted
        self.inside = False
        self.wanted = True

    def leave(self) -> None:
        if self.wanted:
            self.wanted = False
            if self.inside:
                self._owner.left()
