"""
The seams of the house: what may be replaced by a stranger's implementation, and the values these seams mention.

Rooms meet here and nowhere else; ``daemon/`` hands providers to those who need them. Every seam has a contract test in
`cocaine_tx.testing` that each provider, and each fake, runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

#: A TCP address as the wire writes it: a numeric IPv4 or IPv6 literal without brackets, and a port.
Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """
    Where a service answers and what it speaks.

    :ivar endpoints: addresses in order of preference; none means that the service is gone.
    :ivar version: the protocol's version number.
    :ivar graph: the protocol graph as ``resolve`` carries it (plain data; foreign graphs pass through unread).
    """

    endpoints: tuple[Endpoint, ...]
    version: int
    graph: Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """
    One worker to be started.

    :ivar executable: the manifest's ``slave``; relative to the app's own folder unless absolute.
    :ivar arguments: ``--name`` to value; written sorted by name, each as two words.
    :ivar environment: variables added to (and winning over) what the isolate passes anyway.
    :ivar endpoint: path of the UNIX socket the worker must connect to.
    """

    executable: str
    arguments: Mapping[str, str]
    environment: Mapping[str, str]
    endpoint: str


@dataclass(frozen=True, slots=True)
class Exit:
    """
    How a worker's process ended.

    :ivar code: exit status, or None when a signal ended it.
    :ivar signal: the signal's number, or None.
    """

    code: int | None = None
    signal: int | None = None

    @property
    def clean(self) -> bool:
        """Ended by itself with status 0."""
        return self.code == 0

    def __str__(self) -> str:
        return f"killed by signal {self.signal}" if self.signal is not None else f"exit status {self.code}"


class IStorage(Interface):
    """
    Where objects live. Names are text (bytes that are not UTF-8 arrive by ``surrogateescape``); blobs are bytes.

    An acknowledged write is durable; a reader sees the old object or the new one, never a torn one.
    """

    def read(collection: str, key: str) -> Deferred[bytes]:
        """The object; fails with `cocaine_tx.errors.NotFound`."""

    def write(collection: str, key: str, blob: bytes, tags: Sequence[str]) -> Deferred[None]:
        """Store the object and set its tags to exactly these. Fails with `InvalidArgument` for an unusable name."""

    def remove(collection: str, key: str) -> Deferred[None]:
        """Remove the object and its tags; removing what is absent succeeds."""

    def find(collection: str, tags: Sequence[str]) -> Deferred[list[str]]:
        """Sorted keys that carry *all* the tags; none for an empty tag list or an unknown collection."""


class IWorkerProcess(Interface):
    """A started worker as its owner holds it, whatever it runs in."""

    pid = Attribute("int | None: the process id where there is one")
    started = Attribute("Deferred[None]: fires when the program runs; fails with SpawnFailed")
    exited = Attribute("Deferred[Exit]: fires once, when the process has ended, been reaped and its output drained")

    def kill() -> None:
        """
        End it: the polite signal, the forcible one after the isolate's kill timeout, to its whole process group.

        Safe to call at any time and more than once; `exited` tells when it is done.
        """


class IImage(Interface):
    """An app's code brought to where its workers start from: one version of it."""

    def warm(launch: Launch) -> Deferred[None]:
        """
        Get ready to start workers faster than by running their program from its beginning each time.

        Fires, without failing and within a limited time, when it is ready or has turned out not to be possible.
        Workers are started in either case, before it fires too. Called again it only waits; isolates that know nothing
        better than `spawn` fire at once.

        :param launch: what all later launches have in common; those may add arguments and variables.
        """

    def spawn(launch: Launch, output: Callable[[bytes], None]) -> IWorkerProcess:
        """Start a worker; everything it prints (stdout and stderr merged) goes to ``output`` as it comes."""

    def discard() -> Deferred[None]:
        """Forget this version and remove what it occupies. Called when no worker runs from it any more."""


class IIsolate(Interface):
    """How workers are started and kept apart: plain processes, containers."""

    def spool(app: str) -> Deferred[IImage]:
        """
        Bring the app's current code in place *beside* any version in use.

        Cancelling the Deferred gives up and leaves nothing behind. Fails with the storage's error, `ArchiveError`
        or `SpoolError`.
        """

    def sweep() -> Deferred[None]:
        """Remove what an earlier life of this daemon left behind: processes, containers, folders."""


class IGateway(Interface):
    """
    One address for each app out of the many nodes that have it.

    ``session`` is an opaque value for one uplink's life; a withdrawal under an old session never touches what a newer
    one of the same node registered.
    """

    exclusive = Attribute("bool: True when the gateway alone decides and local services are not preferred")

    def consume(session: object, uuid: str, name: str, info: ServiceInfo, extra: Mapping[str, Any]) -> None:
        """The node ``uuid`` serves ``name`` there; again with other values replaces them."""

    def withdraw(session: object, uuid: str, name: str) -> None:
        """The node does not serve it any more; unknown names are ignored."""

    def forget(session: object, uuid: str) -> None:
        """The uplink is gone and all that came by it."""

    def resolve(name: str) -> ServiceInfo | None:
        """Where a client should go for ``name`` now, or None."""

    def start() -> Deferred[None]:
        """Take hold of what it needs (kernel tables, ports)."""

    def stop() -> Deferred[None]:
        """Give it all back."""


class ICluster(Interface):
    """How nodes learn of one another."""

    def start(self_uuid: str, endpoints: Callable[[], Sequence[Endpoint]], heard: IClusterListener | None) -> None:
        """
        Announce ourselves and, with a listener, report others.

        ``endpoints()`` is our locator's addresses at that moment.
        """

    def stop() -> Deferred[None]:
        """Be silent and deaf."""


class IClusterListener(Interface):
    """What discovery reports to; called again and again for the same node."""

    def link(label: str, endpoints: Sequence[Endpoint]) -> None:
        """A node was heard there. The label is its uuid, or a name when the uuid is not known yet."""

    def drop(label: str) -> None:
        """A node has not been heard for too long."""


@dataclass(slots=True)
class Publication:
    """
    A service offered to others: its name, its address and how to withdraw it.

    :ivar withdraw: takes the service out of the locator and closes its port; fires when the port is closed.
    """

    name: str
    info: ServiceInfo
    withdraw: Callable[[], Deferred[None]] = field(repr=False)
