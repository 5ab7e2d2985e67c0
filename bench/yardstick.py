"""
The yardstick that travels between machines (design section 5).

One unit is the CPU time of one msgpack decode and encode of a 200-byte frame: ``[12345, 0, [200 bytes]]``, a hundred of
them fed at once, iterated, the channel incremented, each packed again.
"""

from __future__ import annotations

import time

import msgpack

_FRAMES = 100
_ROUNDS = 400


def unit() -> float:
    """Seconds of CPU for one unit: the best of many rounds, which is the machine undisturbed."""
    blob = msgpack.packb([12345, 0, [b"x" * 200]], use_bin_type=False) * _FRAMES
    unpacker = msgpack.Unpacker(raw=True)
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.process_time_ns()
        unpacker.feed(blob)
        for frame in unpacker:
            frame[0] += 1
            msgpack.packb(frame)
        best = min(best, time.process_time_ns() - begun)
    return best / _FRAMES / 1e9
