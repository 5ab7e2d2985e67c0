"""
An app's career as a table: stopped, spooling, running, stopping, broken.

Source: reference ``node-engine.md`` section 3.1. Stopping is ours: the original forgot the app at once and blocked.
"""

from __future__ import annotations

from typing import Protocol

from automat import TypeMachineBuilder


class Career(Protocol):
    """What happens to an app."""

    def start(self) -> None:
        "From an operator or the runlist."

    def spooled(self) -> None:
        "Its code is in place and its workers' socket is open."

    def failed(self) -> None:
        "It cannot be started."

    def stop(self) -> None:
        "From an operator, or the node is ending."

    def gone(self) -> None:
        "Nothing of it is left."


class Acts(Protocol):
    """What the machine makes an app do; `App` is the one."""

    def spool(self) -> None: ...
    def opened(self) -> None: ...
    def broke(self) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...
    def finished(self) -> None: ...


_builder = TypeMachineBuilder(Career, Acts)  # type: ignore[type-abstract]
stopped = _builder.state("stopped")
spooling = _builder.state("spooling")
running = _builder.state("running")
broken = _builder.state("broken")
stopping = _builder.state("stopping")


@stopped.upon(Career.start).to(spooling)
def _spool(career: Career, acts: Acts) -> None:
    acts.spool()


@spooling.upon(Career.spooled).to(running)
def _open(career: Career, acts: Acts) -> None:
    acts.opened()


@spooling.upon(Career.failed).to(broken)
def _break(career: Career, acts: Acts) -> None:
    acts.broke()


@spooling.upon(Career.stop).to(stopping)
def _abandon(career: Career, acts: Acts) -> None:
    acts.abandon()


@running.upon(Career.stop).to(stopping)
@broken.upon(Career.stop).to(stopping)
def _close(career: Career, acts: Acts) -> None:
    acts.close()


@stopping.upon(Career.gone).to(stopped)
def _finish(career: Career, acts: Acts) -> None:
    acts.finished()


for _state, _inputs in (
    (stopped, (Career.spooled, Career.failed, Career.stop, Career.gone)),
    (spooling, (Career.start, Career.gone)),
    (running, (Career.start, Career.spooled, Career.failed, Career.gone)),
    (broken, (Career.start, Career.spooled, Career.failed, Career.gone)),
    # A spool that ends after the stop has nobody to tell.
    (stopping, (Career.start, Career.spooled, Career.failed, Career.stop)),
):
    for _input in _inputs:
        _state.upon(_input).loop().returns(None)

begin_career = _builder.build()
