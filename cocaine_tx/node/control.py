"""
Manual control of a pool: a stream of numbers, in force as long as the controller is there.

Source: reference ``node-engine.md`` section 5.10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import CocaineError, InvalidArguments
from ..wire.headers import Headers
from ..wire.idl import CHUNK, Message, Slot
from ..wire.session import Channel


class Control:
    """
    Receives a controller's numbers.

    :param apply: told each number; 0 when the controller leaves, however it leaves.
    """

    __slots__ = ("_apply",)

    def __init__(self, apply: Callable[[int], None]) -> None:
        self._apply = apply

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is not CHUNK:
            self._apply(0)
            # Ends our direction too, so that the channel is forgotten; the original said nothing and dropped the line.
            channel.value(())
        elif args and args[0].__class__ is int:
            self._apply(args[0])
        else:
            self._apply(0)
            channel.fail(InvalidArguments("control takes whole numbers"))
            channel.abandon()
            channel.session.connection.close()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        self._apply(0)
