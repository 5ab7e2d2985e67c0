"""Protocol graphs, read and written."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import InvalidArguments, RemoteProtocolError
from cocaine_tx.wire import protocols
from cocaine_tx.wire.frames import pack, unpack
from cocaine_tx.wire.idl import (
    ANY,
    INT,
    LIST,
    PRIMITIVE,
    RAW,
    STREAMING,
    VOID,
    Optional,
    Protocol,
    Slot,
    parse_protocol,
)

ALL = [made for made in vars(protocols).values() if isinstance(made, Protocol)]


class GraphTests(SynchronousTestCase):
    """A service's graph says what a client may call."""

    def test_round_trip(self) -> None:
        """Every protocol of ours, sent through a locator and read again, has the same graph."""
        self.assertGreater(len(ALL), 7)
        for made in ALL:
            read = parse_protocol(made.name, made.version, unpack(pack(made.graph())))
            self.assertEqual(read.graph(), made.graph(), made.name)
            for slot in made.slots.values():
                found = read.named(slot.name)
                self.assertEqual((found.id, found.name), (slot.id, slot.name))
                self.assertIs(found.upstream is STREAMING, slot.upstream is STREAMING, slot.name)
                self.assertIs(found.upstream is PRIMITIVE, slot.upstream is PRIMITIVE, slot.name)
                self.assertEqual(bool(found.downstream), bool(slot.downstream), slot.name)
                self.assertIs(found.downstream is STREAMING, slot.downstream is STREAMING, slot.name)

    def test_recursion(self) -> None:
        """Nil means "stay": a foreign stream that is none of ours keeps its state for ever."""
        node = {0: (b"emit", None), 1: (b"emit_ack", None)}
        answers = {0: (b"write", None), 1: (b"error", {}), 2: (b"close", {})}
        read = parse_protocol("logs", 2, {4: (b"get", node, answers)})
        slot = read.named("get")
        self.assertIs(slot.downstream.named("emit_ack").next, slot.downstream)
        self.assertIs(slot.upstream, STREAMING)
        self.assertEqual(slot.downstream.graph(), {0: ["emit", None], 1: ["emit_ack", None]})

    def test_root_recursion(self) -> None:
        """The isolate daemon's metrics says nil at the root; a caller may still call it."""
        slot = parse_protocol("isolate", 1, {2: (b"metrics", None, PRIMITIVE.graph())}).named("metrics")
        self.assertEqual((slot.downstream, slot.upstream), (VOID, PRIMITIVE))

    def test_longer_rows(self) -> None:
        """What a later version may add to a row is no fault."""
        self.assertIsNotNone(parse_protocol("x", 1, {0: (b"m", {}, {}, b"more")}).named("m"))

    def test_malformed(self) -> None:
        """A graph of another shape is the locator's fault, and nothing worse."""
        deep: dict = {}
        for _ in range(40):
            deep = {0: (b"m", deep)}
        for graph in (
            None, 5, b"graph", (), {b"0": (b"m", {}, {})}, {0: None}, {0: ()}, {0: (b"m", {})}, {0: (b"m", 5, {})},
            {0: (b"m", {}, b"x")}, {0: (b"\xff", {}, {})}, {0: (b"m", {0: (b"n",)}, {})}, {0: (b"m", {0: 5}, {})},
            {0: (b"m", {None: (b"n", {})}, {})}, {0: (b"m", {0: (b"\xff", {})}, {})}, {0: (b"m", deep, {})},
            {True: (b"m", {}, {})},
        ):  # fmt: skip
            self.assertRaises(RemoteProtocolError, parse_protocol, "x", 1, graph)


class ArgumentTests(SynchronousTestCase):
    """Arguments are checked once, where the call arrives."""

    def test_checked(self) -> None:
        """Too few and mistyped arguments are refused; optional ones may be absent, not nil; extra ones are dropped."""
        slot = Slot(0, "write", VOID, PRIMITIVE, (RAW, INT, ANY, Optional(LIST)))
        self.assertEqual(slot.check((b"a", 1, None)), (b"a", 1, None))
        self.assertEqual(slot.check((b"a", 1, {}, (b"t",), 5, 6)), (b"a", 1, {}, (b"t",)))
        for args in ((), (b"a",), (b"a", 1), (1, 1, 1), (b"a", b"1", 1), (b"a", True, 1), (b"a", 1.0, 1),
                     (b"a", 1, 1, None), (b"a", 1, 1, b"x"), (None, 1, 1)):  # fmt: skip
            self.assertRaises(InvalidArguments, slot.check, args)

    def test_foreign(self) -> None:
        """Nobody has described a foreign slot's arguments: all pass."""
        slot = parse_protocol("x", 1, {0: (b"m", {}, {})}).named("m")
        self.assertEqual(slot.check((1, None)), (1, None))

    def test_states_are_themselves(self) -> None:
        """States form cycles, so each equals itself alone, whatever is in it."""
        self.assertNotEqual(PRIMITIVE, dict(PRIMITIVE))
        self.assertEqual(len({PRIMITIVE, STREAMING, VOID}), 3)
        self.assertIsNone(STREAMING.named("value"))
