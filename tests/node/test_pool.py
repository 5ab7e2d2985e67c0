"""The queue and the workers behind it, as clients and operators see them. Time is a fake clock; bytes are real."""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.interfaces import Exit
from cocaine_tx.wire.headers import timeout_header

from .stage import Call, Puppet, Stage, deaf, echo, idle

QUEUE_FULL, EXPIRED, TIMED_OUT = (0x52FF, 1), (0x51FF, 1), (0x51FF, 3)


class PoolCase(SynchronousTestCase):
    """A node with one app, and a client of the node service."""

    def play(self, act: Any = echo, **profile: Any) -> Stage:
        self.stage = stage = Stage()
        stage.act = act
        stage.start(profile={key.replace("_", "-"): value for key, value in profile.items()})
        self.client = stage.client()
        return stage

    def calls(self, count: int, **how: Any) -> list[Call]:
        """So many requests at once, delivered."""
        made = [self.client.enqueue(b"x", **how) for _ in range(count)]
        self.stage.settle()
        return made

    def finish(self, puppet: Puppet) -> None:
        """The worker answers what it was given."""
        for number in puppet.unanswered():
            puppet.say([number, 2, []])
        self.stage.settle()

    def requests(self) -> tuple[int, int, int]:
        """Accepted, rejected, worked for nobody."""
        shown = self.client.call("info", "hello", 1)[b"requests"]
        return shown[b"accepted"], shown[b"rejected"], shown[b"worked-for-nobody"]


