"""Two channels joined: what one peer says the other hears, and whatever dies, each hears of it once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import CocaineError, ConnectionGone, Discarded, InvocationTimeout, QueueFull
from cocaine_tx.rpc.relay import Relay
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.frames import Limits
from cocaine_tx.wire.idl import CHUNK, ERROR
from cocaine_tx.wire.protocols import APP, EVENTS, INVOKE, WORKER
from cocaine_tx.wire.session import NOBODY, Session, Strangers, dialing, serving
from tests.wire.test_properties import QUICK

ENQUEUE = APP.slots[0]


class Scene:
    """A client, a node that relays, and a worker; only the node's middle is under test."""

    def __init__(self, capacity: int = 1 << 40) -> None:
        clock = Clock()
        self.client, self.worker = Recorder(), Recorder()
        self.ended: list[Relay] = []
        self.front = ConnectionPair(dialing(), serving(APP, self), clock, capacity)
        self.back = ConnectionPair(
            serving(WORKER, NOBODY), Session(EVENTS, self.worker, Strangers.IGNORED), clock, capacity
        )
        self.asking = self.front.near.session.open(ENQUEUE, (b"ping",), self.client)
        self.pump()
        self.answering = self.worker.channels[1]
        self.answering.receiver = self.worker

    def received(self, channel, message, args, headers) -> None:
        far = self.back.near.session.open(INVOKE, args, NOBODY)
        self.relay = Relay(channel, far, self.ended.append, lambda error: Discarded())

    def lost(self, channel, reason) -> None:
        raise AssertionError("the relay has taken over")

    def pump(self) -> None:
        for _ in range(3):
            self.front.pump()
            self.back.pump()

    def heard(self, who: Recorder) -> list:
        return [(name, *args) for _, name, args in who.told if name != "invoke"]


class EndTests(SynchronousTestCase):
    """Every way for a request to end."""

    def setUp(self) -> None:
        self.scene = Scene()

    def outcome(self, client: list, worker: list, ended: int = 1) -> None:
        self.scene.pump()
        self.assertEqual(self.scene.heard(self.scene.client), client)
        self.assertEqual(self.scene.heard(self.scene.worker), worker)
        self.assertEqual(len(self.scene.ended), ended)

    def test_regular(self) -> None:
        """Chunks both ways, then both close."""
        scene = self.scene
        scene.asking.chunk(b"in")
        scene.asking.choke()
        self.outcome([], [("write", b"in"), ("close",)], ended=0)
        scene.answering.chunk(b"out")
        scene.answering.choke()
        self.outcome([("write", b"out"), ("close",)], [("write", b"in"), ("close",)])
        self.assertEqual([len(pair.far.session) for pair in (scene.front, scene.back)], [0, 0])

    def test_answer_first(self) -> None:
        """The worker may finish before the client does; what the client still says gets through."""
        self.scene.answering.choke()
        self.outcome([("close",)], [], ended=0)
        self.scene.asking.chunk(b"late")
        self.scene.asking.choke()
        self.outcome([("close",)], [("write", b"late"), ("close",)])

    def test_errors(self) -> None:
        """An error is an end of its own side only, and its numbers and words are passed on as they are."""
        self.scene.answering.send("error", (77, 5), b"\xffown words")
        self.scene.asking.fail(QueueFull("mine"))
        self.outcome([("error", (77, 5), b"\xffown words")], [("error", (0x52FF, 1), b"mine")])

    def test_error_without_reason(self) -> None:
        """An error may come without its reason, and with what nobody asked for."""
        self.scene.answering.forward(ERROR, ((1, 2, 3),))
        self.scene.asking.choke()
        self.outcome([("error", (1, 2))], [("close",)])

    def test_client_lost(self) -> None:
        """When the client goes its worker is told; what the worker still says is dropped."""
        self.scene.front.cut()
        self.scene.answering.chunk(b"late")
        self.scene.answering.choke()
        self.outcome([("lost", 5, 2)], [("error", (5, 2), b"End of file")])

    def test_worker_lost(self) -> None:
        """When the worker goes its client gets an error; what the client still says is dropped."""
        self.scene.answering.chunk(b"half")
        self.scene.pump()
        self.scene.back.cut()
        self.scene.asking.chunk(b"more")
        self.scene.asking.choke()
        self.outcome(
            [("write", b"half"), ("error", (2, 125), b"slave has been discarded")], [("lost", 5, 2)]
        )
        self.assertFalse(self.scene.front.far.gone)

    def test_worker_lost_after_its_answer(self) -> None:
        """A worker that had answered completely may go: the client has its answer and no error."""
        self.scene.answering.choke()
        self.scene.pump()
        self.scene.back.cut()
        self.outcome([("close",)], [("lost", 5, 2)])

    def test_stopped(self) -> None:
        """A request cut by its node: each peer gets its own error, once, whatever comes later."""
        scene = self.scene
        for _ in range(2):
            scene.relay.stop(InvocationTimeout("for the client"), InvocationTimeout("for the worker"))
        scene.answering.chunk(b"late")
        scene.asking.chunk(b"late")
        scene.pump()
        scene.back.cut()
        scene.front.cut()
        self.assertEqual(scene.heard(scene.client), [("error", (0x51FF, 3), b"for the client"), ("lost", 5, 2)])
        self.assertEqual(scene.heard(scene.worker)[0], ("error", (0x51FF, 3), b"for the worker"))
        self.assertEqual(len(scene.ended), 1)

    def test_malformed(self) -> None:
        """A malformed message of one peer costs that peer its connection, and the other only this request."""
        for args, kind in (
            ((), CHUNK), ((5,), CHUNK), ((None,), CHUNK), (((b"x",),), CHUNK), ((), ERROR), ((5, b"text"), ERROR),
            (((1,),), ERROR), (((1, b"2"), b"x"), ERROR), (((1, 2), 3), ERROR),
        ):  # fmt: skip
            for guilty in ("client", "worker"):
                self.scene = scene = Scene()
                channel = scene.asking if guilty == "client" else scene.answering
                channel.forward(kind, args)
                scene.pump()
                self.assertEqual(scene.front.far.gone, guilty == "client", (kind.name, args))
                self.assertEqual(scene.back.near.gone, guilty == "worker", (kind.name, args))
                innocent = scene.worker if guilty == "client" else scene.client
                self.assertEqual([told[:2] for told in scene.heard(innocent)], [("error", (7, 2))])
                self.assertEqual(len(scene.ended), 1)

    def test_more_than_a_chunk(self) -> None:
        """What stands behind a chunk's bytes is dropped, even what could not be sent on."""
        nested: tuple = ()
        for _ in range(505):
            nested = (nested,)
        self.scene.asking.forward(CHUNK, (b"x", nested))
        self.scene.asking.forward(self.scene.asking.sending.named("close"), (b"why", nested))
        self.outcome([], [("write", b"x"), ("close",)], ended=0)
        self.assertEqual(self.flushLoggedErrors(), [])


