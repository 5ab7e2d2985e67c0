"""What holds for every stream of bytes and every order of talk, looked for by hypothesis."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import QueueFull, RemoteProtocolError
from cocaine_tx.wire.frames import Limits, pack, unpack
from cocaine_tx.wire.headers import Trace
from cocaine_tx.wire.idl import PING_SLOT, REVOKE_SLOT, Slot, parse_protocol
from cocaine_tx.wire.protocols import APP, EVENTS, HANDSHAKE, INVOKE, LOCATOR, STORAGE, WORKER
from cocaine_tx.wire.session import NOBODY, Session, Strangers, dialing, error_of, is_error, serving
from tests.wire.recordings import CLIENT, RECORDINGS, SERVER

QUICK = settings(deadline=None, database=None, max_examples=150, suppress_health_check=list(HealthCheck))

raws = st.binary(max_size=40)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), raws, st.just(b"x" * 300)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple), st.dictionaries(st.one_of(st.integers(0, 9), raws), inner, max_size=3)
    ),
    max_leaves=8,
)
headers = st.lists(
    st.one_of(
        st.tuples(st.booleans(), st.one_of(raws, st.integers(0, 90)), raws), st.integers(0, 90), st.booleans()
    ),
    max_size=4,
).map(tuple)
#: Frames that are nearly right: most get past the first check.
frames = st.one_of(
    st.tuples(st.integers(0, 5), st.integers(0, 4), st.lists(values, max_size=4).map(tuple), headers),
    st.tuples(st.integers(1, 5), st.just(0), st.tuples(raws, raws)),
    st.tuples(st.integers(1, 9), st.sampled_from((65535, 65533)), st.tuples(st.integers(1, 5), values)),
    values,
)
#: Beginnings that promise much: arrays, maps, strings and nests larger than what follows.
promises = st.sampled_from([
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdc\xff\xff" * 50, b"\xde\xff\xff" * 50, b"\x91" * 3000, b"\x81\xc0" * 1500, b"\x81" * 2000,
    b"\xc9\xff\xff\xff\xff\x05",
    b"\xd8\xff" + b"x" * 16, b"\xc7\x0c\xff" + b"y" * 12, b"\xc1", b"\x81\x80\xc0", b"\x81\xcb\x7f\xf8" + bytes(6),
])  # fmt: skip
recorded = st.sampled_from([made.said(way) for made in RECORDINGS for way in (CLIENT, SERVER)])


@st.composite
def damaged(draw) -> bytes:
    """A recorded exchange with some of its bytes changed, left out or put in."""
    data = bytearray(draw(recorded))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=3))
    return bytes(data)


streams = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(frames.map(pack), promises, st.binary(max_size=8)), max_size=8).map(b"".join),
    damaged(),
)


@st.composite
def pieces(draw, data: bytes) -> list[bytes]:
    """The same bytes, cut anywhere."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def every_session() -> list[Session]:
    """One of each kind, with calls open where we are the caller."""
    client, worker = dialing(), Session(EVENTS, NOBODY, Strangers.IGNORED)
    for slot, args in ((APP.slots[0], (b"e",)), (STORAGE.slots[0], (b"c", b"k")), (LOCATOR.slots[4], (b"n", ()))):
        client.open(slot, args, NOBODY)
    worker.open(HANDSHAKE, (b"uuid",), NOBODY)
    node = serving(WORKER, NOBODY)
    for _ in range(3):
        node.open(INVOKE, (b"e",), NOBODY)
    return [client, worker, node, serving(APP, NOBODY), serving(LOCATOR, NOBODY), serving(STORAGE, NOBODY)]


def heard(session: Session, parts: list[bytes]) -> tuple[list, object]:
    """What the bytes meant: events in plain values, and the verdict."""
    events = []
    for part in parts:
        for channel, message, args, found in session.receive(part):
            channel.receiver.received(channel, message, args, found)
            events.append((channel.number, message.name, repr(args), found))
    return events, session.broken and (session.broken.pair, len(session))


class BytesTests(SynchronousTestCase):
    """No bytes do more than end their own connection."""

    @QUICK
    @given(data=streams, cut=st.data())
    def test_any_bytes_any_split(self, data: bytes, cut) -> None:
        """Whatever comes, in whatever pieces: the same events, the same verdict, and never an exception."""
        parts = cut.draw(pieces(data))
        for whole, split in zip(every_session(), every_session(), strict=True):
            events, verdict = heard(whole, [data])
            self.assertEqual(heard(split, parts), (events, verdict))
            self.assertIsInstance(whole.broken, (RemoteProtocolError, type(None)))
            for event in events:
                self.assertTrue(event[1])
            whole.lose()

    @QUICK
    @given(data=recorded, cut=st.data())
    def test_recorded_any_split(self, data: bytes, cut) -> None:
        """Exchanges of the original are heard the same however they are cut."""
        parts = cut.draw(pieces(data))
        for whole, split in zip(every_session(), every_session(), strict=True):
            self.assertEqual(heard(split, parts), heard(whole, [data]))

    @QUICK
    @given(value=values)
    def test_values_come_back(self, value) -> None:
        """What is packed comes out again; only text has become bytes and lists tuples."""
        self.assertEqual(repr(unpack(pack(value))), repr(value))

    @QUICK
    @given(args=st.lists(values, max_size=3).map(tuple))
    def test_any_error(self, args: tuple) -> None:
        """Whatever an error message carries can be read as an error; what is said to be one can be passed on."""
        self.assertEqual(len(error_of(args).pair), 2)
        if is_error(args):
            self.assertEqual(error_of(args).pair, args[0][:2])

    @QUICK
    @given(graph=st.one_of(values, st.dictionaries(st.integers(0, 3), st.tuples(raws, values, values), max_size=3)))
    def test_any_graph(self, graph) -> None:
        """Whatever a locator sends as a graph is read or refused."""
        try:
            made = parse_protocol("x", 1, graph)
        except RemoteProtocolError:
            return
        self.assertEqual(parse_protocol("x", 1, made.graph()).graph(), made.graph())


