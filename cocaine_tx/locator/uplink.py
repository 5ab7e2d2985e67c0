"""
One link to another node's locator: dialled, greeted, followed, and given up at once when it is lost.

`Uplink` is the body that the table in `lifecycle` moves. All that a link brought is
registered under a session of its own, so that the clean-up after a lost link cannot touch what a newer one brought.

Liveness is asked for by ``cluster``, which every version of the original answers: session pings are younger, and old
runtimes hang up on them.

Source: reference ``node-engine.md`` section 7.5 with its [bug] marks mended, ``protocol-v12.md`` sections 10.2 and 19.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError, RemoteProtocolError
from ..interfaces import Endpoint, IGateway
from ..rpc.channel import Reply
from ..rpc.client import Dialer, Remote
from ..wire.headers import Headers
from ..wire.idl import Message, Slot
from ..wire.session import Channel, error_of
from .lifecycle import PULSE, Life, begin_life, state_of
from .news import News, news_of

#: How many questions in a row may stay without answer.
MISSES = 3
#: Seconds before a lost or failed link is made again: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 32.0


class Party(Protocol):
    """What a link needs of those around it; `uplinks.Uplinks` is the one."""

    uuid: str
    clock: IReactorTime
    dialer: Dialer
    gateway: IGateway

    def enter(self, admitted: Callable[[], None]) -> Callable[[], None]:
        "Wait for a turn to ask for a snapshot; returns what gives the turn up."

    def claim(self, link: Uplink, uuid: str) -> None:
        "The link speaks for that node from now on; raises `CocaineError` if it may not."

    def yielded(self, link: Uplink) -> None:
        "The link speaks for nobody any more."

    def jitter(self) -> float:
        "A factor near 1, so that many links are not made at one moment."


class Uplink:
    """
    A link.

    :ivar label: under which the cluster knows the node.
    :ivar endpoints: where its locator is said to be.
    :ivar uuid: of the node, once it has said so; None while no link stands.
    :ivar wanted: it is made again after a loss.
    """

    _log = Logger()

    def __init__(self, label: str, endpoints: Sequence[Endpoint], party: Party) -> None:
        self.label = label
        self.endpoints = tuple(endpoints)
        self.uuid: str | None = None
        self.wanted = True
        self._party = party
        self._remote: Remote | None = None
        self._session = object()
        self._failures = 0
        self._unanswered = 0
        self._standing = False
        self._leave: Callable[[], None] = _nothing
        self.life: Life = begin_life(self)

    def __repr__(self) -> str:
        return f"<uplink {self.label}: {self.state}>"

    @property
    def state(self) -> str:
        """Its state's name."""
        return state_of(self.life)

    @property
    def live(self) -> bool:
        """The node's services are known through it."""
        return self._standing

    @property
    def place(self) -> Endpoint | None:
        """Where the node's locator is, while the link stands."""
        return self.endpoints[0] if self.live and self.endpoints else None

    # -- what its life makes it do

    def timer(self, seconds: float, fire: Callable[[], None]) -> IDelayedCall:
        return self._party.clock.callLater(seconds, fire)

    def pause(self) -> float:
        seconds: float = min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
        # Counting on would only make the power too large for a float.
        self._failures = min(self._failures + 1, 16)
        return seconds * self._party.jitter()

    def attempt(self) -> Deferred[None]:
        async def connect() -> None:
            self._remote = await self._party.dialer.locator(self.endpoints)
            self.life.reached()

        return Deferred.fromCoroutine(connect()).addErrback(self._refused)

    def _refused(self, failure: Failure) -> None:
        problem = failure.value
        if isinstance(problem, CancelledError):
            return
        if isinstance(problem, CocaineError):
            self._log.info("{label}: {reason}", label=self.label, reason=problem.reason)
        else:
            self._log.failure("{label}: cannot be dialled", failure, label=self.label)
        self.life.refused()

    def queue(self) -> None:
        self._leave = self._party.enter(self.life.admitted)

    def greet(self) -> None:
        assert self._remote is not None
        self._session = object()
        self._unanswered = 0
        try:
            self._remote.open("connect", self._party.uuid, receiver=self)
        except CocaineError:
            self.life.broken()

    def standing(self) -> None:
        self._standing = True
        self._leave()
        self._leave = _nothing
        self._log.info("linked to {label} ({uuid})", label=self.label, uuid=self.uuid)

    def look(self) -> None:
        if self._unanswered >= MISSES:
            self._log.warn("{label} has been silent for {seconds} s", label=self.label, seconds=MISSES * PULSE)
            self.life.broken()
            return
        assert self._remote is not None
        self._unanswered += 1
        question = Reply()
        question.answer.addBoth(self._answered)
        try:
            self._remote.open("cluster", receiver=question)
        except CocaineError:
            self.life.broken()

    def _answered(self, _: object) -> None:
        # An error is a sign of life as well; a lost connection is told by the stream in any case.
        self._unanswered = 0
        if self.live:
            self._failures = 0

    def hang_up(self) -> None:
        self._standing = False
        self._leave()
        self._leave = _nothing
        remote, self._remote = self._remote, None
        session, self._session = self._session, object()
        if remote is not None:
            # Whatever the stream still says is for a session that has ended.
            remote.connection.abort()
        uuid, self.uuid = self.uuid, None
        if uuid is not None:
            self._act(self._party.gateway.forget, session, uuid)
            self._log.info("not linked to {label} ({uuid}) any more", label=self.label, uuid=uuid)
        self._party.yielded(self)

    # -- what the node says

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if self._remote is None or channel.session is not self._remote.connection.session:
            return
        try:
            if message.name == "error":
                raise error_of(args)
            if message.name != "write":
                raise RemoteProtocolError("it has closed the stream of announcements: it stops, or it has no cluster")
            news = news_of(args, headers)
            if self.uuid is None:
                self._party.claim(self, news.uuid)
                self.uuid = news.uuid
                self.life.greeted()
            elif news.uuid != self.uuid:
                raise RemoteProtocolError(f"it has changed its uuid to {news.uuid}")
            self._register(news)
        except CocaineError as problem:
            self._log.warn("{label}: {reason}", label=self.label, reason=problem.reason)
            self.life.broken()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if self._remote is not None and channel.session is self._remote.connection.session:
            self.life.broken()

    def _register(self, news: News) -> None:
        gateway = self._party.gateway
        for name, info in news.services.items():
            if info.endpoints:
                self._act(gateway.consume, self._session, news.uuid, name, info, news.extra)
            else:
                self._act(gateway.withdraw, self._session, news.uuid, name)

    def _act(self, act: Callable[..., None], *args: Any) -> None:
        """A gateway that fails at one service goes on with the others."""
        try:
            act(*args)
        except Exception:
            self._log.failure("{label}: the gateway failed", label=self.label)


def _nothing() -> None:
    """No turn to give up."""
