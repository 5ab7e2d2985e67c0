"""
Frames as bytes: the msgpack dialect, in one place.

msgpack's C extension does the work; no other library speaks the old-spec raw dialect (``use_bin_type=False``) both
ways. We send raw only, accept str8 and bin as well, never judge UTF-8, and refuse nothing but what is no frame.

Source: reference ``protocol-v12.md`` sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from ..errors import LocalProtocolError, UndecodableError
from .headers import UNTRACED, Headers

#: Any value as old-spec msgpack; text that came by surrogateescape goes out as the bytes it was.
_packer = msgpack.Packer(use_bin_type=False, unicode_errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one connection may make us keep.

    :ivar frame: bytes of the largest frame.
    :ivar headers: bytes of names and values of one frame's headers.
    :ivar items: elements of the largest array or map (msgpack reserves memory by the announced length).
    :ivar channels: channels open at once.
    """

    frame: int = 64 * 1024 * 1024
    headers: int = 64 * 1024
    items: int = 262_144
    channels: int = 16_384


def pack(value: Any) -> bytes:
    """
    A value as bytes in our dialect.

    :raises LocalProtocolError: it has no msgpack form.
    """
    try:
        return _packer.pack(value)  # type: ignore[no-any-return]
    except (TypeError, ValueError, OverflowError) as problem:
        _packer.reset()
        raise LocalProtocolError(f"cannot be sent: {problem}") from problem


def unpack(blob: bytes, items: int = 262_144) -> Any:
    """
    One whole value; arrays come as tuples, raw as bytes.

    :raises UndecodableError: the bytes are not exactly one value.
    """
    try:
        return msgpack.unpackb(
            blob, raw=True, use_list=False, strict_map_key=False, max_array_len=items, max_map_len=items
        )
    except Exception as problem:
        raise UndecodableError(f"not a msgpack value: {problem}") from problem


#: The end of a frame without headers, and of one in the original runtime's manner: three zero ids.
NO_HEADERS = b"\x90"
ZERO_TRACE = pack(UNTRACED)


def pack_headers(headers: Headers) -> bytes:
    """The end of a frame that carries these, every one a literal that is not stored."""
    return pack([(False, name, value) for name, value in headers])


class FrameDecoder:
    """
    A connection's bytes to frames; each frame is whatever msgpack value the peer sent (arrays as tuples).

    `feed`, then iterate until it stops. After an error the decoder is of no more use: msgpack cannot find the next
    frame's beginning.
    """

    __slots__ = ("_limit", "_unpacker")

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.frame
        # A read on top of an unfinished frame must fit as well, so the buffer is a little larger than the frame.
        room = limits.frame + 1024 * 1024
        self._unpacker = msgpack.Unpacker(
            raw=True, use_list=False, strict_map_key=False, max_buffer_size=room, max_array_len=limits.items,
            max_map_len=limits.items, max_str_len=limits.frame, max_bin_len=limits.frame, max_ext_len=0,
        )  # fmt: skip

    def feed(self, data: bytes) -> Iterator[Any]:
        """
        Take bytes in; iterate over the frames they complete.

        :raises UndecodableError: more than the limit waits for one frame's end. The iteration itself raises whatever
            msgpack does; `undecodable` turns that into ours.
        """
        try:
            self._unpacker.feed(data)
        except Exception as problem:
            raise UndecodableError(f"a frame is larger than {self._limit} bytes") from problem
        return iter(self._unpacker)


def undecodable(problem: Exception) -> UndecodableError:
    """Whatever msgpack raised, as an error of ours."""
    return UndecodableError(f"bytes are not msgpack: {problem or type(problem).__name__}")
