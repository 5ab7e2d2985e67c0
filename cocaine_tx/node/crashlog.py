"""
What a worker printed last, and how it is kept for people after a crash.

Source: reference ``node-engine.md`` section 5.7 (crash log) and 4.4; ``http-tools-sdk.md`` B.3.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from twisted.logger import Logger

from ..errors import CocaineError
from ..interfaces import IStorage
from ..wire.frames import pack

#: Bytes of a line beyond which it is cut into several.
LONGEST_LINE = 8192
#: Crash logs kept for one app in storage; older ones are removed.
KEPT = 1000
#: Crash logs of one app on their way to storage; more are dropped, as when storage does not answer.
AWAY = 32


class Output:
    """
    The last lines of one worker, with an unfinished tail.

    :param limit: complete lines kept.
    :param line: told of each complete line, or None.
    """

    __slots__ = ("_line", "_lines", "_tail")

    def __init__(self, limit: int, line: Callable[[bytes], None] | None = None) -> None:
        self._lines: deque[bytes] = deque(maxlen=limit)
        self._tail = b""
        self._line = line

    def write(self, data: bytes) -> None:
        """Some output."""
        *lines, tail = (self._tail + data).split(b"\n")
        while len(tail) > LONGEST_LINE:
            lines.append(tail[:LONGEST_LINE])
            tail = tail[LONGEST_LINE:]
        self._tail = tail
        for line in lines:
            for start in range(0, len(line) or 1, LONGEST_LINE):
                self._add(line[start : start + LONGEST_LINE])

    def _add(self, line: bytes) -> None:
        self._lines.append(line)
        if self._line is not None:
            self._line(line)

    def lines(self) -> list[bytes]:
        """The last complete lines, and the unfinished one."""
        return [*self._lines, self._tail] if self._tail else list(self._lines)


class CrashLogs:
    """
    Crash logs in storage, for one app.

    :param now: seconds since the epoch.
    """

    _log = Logger()

    def __init__(self, storage: IStorage, app: str, kept: int = KEPT, now: Callable[[], float] = time.time) -> None:
        self._storage = storage
        self._app = app
        self._kept = kept
        self._now = now
        self._away = 0

    async def store(self, uuid: str, lines: list[bytes]) -> None:
        """Keep a dead worker's last lines. A storage that fails costs the crash log and nothing else."""
        if not lines:
            self._log.warn("{app}: worker {uuid} died in silence", app=self._app, uuid=uuid)
            return
        if self._away >= AWAY:
            self._log.warn("{app}: crash log of {uuid} is lost: storage is too slow", app=self._app, uuid=uuid)
            return
        self._away += 1
        try:
            await self._keep(uuid, lines)
        except CocaineError as error:
            self._log.warn("{app}: crash log of {uuid} is lost: {error}", app=self._app, uuid=uuid, error=error.reason)
        finally:
            self._away -= 1

    async def _keep(self, uuid: str, lines: list[bytes]) -> None:
        now = self._now()
        day = time.strftime("cocaine-%Y-%m-%d", time.gmtime(now))
        await self._storage.write("crashlogs", f"{int(now * 1e6)}:{uuid}", pack(lines), [self._app, day])
        keys = await self._storage.find("crashlogs", [self._app])
        for key in sorted(keys, key=_moment)[: max(0, len(keys) - self._kept)]:
            await self._storage.remove("crashlogs", key)


def _moment(key: str) -> int:
    moment = key.partition(":")[0]
    return int(moment) if moment.isdecimal() else 0
