"""
One worker from the node's side: a process, its connection and the requests it has.

`Worker` is the body that `lifecycle` moves. The process and its connection come separately; the app's `reception`
joins them by the uuid in the handshake. The pool hears of three things: active, not active any more, dead.

Source: reference ``node-engine.md`` sections 5.2 and 5.7, ``protocol-v12.md`` section 20.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ..errors import CocaineError, ConnectionGone, Discarded
from ..interfaces import Exit, IImage, IWorkerProcess, Launch
from ..rpc.connection import Connection
from ..wire.headers import Headers
from ..wire.idl import Message, Slot
from ..wire.protocols import HEARTBEAT
from ..wire.session import Channel
from .crashlog import Output
from .invocation import Invocation
from .lifecycle import Cause, Life, Timer, begin_life, state_of
from .profile import Profile

#: Seconds to read what a process wrote to its socket before it ended, or for one that agreed to go to do so.
LAST_WORDS = 2.0
#: Seconds between our heartbeats to a worker that we do not read from just now. Frameworks give up after 5 s without.
COMFORT = 2.0
#: Lines of output in an obituary.
LAST_LINES = 10
#: Characters of its last line in a line of our log.
LONGEST_WORDS = 200
#: Channels given up by us that a worker never ends, beside those it works at; one more and it is sealed.
FORSAKEN = 1000


class Employer(Protocol):
    """Who has workers: the pool."""

    def activated(self, worker: Worker) -> None:
        "It may be given events."

    def deactivated(self, worker: Worker) -> None:
        "It must not be given events any more."

    def died(self, worker: Worker, cause: Cause | None) -> None:
        "It has left the pool; its process may still be ending. None: it was asked to go."

    def buried(self, worker: Worker, cause: Cause | None) -> None:
        "Its process has ended and its output is complete."


class Worker:
    """
    A worker.

    :ivar uuid: what it says in its handshake.
    :ivar invocations: the requests it has, oldest first.
    :ivar accepted: how many it was ever given.
    :ivar answered: it has done its part of one at least, be it with an error.
    :ivar active_since: the clock's time, None before it was active.
    :ivar idle_since: the clock's time at which its last request ended, or it became active.
    :ivar ended: fires when nothing is left of it.
    """

    _log = Logger()

    def __init__(self, uuid: str, app: str, profile: Profile, clock: IReactorTime, employer: Employer) -> None:
        self.uuid = uuid
        self.app = app
        self.profile = profile
        self.born = clock.seconds()
        self.active_since: float | None = None
        self.idle_since = self.born
        self.accepted = 0
        self.answered = False
        self.invocations: dict[Invocation, None] = {}
        self.connection: Connection | None = None
        self.process: IWorkerProcess | None = None
        self.ended: Deferred[None] = Deferred()
        self.exit: Exit | None = None
        self.output = Output(profile.crashlog_limit, self._line if profile.log_output else None)
        self._clock = clock
        self._employer = employer
        self._control: Channel | None = None
        self._cause: Cause | None = None
        self._dismissed: Cause | None = None
        self._retirement = Cause.STOPPED
        self._used = self._severed = False
        self._limits = {
            "spawn": profile.spawn_timeout,
            "handshake": profile.handshake_timeout,
            "heartbeat": profile.heartbeat_timeout,
            "seal": profile.seal_timeout,
            "terminate": profile.terminate_timeout,
            "last-words": LAST_WORDS,
            "comfort": COMFORT,
        }
        self.life: Life = begin_life(self)

    def __repr__(self) -> str:
        return f"<worker {self.uuid} of {self.app}: {self.state}>"

    @property
    def load(self) -> int:
        """Requests it has."""
        return len(self.invocations)

    @property
    def state(self) -> str:
        """Its state's name as ``info`` shows it."""
        name = state_of(self.life)
        if name in ("leaving", "departing"):
            return "terminating"
        if name == "dead":
            return "broken" if self._cause is not None and self._cause is not Cause.SUICIDE else "closed"
        return name

    # -- what others tell it

    def start(self, image: IImage, launch: Launch) -> None:
        """Start its program."""
        self.life.spawn()
        try:
            process = self.process = image.spawn(launch, self.output.write)
        except Exception as problem:
            self._log.failure("{app}: worker {uuid} cannot be started", app=self.app, uuid=self.uuid)
            self.output.write(f"cannot be started: {problem}\n".encode())
            self.life.unstartable()
            return
        process.exited.addCallback(self._exited)
        # Why it could not be started is in its output already.
        process.started.addCallbacks(lambda _: self.life.started(), lambda _: self.life.unstartable())

    def _exited(self, exit: Exit) -> None:
        self.exit = exit
        self.life.exited()
        if self._buried:
            self._finish()

    def join(self, connection: Connection, control: Channel) -> None:
        """It has connected and shaken hands."""
        self.connection = connection
        self._control = control
        control.receiver = self
        connection.lost = self._disconnected
        self.life.handshaken()

    def _disconnected(self, connection: Connection) -> None:
        self.life.disconnected()

    @property
    def joinable(self) -> bool:
        """A handshake with its uuid is expected."""
        return self.connection is None and self.state in ("spawning", "handshaking")

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is HEARTBEAT:
            channel.forward(HEARTBEAT, ())
            self.life.beat()
        else:
            self.life.resigned()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        # Told before the connection is, when the worker has closed only its half: nothing may be given to it any more.
        self.life.disconnected()

    def give(self, invocation: Invocation, now: float) -> bool:
        """
        It gets a request; the pool has seen to it that it has room.

        :return: False when it could not, since its connection is ending; it is out of use then.
        """
        assert self.connection is not None
        try:
            invocation.assign(self, self.connection.session, now)
        except ConnectionGone:
            self.life.disconnected()
            return False
        self.accepted += 1
        self.invocations[invocation] = None
        return True

    def take(self, invocation: Invocation, now: float) -> None:
        """A request has ended."""
        self.invocations.pop(invocation, None)
        if not self.invocations:
            self.idle_since = now
            if not self._used:
                self.life.drained()
        if not invocation.unwanted:
            if not self._severed:
                self.answered = True
        elif self._used and self._clutter() > FORSAKEN:
            # A worker that never ends what it was told to give up would fill our memory with channels.
            self._log.warn("{app}: worker {uuid} ends nothing of what it is told to", app=self.app, uuid=self.uuid)
            self.life.seal()

    def _clutter(self) -> int:
        """Channels that we have given up and it has not ended."""
        return len(self.connection.session) - len(self.invocations) if self.connection is not None else 0

    def retire(self, cause: Cause) -> None:
        """Terminate it for that reason."""
        self._retirement = cause
        self.life.retire()

    # -- what its life makes it do

    def timer(self, limit: str, fire: Callable[[], None]) -> Timer:
        return Timer(self._clock, self._limits[limit], fire)

    def excused(self) -> bool:
        return self.connection is not None and self.connection.held

    def comfort(self) -> None:
        # A client that reads slowly keeps us from reading the worker's heartbeats, not from answering them.
        if self._control is not None and self.excused():
            self._control.forward(HEARTBEAT, ())

    def activated(self) -> None:
        self._used = True
        self.active_since = self.idle_since = self._clock.seconds()
        self._employer.activated(self)

    def deactivated(self) -> None:
        self._used = False
        self._employer.deactivated(self)

    def idle(self) -> bool:
        return not self.invocations

    def dismiss(self, cause: Cause | None) -> None:
        self._dismissed = cause or self._retirement
        if self._control is not None:
            self._control.send("terminate", self._dismissed.code, self._dismissed.text)

    def part(self) -> None:
        self._sever(Discarded())

    def _sever(self, reason: CocaineError) -> None:
        # The requests that it still has end with it from now on; some may be told by those who call us.
        self._severed = True
        if self.connection is not None:
            self.connection.sever(reason)

    def bury(self, cause: Cause | None) -> None:
        if self._dismissed is not None:
            cause = None
        self._cause = cause
        ours = self._dismissed is not None or cause is Cause.HEARTBEAT_TIMEOUT
        self._sever(Discarded() if ours else ConnectionGone(Discarded.default_reason))
        self._employer.died(self, cause)
        if self.process is None or self.exit is not None:
            self._finish()
        else:
            self.process.kill()

    def obituary(self, cause: Cause | None) -> str:
        """For people: its last lines, and how it ended."""
        why = Cause.STOPPED.text if cause is None else cause.text
        end = f"[{why}; {self.exit}]" if self.exit is not None else f"[{why}]"
        return "\n".join([*(line.decode("utf-8", "replace") for line in self.output.lines()[-LAST_LINES:]), end])

    @property
    def last_words(self) -> str:
        """The last line it has printed so far that is not empty; nothing if it was silent, or nothing is kept."""
        for line in reversed(self.output.lines()):
            if said := line.decode("utf-8", "replace").strip():
                return said if len(said) <= LONGEST_WORDS else said[:LONGEST_WORDS] + "..."
        return ""

    @property
    def _buried(self) -> bool:
        return self.state in ("broken", "closed")

    def _finish(self) -> None:
        if not self.ended.called:
            self._employer.buried(self, self._cause)
            self.ended.callback(None)

    def _line(self, line: bytes) -> None:
        self._log.debug("{app}: {uuid}: {line}", app=self.app, uuid=self.uuid, line=line.decode("utf-8", "replace"))
