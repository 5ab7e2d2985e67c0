"""The original runtime's own bytes, read and written by ours."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.wire.frames import FrameDecoder, Limits, pack
from cocaine_tx.wire.headers import HeaderDecoder, trace_of
from cocaine_tx.wire.idl import GOAWAY, PING, REVOKE, SETTINGS, Protocol, Slot
from cocaine_tx.wire.protocols import APP, BY_NAME, INVOKE, LOCATOR, LOGGING, NODE, STORAGE, WORKER
from cocaine_tx.wire.session import NOBODY, Session, Strangers, dialing, serving
from tests.wire.recordings import CLIENT, RECORDINGS, SERVER, Recording, recording

_CONTROL = (GOAWAY, PING, SETTINGS, REVOKE)
#: First word of a file's name to what the recorded server speaks.
_SPOKEN = {
    "app": APP, "bad": STORAGE, "control": STORAGE, "half": STORAGE, "locator": LOCATOR, "logging": LOGGING,
    "node": NODE, "split": STORAGE, "storage": STORAGE, "worker": WORKER,
}  # fmt: skip
#: Closed by the original for what a session cannot know (an element's type inside an array: the room's business), or
#: by a fault of the original that is not copied (``observed-runtime.md`` item 26).
_NOT_OURS = {
    "storage-write-utf8-int-key#1", "app-control-2#1", "locator-connect-cluster#1", "locator-connect-cluster#2",
}  # fmt: skip
#: Reads whose answer has lost its request's trace, a race in the original (``observed-runtime.md`` item 2).
_TRACE_LOST = {"storage-read#1", "storage-write#1", "storage-read-extra-arg#1"}


def spoken(made: Recording) -> Protocol:
    """What the recorded server speaks."""
    if made.name.startswith("framework-python"):
        return APP if "echo" in made.name else LOCATOR
    return _SPOKEN[made.name.split("-")[0]]


def lists(value):
    """Tuples as lists, all the way down, to compare with literals."""
    if isinstance(value, tuple):
        return [lists(item) for item in value]
    if isinstance(value, dict):
        return {key: lists(item) for key, item in value.items()}
    return value


def tuples(value):
    """Lists as tuples, as the decoder yields them."""
    if isinstance(value, list):
        return tuple(tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return value


def bytewise(data: bytes) -> list[bytes]:
    """One byte at a time."""
    return [data[place : place + 1] for place in range(len(data))]


class Deliver:
    """Feeds a session and lets it answer its own control messages, as a connection would."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list = []

    def feed(self, data: bytes) -> list:
        events = self.session.receive(data)
        for channel, message, args, headers in events:
            channel.receiver.received(channel, message, args, headers)
        self.events += events
        return events


class DecodingTests(SynchronousTestCase):
    """Every frame that was seen on the wire is read as it was meant."""

    def test_whole(self) -> None:
        """A whole exchange in one piece gives the frames that were recorded, both ways."""
        for made in RECORDINGS:
            for direction, values in made.values.items():
                if made.name != "bad-not-frame#1":
                    self.assertEqual(lists(tuple(FrameDecoder(Limits()).feed(made.said(direction)))), values, made.name)

    def test_byte_by_byte(self) -> None:
        """The same bytes one by one give the same frames."""
        for made in RECORDINGS:
            for direction, values in made.values.items():
                if made.name == "bad-not-frame#1":
                    continue
                decoder = FrameDecoder(Limits())
                frames = tuple(frame for byte in bytewise(made.said(direction)) for frame in decoder.feed(byte))
                self.assertEqual(lists(frames), values, made.name)

    def test_repacked(self) -> None:
        """The original runtime's frames, decoded and packed again, are the same bytes: we speak its dialect."""
        for made in RECORDINGS:
            packed = b"".join(pack(tuples(value)) for value in made.values[SERVER])
            self.assertEqual(packed, made.said(SERVER), made.name)


