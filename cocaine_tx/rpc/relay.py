"""
Two channels of the same stream protocol joined, both ways, pressure included.

After the join nobody else is in the data path. Payloads are passed on unread; only their type is looked at, since a
malformed message of one peer must not become our own fault towards the other. What a peer says beyond a message's own
arguments is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import CocaineError, InvalidArguments
from ..wire.headers import Headers
from ..wire.idl import CHUNK, CREDIT, ERROR, Message, Slot
from ..wire.session import Channel, is_error


class Relay:
    """
    Joins ``near`` (whoever asked) and ``far`` (whoever answers).

    It is finished when both peers have said their last, or one is gone; the other is then told.

    :param finished: called once with the relay at the end.
    :param lost: makes the error that ``near`` gets when ``far`` is lost, out of the connection's own.
    """

    __slots__ = ("_finished", "_lost", "far", "near")

    def __init__(
        self,
        near: Channel,
        far: Channel,
        finished: Callable[[Relay], None],
        lost: Callable[[CocaineError], CocaineError] = lambda error: error,
    ) -> None:
        self.near = near
        self.far = far
        self._finished: Callable[[Relay], None] | None = finished
        self._lost = lost
        near.receiver = far.receiver = self

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        sink = self.far if channel is self.near else self.near
        if message is CHUNK:
            if not args or args[0].__class__ is not bytes:
                self._malformed(channel)
                return
            sink.chunk(args[0])
        elif message is CREDIT:
            sink.credit(args[0])
        else:
            if message is ERROR:
                if not is_error(args):
                    self._malformed(channel)
                    return
                sink.forward(ERROR, (args[0][:2], *args[1:2]))
            else:
                sink.choke()
            if not self.near.receiving and not self.far.receiving:
                self._end()
        if sink.session.congested:
            sink.session.connection.delay(channel.session.connection)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if channel is self.near:
            self.far.cancel(reason)
        else:
            self.near.fail(self._lost(reason))
        self._end()

    def stop(self, near: CocaineError, far: CocaineError) -> None:
        """Cut it: each peer that still waits gets its error, whatever comes later is dropped."""
        if self._finished is not None:
            self.far.cancel(far)
            self.near.fail(near)
            self._end()

    def _malformed(self, channel: Channel) -> None:
        error = InvalidArguments("a message of the stream is malformed")
        self.stop(error, error)
        channel.session.connection.close()

    def _end(self) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            self.near.abandon()
            self.far.abandon()
            finished(self)