class PressureTests(SynchronousTestCase):
    """A slow peer slows down the other, and nothing piles up between them."""

    def test_slow_client(self) -> None:
        """A worker that answers faster than its client reads is not read from until the client has caught up."""
        scene = Scene(capacity=100_000)
        scene.front.near_end.paused = True
        sent = 0
        while not scene.back.near.held and sent < 100:
            scene.answering.chunk(b"x" * 65536)
            sent += 1
            scene.pump()
        self.assertTrue(scene.back.near.held)
        self.assertLess(sent * 65536, Limits().unsent + 500_000)
        for _ in range(10):
            scene.answering.chunk(b"x" * 65536)
        scene.answering.choke()
        scene.pump()
        scene.front.near_end.paused = False
        scene.pump()
        scene.pump()
        self.assertFalse(scene.back.near.held)
        chunks = scene.heard(scene.client)
        self.assertEqual((len(chunks), chunks[-1]), (sent + 11, ("close",)))


class StoryTests(SynchronousTestCase):
    """Whatever happens in whatever order, each side gets exactly one end."""

    @QUICK
    @given(
        acts=st.lists(
            st.sampled_from((
                "ask", "ask close", "ask error", "answer", "answer close", "answer error", "lose client",
                "lose worker", "stop", "odd ask", "odd answer", "pump", "pump", "front", "back",
            )),  # fmt: skip
            max_size=14,
        )
    )
    def test_one_end(self, acts: list[str]) -> None:
        """The client hears one end of its answer, the worker one end of its request, the keeper of one end."""
        scene = Scene()
        acting = {
            "ask": lambda: scene.asking.chunk(b"q"), "ask close": scene.asking.choke,
            "ask error": lambda: scene.asking.fail(QueueFull()), "answer": lambda: scene.answering.chunk(b"a"),
            "answer close": scene.answering.choke, "answer error": lambda: scene.answering.fail(QueueFull()),
            "lose client": scene.front.cut, "lose worker": scene.back.cut,
            "stop": lambda: scene.relay.stop(CocaineError(), CocaineError()),
            "odd ask": lambda: scene.asking.sending and scene.asking.forward(CHUNK, ()),
            "odd answer": lambda: scene.answering.sending and scene.answering.forward(CHUNK, ()),
            "pump": scene.pump, "front": scene.front.pump, "back": scene.back.pump,
        }  # fmt: skip
        for act in acts:
            acting[act]()
        scene.pump()
        if not any(act in acts for act in ("lose client", "lose worker", "stop")):
            # Whoever is still there says its last.
            scene.asking.choke()
            scene.answering.choke()
            scene.pump()
        self.assertEqual(len(scene.ended), 1)
        scene.front.cut()
        scene.back.cut()
        for who in (scene.client, scene.worker):
            names = [name for name, *_ in scene.heard(who)]
            ends = [place for place, name in enumerate(names) if name in ("close", "error", "lost")]
            self.assertTrue(ends, names)
            # After the first end there is only the loss of the connection under a side that was still talking.
            self.assertTrue(all(name == "lost" for name in names[ends[0] + 1 :]), names)
            self.assertLessEqual(names.count("lost"), 1)
        self.assertEqual([len(each.session) for pair in (scene.front, scene.back) for each in (pair.near, pair.far)],
                         [0] * 4)  # fmt: skip
        self.assertEqual(ConnectionGone().pair, (5, 2))
