"""
The one tree of errors: what can go wrong, whose fault it is, and how it looks on the wire and in HTTP.

Every class carries the pair it travels as, ``[[category, code], reason]``, and the HTTP status the proxy answers with.
`from_wire` and `CocaineError.pair` are each other's mirror; nobody else builds or reads error pairs.

Source: reference ``protocol-v12.md`` section 9, corrected by ``observed-runtime.md``.
"""

from __future__ import annotations

from typing import ClassVar

SYSTEM = 1
ASIO_SYSTEM = 2
ASIO_MISC = 5
TRANSPORT = 6
DISPATCH = 7
REPOSITORY = 8
SECURITY = 9
LOCATOR = 10
GENERIC = 12
WORKER = 42
WORKER_USER = 43
UNKNOWN = 255
NODE = 0x51FF
OVERSEER = 0x52FF
SLAVE = 0x53FF


class CocaineError(Exception):
    """
    Something a user or a peer is told about.

    :param reason: one sentence in the words of whoever reads it; a class may bring its own.
    """

    category: ClassVar[int] = GENERIC
    code: ClassVar[int] = 22
    http_status: ClassVar[int] = 500
    default_reason: ClassVar[str] = "invalid argument"

    def __init__(self, reason: str | None = None) -> None:
        self.reason = self.default_reason if reason is None else reason
        super().__init__(self.reason)

    @property
    def pair(self) -> tuple[int, int]:
        """``(category, code)`` as it travels."""
        return (self.category, self.code)


class LocalProtocolError(CocaineError):
    """Our own code asked for something the protocol does not allow."""

    category, code = 13, 1
    default_reason = "message is out of protocol"


class RemoteProtocolError(CocaineError):
    """The peer broke the protocol; its connection is closed, nobody else is touched."""

    category, code = TRANSPORT, 1
    http_status = 502
    default_reason = "frame format error"


class HeaderError(RemoteProtocolError):
    """A header entry cannot be decoded."""

    code = 2
    default_reason = "header table error"


class UndecodableError(RemoteProtocolError):
    """The bytes are not msgpack, or a value is larger than the limits allow."""

    code = 4
    default_reason = "bytes cannot be decoded"


class HttpFormatError(UndecodableError):
    """A request or an answer head packed for the wire is not what the packing convention says."""

    http_status = 500
    default_reason = "packed HTTP cannot be decoded"


class DispatchError(RemoteProtocolError):
    """A well-formed frame that fits no channel state."""

    category, code = DISPATCH, 5
    default_reason = "slot not found"


class InvalidArguments(DispatchError):
    """A message with too few arguments or of the wrong types."""

    code = 2
    default_reason = "invalid argument"


class RevokedChannel(DispatchError):
    """A frame for a channel that has ended or never was."""

    code = 4
    default_reason = "channel has been revoked"


class UncaughtError(CocaineError):
    """A service's handler raised something that nobody foresaw."""

    category, code = DISPATCH, 7
    default_reason = "uncaught invocation exception"