class Talk(RuleBasedStateMachine):
    """
    A client and a service, and a node and a worker, each pair with a wire that delivers when and what it likes.

    Every message is written down when said; at the end each side must have heard just that, in order, and no channel
    must be left on any table.
    """

    def __init__(self) -> None:
        super().__init__()
        client, service = dialing(), serving(APP, NOBODY, Limits(channels=10_000))
        node, worker = serving(WORKER, NOBODY), Session(EVENTS, NOBODY, Strangers.IGNORED)
        self.ways = [[client, service, b""], [service, client, b""], [node, worker, b""], [worker, node, b""]]
        self.opener = {"client": client, "node": node}
        self.said: dict[int, list] = {id(session): [] for session in (client, service, node, worker)}
        self.heard: dict[int, list] = {id(session): [] for session in (client, service, node, worker)}
        self.open: list = []
        worker.open(HANDSHAKE, (b"uuid",), NOBODY)
        self.said[id(worker)].append((1, "handshake", (b"uuid",)))
        # The node counts on from its worker's channel, which it must have seen to use other numbers.
        self.deliver(3, 1000)

    def write(self, channel, name: str, args: tuple) -> None:
        if channel.sending:
            self.said[id(channel.session)].append((channel.number, name, args))
            channel.send(name, *args)

    def deliver(self, way: int, size: int) -> None:
        sender, receiver, waiting = self.ways[way]
        waiting += sender.take()
        for channel, message, args, _ in receiver.receive(waiting[:size]):
            self.heard[id(receiver)].append((channel.number, message.name, args))
            if isinstance(message, Slot):
                if message is PING_SLOT or message is REVOKE_SLOT:
                    self.said[id(receiver)].append((channel.number, "value", ()))
                    channel.receiver.received(channel, message, args, ())
                else:
                    self.open.append(channel)
        self.ways[way][2] = waiting[size:]

    @rule(who=st.sampled_from(("client", "node")), traced=st.booleans())
    def ask(self, who: str, traced: bool) -> None:
        session = self.opener[who]
        slot = APP.slots[0] if who == "client" else INVOKE
        channel = session.open(slot, (b"event",), NOBODY, Trace(7, 8, 9).headers() if traced else ())
        self.said[id(session)].append((channel.number, slot.name, (b"event",)))
        channel.receiver = self
        self.open.append(channel)

    @rule()
    def call(self) -> None:
        session = self.opener["client"]
        channel = session.open(APP.slots[1], (), NOBODY)
        channel.receiver = self
        self.said[id(session)].append((channel.number, "info", ()))

    @rule()
    def ping(self) -> None:
        session = self.opener["client"]
        channel = session.open(PING_SLOT, (), NOBODY)
        channel.receiver = self
        self.said[id(session)].append((channel.number, "ping", ()))

    @precondition(lambda self: self.open)
    @rule(choice=st.data(), data=st.one_of(raws, st.just(b"x" * 40_000)))
    def speak(self, choice, data: bytes) -> None:
        channel = choice.draw(st.sampled_from(self.open))
        if channel.slot.upstream.named("value"):
            self.write(channel, "value", (data,))
        elif channel.slot.name != "handshake":
            self.write(channel, "write", (data,))

    @precondition(lambda self: self.open)
    @rule(choice=st.data(), kind=st.sampled_from(("close", "error")))
    def finish(self, choice, kind: str) -> None:
        channel = choice.draw(st.sampled_from(self.open))
        if channel.sending and channel.sending.named(kind):
            self.write(channel, kind, () if kind == "close" else (QueueFull().pair, b"full"))

    @rule(way=st.integers(0, 3), size=st.integers(1, 300))
    def carry(self, way: int, size: int) -> None:
        self.deliver(way, size)

    @invariant()
    def nobody_breaks(self) -> None:
        for sender, _, _ in self.ways:
            assert sender.broken is None, sender.broken

    def teardown(self) -> None:
        for _ in range(4):
            for way in range(4):
                self.deliver(way, 1 << 30)
            for channel in self.open:
                if channel.slot.name == "handshake":
                    continue
                self.write(channel, "value" if channel.slot.upstream.named("value") else "close", ())
        for sender, receiver, waiting in self.ways:
            assert waiting == b""
            assert self.heard[id(receiver)] == self.said[id(sender)]
        # The worker's control channel stays for its whole life; nothing else does.
        assert [len(sender) for sender, _, _ in self.ways] == [0, 0, 1, 1]

    # A receiver, so that answers are waited for.
    def received(self, channel, message, args, headers) -> None: ...

    def lost(self, channel, reason) -> None: ...


class TalkTests(SynchronousTestCase):
    """Two sessions with a pretend wire."""

    def test_talk(self) -> None:
        """What one side says the other hears, and when both have finished no trace is left."""
        case = Talk.TestCase
        case.settings = settings(QUICK, max_examples=60, stateful_step_count=40)
        case("runTest").debug()
