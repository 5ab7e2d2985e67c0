"""
The subscriptions of one topic on one connection to ``unicorn``: what the nodes hold goes into the topic's book.

`unicorn` makes them, with a connection, and asks again when they have come to an end. Which nodes there are below a
path may change at any time; every node is subscribed to once while it is listed.

Source: reference ``protocol-v12.md`` section 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from ..errors import CocaineError, ConnectionGone, LocalProtocolError, RemoteProtocolError, Unreachable
from ..rpc.client import Remote
from ..wire.headers import Headers
from ..wire.idl import CREDIT, Message, Slot
from ..wire.session import Channel, error_of
from .overrides import Book, names_of, told

#: Seconds for unicorn to say what a node holds when it is first asked.
PATIENCE = 10.0
#: Seconds after which a node that has gone, but is still listed, is asked for again.
AGAIN = 2.0

_NO_NODE = (11, 8)
_SHAPE = "the news of it have not the shape that unicorn gives them"


class Schema(Enum):
    """How operators write it: one node for each app below the path, or the path is one node for all."""

    EACH = "tornado"
    ALL = "rust"


@dataclass(frozen=True, slots=True)
class Topic:
    """
    One path, and what is read there.

    :ivar book: what is known of it, changed in place.
    """

    path: str
    schema: Schema
    book: Book[Any]


class Watches:
    """
    The subscriptions of one topic on one connection.

    :param news: called with each node's path when it has been read, and what is wrong with it.
    :ivar over: fails with what has put an end to it.
    """

    def __init__(
        self, remote: Remote, headers: Headers, topic: Topic, clock: IReactorTime, news: Callable[[str, str], None]
    ) -> None:
        self.over: Deferred[None] = Deferred()
        self._remote = remote
        self._headers = headers
        self._topic = topic
        self._clock = clock
        self._news = news
        self._listed: Sequence[str] = ()
        self._open: dict[str, Channel] = {}
        self._unanswered: set[Channel] = set()
        self._deadline: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        if topic.schema is Schema.EACH:
            self._subscribe("children_subscribe", topic.path, self._children, self._gone)
        else:
            self._subscribe("subscribe", topic.path, self._all, self._gone)

    # -- asking

    def _subscribe(
        self, method: str, path: str, said: Callable[[tuple[Any, ...]], None], gone: Callable[[CocaineError], None]
    ) -> Channel | None:
        watch = _Watch(self, said, gone)
        try:
            channel = self._remote.open(method, path, receiver=watch, headers=self._headers)
        except CocaineError as problem:
            self.fail(problem)
            return None
        self._unanswered.add(channel)
        if self._deadline is None:
            self._deadline = self._clock.callLater(PATIENCE, self._late)
        else:
            self._deadline.reset(PATIENCE)
        return channel

    def answered(self, channel: Channel) -> None:
        """Unicorn has said something on it."""
        self._unanswered.discard(channel)
        if not self._unanswered and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self.fail(Unreachable("it does not answer in time"))

    # -- what is there

    def _all(self, args: tuple[Any, ...]) -> None:
        path = self._topic.path
        self._news(path, self._topic.book.enter_all(args[0][0]) if _is_versioned(args) else _SHAPE)

    def _gone(self, error: CocaineError) -> None:
        """The path itself: whoever has removed it wants nothing of it any more."""
        if error.pair == _NO_NODE:
            self._topic.book.keep(())
            self._news(self._topic.path, "")
        self.fail(error)

    def _children(self, args: tuple[Any, ...]) -> None:
        if len(args) < 2 or not isinstance(args[1], tuple):
            self._news(self._topic.path, _SHAPE)
            return
        names, wrong = names_of(args[1])
        self._listed = tuple(names)
        for app in self._open.keys() - names.keys():
            channel = self._open.pop(app)
            self.answered(channel)
            _hang_up(channel)
        self._topic.book.keep(names.keys())
        self._news(self._topic.path, told(wrong))
        self._follow_listed()

    def _follow_listed(self) -> None:
        self._again = None
        for app in self._listed:
            if app not in self._open and not self.over.called:
                self._follow_app(app)

    def _follow_app(self, app: str) -> None:
        path = f"{self._topic.path}/{app}"

        def said(args: tuple[Any, ...]) -> None:
            self._news(path, self._topic.book.enter(app, args[0][0]) if _is_versioned(args) else _SHAPE)

        def gone(error: CocaineError) -> None:
            if error.pair != _NO_NODE:
                return self.fail(error)
            # If it is still listed after a while, it has come back meanwhile.
            self._open.pop(app, None)
            self._topic.book.enter(app, None)
            self._news(path, "")
            if self._again is None:
                self._again = self._clock.callLater(AGAIN, self._follow_listed)
            return None

        channel = self._subscribe("subscribe", path, said, gone)
        if channel is not None:
            self._open[app] = channel

    # -- the end

    def fail(self, error: CocaineError) -> None:
        """Nothing more can be learned on this connection."""
        if not self.over.called:
            self.over.errback(error)

    def end(self) -> None:
        """Expect nothing any more."""
        for timer in (self._deadline, self._again):
            if timer is not None and timer.active():
                timer.cancel()


class _Watch:
    """Receives one subscription."""

    def __init__(
        self, watches: Watches, said: Callable[[tuple[Any, ...]], None], gone: Callable[[CocaineError], None]
    ) -> None:
        self._watches = watches
        self._said = said
        self._gone = gone

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CREDIT or self._watches.over.called:
            return
        self._watches.answered(channel)
        if message.name == "write":
            self._said(args)
        elif message.name == "error":
            self._gone(error_of(args))
        else:
            self._gone(RemoteProtocolError("it has ended a subscription"))

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self._watches.fail(ConnectionGone("the connection was lost"))


def _is_versioned(args: tuple[Any, ...]) -> bool:
    """Whether these are ``[value, version]``."""
    return bool(args) and isinstance(args[0], tuple) and len(args[0]) == 2


def _hang_up(channel: Channel) -> None:
    """Want no more news on a subscription, and tell unicorn, who would keep it for ever."""
    try:
        channel.send("close")
    except LocalProtocolError:
        # It is none of the unicorns we know: what it says from now on is dropped.
        pass
    channel.abandon()