class QueueTests(PoolCase):
    def test_first_request(self) -> None:
        """A started app has no worker until somebody asks for something; then it answers."""
        stage = self.play()
        self.assertEqual(len(stage.isolate.processes), 0)
        (call,) = self.calls(1)
        self.assertEqual((call.chunks, call.ends, len(stage.isolate.processes)), ([b"x"], ["close"], 1))

    def test_thousand_first_requests(self) -> None:
        """A thousand requests onto no worker at all: none is refused, each is answered once."""
        stage = self.play(queue_limit=1000, pool_limit=4, concurrency=10, grow_threshold=100)
        calls = self.calls(1000)
        self.assertEqual({(tuple(call.chunks), tuple(call.ends)) for call in calls}, {((b"x",), ("close",))})
        self.assertEqual((len(stage.isolate.processes), self.requests()), (4, (1000, 0, 0)))

    def test_full(self) -> None:
        """Lesson 2 and 7: one more than queue-limit is told so at once, and counted in requests and in the rate."""
        stage = self.play(act=None, queue_limit=3, pool_limit=1)
        calls = self.calls(5)
        self.assertEqual([call.error for call in calls], [None, None, None, QUEUE_FULL, QUEUE_FULL])
        self.assertEqual(calls[3].ends[0][2], "queue is full")
        self.assertEqual(self.requests(), (3, 2, 0))
        self.assertEqual(stage.pool().tally.rate.count, 5)

    def test_rejection_assigns(self) -> None:
        """Lesson 3: a full queue beside a worker with room drains."""
        stage = self.play(act=idle, queue_limit=2, pool_limit=1, concurrency=1)
        (first,) = self.calls(1)
        self.calls(2)
        self.assertEqual([len(stage.pool().queue), stage.alive[0].invoked], [2, 1])
        stage.alive[0].say([2, 2, []])
        refused = self.client.enqueue()
        stage.settle()
        self.assertEqual(first.ends, ["close"])
        self.assertEqual(stage.alive[0].invoked, 2)
        self.assertIn(refused.error, (None, QUEUE_FULL))

    def test_no_queue(self) -> None:
        """Lesson 8: without a queue the pool's whole capacity is taken while it starts, and not one request more."""
        stage = self.play(act=None, queue_limit=0, pool_limit=2, concurrency=3)
        calls = self.calls(8)
        self.assertEqual([call.error for call in calls], [None] * 6 + [QUEUE_FULL] * 2)
        self.assertEqual(len(stage.isolate.processes), 2)
        stage.act = idle
        for process in stage.isolate.processes:
            stage.bring_up(process)
        stage.settle()
        self.assertEqual([puppet.invoked for puppet in stage.alive], [3, 3])
        self.assertEqual(self.calls(1)[0].error, QUEUE_FULL)

    def test_order_of_chunks(self) -> None:
        """Lesson 5: what the client said before a worker came is said before what it said after."""
        stage = self.play(act=None)
        call = self.client.enqueue(b"1", b"2", close=False)
        stage.settle()
        (process,) = stage.isolate.processes
        puppet = stage.bring_up(process)
        call.channel.chunk(b"3")
        call.channel.choke()
        stage.settle()
        self.assertEqual(
            puppet.heard, [[2, 0, [b"ping"]], [2, 0, [b"1"]], [2, 0, [b"2"]], [2, 0, [b"3"]], [2, 2, []]]
        )

    def test_buffer_of_one(self) -> None:
        """A client that sends more than event-buffer-limit while it waits ends its own request only."""
        self.play(act=None, event_buffer_limit=1000)
        other, greedy = self.client.enqueue(b"small"), self.client.enqueue(b"x" * 900, close=False)
        self.stage.settle()
        greedy.channel.chunk(b"y" * 100)
        self.stage.settle()
        self.assertEqual((other.error, greedy.error), (None, (0x52FF, 2)))
        self.assertEqual(len(self.stage.pool().queue), 1)

    def test_buffer_of_all(self) -> None:
        """All waiting events together keep no more than queue-buffer-limit, and what has left takes no room."""
        stage = self.play(act=None, queue_buffer_limit=1000)
        calls = [self.client.enqueue(b"x" * 300) for _ in range(4)]
        stage.settle()
        self.assertEqual([call.error for call in calls], [None, None, (0x52FF, 2), (0x52FF, 2)])
        stage.act = echo
        stage.bring_up(stage.isolate.processes[0])
        stage.settle()
        self.assertEqual(stage.pool()._room.used, 0)
        self.assertEqual([call.ends for call in calls[:2]], [["close"], ["close"]])

    def test_client_leaves_the_queue(self) -> None:
        """Lessons 1 and 9: an event whose client has gone, or has given it up, leaves the queue and meets no worker."""
        stage = self.play(act=None)
        gone, given_up, stays = stage.client(), self.client.enqueue(b"b", close=False), self.client.enqueue(b"c")
        gone.enqueue(b"a")
        stage.settle()
        self.assertEqual(len(stage.pool().queue), 3)
        gone.leave()
        given_up.channel.send("error", (1, 2), "never mind")
        stage.settle()
        self.assertEqual(len(stage.pool().queue), 1)
        puppet = stage.bring_up(stage.isolate.processes[0])
        puppet.act = echo
        stage.settle()
        self.assertEqual((puppet.invoked, stays.ends, given_up.ends), (1, ["close"], ["close"]))
        self.assertEqual(stage.pool()._room.used, 0)

    def test_malformed_chunk(self) -> None:
        """A malformed chunk costs its sender the connection, waiting or not, and others nothing."""
        for act in (None, idle):
            stage = self.play(act=act)
            other = stage.client()
            fine = other.enqueue(b"x", close=False)
            bad = self.client.enqueue(close=False)
            stage.settle()
            bad.channel.send("write", 5)
            stage.settle()
            self.assertTrue(self.client.server.gone)
            self.assertEqual(fine.ends, [])
            self.assertFalse(other.server.gone)

    def test_trailing_arguments(self) -> None:
        """What stands behind a chunk's bytes is dropped on the way to the worker."""
        stage = self.play(act=idle)
        call = self.client.enqueue(close=False)
        stage.settle()
        call.channel.send("write", b"x", {1: 2}, None)
        stage.settle()
        self.assertEqual(stage.alive[0].heard[-1], [2, 0, [b"x"]])


