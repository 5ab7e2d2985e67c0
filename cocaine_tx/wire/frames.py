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
#: The most a transport reads at once, generously: frames that have been coming for longer are weighed.
_READ = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one connection may make us keep.

    :ivar frame: bytes of the largest frame.
    :ivar dense: bytes of the largest frame outside of its long raws; small values cost up to 70 times their bytes.
    :ivar headers: bytes of one frame's headers: names, values, and 32 for each.
    :ivar items: elements of the largest array or map (msgpack reserves memory by the announced length).
    :ivar channels: channels open at once.
    :ivar unsent: bytes that a peer has not taken from which whoever feeds it is paused.
    """

    frame: int = 64 * 1024 * 1024
    dense: int = 4 * 1024 * 1024
    headers: int = 64 * 1024
    items: int = 262_144
    channels: int = 16_384
    unsent: int = 256 * 1024


#: For who depends on its peer anyway: a worker on its node, a client on its service. What has passed the peer's limits,
#: which an operator sets, must not end a connection that others' requests share.
TRUSTING = Limits(frame=2**32, dense=2**32, headers=2**32, channels=2**32)


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


def _no_ext(code: int, data: bytes) -> Any:
    raise ValueError("ext types are not spoken here")


#: Keys of one map that may be something else than raw.
_ODD_KEYS = 256


def mapped(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """
    A map as msgpack is to make it of its pairs.

    Numbers can be chosen so that each is found only behind all the others, and a frame of a megabyte takes minutes to
    read; the hash of raw and text has a secret in it. Maps of the protocol have some tens of numbers at most.

    :raises ValueError: it has too many keys of other kinds.
    """
    if len(pairs) > _ODD_KEYS:
        odd = sum(key.__class__ is not bytes and key.__class__ is not str for key, _ in pairs)
        if odd > _ODD_KEYS:
            raise ValueError(f"a map has more than {_ODD_KEYS} keys that are not raw")
    return dict(pairs)


def unpack(blob: bytes, items: int = 262_144) -> Any:
    """
    One whole value; arrays come as tuples, raw as bytes.

    :raises UndecodableError: the bytes are not exactly one value.
    """
    try:
        return msgpack.unpackb(
            blob, raw=True, use_list=False, strict_map_key=False, max_array_len=items, max_map_len=items,
            max_ext_len=0, ext_hook=_no_ext, object_pairs_hook=mapped,
        )  # fmt: skip
    except Exception as problem:
        raise UndecodableError(f"not a msgpack value: {problem}") from problem


#: The end of a frame without headers, and of one in the original runtime's manner: three zero ids.
NO_HEADERS = b"\x90"
ZERO_TRACE = pack(UNTRACED)


class Packed(tuple[Any, ...]):
    """Arguments that are msgpack already, for answers that repeat; an empty tuple to everybody else."""

    blob: bytes

    def __new__(cls, args: tuple[Any, ...]) -> Packed:
        made = super().__new__(cls)
        made.blob = pack(args)
        return made


def pack_headers(headers: Headers) -> bytes:
    """The end of a frame that carries these, every one a literal that is not stored."""
    return pack([(False, name, value) for name, value in headers])


#: Bytes that msgpack reserves for each connection at once (its own choice would be a megabyte). It doubles from there;
#: with reads of 64 KiB this start has it reach the default frame limit by a step that is not a double one.
_FIRST = 256 * 1024


class _Spent:
    """In an unpacker's place when nothing more is read."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Whatever still comes is dropped."""

    def tell(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Any]:
        return iter(())


_SPENT = _Spent()


class FrameDecoder:
    """
    A connection's bytes to frames; each frame is whatever msgpack value the peer sent (arrays as tuples).

    `feed`, then iterate until it stops; if that gave a frame, set `unfinished` to 0. After an error the decoder is of
    no more use: msgpack cannot find the next frame's beginning.

    msgpack bounds what it has not looked at yet, but not the values of a frame whose end has not come. Hence the count.

    :ivar unfinished: bytes taken in since the last read that completed a frame.
    """

    __slots__ = ("_dense", "_limits", "_seen", "_unpacker", "unfinished")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._dense = self._seen = 0
        self.unfinished = 0
        self._unpacker: Any = msgpack.Unpacker(
            raw=True, use_list=False, strict_map_key=False, read_size=_FIRST, max_buffer_size=limits.frame + _READ,
            max_array_len=limits.items, max_map_len=limits.items, max_str_len=limits.frame, max_bin_len=limits.frame,
            max_ext_len=0, ext_hook=_no_ext, object_pairs_hook=mapped,
        )  # fmt: skip

    def feed(self, data: bytes) -> Iterator[Any]:
        """
        Take bytes in; iterate over the frames they complete.

        :raises UndecodableError: more than the limits waits for one frame's end. The iteration itself raises whatever
            msgpack does; `undecodable` turns that into ours.
        """
        self.unfinished += len(data)
        if self.unfinished > _READ:
            self._weigh(len(data))
        try:
            self._unpacker.feed(data)
        except Exception as problem:
            raise UndecodableError(f"a frame is larger than {self._limits.frame} bytes") from problem
        return iter(self._unpacker)

    def end(self) -> None:
        """Read nothing more, and let the buffer go: most of what a dead connection keeps until it is collected."""
        self._unpacker = _SPENT

    def _weigh(self, size: int) -> None:
        """
        A frame that has been coming for a while: is it still within the limits?

        A long raw stays unseen by msgpack until its end, then is seen at once; small values are seen as they come.
        """
        if self.unfinished > self._limits.frame + _READ:
            raise UndecodableError(f"a frame is larger than {self._limits.frame} bytes")
        if self.unfinished - size <= _READ:
            self._dense = 0
        seen = self._unpacker.tell()
        self._dense += min(seen - self._seen, size)
        self._seen = seen
        if self._dense > self._limits.dense:
            raise UndecodableError(f"a frame has more than {self._limits.dense} bytes of small values")


def undecodable(problem: Exception) -> UndecodableError:
    """Whatever msgpack raised, as an error of ours."""
    return UndecodableError(f"bytes are not msgpack: {problem or type(problem).__name__}")