class ServingTests(SynchronousTestCase):
    """What the original's clients said to it, said to us."""

    def test_same_verdict(self) -> None:
        """We close the connection where the original closed it, and nowhere else."""
        for made in RECORDINGS:
            if made.name.startswith("worker"):
                # Its events are opened by the node: see below.
                continue
            for pieces in ([made.said(CLIENT)], bytewise(made.said(CLIENT))):
                delivery = Deliver(serving(spoken(made), NOBODY))
                for piece in pieces:
                    delivery.feed(piece)
                if made.name not in _NOT_OURS:
                    self.assertEqual(delivery.session.broken is not None, made.refused, made.name)
                if delivery.session.broken is None:
                    self.assertEqual(len(delivery.events), len(made.values[CLIENT]), made.name)

    def test_same_answers(self) -> None:
        """Saying what the original said, we send its very bytes: frames, error pairs, traces, graphs, worker frames."""
        for made in RECORDINGS:
            delivery = Deliver(serving(spoken(made), NOBODY))
            session = delivery.session
            traced = made.name not in _TRACE_LOST
            channels: dict = {}
            for direction, data in made.packets:
                if direction == CLIENT:
                    for channel, message, _, _ in delivery.feed(data):
                        if isinstance(message, Slot):
                            channels[channel.number] = channel
                    continue
                spoke = session.take()
                decoder = HeaderDecoder()
                for number, kind, args, headers in FrameDecoder(Limits()).feed(data):
                    channel = channels.get(number)
                    if channel is None:
                        channels[number] = session.open(INVOKE, args, NOBODY, decoder.decode(headers))
                        self.assertEqual(channels[number].number, number, made.name)
                    elif channel.slot.id not in _CONTROL:
                        if len(headers) > 3:
                            channel.tail = pack(headers)
                        channel.send(channel.sending[kind].name, *args)
                    if not traced and trace_of(decoder.decode(headers)) is None:
                        session._out.clear()
                        spoke += pack((number, kind, args, headers))
                    spoke += session.take()
                self.assertEqual(spoke, data, made.name)
            self.assertEqual(session.broken is None, made.name in _NOT_OURS or not made.refused, made.name)

    def test_graphs(self) -> None:
        """Our protocols' graphs, packed, are what the original's resolve carries; node has one slot more."""
        for name in ("locator", "storage", "logging", "node", "app"):
            answer = recording(f"locator-resolve-{name}").values[SERVER][0][2]
            graph = BY_NAME[name].graph()
            if name == "node":
                self.assertEqual(graph.pop(6)[0], "restart_app")
            self.assertEqual(pack(graph), pack(tuples(answer[2])), name)
            self.assertEqual(BY_NAME[name].version, answer[1], name)


class DialingTests(SynchronousTestCase):
    """What the original answered to its clients, answered to us."""

    def test_every_answer_arrives(self) -> None:
        """Each frame of the original is one event on the channel it belongs to, whatever the pieces it comes in."""
        for made in RECORDINGS:
            if made.name.startswith("worker"):
                continue
            for cut in (lambda data: [data], bytewise):
                session = dialing()
                protocol = spoken(made)
                numbers: set[int] = set()
                for value in made.values[CLIENT]:
                    if not isinstance(value, list) or value[0] in numbers or value[1] not in protocol.slots:
                        continue
                    numbers.add(value[0])
                    session._last = value[0] - 1
                    session.open(protocol.slots[value[1]], tuples(value[2]), NOBODY)
                answers = [value for value in made.values[SERVER] if value[0] in numbers]
                events = [event for piece in cut(made.said(SERVER)) for event in session.receive(piece)]
                self.assertIsNone(session.broken, made.name)
                self.assertEqual(
                    [[channel.number, message.id, lists(args)] for channel, message, args, _ in events],
                    [value[:3] for value in answers],
                    made.name,
                )

    def test_trace_comes_back(self) -> None:
        """The ids that a request carried are read from the answer's headers."""
        made = recording("app-enqueue-ping-headers")
        session = dialing()
        session.open(APP.slots[0], (b"ping",), NOBODY)
        (_, _, _, headers), _ = session.receive(made.said(SERVER))
        trace = trace_of(headers)
        self.assertEqual((trace.trace_id, trace.span_id, trace.parent_id), (0xAABB, 0xCC, 0))

    def test_strangers(self) -> None:
        """Answers that nobody waits for are dropped by a client, and end the connection at a server."""
        made = recording("storage-read")
        client, server = dialing(), Session(None, NOBODY, Strangers.REVOKED)
        self.assertEqual((client.receive(made.said(SERVER)), client.broken), ([], None))
        self.assertEqual(server.receive(made.said(SERVER)), [])
        self.assertEqual(server.broken.pair, (7, 4))