class DeadlineTests(PoolCase):
    def test_in_the_queue(self) -> None:
        """An event whose time is over leaves the queue at once and is told so, though no worker is free."""
        stage = self.play(act=None, spawn_timeout=1000)
        short = self.client.enqueue(headers=(timeout_header(2),))
        stage.settle()
        stage.wait(1.9)
        self.assertEqual(short.ends, [])
        stage.wait(0.3)
        self.assertEqual(short.ends, [(*EXPIRED, "the event has expired in the queue")])
        self.assertEqual(len(stage.pool().queue), 0)
        self.assertEqual(stage.bring_up(stage.isolate.processes[0]).invoked, 0)

    def test_at_a_worker(self) -> None:
        """A request that takes too long ends on both sides, frees its place, and was work for nobody."""
        stage = self.play(act=idle, request_timeout=3, pool_limit=1, concurrency=1)
        call = self.client.enqueue(close=False)
        waiting = self.client.enqueue()
        stage.wait(3.3)
        self.assertEqual(call.ends, [(*TIMED_OUT, "slave has been discarded")])
        (puppet,) = stage.alive
        self.assertIn([2, 1, [[0x51FF, 3], b"invocation has timed out"]], puppet.heard)
        self.assertEqual(waiting.ends, [(*EXPIRED, "the event has expired in the queue")])
        self.assertEqual((stage.pool().load, self.requests()), (0, (2, 0, 1)))

    def test_no_time(self) -> None:
        """A request with no time at all is refused and never reaches a worker."""
        stage = self.play()
        call = self.client.enqueue(headers=((b"request_timeout", bytes(8)),))
        stage.settle()
        self.assertEqual((call.error, len(stage.isolate.processes)), (EXPIRED, 0))

    def test_malformed_header(self) -> None:
        """Lesson 6: a request_timeout of the wrong length is refused, and the queue goes on."""
        self.play()
        bad = self.client.enqueue(headers=((b"request_timeout", b"\1\2"),))
        good = self.client.enqueue()
        self.stage.settle()
        self.assertEqual((bad.error, good.ends), ((12, 22), ["close"]))

    def test_endless(self) -> None:
        """The longest time that the header can say is only a long time."""
        self.play()
        call = self.client.enqueue(headers=((b"request_timeout", b"\xff" * 8),))
        self.stage.settle()
        self.assertEqual(call.ends, ["close"])

    def test_remaining_time_travels(self) -> None:
        """The worker hears how much time is left after the queue, and other headers as they were sent."""
        stage = self.play(act=None)
        self.client.enqueue(headers=(timeout_header(10), (b"x-custom", b"\0\1")))
        stage.settle()
        stage.wait(1.5)
        puppet = stage.bring_up(stage.isolate.processes[0])
        self.client.enqueue(headers=(timeout_header(10),))
        stage.settle()
        left = int.from_bytes(puppet.headers[0][b"request_timeout"], "little")
        self.assertTrue(8000 < left <= 8500, left)
        self.assertEqual(puppet.headers[0][b"x-custom"], b"\0\1")
        later = [headers for frame, headers in zip(puppet.heard, puppet.headers, strict=True) if frame[0] == 3]
        self.assertEqual(later[0][b"request_timeout"], timeout_header(10)[1])

    def test_half_closed(self) -> None:
        """Lesson 10: a client that never ends an answered request holds its place for half-closed-timeout only."""
        stage = self.play(act=idle, half_closed_timeout=2, pool_limit=1, concurrency=1)
        call = self.client.enqueue(close=False)
        stage.settle()
        stage.alive[0].say([2, 0, [b"answer"]], [2, 2, []])
        stage.settle()
        stage.wait(1.9)
        self.assertEqual((call.ends, stage.pool().load), (["close"], 1))
        stage.wait(0.3)
        self.assertEqual((call.ends, stage.pool().load, self.requests()), (["close"], 0, (1, 0, 0)))
        self.assertEqual(stage.alive[0].heard[-1], [2, 1, [[0x51FF, 3], b"invocation has timed out"]])

    def test_normal_half_close(self) -> None:
        """A client that has sent all it has to say may wait longer than half-closed-timeout for the answer."""
        stage = self.play(act=idle, half_closed_timeout=1)
        (call,) = self.calls(1)
        stage.wait(10)
        self.assertEqual(call.ends, [])
        self.finish(stage.alive[0])
        self.assertEqual(call.ends, ["close"])

    def test_timers(self) -> None:
        """Lesson 10: answered requests leave no timers behind."""
        stage = self.play(pool_limit=1, queue_limit=1000)
        before = len(self.calls(1)) and len(stage.network.getDelayedCalls())
        self.calls(500)
        self.assertLessEqual(len(stage.network.getDelayedCalls()), before)
        self.assertEqual(len(stage.pool()._deadlines), 0)


