"""One event, one end: whatever clients, workers, clocks and operators do, and in whatever order."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.interfaces import Exit
from cocaine_tx.wire.headers import timeout_header

from .stage import Call, Client, Stage, deaf, echo

STEPS = (
    "ask", "ask open", "ask briefly", "say", "close", "give up", "leave", "answer", "stream", "refuse", "crash",
    "resign", "hang up", "confuse", "beat", "tick", "wait", "up", "control", "restart", "pause", "settle",
)  # fmt: skip


class Play:
    """A node that is led through a list of steps, each with a number that says whom it concerns."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.stage.act = deaf
        profile = {
            "pool-limit": 2, "concurrency": 2, "queue-limit": 5, "request-timeout": 20, "heartbeat-timeout": 40,
            "half-closed-timeout": 5,
        }  # fmt: skip
        self.stage.start(profile=profile)
        self.operator = self.stage.client()
        self.clients: list[Client] = [self.stage.client(), self.stage.client(self.stage.published["hello"])]
        self.calls: list[tuple[Client, Call]] = []

    def step(self, name: str, number: int) -> None:
        getattr(self, name.replace(" ", "_"))(number)

    def ask(self, number: int) -> None:
        client = self.clients[number % len(self.clients)]
        self.calls.append((client, client.enqueue(b"x")))

    def ask_open(self, number: int) -> None:
        client = self.clients[number % len(self.clients)]
        self.calls.append((client, client.enqueue(b"x", close=False)))

    def ask_briefly(self, number: int) -> None:
        client = self.clients[number % len(self.clients)]
        self.calls.append((client, client.enqueue(b"x", headers=(timeout_header(1 + number),))))

    def _call(self, number: int) -> Call | None:
        return self.calls[number % len(self.calls)][1] if self.calls else None

    def say(self, number: int) -> None:
        call = self._call(number)
        if call is not None:
            call.channel.chunk(b"more")

    def close(self, number: int) -> None:
        call = self._call(number)
        if call is not None:
            call.channel.choke()

    def give_up(self, number: int) -> None:
        call = self._call(number)
        if call is not None:
            call.channel.send("error", (1, 2), "no more")

    def leave(self, number: int) -> None:
        place = number % len(self.clients)
        if self.clients[place].remote.protocol.name == "node":
            self.clients[place].connection.abort()
            self.clients[place] = self.stage.client()

    def _open(self, number: int) -> tuple[object, int] | None:
        alive = self.stage.alive
        if not alive:
            return None
        puppet = alive[number % len(alive)]
        numbers = sorted(puppet._seen - {1} - puppet._asked)
        return (puppet, numbers[number % len(numbers)]) if numbers else None

    def answer(self, number: int) -> None:
        found = self._open(number)
        if found is not None:
            found[0]._asked.add(found[1])  # type: ignore[attr-defined]
            found[0].say([found[1], 0, [b"a"]], [found[1], 2, []])  # type: ignore[attr-defined]

    def stream(self, number: int) -> None:
        found = self._open(number)
        if found is not None:
            found[0].say([found[1], 0, [b"s"]])  # type: ignore[attr-defined]

    def refuse(self, number: int) -> None:
        found = self._open(number)
        if found is not None:
            found[0]._asked.add(found[1])  # type: ignore[attr-defined]
            found[0].say([found[1], 1, [[42, 200], b"no handler"]])  # type: ignore[attr-defined]

    def crash(self, number: int) -> None:
        running = [process for process in self.stage.isolate.processes if process.running]
        if running:
            self.stage.end(running[number % len(running)], Exit(signal=9))

    def resign(self, number: int) -> None:
        for puppet in self.stage.alive[:1]:
            puppet.say([1, 1, [1, b"bye"]])

    def hang_up(self, number: int) -> None:
        for puppet in self.stage.alive[:1]:
            puppet.transport.loseConnection()

    def confuse(self, number: int) -> None:
        for puppet in self.stage.alive[:1]:
            puppet.say([2, 2, []], [2, 2, []], [77, 0, [b"?"]])

    def beat(self, number: int) -> None:
        for puppet in self.stage.alive:
            puppet.say([1, 0, []])

    def tick(self, number: int) -> None:
        self.stage.network.advance(0.01)

    def wait(self, number: int) -> None:
        self.stage.wait(number)

    def up(self, number: int) -> None:
        self.stage.act = deaf

    def control(self, number: int) -> None:
        channel = self.operator.remote.open("control", "hello")
        channel.chunk(number)

    def restart(self, number: int) -> None:
        self.operator.remote.call("restart_app", "hello").addErrback(lambda _: None)

    def pause(self, number: int) -> None:
        if number == 3:
            self.operator.remote.call("pause_app", "hello").addErrback(lambda _: None)

    def settle(self, number: int) -> None:
        self.stage.settle()

    def finish(self) -> None:
        """Everything comes to its end."""
        self.stage.settle()
        for _, call in self.calls:
            call.channel.choke()
        self.stage.wait(25)
        self.operator.remote.call("pause_app", "hello").addErrback(lambda _: None)
        self.stage.wait(10)


