"""
The template of one version of an app: its program with everything imported, waiting to be forked.

Made by `cocaine_tx.isolate.image` for apps that ask to be warm; the other side is in the worker SDK. A template can
only make things faster: whatever becomes of it workers are started, plainly then, and one line in the log says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from ..interfaces import Exit, Launch
from ..wire.protocols import TEMPLATE_VARIABLE
from .body import Program, Watching
from .child import Child
from .forks import Forks, Plain

#: Bytes that are kept of what it prints.
_MEMORY = 16 * 1024


class _Inputs(Protocol):
    def begin(self) -> None:
        """Its program is to be started."""

    def ready(self) -> None:
        """It has imported everything."""

    def failed(self, why: str) -> None:
        """It is not to be used any more."""

    def overdue(self) -> None:
        """It had time enough to import everything."""

    def close(self) -> None:
        """Its owner has no use for it."""

    def ended(self, end: Exit) -> None:
        """Its process has ended."""


class Template:
    """
    :param limit: seconds until it must be ready.
    :param make: gives a `Child` for the template's own process; told where its output goes.
    :param plain: starts a child without a template.
    :param program: what the template runs.
    :ivar fit: it can be forked now.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Watching,
        limit: float,
        make: Callable[[Callable[[bytes], None]], Child],
        plain: Plain,
        program: Program,
    ) -> None:
        self.fit = False
        self._reactor = reactor
        self._limit = limit
        self._folder = program.folder
        self._said = bytearray()
        self._settling: list[Deferred[None]] = []
        self._settled = False
        self._machine: _Inputs = _machine(self)
        self._child = child = make(self._heard)
        self._forks = forks = Forks(reactor, plain, self)
        descriptor = forks.theirs.fileno()
        child.started.addCallbacks(self._started, lambda _: None)
        child.exited.addCallback(self._ended)
        environment = {**program.environment, TEMPLATE_VARIABLE: str(descriptor)}
        self._machine.begin()
        plain(child, replace(program, environment=environment, descriptors=(descriptor,)))

    # -- for its image

    def settled(self) -> Deferred[None]:
        """Fires once it is ready or never will be."""
        answer: Deferred[None] = Deferred(self._settling.remove)
        self._settling.append(answer)
        if self._settled:
            self._settle()
        return answer

    def fork(self, child: Child, program: Program, launch: Launch, output: Callable[[bytes], None]) -> bool:
        """
        Have a worker forked.

        :param program: what to run if the template fails.
        :param output: the worker's; gets first what the template has printed and nobody has seen.
        :return: False when it must be started plainly.
        """
        if not self.fit or not self._forks.ask(child, program, launch):
            return False
        if self._said:
            said, self._said = bytes(self._said), bytearray()
            output(said)
        return True

    def close(self) -> None:
        """End it. For when no worker is left that was forked from it; its `Child` tells when it has gone."""
        self._machine.close()

    # -- what it says

    def ready(self) -> None:
        self._machine.ready()

    def failed(self, why: str) -> None:
        self._machine.failed(why)

    def hung_up(self) -> None:
        # Its machine hears of it by its end.
        self._child.kill()

    def _heard(self, data: bytes) -> None:
        self._said += data
        del self._said[:-_MEMORY]

    # -- what becomes of it

    def _started(self, _: None) -> None:
        self._forks.pid = self._child.pid
        self._forks.theirs.close()

    def _deadline(self) -> IDelayedCall:
        timer: IDelayedCall = self._reactor.callLater(self._limit, lambda: self._machine.overdue())
        return timer

    def _ended(self, end: Exit) -> None:
        self._forks.read()  # its last words
        self._forks.close()
        self._machine.ended(end)

    def _complain(self, why: str) -> None:
        said = self._said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        self.log.warn(
            "workers in {folder} are not forked but started one by one from now on; the template: {why}{said}",
            folder=self._folder, why=why, said=f" (it said: {said})" if said else "",
        )  # fmt: skip

    def _settle(self) -> None:
        self._settled = True
        settling, self._settling = self._settling, []
        for answer in settling:
            answer.callback(None)

    def _end(self) -> None:
        self._forks.close()
        self._child.kill()

    def _farewell(self) -> None:
        self._forks.abandon()
        self._settle()


def _build() -> Callable[[Template], _Inputs]:
    """
    The life of a template.

    new. warming: it imports; the timer runs. ready. useless: it failed before it was ready and is ended, or does not
    answer and lives on for the sake of its workers. closing: it was told to go. gone.
    """
    builder = TypeMachineBuilder(_Inputs, Template)
    new = builder.state("new")
    warming = builder.state("warming", lambda inputs, template: template._deadline())
    ready = builder.state("ready")
    useless = builder.state("useless")
    closing = builder.state("closing")
    gone = builder.state("gone")

    new.upon(_Inputs.begin).to(warming).returns(None)

    @warming.upon(_Inputs.ready).to(ready)
    def serve(inputs: _Inputs, template: Template, timer: IDelayedCall) -> None:
        timer.cancel()
        template.fit = True
        template._settle()

    @warming.upon(_Inputs.failed).to(useless)
    def unfit(inputs: _Inputs, template: Template, timer: IDelayedCall, why: str) -> None:
        timer.cancel()
        template._complain(why)
        template._end()
        template._settle()

    @warming.upon(_Inputs.overdue).to(useless)
    def too_slow(inputs: _Inputs, template: Template, timer: IDelayedCall) -> None:
        template._complain(f"it was not ready within {template._limit:g} s")
        template._end()
        template._settle()

    @warming.upon(_Inputs.ended).to(gone)
    def stillborn(inputs: _Inputs, template: Template, timer: IDelayedCall, end: Exit) -> None:
        timer.cancel()
        template._complain(f"it has ended before it was ready ({end})")
        template._farewell()

    @warming.upon(_Inputs.close).to(closing)
    def never_mind(inputs: _Inputs, template: Template, timer: IDelayedCall) -> None:
        timer.cancel()
        template._end()
        template._settle()

    @ready.upon(_Inputs.failed).to(useless)
    def retire(inputs: _Inputs, template: Template, why: str) -> None:
        template.fit = False
        template._complain(why)

    @ready.upon(_Inputs.ended).to(gone)
    def died(inputs: _Inputs, template: Template, end: Exit) -> None:
        template.fit = False
        template._complain(f"it has died ({end})")
        template._farewell()

    @ready.upon(_Inputs.close).to(closing)
    @useless.upon(_Inputs.close).to(closing)
    def dismiss(inputs: _Inputs, template: Template) -> None:
        template.fit = False
        template._end()

    @useless.upon(_Inputs.ended).to(gone)
    @closing.upon(_Inputs.ended).to(gone)
    def over(inputs: _Inputs, template: Template, end: Exit) -> None:
        template._farewell()

    # What comes too late, or cannot come.
    anything = (_Inputs.ready, _Inputs.failed, _Inputs.overdue, _Inputs.close, _Inputs.ended)
    for state, idle in (
        (new, anything),
        (warming, (_Inputs.begin,)),
        (ready, (_Inputs.begin, _Inputs.ready, _Inputs.overdue)),
        (useless, (_Inputs.begin, _Inputs.ready, _Inputs.failed, _Inputs.overdue)),
        (closing, (_Inputs.begin, _Inputs.ready, _Inputs.failed, _Inputs.overdue, _Inputs.close)),
        (gone, (_Inputs.begin, *anything)),
    ):
        for input_method in idle:
            state.upon(input_method).loop().returns(None)
    return builder.build()


_machine = _build()