class OverloadTests(PoolCase):
    def goodput(self, policy: str) -> float:
        """The share of answers in time, from 2 s after a stall of 60 s on, at twice the capacity all along."""
        patience, capacity = 1.0, 30
        stage = self.play(
            act=deaf, queue_policy=policy, queue_limit=600, pool_limit=1, concurrency=capacity // 10,
            grow_threshold=600, heartbeat_timeout=1000,
        )  # fmt: skip
        working: list[tuple[Puppet, int]] = []
        stage.act = lambda puppet, frame: working.append((puppet, frame[0])) if puppet.opened(frame) else None
        asked: list[tuple[float, Call]] = []
        answered: dict[int, float] = {}
        tick = 0.1
        for _ in range(int(70 / tick)):
            now = stage.network.seconds()
            stalled = now < 60
            if not stalled:
                # A worker takes 100 ms for each request: with 3 at once that is its capacity.
                for puppet, number in working:
                    puppet.say([number, 2, []])
                working.clear()
            asked += [(now, self.client.enqueue()) for _ in range(int(2 * capacity * tick))]
            stage.wait(tick, tick)
            now = stage.network.seconds()
            for index in range(max(0, len(asked) - 4000), len(asked)):
                if index not in answered and asked[index][1].ends == ["close"]:
                    answered[index] = now
        good = sum(1 for index, when in answered.items() if when > 62 and when - asked[index][0] <= patience)
        return good / (capacity * (stage.network.seconds() - 62))

    def test_recovery(self) -> None:
        """Two seconds after a stall of a minute, at twice the capacity, 95% of it is answers somebody waits for."""
        self.assertGreater(self.goodput("adaptive"), 0.95)

    def test_fifo(self) -> None:
        """The same with fifo, which serves those who have left: why the other policy is there."""
        self.assertLess(self.goodput("fifo"), 0.05)


