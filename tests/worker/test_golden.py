"""Frames recorded between the original C++ runtime and the original Python worker, with ours in the worker's place."""

from pathlib import Path
from types import SimpleNamespace

import msgpack
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import CocaineError
from cocaine_tx.testing.worker import WorkerStage
from cocaine_tx.worker import Worker, WorkerConfig

VECTORS = Path(__file__).parents[1] / "wire" / "vectors"


def frames(blob):
    unpacker = msgpack.Unpacker(raw=True)
    unpacker.feed(blob)
    return list(unpacker)


def recorded(name):
    """``(who, bytes)`` in the order in which they were said."""
    for line in (VECTORS / name).read_text().splitlines():
        words = line.split()
        if len(words) == 5 and words[2] in ("C>S", "S>C"):
            yield words[2], bytes.fromhex(words[4])


class GoldenTests(SynchronousTestCase):
    def play(self, name, uuid):
        """What our worker says to what the runtime said, and what the original worker said; by channel."""
        worker = Worker()

        @worker.on("ping")
        async def ping(request, response):
            response.write(await request.read())

        stage = WorkerStage(worker, WorkerConfig(endpoint="/nowhere", uuid=uuid))
        self.addCleanup(stage.cut_off)
        said = []
        stage.node.session = SimpleNamespace(receive=lambda data: said.extend(frames(data)) or [], take=lambda: b"")
        original = frames(b"".join(data for who, data in recorded(name) if who == "C>S"))
        for who, data in recorded(name):
            if who == "S>C":
                stage.shift.link.dataReceived(data)
                stage.settle()
        self.flushLoggedErrors(CocaineError)
        return self.by_channel(said), self.by_channel(original)

    def by_channel(self, said):
        channels = {}
        for number, kind, args, *_ in said:
            channels.setdefault(number, []).append((kind, args))
        return channels

    def test_answers(self):
        """Echoes, traced ones and those with headers among them, are what the original worker answered."""
        for name in ("worker-bf4536f2.hex", "worker-a41715d0.hex"):
            ours, original = self.play(name, "U")
            echoes = [number for number, said in original.items() if number > 1 and said[-1][0] == 2]
            self.assertGreater(len(echoes), 1)
            for number in echoes:
                self.assertEqual(ours[number], original[number], (name, number))

    def test_unknown_event(self):
        """An unknown event has the original's numbers, and the event's name without the decoration."""
        ours, original = self.play("worker-bf4536f2.hex", "U")
        self.assertEqual(original[4], [(1, [[42, 200], b"there is no handler for event b'nosuch'"])])
        self.assertEqual(ours[4], [(1, [[42, 200], b"there is no handler for event nosuch"])])

    def test_broken_off(self):
        """A request that its client broke off, or left, is ended as well; with the client's own numbers."""
        ours, original = self.play("worker-7a19bdde.hex", "U")
        self.assertEqual([original[number][0][0] for number in (3, 4)], [1, 1])
        self.assertEqual(ours[3], [(1, [[42, 5], b"client cancelled"])])
        self.assertEqual(ours[4], [(1, [[5, 2], b"End of file"])])

    def test_terminate(self):
        """The runtime's words at the end are said back."""
        for name in ("worker-7a19bdde.hex", "worker-a41715d0.hex"):
            ours, original = self.play(name, "U")
            self.assertEqual(ours[1][-1], original[1][-1])

    def test_first_words(self):
        """The first bytes are a handshake and a heartbeat."""
        worker = Worker()
        stage = WorkerStage(worker, WorkerConfig(endpoint="/nowhere", uuid="bf4536f2-d185-4ed6-85a9-ad6fa858c33e"))
        self.addCleanup(stage.cut_off)
        first = next(data for who, data in recorded("worker-bf4536f2.hex") if who == "C>S")
        uuid = frames(first)[0][2][0]
        self.assertEqual((stage.node.uuid, stage.node.heartbeats), (uuid, 1))
