"""
Where events become invocations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime

from ..errors import CocaineError, InvalidArgument, NoHandler, NotRunning
from ..wire.headers import Headers, Latest, timeout_of, window_of
from ..wire.idl import Message, Slot
from ..wire.session import Channel
from .invocation import Binding, Invocation
from .request import Request


class Intake:
    """
    Accepts the events of one connection.

    Handlers begin when all that one read brought has been delivered: a small request is complete by then, so that most
    handlers never have to wait.

    :param bindings: handlers by event name.
    :param credits: the node knows windows; without that a client's window is not ours to keep.
    :ivar emptied: called whenever the last running handler has ended.
    :ivar between: called between the beginnings of two handlers.
    :ivar refusing: new events are answered by an error.
    """

    def __init__(
        self, bindings: Mapping[str, Binding], clock: IReactorTime, buffer: int, credits: bool = False
    ) -> None:
        self._credits = credits
        self._bindings = {event.encode("utf-8"): binding for event, binding in bindings.items()}
        self._clock = clock
        self._buffer = buffer
        self._fresh: list[Invocation] = []
        self._terms = Latest(self._read)
        self._running: set[Invocation] = set()
        self.emptied: Callable[[], None] = _nothing
        self.between: Callable[[], None] = _nothing
        self.refusing = False

    def __len__(self) -> int:
        """Invocations whose handlers have not ended."""
        return len(self._running)

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        """An ``invoke``: the first frame of a channel."""
        event = args[0]
        binding = self._bindings.get(event)
        if binding is None or self.refusing:
            channel.abandon()
            channel.fail(
                NotRunning("the worker is leaving and takes no more events")
                if self.refusing
                else NoHandler(f"there is no handler for event {event.decode('utf-8', 'replace')}")
            )
            return
        timeout, window = self._terms.of(headers)
        request = Request(channel, binding.event, headers, self._clock, self._buffer, timeout, window or 0)
        invocation = Invocation(binding, channel, request, self._fresh.append, self._ended)
        if window is not None:
            invocation.response.window(window)
        channel.receiver = invocation
        self._running.add(invocation)

    def _read(self, headers: Headers) -> tuple[float | None, int | None]:
        """An event's time and window."""
        return _timeout(headers), window_of(headers) if self._credits else None

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """A channel that nobody receives any more."""

    def begin(self) -> None:
        """Start what the latest read brought."""
        fresh = self._fresh
        if not fresh:
            return
        now = fresh.copy()
        # The list itself stays: invocations put themselves on it.
        fresh.clear()
        for place, invocation in enumerate(now):
            if place:
                self.between()
            try:
                invocation.start()
            except Exception as problem:
                invocation.finished(problem)

    def cut_all(self, cause: CocaineError) -> None:
        """Cancel every handler and tell its client."""
        for invocation in list(self._running):
            invocation.cut(cause)

    def _ended(self, invocation: Invocation) -> None:
        running = self._running
        running.discard(invocation)
        if not running:
            self.emptied()


def _timeout(headers: Headers) -> float | None:
    """Seconds the client gives; what cannot be read has been judged by the node, and is no reason to refuse work."""
    try:
        return timeout_of(headers)
    except InvalidArgument:
        return None


def _nothing() -> None:
    """Nobody asked."""
