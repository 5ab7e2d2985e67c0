"""
Load programs: closed loops of so many requests in flight, on loopback, bounded in count.

They use asyncio and msgpack alone, so that what is measured is the platform and not its own client. Each returns the
seconds of each request, in the order of their ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgpack


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=False)
    return packed


class Calls(asyncio.Protocol):
    """
    Runs requests on one connection of the wire protocol.

    :param request: the frames of one request, given its channel.
    :param last: whether a frame ends its channel's answer.
    """

    def __init__(self, request: Callable[[int], bytes], last: Callable[[Any], bool], count: int, flight: int) -> None:
        self._request = request
        self._last = last
        self._left = count
        self._flight = flight
        self._channel = 0
        self._begun: dict[int, float] = {}
        self._unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        self.times: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(b"".join(self._next() for _ in range(min(self._flight, self._left))))

    def _next(self) -> bytes:
        self._left -= 1
        self._channel += 1
        self._begun[self._channel] = time.perf_counter()
        return self._request(self._channel)

    def data_received(self, data: bytes) -> None:
        self._unpacker.feed(data)
        out = []
        for frame in self._unpacker:
            if self._last(frame):
                self.times.append(time.perf_counter() - self._begun.pop(frame[0]))
                if self._left:
                    out.append(self._next())
        if out:
            self._transport.write(b"".join(out))
        if not self._begun and not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, problem: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(problem or ConnectionError("the service closed the connection"))


def _is_answer(frame: Any) -> bool:
    if frame[1] == 1:
        raise RuntimeError(f"the service answered an error: {frame}")
    return True


def _is_close(frame: Any) -> bool:
    if frame[1] == 1:
        raise RuntimeError(f"the app answered an error: {frame}")
    return bool(frame[1] == 2)


async def call(port: int, slot: int, args: list[Any], count: int, flight: int) -> list[float]:
    """A plain call of a service, over and over."""
    return await _run(port, lambda channel: _pack([channel, slot, args, []]), _is_answer, count, flight)


async def echo(port: int, event: str, payload: bytes, count: int, flight: int) -> list[float]:
    """An event of an app: invoke, one chunk, close; a chunk and a close come back."""
    chunk, close = _pack([payload]), _pack([])

    def request(channel: int) -> bytes:
        number = _pack(channel)
        opening = _pack([channel, 0, [event], []])
        return b"".join((opening, b"\x94", number, b"\0", chunk, b"\x90\x94", number, b"\2", close, b"\x90"))

    return await _run(port, request, _is_close, count, flight)


async def _run(
    port: int, request: Callable[[int], bytes], last: Callable[[Any], bool], count: int, flight: int
) -> list[float]:
    loop = asyncio.get_running_loop()
    _, calls = await loop.create_connection(lambda: Calls(request, last, count, flight), "127.0.0.1", port)
    try:
        await asyncio.wait_for(calls.done, 300)
    finally:
        calls._transport.abort()
    return calls.times
