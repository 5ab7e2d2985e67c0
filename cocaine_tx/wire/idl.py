"""
A service's protocol as plain data: which messages exist, and what may follow each.

A `State` is a table of messages; sending or receiving one moves that direction of the channel to the message's
``next`` state. `VOID` is the end. A `Protocol` is the root table, whose `Slot` entries also say what is answered.
Graphs that arrive from locators become the same objects by `parse_protocol`, so rooms never see numbers.

Source: reference ``protocol-v12.md`` section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..errors import InvalidArguments, RemoteProtocolError


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A message inside a stream; ``next`` is the sender's state after it."""

    id: int
    name: str
    next: State


class State(dict[int, Message]):
    """What one side may send now, by number. Empty: nothing more. Identity is equality: states form cycles."""

    __slots__ = ("_names",)
    _names: dict[str, Message]

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def named(self, name: str) -> Message | None:
        """The message of that name."""
        try:
            names = self._names
        except AttributeError:
            names = self._names = {message.name: message for message in self.values()}
        return names.get(name)

    def graph(self) -> dict[int, list[Any]]:
        """Plain data as ``resolve`` carries it: nil for "stay", an empty map for the end."""
        return {m.id: [m.name, None if m.next is self else m.next.graph()] for m in self.values()}


VOID = State()


def state(*entries: tuple[int, str, State | None]) -> State:
    """A state out of ``(number, name, next)``; None as next means "stay here"."""
    made = State()
    for number, name, following in entries:
        made[number] = Message(number, name, made if following is None else following)
    return made


#: Exactly one value or error.
PRIMITIVE = state((0, "value", VOID), (1, "error", VOID))
VALUE, VALUE_ERROR = PRIMITIVE[0], PRIMITIVE[1]
#: Any number of chunks, then a choke or an error.
STREAMING = state((0, "write", None), (1, "error", VOID), (2, "close", VOID))
CHUNK, ERROR, CHOKE = STREAMING[0], STREAMING[1], STREAMING[2]

#: Argument kinds of a slot, as msgpack yields them.
RAW, INT, LIST, MAP, ANY = bytes, int, tuple, dict, object


