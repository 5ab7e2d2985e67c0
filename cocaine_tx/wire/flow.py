"""
What is to be sent, until the turn ends: frames, and streams whose end may still come.

Most streams say little and end in the same turn. To a peer of ours they then leave as one frame (`idl.LAST`), which is
packed, read and passed on at a third of the price; hence a stream's chunks are packed when they leave, not before.

Source: ours; the frames are those of reference ``protocol-v12.md`` section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .frames import Packed, pack
from .idl import CHOKE, CHUNK, LAST

#: Chunks that gather before they become frames of their own; more than these are never last ones.
FLOW = 16
#: Bytes from which a frame is not copied once more to get its headers.
_LARGE = 32768


class Flow:
    """
    What one stream says in one turn.

    :ivar chunks: None once it has left.
    :ivar ended: the stream's regular end follows the chunks.
    """

    __slots__ = ("chunks", "ended", "number", "tail")

    def __init__(self, number: int, tail: bytes) -> None:
        self.number = number
        self.tail = tail
        self.chunks: list[bytes] | None = []
        self.ended = False

    def leave(self, out: Out) -> None:
        """Append its frames: one, if its end came too and there is not much of it."""
        number, chunks, tail = self.number, self.chunks or (), self.tail
        self.chunks = None
        if self.ended and (len(chunks) == 1 or sum(map(len, chunks)) < _LARGE):
            append(out, number, LAST.id, chunks, tail)
            return
        for data in chunks:
            append(out, number, CHUNK.id, (data,), tail)
        if self.ended:
            append(out, number, CHOKE.id, (), tail)


Out = list[bytes | memoryview | Flow]


def append(out: Out, number: int, kind: int, args: Sequence[Any], tail: bytes) -> None:
    """
    One frame, its headers packed already.

    :raises LocalProtocolError: an argument has no wire form.
    """
    if args.__class__ is Packed:
        out.append(b"\x94" + pack(number) + pack(kind) + args.blob + tail)
        return
    frame = pack((number, kind, args))
    if len(frame) < _LARGE:
        # Three elements become four by their first byte.
        out.append(b"\x94" + frame[1:] + tail)
    else:
        out += (b"\x94", memoryview(frame)[1:], tail)
