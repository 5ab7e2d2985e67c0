"""
The proxy's ear at the cluster's ``unicorn`` service: nodes of timeouts and tracing chances, followed for ever.

Each path has a connection of its own. Whatever goes wrong on it (no such service, a node that is not there, an error, a
loss, silence) ends it, is said once in the log, and everything is asked for again after a pause; what was known stays
in force, unless unicorn itself has said that a node is gone. What the nodes mean is decided in `overrides`.

Source: reference ``protocol-v12.md`` section 15; ``http-tools-sdk.md`` sections A.2 and A.3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import CocaineError
from ..rpc.channel import payload
from ..rpc.client import Remote
from ..wire.headers import Headers
from .overrides import MOST_APPS, Book, Overrides, percent, share, times
from .subscriptions import PATIENCE, Schema, Topic, Watches

#: Seconds between attempts, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 32.0
#: Seconds in which changes gather before they take effect.
GATHER = 0.2

#: Connects to a service by its name; the caller closes the connection.
Reach = Callable[[str], Awaitable[Remote]]


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the service ``service`` gives a ticket for."""

    service: str
    client: int
    secret: str

    async def headers(self, reach: Reach) -> Headers:
        """
        A fresh one, as the header that shows it.

        :raises CocaineError: there is none.
        """
        remote = await reach(self.service)
        try:
            given = await remote.call(
                "ticket_full", self.client, self.secret, "client_credentials", {}, timeout=PATIENCE
            )
            return ((b"authorization", b"TVM " + payload(given)),)
        finally:
            remote.close()


class Unicorn:
    """
    Follows what it is told to.

    :param reach: `cocaine_tx.proxy.upstreams.Upstreams.reach`.
    :param service: unicorn's name.
    :param ticket: shown with every subscription; None: unicorn takes everybody.
    :param timeouts: path of the timeouts; None: they are not followed. ``tracing``: that of the chances.
    :param tell: given everything that is known, soon after something has changed.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        reach: Reach,
        service: str,
        ticket: Ticket | None,
        schema: Schema,
        timeouts: str | None,
        tracing: str | None,
        tell: Callable[[Overrides], None],
    ) -> None:
        self._clock = clock
        self._times = Book(times)
        self._chances = Book(percent if schema is Schema.EACH else share)
        self._tell = tell
        self._known = Overrides()
        self._timer: IDelayedCall | None = None
        self._followers = [
            Follower(clock, reach, service, ticket, Topic(path, schema, book), self._changed)
            for path, book in ((timeouts, self._times), (tracing, self._chances))
            if path is not None
        ]

    def start(self) -> None:
        """Begin to follow."""
        for follower in self._followers:
            follower.start()

    def stop(self) -> None:
        """Ask nobody any more; nothing is told after this."""
        for follower in self._followers:
            follower.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _changed(self) -> None:
        if self._timer is None:
            self._timer = self._clock.callLater(GATHER, self._told)

    def _told(self) -> None:
        self._timer = None
        overrides = Overrides(dict(self._times.apps), dict(self._chances.apps))
        if overrides == self._known:
            return
        self._known = overrides
        self._log.info(
            "from unicorn: {times} apps with timeouts of their own, {chances} with a tracing chance",
            times=len(overrides.times), chances=len(overrides.chances),
        )  # fmt: skip
        self._tell(overrides)


class Follower:
    """
    One topic, connection after connection.

    :param changed: called when the topic's book may say something else.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        reach: Reach,
        service: str,
        ticket: Ticket | None,
        topic: Topic,
        changed: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._reach = reach
        self._service = service
        self._ticket = ticket
        self._topic = topic
        self._changed = changed
        self._running: Deferred[None] | None = None
        self._faults: dict[str, str] = {}

    def start(self) -> None:
        """Begin to follow; for ever, with pauses after failures."""
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(self._stopped)

    def stop(self) -> None:
        """End it, and its connection."""
        if self._running is not None:
            self._running.cancel()

    def _stopped(self, failure: Failure) -> None:
        failure.trap(CancelledError)  # type: ignore[no-untyped-call]

    async def _run(self) -> None:
        pause, complaint = FIRST_PAUSE, ""
        while True:
            began = self._clock.seconds()
            reason = await self._connection()
            if self._clock.seconds() - began >= LONGEST_PAUSE:
                pause, complaint = FIRST_PAUSE, ""
            if reason != complaint:
                complaint = reason
                self._log.warn(
                    "{service}: {path} cannot be followed and is asked for again and again: {reason}",
                    service=self._service, path=self._topic.path, reason=reason,
                )  # fmt: skip
            await deferLater(self._clock, pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _connection(self) -> str:
        """Follow until it fails; why it did."""
        try:
            headers = () if self._ticket is None else await self._ticket.headers(self._reach)
            remote = await self._reach(self._service)
            watches = Watches(remote, headers, self._topic, self._clock, self._news)
            try:
                await watches.over
            finally:
                watches.end()
                remote.close()
        except CocaineError as problem:
            return str(problem) or type(problem).__name__
        except TooLate:
            return "it does not answer in time"
        except CancelledError:
            raise
        except Exception:
            self._log.failure("following {path} failed", path=self._topic.path)
            return "a mistake of the proxy's"
        return "it has ended"

    def _news(self, path: str, fault: str) -> None:
        """A node has been read, or cannot be; each fault is said once, however often it comes."""
        if fault and self._faults.get(path) != fault:
            self._log.warn("{path}: what cannot be used stays as it was: {fault}", path=path, fault=fault)
        self._faults.pop(path, None)
        if fault:
            if len(self._faults) > MOST_APPS:
                self._faults.clear()  # of nodes that have long gone
            self._faults[path] = fault
        self._changed()
