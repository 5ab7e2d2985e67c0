"""
What a handler answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable

from twisted.internet.defer import Deferred

from ..errors import WORKER, LocalProtocolError, RemoteError
from ..wire.session import Channel
from .waiting import READY, native


class Response:
    """
    The answer to an event: any number of chunks, then one end.

    A handler that returns closes its response; one that raises ends it with an error. When the client has gone, what
    is written is dropped and `closed` says so. Writing after one's own `close` or `error` is a mistake and raises.

    What a handler writes beyond what its client lets be on the way waits here, in the memory of the app whose it is.
    """

    __slots__ = ("_backlog", "_channel", "_finished", "_room", "_roomless")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._backlog: deque[bytes] = deque()
        self._finished = False
        self._room: int | None = None
        self._roomless: list[Deferred[None]] = []

    def __repr__(self) -> str:
        return f"<response on {self._channel!r}>"

    @property
    def closed(self) -> bool:
        """Nothing more can be said: ended here, or nobody listens."""
        return self._finished or not self._channel.sending

    @property
    def unsent(self) -> bool:
        """Something waits for the client to grant it."""
        return bool(self._backlog) and bool(self._channel.sending)

    def write(self, data: bytes | str) -> Awaitable[None]:
        """
        One chunk, which is one frame: not larger than the node's ``frame-size``. Text goes out as UTF-8.

        Await the result when much is to be written: it fires when the client has taken enough of it. Small answers
        may ignore it.

        :raises LocalProtocolError: the response has been ended by its handler.
        :raises TypeError: ``data`` is neither bytes nor text.
        """
        if data.__class__ is not bytes:
            data = as_bytes(data)
        channel = self._channel
        if self._finished or not channel.sending:
            if self._finished:
                raise LocalProtocolError("the response has been ended already")
            return READY
        room = self._room
        if room is not None:
            if room <= 0:
                self._backlog.append(data)
                return self._wait()
            self._room = room = room - len(data)
        channel.chunk(data)
        awaited: Awaitable[None] = channel.session.connection.wrote(len(data))
        return awaited if room is None or room > 0 else self._wait()

    def _wait(self) -> Awaitable[None]:
        room: Deferred[None] = Deferred(self._unwait)
        self._roomless.append(room)
        return native(room)

    def window(self, size: int) -> None:
        """The client lets so many bytes be on their way; more only as it grants them."""
        self._room = size

    def credited(self, size: int) -> None:
        """The client grants more."""
        if self._room is None:
            return
        self._room += size
        channel, backlog = self._channel, self._backlog
        while backlog and self._room > 0:
            data = backlog.popleft()
            self._room -= len(data)
            channel.chunk(data)
            channel.session.connection.wrote(len(data))
        if self._room > 0:
            if self._finished:
                channel.choke()
            self._relieve()

    def unlimit(self) -> None:
        """Nobody has to wait for room any more, since there is no use in it."""
        self._room = None
        self._backlog.clear()
        self._relieve()

    def _relieve(self) -> None:
        roomless, self._roomless = self._roomless, []
        for room in roomless:
            room.callback(None)

    def _unwait(self, room: Deferred[None]) -> None:
        if room in self._roomless:
            self._roomless.remove(room)

    def close(self) -> None:
        """The regular end, behind what waits; a second one does nothing."""
        self._finished = True
        if not self._backlog:
            self._channel.choke()

    def error(self, code: int, reason: str, category: int = WORKER) -> None:
        """
        The irregular end, unless there was one already.

        :param code: a number of the app's own choice.
        :param reason: a sentence for the client.
        :param category: 42 unless the app wants the error to be taken for someone else's.
        """
        self._finished = True
        self._backlog.clear()
        self._channel.fail(RemoteError(category, code, reason))


def as_bytes(data: object) -> bytes:
    """
    What is written, as it goes out.

    :raises TypeError: it is neither bytes nor text.
    """
    if isinstance(data, str):
        return data.encode("utf-8")
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"a chunk is bytes or text, not {type(data).__name__}")
