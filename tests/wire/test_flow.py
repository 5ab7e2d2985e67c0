"""Short streams in one frame, between peers of ours; to everybody else nothing changes."""

import msgpack
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import LocalProtocolError, Overloaded
from cocaine_tx.wire.flow import FLOW
from cocaine_tx.wire.frames import pack
from cocaine_tx.wire.headers import window_header
from cocaine_tx.wire.idl import CHUNK, LAST
from cocaine_tx.wire.protocols import APP, STORAGE
from cocaine_tx.wire.session import Session, dialing, serving

WINDOW = (window_header(4096),)


class Nobody:
    """A receiver that is there, unlike `NOBODY`, and says nothing."""

    def received(self, *_: object) -> None:
        pass

    def lost(self, *_: object) -> None:
        pass


def kinds(data: bytes) -> list[int]:
    """The message numbers of the frames."""
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(data)
    return [frame[1] for frame in unpacker]


def told(session: Session, data: bytes) -> list[tuple[str, tuple[object, ...]]]:
    """Names and arguments of what the bytes mean."""
    return [(message.name, args) for _, message, args, _ in session.receive(data)]


class FlowTests(SynchronousTestCase):
    """A client of ours, and an app's node."""

    def setUp(self) -> None:
        self.client = dialing()
        self.client.kin = True
        self.server = serving(APP, Nobody())

    def call(self, *headers: tuple[bytes, bytes]) -> None:
        """Open a stream and let the server hear of it."""
        self.near = self.client.open(APP.slots[0], (b"e",), Nobody(), headers)
        self.far = self.server.receive(self.client.take())[0][0]

    def test_one_frame(self) -> None:
        """What is said and ended in one turn leaves as one frame and is heard as chunks and an end."""
        self.call()
        self.near.chunk(b"a")
        self.near.chunk(b"b")
        self.near.choke()
        data = self.client.take()
        self.assertEqual(kinds(data), [LAST.id])
        self.assertEqual(told(self.server, data), [("write", (b"a",)), ("write", (b"b",)), ("close", ())])
        self.assertIs(self.near.sending, self.far.receiving)

    def test_strangers(self) -> None:
        """Peers that have not said that they know it get the original's frames."""
        self.client.kin = False
        self.call()
        self.near.chunk(b"a")
        self.near.choke()
        self.assertEqual(kinds(self.client.take()), [0, 2])
        self.far.chunk(b"a")
        self.far.choke()
        self.assertEqual(kinds(self.server.take()), [0, 2])

    def test_answer(self) -> None:
        """A call with a window is one of ours: its answer may come in one frame, and both tables are empty then."""
        self.call(*WINDOW)
        self.near.choke()
        self.server.receive(self.client.take())
        self.far.chunk(b"a")
        self.far.choke()
        data = self.server.take()
        self.assertEqual(kinds(data), [LAST.id])
        self.assertEqual(told(self.client, data), [("write", (b"a",)), ("close", ())])
        self.assertEqual((len(self.client), len(self.server)), (0, 0))

    def test_ends_later(self) -> None:
        """A chunk that has left is not waited for."""
        self.call()
        self.near.chunk(b"a")
        self.assertEqual(kinds(self.client.take()), [0])
        self.near.choke()
        self.assertEqual(kinds(self.client.take()), [2])

    def test_error(self) -> None:
        """An error ends what was said before, in that order."""
        self.call()
        self.near.chunk(b"a")
        self.near.fail(Overloaded("much"))
        self.assertEqual([name for name, _ in told(self.server, self.client.take())], ["write", "error"])

    def test_many(self) -> None:
        """Many chunks are no one frame, and keep their order."""
        self.call()
        said = [b"%d" % number for number in range(3 * FLOW)]
        for data in said:
            self.near.chunk(data)
        self.near.choke()
        heard = told(self.server, self.client.take())
        self.assertEqual(heard, [*(("write", (data,)) for data in said), ("close", ())])

    def test_large(self) -> None:
        """Large chunks stay frames of their own."""
        self.call()
        self.near.chunk(bytes(40_000))
        self.near.chunk(bytes(40_000))
        self.near.choke()
        self.assertEqual(kinds(self.client.take()), [0, 0, 2])

    def test_malformed(self) -> None:
        """Last chunks that are not raw, or too many, cost their sender the connection."""
        for chunks in ((b"a", 1), (b"a",) * (FLOW + 1)):
            self.setUp()
            self.call()
            self.server.receive(pack((1, LAST.id, chunks, ())))
            self.assertIsNotNone(self.server.broken)

    def test_no_stream(self) -> None:
        """A call that takes no stream takes no last chunk."""
        self.client.open(STORAGE.named("read"), (b"c", b"k"), Nobody())
        server = serving(STORAGE, Nobody())
        server.receive(self.client.take())
        server.receive(pack((1, LAST.id, (b"a",), ())))
        self.assertIsNotNone(server.broken)

    def test_late(self) -> None:
        """The end of an answer that nobody waits for any more is dropped."""
        self.call(*WINDOW)
        self.near.choke()
        self.near.abandon()
        self.server.receive(self.client.take())
        self.far.chunk(b"a")
        self.far.choke()
        self.assertEqual(told(self.client, self.server.take()), [])
        self.assertIsNone(self.client.broken)

    def test_unsendable(self) -> None:
        """Whoever says what cannot be sent hears of it at once; what others have said is not lost."""
        self.call()
        other = self.client.open(APP.slots[0], (b"e",), Nobody())
        other.chunk(b"a")
        self.near.chunk(b"b")
        self.assertRaises(LocalProtocolError, self.near.chunk, object())
        self.near.chunk("c")  # type: ignore[arg-type]
        self.near.choke()
        heard = told(self.server, self.client.take())
        self.assertEqual([name for name, _ in heard], ["enqueue", "write", "write", "write", "close"])
        self.assertEqual([args[0] for name, args in heard if name == "write"], [b"a", b"b", b"c"])

    def test_malformed_between(self) -> None:
        """What a relay passes on stays in its order, whatever it is."""
        self.call()
        self.near.chunk(b"a")
        self.near.forward(CHUNK, ())
        self.near.chunk(b"b")
        self.near.choke()
        heard = told(self.server, self.client.take())
        self.assertEqual(heard, [("write", (b"a",)), ("write", ()), ("write", (b"b",)), ("close", ())])


class StoryTests(SynchronousTestCase):
    """Whoever listens cannot tell the difference."""

    @given(
        st.lists(
            st.one_of(st.tuples(st.integers(0, 2), st.binary(max_size=40_000)), st.sampled_from(["take", *"012"])),
            max_size=40,
        )
    )
    def test_same_events(self, story: list[object]) -> None:
        """Three streams, chunks, ends and turns in any order: each stream is heard as to a stranger."""
        heard = []
        for kin in (False, True):
            client, server = dialing(), serving(APP, Nobody())
            client.kin = kin
            streams = [client.open(APP.slots[0], (b"e",), Nobody()) for _ in range(3)]
            data = b""
            for act in story:
                match act:
                    case "take":
                        data += client.take()
                    case (number, chunk):
                        streams[number].chunk(chunk)
                    case number:
                        streams[int(number)].choke()
            events = server.receive(data + client.take())
            self.assertIsNone(server.broken)
            heard.append([[(m.name, a) for c, m, a, _ in events if c.number == n] for n in (1, 2, 3)])
        self.assertEqual(*heard)