class BalanceTests(PoolCase):
    def test_least_laden(self) -> None:
        """Requests go to the worker with the fewest, and never above concurrency."""
        stage = self.play(act=idle, pool_limit=2, concurrency=2, grow_threshold=1)
        self.calls(6)
        self.assertEqual(sorted(puppet.invoked for puppet in stage.alive), [2, 2])
        self.assertEqual(len(stage.pool().queue), 2)
        self.finish(stage.alive[0])
        self.assertEqual([puppet.invoked for puppet in stage.alive], [4, 2])

    def test_grows(self) -> None:
        """The pool grows with the queue to pool-limit and stays there."""
        stage = self.play(act=idle, pool_limit=3, concurrency=1, grow_threshold=2)
        for waiting, workers in ((1, 1), (3, 1), (5, 2), (20, 3)):
            self.calls(waiting - stage.pool().tally.accepted)
            self.assertEqual(len(stage.isolate.processes), workers, waiting)

    def test_pool_min(self) -> None:
        """pool-min workers are there before the first request, and again after crashes."""
        stage = self.play(pool_min=2)
        self.assertEqual(len(stage.alive), 2)
        for process in stage.isolate.processes:
            stage.end(process, Exit(signal=9))
        stage.wait(1.5)
        self.assertEqual(len(stage.alive), 2)

    def test_idle(self) -> None:
        """Idle workers leave after idle-timeout, told why, without counting as crashes; the pool falls to zero."""
        stage = self.play(idle_timeout=5)
        self.calls(1)
        (puppet,) = stage.alive
        stage.wait(4.5)
        self.assertEqual(len(stage.alive), 1)
        stage.wait(1)
        self.assertEqual((len(stage.alive), len(stage.pool().workers)), (0, 0))
        self.assertEqual(puppet.heard[-1], [1, 1, [13, b"slave is idle"]])
        stage.wait(20)
        self.assertEqual((len(stage.isolate.processes), stage.pool().tally.crashed), (1, 0))
        self.assertEqual(self.calls(1)[0].ends, ["close"])

    def test_idle_keeps_the_least(self) -> None:
        """However many are idle at once, pool-min of them stay, and nobody looks at them all the time."""
        stage = self.play(idle_timeout=5, pool_min=2, pool_limit=6, concurrency=1, grow_threshold=1, act=idle)
        calls = self.calls(12)
        self.assertEqual(len(stage.alive), 6)
        while any(not call.ends for call in calls):
            for puppet in stage.alive:
                self.finish(puppet)
        stage.wait(6)
        self.assertEqual((len(stage.alive), len(stage.isolate.processes)), (2, 6))
        self.assertIsNone(stage.pool()._leisure._timer)
        stage.wait(20)
        self.assertEqual(len(stage.alive), 2)

    def test_busy_are_not_idle(self) -> None:
        """A worker with a request stays, however long that takes."""
        stage = self.play(act=idle, idle_timeout=2)
        (call,) = self.calls(1)
        stage.wait(20)
        self.assertEqual((len(stage.alive), call.ends), (1, []))

    def test_control(self) -> None:
        """Manual control starts and seals workers, holds while the controller stays, and ends with it."""
        stage = self.play(act=idle, pool_limit=5)
        controller = stage.client()
        channel = controller.remote.open("control", "hello")
        for number, workers in ((3, 3), (99, 5), (2, 2)):
            channel.chunk(number)
            stage.wait(0.5)
            self.assertEqual(len(stage.alive), workers, number)
        controller.leave()
        self.assertEqual(stage.pool()._manual, 0)
        self.assertEqual(len(stage.alive), 2)

    def test_control_ends_politely(self) -> None:
        """A controller that says it is done is answered, and its connection serves on."""
        stage = self.play()
        answers: list[Any] = []
        call = Call()
        channel = self.client.remote.open("control", "hello", receiver=call)
        channel.chunk(1)
        channel.choke()
        stage.settle()
        self.assertEqual((call.ends, len(call.chunks), answers), ([], 1, []))
        self.assertEqual(self.calls(1)[0].ends, ["close"])
        self.assertEqual(len(self.client.server.session), 0)

    def test_sealed_finish(self) -> None:
        """A sealed worker ends what it has and gets nothing new."""
        stage = self.play(act=idle, pool_limit=2, concurrency=1, grow_threshold=1)
        first, second = self.calls(2)[:2]
        self.client.enqueue()
        stage.settle()
        one, two = stage.alive
        channel = self.client.remote.open("control", "hello")
        channel.chunk(1)
        stage.settle()
        sealed = [worker for worker in stage.pool().workers.values() if worker.state == "sealing"]
        self.assertEqual(len(sealed), 1)
        before = [puppet.invoked for puppet in (one, two)]
        self.finish(one)
        self.finish(two)
        stage.wait(1)
        self.assertEqual((first.ends, second.ends), (["close"], ["close"]))
        self.assertEqual(sum(puppet.invoked for puppet in (one, two)) - sum(before), 1)
        self.assertEqual(len(stage.alive), 1)


