"""
One worker's time with its node: the parts, wired.

`Worker.run` makes one on a real reactor; tests make one on a `Clock` and a pretend transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from ..errors import CocaineError, Discarded
from ..rpc.connection import Connection
from ..rpc.turn import Turn
from ..wire.frames import NO_HEADERS, TRUSTING
from ..wire.headers import Headers
from ..wire.idl import Message, Slot
from ..wire.protocols import CREDITS, EVENTS, HANDSHAKE, HEARTBEAT, TERMINATE
from ..wire.session import NOBODY, Channel, Session, Strangers, dialing
from .config import WorkerConfig
from .intake import Intake
from .invocation import Binding
from .life import Deeds, begin_life
from .link import Link
from .pulse import Pulse, StandIn

#: Seconds the node gets to take our last words and to close.
FAREWELL = 1.0


def _packed_heartbeat() -> bytes:
    """One heartbeat as it goes over the wire, for the thread that may send nothing else."""
    session = dialing()
    channel = session.open(HANDSHAKE, (b"",), NOBODY)
    session.take()
    channel.forward(HEARTBEAT, ())
    return session.take()


def _nothing() -> None:
    """We know."""


HEARTBEAT_FRAME = _packed_heartbeat()


class Shift(Deeds):
    """
    A worker at work.

    :param ended: called once at the end; the process should then exit.
    :param farewell: called once before we tell the node that we go: when no handler runs any more, and none will. What
        its Deferred waits for has what is left of the time for handlers.
    :param leaving: called once when we have been asked to end, before handlers are waited for.
    :ivar link: the protocol to be connected to the node's socket.
    :ivar intake: what is running.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        config: WorkerConfig,
        bindings: Mapping[str, Binding],
        ended: Callable[[], None],
        farewell: Callable[[], Deferred[Any]] = lambda: succeed(None),
        leaving: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._config = config
        self._ended = ended
        self._farewell = farewell
        self._leaving = leaving
        self._timer: IDelayedCall | None = None
        self._control: Channel | None = None
        self.intake = Intake(bindings, clock, config.buffer, config.credits)
        session = Session(EVENTS, self.intake, Strangers.IGNORED, NO_HEADERS, TRUSTING)
        session.kin = config.credits
        self.link = Link(session, Turn(clock), clock)
        self.link.made = self._connected
        self.link.begin = self.intake.begin
        self.link.lost = self._lost
        self.intake.between = self.link.pause_between_handlers
        self._pulse = Pulse(clock, config.heartbeat, config.disown, self._beat, lambda: self.link.unread, self._silent)
        self._stand_in = StandIn(self._pulse, lambda: self.link.slip_in(HEARTBEAT_FRAME))
        self._life = begin_life(self)

    def _connected(self) -> None:
        """The socket is there: say who we are, and that we live."""
        said = (self._config.uuid, {CREDITS: True}) if self._config.credits else (self._config.uuid,)
        self._control = self.link.session.open(HANDSHAKE, said, self)
        self._pulse.beat()

    def watch(self) -> None:
        """Have a thread stand in for heartbeats while the reactor is kept busy."""
        self._stand_in.start()

    def signalled(self) -> None:
        """The process was asked to end."""
        self._life.signalled()

    # -- what the node says on the control channel

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is HEARTBEAT:
            self._pulse.answered()
        elif message is TERMINATE:
            code = args[0] if args and isinstance(args[0], int) else 0
            reason = args[1] if len(args) > 1 and isinstance(args[1], bytes) else b""
            self._log.info("the node ends this worker: {reason}", reason=reason.decode("utf-8", "replace"))
            self._life.terminated(code, reason)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """The connection tells us itself."""

    def _lost(self, connection: Connection) -> None:
        self._life.lost()

    def _silent(self) -> None:
        self._log.warn("disowned: the node has not answered for {seconds} seconds", seconds=self._config.disown)
        self._life.silent()

    def _beat(self) -> None:
        if self._control is not None:
            self._control.forward(HEARTBEAT, ())

    # -- deeds

    def refuse(self) -> None:
        self.intake.refusing = True

    def look(self) -> None:
        if not len(self.intake):
            self._emptied()

    def _emptied(self) -> None:
        self.intake.emptied = _nothing
        self.refuse()
        self._farewell().addBoth(lambda _: self._life.emptied())

    def wait_for_handlers(self) -> None:
        # Before this nobody cares, and most events empty the worker.
        self.intake.emptied = self._emptied
        if self._timer is None:
            self._set(self._config.drain)
            self._leaving()

    def wait_for_node(self) -> None:
        self._set(self._config.drain if self.link.pending else FAREWELL)

    def _set(self, seconds: float) -> None:
        self._unset()
        self._timer = self._clock.callLater(seconds, self._overdue)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _overdue(self) -> None:
        self._timer = None
        self._life.overdue()

    def cut_handlers(self) -> None:
        self.intake.cut_all(Discarded("the worker had to stop before the handler came to its end"))

    def say_terminate(self, code: int, reason: bytes) -> None:
        if self._control is not None:
            self._control.forward(TERMINATE, (code, reason))

    def close(self) -> None:
        self._pulse.stop()
        self.link.close()

    def abort(self) -> None:
        self.link.abort()

    def end(self) -> None:
        self._unset()
        self._pulse.stop()
        self._stand_in.stop()
        self._ended()
