"""
What the wire costs by itself: ``python -m bench.wire`` prints units of CPU (`bench.yardstick`) for an echo in memory.

Two sessions and no transport: a client opens an event, sends one chunk of 100 bytes and closes; the service answers
the chunk and closes. Six frames, each packed once and read once. Then the same through a relay between two more
sessions, as a node does it, and a resolve and a read whose answers are one frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from cocaine_tx.errors import CocaineError
from cocaine_tx.rpc.relay import Relay
from cocaine_tx.wire.frames import Packed
from cocaine_tx.wire.headers import Headers
from cocaine_tx.wire.idl import CHOKE, CHUNK, Message, Slot
from cocaine_tx.wire.protocols import APP, EVENTS, INVOKE, LOCATOR, STORAGE, WORKER
from cocaine_tx.wire.session import NOBODY, Channel, Receiver, Session, Strangers, dialing, serving

from .yardstick import unit

ENQUEUE = APP.slots[0]
CHUNK_OF = b"x" * 100
#: Requests in one round, all in flight at once: as many as one read of a busy connection holds.
FLIGHT = 50


class Echo:
    """Answers a chunk by the same and a close by a close."""

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if message is CHUNK:
            channel.chunk(args[0])
        elif message is CHOKE:
            channel.choke()

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """Nothing is lost here."""


class Answer:
    """Answers every call by the same value."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        self._args = args

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        channel.value(self._args)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """Nothing is lost here."""


class Front:
    """Joins each event to a channel of its own at the worker."""

    def __init__(self, back: Session) -> None:
        self._back = back

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        Relay(channel, self._back.open(INVOKE, args, NOBODY, headers), _finished)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """Nothing is lost here."""


def _finished(relay: Relay) -> None:
    """Nobody keeps count."""


def carry(sender: Session, receiver: Session) -> None:
    """What one has said, to the other and its receivers, as a connection does."""
    for channel, message, args, headers in receiver.receive(sender.take()):
        channel.receiver.received(channel, message, args, headers)


def ask(client: Session) -> None:
    """Everything a client says for one event."""
    channel = client.open(ENQUEUE, (b"echo",), NOBODY)
    channel.receiver = _Silent
    channel.chunk(CHUNK_OF)
    channel.choke()


class _Listening:
    """Waits for the answer, so that the channel stays in the table until it has come."""

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        """The answer."""

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        """Nothing is lost here."""


_Silent: Receiver = _Listening()


def echo() -> Callable[[], None]:
    """Client and service."""
    client, service = dialing(), serving(APP, Echo())

    def run() -> None:
        for _ in range(FLIGHT):
            ask(client)
        carry(client, service)
        carry(service, client)

    return run


def relayed() -> Callable[[], None]:
    """Client, node and worker."""
    back, worker = serving(WORKER, NOBODY), Session(EVENTS, Echo(), Strangers.IGNORED)
    client, front = dialing(), serving(APP, Front(back))

    def run() -> None:
        for _ in range(FLIGHT):
            ask(client)
        carry(client, front)
        carry(back, worker)
        carry(worker, back)
        carry(front, client)

    return run


def call(slot: Slot, args: tuple[Any, ...], service: Session) -> Callable[[], None]:
    """One question, one answer."""
    client = dialing()

    def run() -> None:
        for _ in range(FLIGHT):
            client.open(slot, args, _Silent)
        carry(client, service)
        carry(service, client)

    return run


def cost(run: Callable[[], None], rounds: int = 300) -> float:
    """Seconds of CPU for one request: the best of many rounds."""
    best = float("inf")
    for _ in range(rounds):
        begun = time.process_time_ns()
        run()
        best = min(best, time.process_time_ns() - begun)
    return best / FLIGHT / 1e9


def main() -> None:
    """Print the table."""
    yardstick = unit()
    info = Packed((((b"127.0.0.1", 10130),), 1, STORAGE.graph()))
    print(f"one unit: {yardstick * 1e6:.2f} us of CPU")
    for title, run in (
        ("echo, client and service", echo()),
        ("echo, client, relay and worker", relayed()),
        ("resolve, answer packed once", call(LOCATOR.slots[0], (b"storage",), serving(LOCATOR, Answer(info)))),
        ("storage.read of 100 bytes", call(STORAGE.slots[0], (b"c", b"k"), serving(STORAGE, Answer((CHUNK_OF,))))),
    ):
        seconds = cost(run)
        print(f"{title:<34}{seconds * 1e6:>8.2f} us{seconds / yardstick:>8.1f} units")


if __name__ == "__main__":
    main()