class RemoteError(CocaineError):
    """
    The peer answered an error that has no class of its own here; its numbers are kept.

    :param category: error category id.
    :param code: code inside the category.
    """

    def __init__(self, category: int, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self._pair = (category, code)

    @property
    def pair(self) -> tuple[int, int]:
        return self._pair

    def __str__(self) -> str:
        return f"{self.reason} [{self._pair[0]},{self._pair[1]}]"


class ConnectionGone(CocaineError):
    """The connection ended under an open channel."""

    category, code = ASIO_MISC, 2
    http_status = 502
    default_reason = "End of file"


class Discarded(CocaineError):
    """The runtime itself cut a worker off: silent for too long, or forced to stop."""

    category, code = ASIO_SYSTEM, 125
    http_status = 502
    default_reason = "slave has been discarded"


class NotFound(CocaineError):
    """No such object in storage."""

    code = 2
    http_status = 404
    default_reason = "No such file or directory"


class PermissionDenied(CocaineError):
    """The caller may not do this."""

    code = 13
    http_status = 403
    default_reason = "Permission denied"


class InvalidArgument(CocaineError):
    """A value a caller or an operator gave cannot be used; the reason says which and why."""

    http_status = 400


class AppStopped(CocaineError):
    """The app's service has gone while the client was still connected."""

    code = 32
    http_status = 503
    default_reason = "the application has been stopped: Broken pipe"


class ServiceNotFound(CocaineError):
    """The locator knows no such service."""

    category, code = LOCATOR, 1
    http_status = 503
    default_reason = "service is not available"


class Unreachable(ServiceNotFound):
    """The service is known, or its locator should know it, but nobody can be connected to; nothing was delivered."""

    default_reason = "service cannot be reached"


class RoutingStorageError(CocaineError):
    """A routing group cannot be read from storage."""

    category, code = LOCATOR, 2
    default_reason = "routing storage error"


class DeadlineError(CocaineError):
    """The event's time ran out before a worker was free."""

    category, code = NODE, 1
    http_status = 504
    default_reason = "the event has expired in the queue"


class ResourceError(CocaineError):
    """No resources for the request."""

    category, code = NODE, 2
    http_status = 503
    default_reason = "no resources"


class InvocationTimeout(CocaineError):
    """The event's time ran out while a worker had it."""

    category, code = NODE, 3
    http_status = 504
    default_reason = "invocation has timed out"


class AlreadyStarted(CocaineError):
    """The app holds its name already."""

    category, code = NODE, 5
    http_status = 409
    default_reason = "application has already been started"


class NotRunning(CocaineError):
    """The app does not run on this node."""

    category, code = NODE, 6
    http_status = 503
    default_reason = "application is not running"


class SpoolError(CocaineError):
    """The app's code cannot be brought to where workers start from."""

    category, code = NODE, 7
    default_reason = "uncaught error while spooling"


class PublishError(CocaineError):
    """The app's service cannot be offered."""

    category, code = NODE, 8
    default_reason = "uncaught error while publishing"


class ArchiveError(CocaineError):
    """The app's archive is damaged or unsafe."""

    category, code = UNKNOWN, 84
    default_reason = "the archive cannot be unpacked"


class QueueFull(CocaineError):
    """The app's queue is at its limit."""

    category, code = OVERSEER, 1
    http_status = 503
    default_reason = "queue is full"


class Overloaded(CocaineError):
    """A buffer or table is at its limit; the one request that filled it ends."""

    category, code = OVERSEER, 2
    http_status = 503
    default_reason = "too much is buffered for this channel"


class ComponentNotFound(CocaineError):
    """A type named in a configuration or profile does not exist."""

    category, code = REPOSITORY, 7
    default_reason = "component is not registered"


class HandlerFailed(CocaineError):
    """A worker's handler raised an exception; its text is the reason."""

    category, code = WORKER, 100
    default_reason = "uncaught exception in the handler"


class NoHandler(CocaineError):
    """The worker has no handler for the event."""

    category, code = WORKER, 200
    default_reason = "there is no handler for the event"


class ConfigError(CocaineError):
    """Start-up cannot go on: the reason names the file, the key and the mend."""


class SpawnFailed(CocaineError):
    """A worker process could not be started."""

    category, code = SLAVE, 1
    default_reason = "worker could not be started"


_BY_PAIR: dict[tuple[int, int], type[CocaineError]] = {
    (cls.category, cls.code): cls
    for cls in (
        ConnectionGone, Discarded, NotFound, PermissionDenied, InvalidArgument, AppStopped, ServiceNotFound,
        RoutingStorageError, DeadlineError, ResourceError, InvocationTimeout, AlreadyStarted, NotRunning, SpoolError,
        PublishError, ArchiveError, QueueFull, Overloaded, ComponentNotFound, HandlerFailed, NoHandler, UncaughtError,
    )
}  # fmt: skip


def from_wire(category: int, code: int, reason: str = "") -> CocaineError:
    """
    The exception for a pair that arrived; unknown pairs become `RemoteError` and keep their numbers.

    The old runtime sends categories it does not know as 255, so ``(255, 1)`` is a full queue and ``(255, 32)`` a
    stopped app, and ``(255, 2)`` a missing object (reference ``protocol-v12.md`` section 9.1).
    """
    known = _BY_PAIR.get((category, code))
    if known is None and category == UNKNOWN:
        known = {1: QueueFull, 2: NotFound, 32: AppStopped}.get(code)
    if known is None:
        return RemoteError(category, code, reason)
    return known(reason or None)