class CrashTests(PoolCase):
    def test_error_of_a_crash(self) -> None:
        """Lessons 4 and 18: clients of a dead worker are told once, in the known words; the next are served."""
        stage = self.play(act=idle)
        calls = self.calls(3)
        stage.act = echo
        stage.end(stage.isolate.processes[0], Exit(signal=11))
        self.assertEqual([call.ends for call in calls], [[(5, 2, "slave has been discarded")]] * 3)
        late = self.client.enqueue(b"x")
        stage.settle()
        self.assertEqual(late.ends, [])
        stage.wait(1.2)
        self.assertEqual(late.ends, ["close"])

    def test_back_off(self) -> None:
        """Lesson 13: programs that cannot start are tried 1, 2, 4 ... 32 s apart; a stable life forgives all."""
        stage = self.play(act=None, queue_limit=10)
        self.calls(1)
        starts: list[float] = []
        while len(starts) < 9:
            for process in stage.isolate.processes[len(starts) :]:
                starts.append(stage.network.seconds())
                process.refuse("no such program")
            stage.wait(0.25)
        gaps = [round(after - before) for before, after in zip(starts, starts[1:], strict=False)]
        self.assertEqual(gaps, [1, 2, 4, 8, 16, 32, 32, 32])
        stage.act = echo
        stage.wait(33)
        self.assertEqual(len(stage.alive), 1)
        for _ in range(4):
            stage.wait(10)
            stage.alive[0].say([1, 0, []])
        died = stage.network.seconds()
        stage.end(stage.alive[0].process, Exit(signal=9))
        stage.wait(1.25)
        self.assertEqual(len(stage.alive), 1)
        self.assertLess(stage.network.seconds() - died, 2)

    def test_queue_survives(self) -> None:
        """No handshake, or no program: requests wait through the attempts and are answered in the end."""
        stage = self.play(act=None, spawn_timeout=1, handshake_timeout=1)
        call = self.calls(1)[0]
        stage.wait(1.2)
        self.assertEqual(stage.isolate.processes[0].kills, 1)
        stage.wait(1)
        stage.isolate.processes[1].start()
        stage.wait(1.5)
        self.assertEqual(stage.isolate.processes[1].kills, 1)
        stage.act = echo
        stage.wait(5)
        self.assertEqual(call.ends, ["close"])

    def test_late_start(self) -> None:
        """Lesson 12: a program that starts after its time was up is killed, and nothing is kept of it."""
        stage = self.play(act=None, spawn_timeout=1)
        self.calls(1)
        stage.network.advance(1.1)
        (process,) = stage.isolate.processes
        self.assertEqual(process.kills, 1)
        self.assertEqual(len(stage.pool().workers), 0)
        self.assertTrue(process.ended)
        self.assertEqual(len(stage.pool()._ending), 0)

    def test_healthy_pool_grows(self) -> None:
        """One crash among healthy workers does not stop the pool from growing."""
        stage = self.play(act=idle, pool_limit=4, concurrency=1, grow_threshold=1)
        self.calls(3)
        self.assertEqual(len(stage.alive), 3)
        stage.end(stage.isolate.processes[0], Exit(signal=9))
        self.calls(8)
        self.assertEqual(len(stage.alive), 4)

    def test_served_and_killed(self) -> None:
        """A lone worker that is killed while it serves well is replaced at once, however often; nobody waits long."""
        stage = self.play(act=idle, pool_limit=1)
        for kills in range(1, 20):
            (first, second) = self.calls(2)
            (puppet,) = stage.alive
            puppet.say([2, 2, []])
            stage.wait(1)
            stage.end(puppet.process, Exit(signal=9))
            stage.settle()
            self.assertEqual((first.ends, len(second.ends), second.error), (["close"], 1, (5, 2)))
            self.assertEqual((stage.pool().tally.crashed, len(stage.alive)), (kills, 1))

    def test_answered_and_held(self) -> None:
        """An answer counts though its client keeps its side open, as the original's clients did."""
        stage = self.play(act=idle, pool_limit=1)
        (call,) = self.calls(1, close=False)
        (puppet,) = stage.alive
        puppet.say([2, 2, []])
        stage.wait(1)
        stage.end(puppet.process, Exit(signal=9))
        stage.settle()
        self.assertEqual((call.ends, len(stage.alive)), (["close"], 1))

    def test_nothing_answered(self) -> None:
        """Requests that end because the client leaves, or with the worker, are no answers: the next worker waits."""
        stage = self.play(act=idle, pool_limit=1)
        self.calls(1)
        leaver = stage.client()
        leaver.enqueue(b"x")
        stage.settle()
        leaver.leave()
        for pause in (1, 2, 4):
            stage.wait(1)
            (puppet,) = stage.alive
            stage.end(puppet.process, Exit(signal=9))
            stage.wait(pause - 0.5)
            self.assertEqual(len(stage.alive), 0, pause)
            stage.wait(0.5)
            self.assertEqual(len(stage.alive), 1, pause)
            self.calls(1)

    def test_thousand_crashes(self) -> None:
        """Lesson 13: a thousand crashes leave no process, no timer, no worker, and one log entry each up to a limit."""
        stage = self.play(act=None, crashlog_limit=5)
        self.calls(1)
        for count in range(1000):
            while len(stage.isolate.processes) == count:
                stage.network.advance(32)
            process = stage.isolate.processes[count]
            process.start()
            process.say(b"boom\n")
            stage.connect(process).say([1, 0, [process.launch.arguments["--uuid"].encode()]])
            stage.network.advance(0)
            stage.end(process, Exit(code=1))
        pool = stage.pool()
        self.assertEqual((len(pool.workers), len(pool._ending), len(stage.alive)), (0, 0, 0))
        self.assertEqual(pool.tally.crashed, 1000)
        keys = self.successResultOf(stage.storage.find("crashlogs", ["hello"]))
        self.assertEqual(len(keys), 1000)
        self.assertLess(len(stage.network.getDelayedCalls()), 5)


