"""Whatever happens in whatever order, each request has one end, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import ConnectionGone, QueueFull
from cocaine_tx.interfaces import Exit
from cocaine_tx.wire.headers import Header, timeout_header, window_header
from cocaine_tx.wire.session import Channel
from tests.node.stage import Call, Client, Puppet, Stage

#: Told for each history, which is then the same again.
SEEDS = range(60)
ACTS = 120


class Request(Call):
    """A request that does not take credits for ends."""

    def received(self, channel: Channel, message: Any, args: Any, headers: Any) -> None:
        if message.name != "credit":
            super().received(channel, message, args, headers)


class History:
    """A node whose clients, workers and operators do anything at any time."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.stage = Stage()
        self.stage.act = self.worker_hears
        self.taken: dict[Puppet, list[int]] = {}
        self.profile = {
            "pool-limit": random.choice([1, 2, 4]), "concurrency": random.choice([1, 2, 5]), "grow-threshold": 1,
            "queue-limit": random.choice([0, 1, 5, 100]), "queue-policy": random.choice(["fifo", "adaptive"]),
            "heartbeat-timeout": random.choice([3, 30]), "idle-timeout": random.choice([0, 1, 5]),
            "half-closed-timeout": random.choice([0, 2]), "request-timeout": random.choice([5, 60]),
            "seal-timeout": 3, "pool-min": random.choice([0, 1]),
            "event-buffer-limit": random.choice([500, 1_000_000]),
        }  # fmt: skip
        self.stage.start(profile=self.profile)
        self.clients: list[Client] = [self.stage.client()]
        self.requests: list[tuple[Request, Client]] = []
        self.gone: set[Client] = set()

    def worker_hears(self, puppet: Puppet, frame: list[Any]) -> None:
        number, kind, args = frame
        if number == 1:
            if kind == 1 and self.random.random() < 0.7:
                puppet.say([1, 1, args])
                if self.random.random() < 0.8:
                    puppet.exit()
        elif puppet.opened(frame):
            self.taken.setdefault(puppet, []).append(number)
        elif self.random.random() < 0.3:
            puppet.say([number, kind, args])
        elif kind == 2 and self.random.random() < 0.8:
            puppet.say([number, 0, [b"x"]], [number, 2, []])

    # -- what may happen

    def asks(self) -> None:
        random = self.random
        headers: list[Header] = []
        if random.random() < 0.3:
            headers.append(timeout_header(random.choice([0.01, 0.5, 2, 1000])))
        if random.random() < 0.2:
            headers.append(window_header(random.choice([1, 1000])))
        client = random.choice(self.clients)
        request = Request()
        try:
            channel = client.remote.open(
                "enqueue", b"hello", b"event", receiver=request, headers=tuple(headers)
            )
        except ConnectionGone:
            return
        request.channel = channel
        self.requests.append((request, client))
        for _ in range(random.randrange(3)):
            channel.chunk(b"d" * random.choice([0, 10, 300]))
        if random.random() < 0.6:
            channel.choke()

    def client_says(self) -> None:
        if self.requests:
            channel = self.random.choice(self.requests)[0].channel
            self.random.choice([
                lambda: channel.chunk(b"z" * 200), channel.choke, lambda: channel.fail(QueueFull()),
                lambda: channel.cancel(QueueFull()),
            ])()  # fmt: skip

    def client_goes_or_comes(self) -> None:
        if self.random.random() < 0.6:
            client = self.random.choice(self.clients)
            client.leave()
            self.gone.add(client)
            self.clients.remove(client)
        self.clients.append(self.stage.client())

    def worker_says(self) -> None:
        puppets = [puppet for puppet in self.stage.alive if puppet in self.taken]
        if puppets:
            puppet = self.random.choice(puppets)
            number = self.random.choice(self.taken[puppet])
            puppet.say(self.random.choice([
                [number, 0, [b"part"]], [number, 2, []], [number, 2, []], [number, 1, [[42, 1], b"no"]],
                [number, 1, [[42], b"no"]], [number, 0, [5]], [number, 65531, [5]], [number, 65530, [b"a", b"b"]],
                [number + 1000, 65535, [number, [1, 2]]],
            ]))  # fmt: skip

    def worker_fails(self) -> None:
        if self.stage.alive:
            puppet = self.random.choice(self.stage.alive)
            self.random.choice([
                lambda: puppet.exit(Exit(code=1)), puppet.transport.loseConnection,
                lambda: puppet.say([1, 1, [0, b"bye"]]), lambda: puppet.transport.write(b"\xc1"),
                lambda: puppet.say([2, 0, [puppet.uuid]]), lambda: puppet.transport.write(b"\x93"),
            ])()  # fmt: skip

    def process_dies(self) -> None:
        puppets = [puppet for puppet in self.stage.alive if not puppet.process.ended]
        if puppets:
            self.random.choice(puppets).process.end(Exit(signal=9))

    def workers_beat(self) -> None:
        for puppet in self.stage.alive:
            puppet.say([1, 0, []])

    def operator_acts(self) -> None:
        profile = {**self.profile, "concurrency": self.random.choice([1, 3])}
        self.stage.upload(profile=profile)
        call = self.random.choice([
            ("restart_app", "hello"), ("pause_app", "hello"), ("start_app", "hello", "hello"), ("control", 0),
            ("control", 1), ("control", 3),
        ])  # fmt: skip
        app = self.stage.service.apps.get("hello")
        if call[0] != "control":
            self.random.choice(self.clients).remote.call(*call).addErrback(lambda _: None)
        elif app is not None:
            app.control(int(call[1]))

    def time_passes(self) -> None:
        self.stage.wait(self.random.choice([0.05, 0.3, 1, 4]))

    def go_on(self) -> None:
        """Something happens."""
        acts: list[tuple[Callable[[], None], int]] = [
            (self.asks, 30), (self.client_says, 15), (self.client_goes_or_comes, 5), (self.worker_says, 20),
            (self.worker_fails, 4), (self.process_dies, 1), (self.workers_beat, 3), (self.operator_acts, 8),
            (self.stage.settle, 5), (self.time_passes, 7),
        ]  # fmt: skip
        self.random.choices([act for act, _ in acts], [often for _, often in acts])[0]()
        if self.random.random() < 0.4:
            self.stage.network.advance(0)

    def books(self) -> list[tuple[str, int, int]]:
        """What a pool has counted and what there is, where they differ."""
        wrong = []
        app = self.stage.service.apps.get("hello")
        for pool in app._pools() if app is not None else ():
            running = sum(worker.load for worker in pool.workers.values())
            kept = sum(invocation._waiting._kept for invocation in pool.queue if invocation._waiting is not None)
            counted = [
                ("deadlines", len(pool._deadlines), running + len(pool.queue)),
                ("room", pool._room.used, kept),
                *(("seats", pool._seats.load(worker), worker.load) for worker in pool.active),
            ]
            wrong += [count for count in counted if count[1] != count[2]]
        return wrong


class HistoryTests(SynchronousTestCase):
    def test_any_history(self) -> None:
        """Whoever stays to the end hears exactly one; books agree, and no process, socket, folder or timer stays."""
        for seed in SEEDS:
            history = History(seed)
            stage = history.stage
            for _ in range(ACTS):
                history.go_on()
            stage.settle()
            self.assertEqual(history.books(), [], seed)
            drained = Deferred.fromCoroutine(stage.service.drain())
            stage.wait(60)
            self.successResultOf(drained)
            for request, client in history.requests:
                self.assertLessEqual(len(request.ends), 1, seed)
                if client not in history.gone:
                    self.assertEqual(len(request.ends), 1, seed)
            self.assertEqual(stage.leftovers(), [], seed)
            for client in history.clients:
                client.leave()
            stage.wait(1)
            self.assertEqual([*stage.network.getDelayedCalls(), *Clock.getDelayedCalls(stage.machine)], [], seed)