@dataclass(frozen=True, slots=True)
class Optional:
    """An argument that may be absent (absent, not nil)."""

    kind: type


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """
    A root message: a call that opens a channel.

    :ivar arguments: kinds of the arguments; None for a foreign slot that nobody has described.
    :ivar downstream: what the caller may send afterwards.
    :ivar upstream: what is sent back; `VOID` for a call without an answer.
    """

    id: int
    name: str
    downstream: State
    upstream: State
    arguments: tuple[type | Optional, ...] | None = None

    def check(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """
        The arguments that the slot declares; what a caller sends beyond them is dropped.

        :raises InvalidArguments: too few, or one of a wrong type.
        """
        if self.arguments is None:
            return args
        present = len(args)
        for place, kind in enumerate(self.arguments):
            if place >= present:
                if isinstance(kind, Optional):
                    return args
                raise InvalidArguments(f"{self.name} takes more than {present} arguments")
            wanted = kind.kind if isinstance(kind, Optional) else kind
            value = args[place]
            if wanted is not object and value.__class__ is not wanted:
                raise InvalidArguments(f"{self.name}: argument {place + 1} is not of type {_KINDS[wanted]}")
        return args if present == len(self.arguments) else args[: len(self.arguments)]


_KINDS: dict[type, str] = {RAW: "raw", INT: "int", LIST: "array", MAP: "map"}

#: Ours, between peers that have agreed on it (``window`` in `headers`): so many more bytes may be on their way on this
#: channel. It travels beside the stream, whatever its state, with the channel's own number.
CREDIT = Message(65531, "credit", VOID)
#: A credit that says: this stream is not limited any more.
UNLIMITED = 2**62
#: Ours as well: chunks, one or more, and the regular end of their stream, in one frame. Most streams are that short.
LAST = Message(65530, "last", VOID)

#: Session messages that 0.12.14 puts into every service's graph; only ping and revoke do anything.
REVOKE, SETTINGS, PING, GOAWAY = 65535, 65534, 65533, 65532
_CONTROL = ((GOAWAY, "goaway"), (PING, "ping"), (SETTINGS, "settings"), (REVOKE, "revoke"))
#: Those two; the others were declared and never bound, and end the connection.
PING_SLOT = Slot(PING, "ping", VOID, PRIMITIVE, ())
REVOKE_SLOT = Slot(REVOKE, "revoke", VOID, PRIMITIVE, (INT, LIST))
SESSION_SLOTS = {slot.id: slot for slot in (PING_SLOT, REVOKE_SLOT)}


@dataclass(frozen=True, slots=True, eq=False)
class Protocol:
    """A service's root table. ``slots`` by number; ask `named` for one by name."""

    name: str
    version: int
    slots: Mapping[int, Slot]
    _names: Mapping[str, Slot] = field(repr=False)

    def named(self, name: str) -> Slot | None:
        """The slot of that name."""
        return self._names.get(name)

    def graph(self) -> Mapping[int, list[Any]]:
        """
        Plain data as ``resolve`` carries it, with the session's control messages as 0.12.14 shows them.

        Made once for each protocol, since every service of an app offers the same: not to be changed.
        """
        return _graph(self)


@lru_cache(maxsize=64)
def _graph(spoken: Protocol) -> Mapping[int, list[Any]]:
    made = {}
    for slot in spoken.slots.values():
        downstream = slot.downstream.graph()
        if slot.downstream and slot.downstream is not STREAMING:
            downstream |= {number: [name, {}] for number, name in _CONTROL}
        made[slot.id] = [slot.name, downstream, slot.upstream.graph()]
    return made | {number: [name, {}, PRIMITIVE.graph()] for number, name in _CONTROL}


def protocol(name: str, version: int, slots: Iterable[Slot]) -> Protocol:
    """A protocol out of its slots."""
    by_id = {slot.id: slot for slot in slots}
    return Protocol(name, version, by_id, {slot.name: slot for slot in by_id.values()})


#: How deep a foreign graph may nest; the deepest original one has three levels.
_DEEPEST = 16


def parse_protocol(name: str, version: int, graph: Any) -> Protocol:
    """
    A protocol out of a graph that a locator sent.

    :raises RemoteProtocolError: the graph has not the shape of one.
    """
    if not isinstance(graph, Mapping):
        raise RemoteProtocolError(f"the protocol graph of {name} is not a map")
    slots = []
    for number, row in graph.items():
        if number.__class__ is not int or not isinstance(row, (tuple, list)) or len(row) < 3:
            raise RemoteProtocolError(f"the protocol graph of {name} has a malformed entry")
        # Nil at the root means "the whole root again", which only the isolate daemon's metrics uses; a caller of ours
        # never streams there, so it may as well be the end.
        downstream = VOID if row[1] is None else _parse_state(name, row[1], _DEEPEST)
        upstream = VOID if row[2] is None else _parse_state(name, row[2], _DEEPEST)
        slots.append(Slot(number, _text(name, row[0]), downstream, upstream))
    return protocol(name, version, slots)


def _parse_state(service: str, node: Any, depth: int) -> State:
    if not isinstance(node, Mapping) or not depth:
        raise RemoteProtocolError(f"the protocol graph of {service} has a malformed state")
    if not node:
        return VOID
    made = State()
    for number, row in node.items():
        if number.__class__ is not int or not isinstance(row, (tuple, list)) or len(row) < 2:
            raise RemoteProtocolError(f"the protocol graph of {service} has a malformed entry")
        following = made if row[1] is None else _parse_state(service, row[1], depth - 1)
        made[number] = Message(number, _text(service, row[0]), following)
    for known in (PRIMITIVE, STREAMING):
        if _same(made, known):
            return known
    return made


def _same(made: State, known: State) -> bool:
    if len(made) != len(known):
        return False
    for number, message in known.items():
        other = made.get(number)
        if other is None or other.name != message.name:
            return False
        if (other.next is made) != (message.next is known) or bool(other.next) != bool(message.next):
            return False
    return True


def _text(service: str, name: Any) -> str:
    try:
        return name.decode("utf-8") if isinstance(name, bytes) else str(name)
    except UnicodeDecodeError as problem:
        raise RemoteProtocolError(f"the protocol graph of {service} has an unreadable name") from problem