class EndsTests(SynchronousTestCase):
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 7)), max_size=40))
    def test_exactly_one_end(self, steps: list[tuple[str, int]]) -> None:
        """Lessons 18 and 19: in any order of events every request has one end, and nothing is left of anything."""
        play = Play()
        for name, number in steps:
            play.step(name, number)
        tally, pool = play.stage.service.apps, play.stage.service.apps.get("hello")
        play.finish()
        for client, call in play.calls:
            self.assertEqual(len(call.ends), 1, f"{call.ends} {client.remote.protocol.name}")
        self.assertEqual((play.stage.leftovers(), tally), ([], {}))
        self.assertEqual([len(client.server.session) for client in play.clients], [0, 0])
        left = [call for call in play.stage.network.getDelayedCalls() if "Connection" not in str(call)]
        self.assertEqual(left, [])
        if pool is not None and pool.pool is not None:
            self.assertEqual((len(pool.pool._deadlines), pool.pool._room.used, pool.pool.load), (0, 0, 0))
            self.assertEqual(len(pool.pool._seats), 0)

    def test_pass_through(self) -> None:
        """An error of the worker's own reaches the client as it was said."""
        stage = Stage()
        stage.act = lambda puppet, frame: (
            puppet.say([frame[0], 1, [[42, 200], b"there is no handler for event b'nosuch'"]])
            if puppet.opened(frame)
            else echo(puppet, frame)
            if frame[0] == 1
            else None
        )
        stage.start()
        call = stage.client().enqueue(close=False)
        stage.settle()
        self.assertEqual(call.ends, [(42, 200, "there is no handler for event b'nosuch'")])

    def test_slow_client(self) -> None:
        """A client that does not read holds its worker's stream back, and the worker hears from us all the same."""
        stage = Stage()
        stage.act = deaf
        stage.start(profile={"pool-limit": 1, "heartbeat-timeout": 6})
        client = stage.client()
        call = client.enqueue()
        stage.settle()
        (puppet,) = stage.alive
        client.connection.transport.pauseProducing()
        for _ in range(60):
            puppet.say([2, 0, [b"x" * 65536]])
        stage.settle()
        puppet.say([2, 0, [b"one too many"]])
        stage.settle()
        worker = next(iter(stage.pool().workers.values()))
        assert worker.connection is not None
        self.assertTrue(worker.connection.held)
        beats = puppet.beats
        stage.wait(12)
        self.assertGreaterEqual(puppet.beats - beats, 5)
        self.assertEqual(worker.state, "active")
        client.connection.transport.resumeProducing()
        puppet.say([2, 2, []])
        stage.settle()
        self.assertEqual((len(call.chunks), call.ends), (61, ["close"]))