class WorkerTests(PoolCase):
    def test_early_handshake(self) -> None:
        """Lesson 11: a handshake that comes before the isolate's report is kept."""
        stage = self.play(act=None)
        call = self.calls(1)[0]
        (process,) = stage.isolate.processes
        puppet = stage.connect(process)
        puppet.act = echo
        puppet.say([1, 0, [puppet.uuid]])
        stage.settle()
        self.assertEqual(call.ends, ["close"])
        process.start()
        stage.settle()
        self.assertEqual(self.calls(1)[0].ends, ["close"])

    def test_heartbeats(self) -> None:
        """Each heartbeat is answered at once; a worker that stops beating is cut off with its requests."""
        stage = self.play(act=idle, heartbeat_timeout=3)
        (call,) = self.calls(1)
        (puppet,) = stage.alive
        for beat in range(2, 6):
            stage.wait(2)
            puppet.say([1, 0, []])
            stage.settle()
            self.assertEqual(puppet.beats, beat)
        stage.wait(3.5)
        self.assertEqual(call.ends, [(2, 125, "slave has been discarded")])
        self.assertEqual(puppet.process.kills, 1)

    def test_last_answers(self) -> None:
        """What a worker wrote before its process ended is delivered, though the end is known first."""
        stage = self.play(act=idle)
        (call,) = self.calls(1)
        (puppet,) = stage.alive
        puppet.process.end(Exit(code=0))
        puppet.say([2, 0, [b"the last word"]], [2, 2, []])
        puppet.transport.loseConnection()
        stage.settle()
        self.assertEqual((call.chunks, call.ends), ([b"the last word"], ["close"]))

    def test_suicide(self) -> None:
        """Lesson 17: a worker that ends itself counts as a crash; what it says afterwards is ignored."""
        stage = self.play(act=idle)
        (call,) = self.calls(1)
        (puppet,) = stage.alive
        puppet.say([1, 1, [1, b"enough"]], [1, 0, []])
        stage.settle()
        self.assertEqual(call.ends, [(5, 2, "slave has been discarded")])
        self.assertEqual(stage.pool().tally.crashed, 1)

    def test_last_words(self) -> None:
        """The log names what a dead worker said last, and where the rest is; a silent one is only counted."""
        more = "(more: cocaine-tool crashlog view -n hello)"
        for said, words in (
            (b"Traceback\nNo module named x\n\n", f"; it said: No module named x {more}"),
            (b"x" * 300, f"; it said: {'x' * 200}... {more}"),
            (b"", ""),
        ):
            stage = self.play(act=None)
            self.calls(1)
            (process,) = stage.isolate.processes
            with capturedLogs() as events:
                process.say(said)
                process.end(Exit(code=1))
                stage.settle()
            (line,) = [formatEvent(event) for event in events if "has died" in event["log_format"]]
            self.assertTrue(line.endswith(f"(the process has ended); next one in 1.0 s{words}"), line)

    def test_answers_twice(self) -> None:
        """A worker that answers a channel twice breaks the protocol: it goes, and each client has one end."""
        stage = self.play(act=idle)
        first, second = self.calls(2)
        (puppet,) = stage.alive
        puppet.say([2, 2, []], [2, 2, []])
        stage.settle()
        self.assertEqual((first.ends, second.error), (["close"], (5, 2)))
        self.assertEqual(stage.pool().tally.crashed, 1)

    def test_client_leaves(self) -> None:
        """A client that goes mid-stream: the worker is told, the place is free, and it was work for nobody."""
        stage = self.play(act=idle, concurrency=1, pool_limit=1)
        leaver = stage.client()
        leaver.enqueue(b"x")
        stage.settle()
        waiting = self.client.enqueue(b"y")
        leaver.leave()
        stage.settle()
        (puppet,) = stage.alive
        puppet.say([3, 2, []])
        stage.settle()
        self.assertEqual((waiting.ends, self.requests()), (["close"], (2, 0, 1)))

    def test_cancelled_mid_stream(self) -> None:
        """A client that has not ended its stream and goes: the worker hears that its channel is over."""
        stage = self.play(act=idle)
        leaver = stage.client()
        leaver.enqueue(b"x", close=False)
        stage.settle()
        leaver.leave()
        stage.settle()
        self.assertEqual(stage.alive[0].heard[-1], [2, 1, [[5, 2], b"End of file"]])

    def test_both_close(self) -> None:
        """Lesson 19: both sides ending in the same moment is one end for each."""
        stage = self.play(act=idle)
        call = self.client.enqueue(close=False)
        stage.settle()
        (puppet,) = stage.alive
        puppet.say([2, 2, []])
        call.channel.choke()
        stage.settle()
        self.assertEqual((call.ends, puppet.heard[-1], stage.pool().load), (["close"], [2, 2, []], 0))

    def test_broken_connection_gets_nothing(self) -> None:
        """A worker whose connection is being closed by us is given no more events."""
        stage = self.play(act=idle)
        self.calls(1)
        (puppet,) = stage.alive
        worker = next(iter(stage.pool().workers.values()))
        assert worker.connection is not None
        worker.connection.session.ended = True
        call = self.client.enqueue(b"x")
        stage.settle()
        self.assertEqual((call.ends, worker.state), ([], "broken"))
        stage.act = echo
        stage.wait(1.5)
        self.assertEqual(call.ends, ["close"])

    def test_forsaken_channels(self) -> None:
        """A worker that never ends what it was told to give up is replaced before its channels fill the memory."""
        stage = self.play(act=idle, concurrency=100, pool_limit=1, request_timeout=1)
        for _ in range(12):
            self.calls(100)
            stage.wait(1.2)
        self.assertGreater(len(stage.isolate.processes), 1)

    def test_output(self) -> None:
        """Lesson 14: a crash log has the last lines and an unfinished one, under time and worker."""
        stage = self.play(act=idle, crashlog_limit=2)
        self.calls(1)
        (process,) = stage.isolate.processes
        process.say(b"one\ntwo\nthr")
        process.say(b"ee\nno newl")
        stage.end(process, Exit(code=3))
        (key,) = self.successResultOf(stage.storage.find("crashlogs", ["hello"]))
        self.assertEqual(
            self.successResultOf(stage.storage.read("crashlogs", key)), b"\x93\xa3two\xa5three\xa7no newl"
        )
        self.assertTrue(key.endswith(":" + process.launch.arguments["--uuid"]))

    def test_half_closed_socket(self) -> None:
        """A worker that has closed its half of the socket is gone: what waits goes to another, not to it."""
        stage = self.play(act=idle, concurrency=1, pool_limit=1)
        first, waiting = self.calls(2)
        (worker,) = stage.pool().workers.values()
        assert worker.connection is not None
        worker.connection.readConnectionLost()
        stage.settle()
        self.assertEqual((first.error, waiting.ends, worker.state), ((5, 2), [], "broken"))
        stage.act = echo
        stage.wait(1.5)
        self.assertEqual(waiting.ends, ["close"])
