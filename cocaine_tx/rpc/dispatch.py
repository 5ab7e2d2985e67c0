"""
From the slot a client called to the code that answers.

A *call* gets the arguments and returns the answer's arguments, at once, by a Deferred or as a coroutine. A *stream*
gets the channel and does with it what it likes. What a service declares and does not bind ends the connection, as in
the original.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError, InvalidArguments, UncaughtError
from ..wire.frames import Limits
from ..wire.headers import Headers
from ..wire.idl import Message, Protocol, Slot
from ..wire.session import Channel, Event, serving
from .connection import STALL, Connection
from .turn import Turn

Answer = tuple[Any, ...]
#: ``(headers, *arguments)`` to the answer's arguments.
Call = Callable[..., "Answer | Deferred[Answer] | Coroutine[Any, Any, Answer]"]
#: ``(channel, headers, *arguments)``; sets the channel's receiver if anything more is to come.
Stream = Callable[..., None]


class Dispatch:
    """
    One service's handlers.

    :param protocol: the service's protocol.
    :param calls: handlers of calls, by slot name; an exception becomes the error answered.
    :param streams: handlers of streams, by slot name.

    A handler that finds its arguments malformed raises `InvalidArguments` before it does anything: that is the caller's
    breach of the protocol, and ends its connection as one found by the session does.
    """

    _log = Logger()

    def __init__(
        self, protocol: Protocol, calls: Mapping[str, Call], streams: Mapping[str, Stream] | None = None
    ) -> None:
        self.protocol = protocol
        self._calls: dict[int, Call] = {self._id(name): call for name, call in calls.items()}
        self._streams: dict[int, Stream] = {self._id(name): stream for name, stream in (streams or {}).items()}

    def _id(self, name: str) -> int:
        slot = self.protocol.named(name)
        if slot is None:
            raise KeyError(f"{self.protocol.name} has no {name}")
        return slot.id

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        call = self._calls.get(message.id)
        if call is not None:
            # What the caller may still send on the channel (a publish's discard) has its own handler set by then.
            desk = channel.session.connection.desk
            if desk.free:
                self._call(call, channel, headers, args)
            else:
                size = sum(len(arg) for arg in args if arg.__class__ is bytes)
                desk.wait(partial(self._call_later, call, channel, headers, args), size)
            return
        stream = self._streams.get(message.id)
        if stream is None:
            self._log.info("{service}.{slot} is not bound", service=self.protocol.name, slot=message.name)
            channel.session.connection.close()
            return
        try:
            stream(channel, headers, *args)
        except InvalidArguments as error:
            self._malformed(channel, error)
        except CocaineError as error:
            channel.abandon()
            channel.fail(error)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """A call whose client has gone goes on; its answer is dropped."""

    def _call_later(self, call: Call, channel: Channel, headers: Headers, args: tuple[Any, ...]) -> None:
        try:
            self._call(call, channel, headers, args)
        except Exception:
            self._log.failure("{slot} failed", slot=channel.slot.name)
            channel.fail(UncaughtError())

    def _call(self, call: Call, channel: Channel, headers: Headers, args: tuple[Any, ...]) -> None:
        try:
            answer = call(headers, *args)
        except InvalidArguments as error:
            self._malformed(channel, error)
            return
        except CocaineError as error:
            channel.fail(error)
            return
        if isinstance(answer, tuple):
            channel.value(answer)
            return
        waiting = answer if isinstance(answer, Deferred) else Deferred.fromCoroutine(answer)
        waiting.addCallbacks(channel.value, self._failed, errbackArgs=(channel,))
        waiting.addErrback(self._unanswerable, channel)
        desk = channel.session.connection.desk
        desk.begun()
        waiting.addBoth(desk.done)

    def _malformed(self, channel: Channel, error: InvalidArguments) -> None:
        connection = channel.session.connection
        self._log.info(
            "{peer} called {slot} with malformed arguments: {reason}",
            peer=connection.peer, slot=channel.slot.name, reason=error.reason,
        )  # fmt: skip
        channel.abandon()
        connection.close()

    def _failed(self, failure: Failure, channel: Channel) -> None:
        error = failure.value
        if not isinstance(error, CocaineError):
            self._log.failure("{slot} failed", failure, slot=channel.slot.name)
            error = UncaughtError(f"uncaught invocation exception: {error}")
        channel.fail(error)

    def _unanswerable(self, failure: Failure, channel: Channel) -> None:
        self._log.failure("the answer of {slot} cannot be sent", failure, slot=channel.slot.name)
        channel.fail(UncaughtError())


@dataclass(frozen=True, slots=True)
class Hospitality:
    """
    What a listening service offers each of its clients, and how many it takes.

    :ivar connections: most connections at once; one more is closed.
    """

    turn: Turn
    clock: IReactorTime
    limits: Limits = field(default_factory=Limits)
    connections: int = 16_384
    stall: float = STALL


class Served(Connection):
    """A client's connection: who asks for more and does not take what it is told is not read from until it does."""

    def pressed(self, events: list[Event]) -> None:
        if not self.gone and any(message.__class__ is Slot for _, message, _, _ in events):
            self._delayed.add(self)
            self.hold(self)


class ServiceFactory(ServerFactory):
    """Listens for one service's clients."""

    noisy = False
    _log = Logger()

    def __init__(self, dispatch: Dispatch, hospitality: Hospitality) -> None:
        self._dispatch = dispatch
        self._hospitality = hospitality
        self.connections: set[Connection] = set()

    def buildProtocol(self, addr: Any) -> Connection | None:
        offer = self._hospitality
        if len(self.connections) >= offer.connections:
            self._log.warn(
                "{service}: {limit} connections are open, one more is refused",
                service=self._dispatch.protocol.name, limit=offer.connections,
            )  # fmt: skip
            return None
        session = serving(self._dispatch.protocol, self._dispatch, offer.limits)
        connection = Served(session, offer.turn, offer.clock, offer.stall)
        connection.lost = self.connections.discard
        self.connections.add(connection)
        return connection

    def close_all(self) -> None:
        """End every client's connection after what was said has been sent."""
        for connection in list(self.connections):
            connection.close()
