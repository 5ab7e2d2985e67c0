"""What a caller holds while it waits."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import ConnectionGone, InvalidArguments, LocalProtocolError, NotFound, QueueFull
from cocaine_tx.rpc.channel import Stream, payload
from cocaine_tx.rpc.client import Remote
from cocaine_tx.testing.pair import ConnectionPair, Recorder
from cocaine_tx.wire.headers import timeout_of
from cocaine_tx.wire.protocols import APP, LOGGING, STORAGE
from cocaine_tx.wire.session import dialing, serving


class Called(SynchronousTestCase):
    """A client of a service whose answers the test gives."""

    protocol = STORAGE

    def setUp(self) -> None:
        self.service = Recorder()
        self.pair = ConnectionPair(dialing(), serving(self.protocol, self.service))
        self.remote = Remote(self.pair.near, self.protocol, self.pair.clock)

    def serve(self, number: int = 1):
        """The service's end of a channel."""
        self.pair.pump()
        return self.service.channels[number]


class ReplyTests(Called):
    """One answer."""

    def test_value(self) -> None:
        """The answer's arguments."""
        answer = self.remote.call("read", "c", "k")
        self.serve().value((b"blob", 1))
        self.pair.pump()
        self.assertEqual(self.successResultOf(answer), (b"blob", 1))

    def test_error(self) -> None:
        """An error answered fails the call, with the class of its numbers."""
        answer = self.remote.call("read", "c", "k")
        self.serve().fail(NotFound("no such"))
        self.pair.pump()
        self.assertEqual(self.failureResultOf(answer, NotFound).value.reason, "no such")

    def test_lost(self) -> None:
        """Every open call fails once when the connection dies, in the order of the calls; later ones at once."""
        order: list[int] = []
        answers = [self.remote.call("read", "c", "k") for _ in range(3)]
        for number, answer in enumerate(answers):
            answer.addErrback(lambda failure, number=number: (order.append(number), failure)[1])
        self.pair.pump()
        self.pair.cut()
        for answer in (*answers, self.remote.call("read", "c", "k")):
            self.failureResultOf(answer, ConnectionGone)
        self.assertEqual(order, [0, 1, 2])

    def test_timeout(self) -> None:
        """A call has its time, which the service is told of; a late answer is dropped, nothing is left."""
        answer = self.remote.call("read", "c", "k", timeout=5)
        late = self.serve()
        self.assertEqual(timeout_of(self.service.headers), 5.0)
        self.pair.clock.advance(4.9)
        self.assertNoResult(answer)
        self.pair.clock.advance(0.2)
        self.failureResultOf(answer, TimeoutError)
        self.assertEqual(len(self.pair.near.session), 0)
        late.value((b"late",))
        self.pair.pump()
        self.assertFalse(self.pair.near.gone)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_answered_in_time(self) -> None:
        """No timer is left behind by a call that was answered."""
        answer = self.remote.call("read", "c", "k", timeout=5)
        self.serve().value(())
        self.pair.pump()
        self.successResultOf(answer)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A caller may lose interest."""
        answer = self.remote.call("read", "c", "k")
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.serve().value((b"late",))
        self.pair.pump()
        self.assertEqual(len(self.pair.near.session), 0)

    def test_own_mistakes(self) -> None:
        """A method that is not there, and arguments that cannot be sent, fail the call and send nothing."""
        self.failureResultOf(self.remote.call("reed"), LocalProtocolError)
        self.failureResultOf(self.remote.call("read", object()), LocalProtocolError)
        self.pair.pump()
        self.assertEqual((self.service.told, self.pair.near_end.writes), ([], []))

    def test_mute(self) -> None:
        """A call that is never answered is done when it is said."""
        remote = Remote(self.pair.near, LOGGING, self.pair.clock)
        self.assertEqual(self.successResultOf(remote.call("emit", 1, "app", "text", timeout=3)), ())
        self.assertEqual(self.pair.clock.getDelayedCalls()[1:], [])

    def test_credit_is_no_answer(self) -> None:
        """A credit that nobody asked for does not end a call."""
        answer = self.remote.call("read", "c", "k")
        channel = self.serve()
        channel.credit(5)
        self.pair.pump()
        self.assertNoResult(answer)
        channel.value(())
        self.pair.pump()
        self.successResultOf(answer)


class PingTests(Called):
    """A sign of life."""

    def test_alive(self) -> None:
        """A peer that lives answers, though its service has no such method."""
        answer = self.remote.ping(1)
        self.pair.pump()
        self.assertIsNone(self.successResultOf(answer))
        self.assertEqual((self.service.told, self.pair.clock.getDelayedCalls()), ([], []))

    def test_silent(self) -> None:
        """A peer that does not answer in time fails the ping, and nothing else."""
        answer = self.remote.ping(1)
        self.pair.settle()
        self.pair.clock.advance(1)
        self.failureResultOf(answer, TimeoutError)
        self.assertFalse(self.pair.near.gone)
        self.pair.pump()
        self.assertEqual(len(self.pair.near.session), 0)

    def test_gone(self) -> None:
        """A connection that ends, or has ended, fails the ping."""
        answer = self.remote.ping(1)
        self.pair.cut()
        self.failureResultOf(answer, ConnectionGone)
        self.failureResultOf(self.remote.ping(1), ConnectionGone)
        self.assertEqual(self.pair.clock.getDelayedCalls(), [])


class StreamTests(Called):
    """Many answers, one after another."""

    protocol = APP

    def setUp(self) -> None:
        super().setUp()
        self.channel, self.stream = self.remote.stream("enqueue", "ping")
        self.far = self.serve()

    def test_reading(self) -> None:
        """Chunks are read in order, waited for or kept, then the end, again and again."""
        waiting = self.stream.read()
        self.assertNoResult(waiting)
        for data in (b"1", b"2", b"3"):
            self.far.chunk(data)
        self.far.choke()
        self.pair.pump()
        self.assertEqual(self.successResultOf(waiting), (b"1",))
        read = [self.successResultOf(self.stream.read()) for _ in range(4)]
        self.assertEqual(read, [(b"2",), (b"3",), None, None])

    def test_iterating(self) -> None:
        """``async for`` goes to the end."""

        async def collect() -> list:
            return [payload(args) async for args in self.stream]

        self.far.chunk(b"1")
        self.far.chunk(b"2")
        self.far.choke()
        self.pair.pump()
        self.assertEqual(self.successResultOf(collect()), [b"1", b"2"])

    def test_error(self) -> None:
        """An error comes after what was sent before it, and every time one reads on."""
        self.far.chunk(b"1")
        self.far.fail(QueueFull())
        self.pair.pump()
        self.assertEqual(self.successResultOf(self.stream.read()), (b"1",))
        for _ in range(2):
            self.failureResultOf(self.stream.read(), QueueFull)

    def test_lost(self) -> None:
        """The end of the connection is an error to whoever reads; one after a regular end is not."""
        waiting = self.stream.read()
        self.pair.cut()
        self.failureResultOf(waiting, ConnectionGone)
        self.failureResultOf(self.stream.read(), ConnectionGone)
        self.setUp()
        self.far.choke()
        self.pair.pump()
        self.pair.cut()
        self.assertIsNone(self.successResultOf(self.stream.read()))

    def test_one_reader(self) -> None:
        """Two readers at a time are a mistake; one that gave up leaves the place to the next, and loses nothing."""
        waiting = self.stream.read()
        self.assertRaises(LocalProtocolError, self.stream.read)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.far.chunk(b"1")
        self.pair.pump()
        self.assertEqual(self.successResultOf(self.stream.read()), (b"1",))

    def fill(self, count: int = 3) -> None:
        for _ in range(count):
            self.far.chunk(b"x" * 600_000)
        self.pair.pump()

    def test_slow_reader(self) -> None:
        """With much unread the connection is not read from, until half has been read."""
        self.fill()
        self.assertTrue(self.pair.near.held)
        self.successResultOf(self.stream.read())
        self.assertTrue(self.pair.near.held)
        self.successResultOf(self.stream.read())
        self.successResultOf(self.stream.read())
        self.assertFalse(self.pair.near.held)

    def test_many_empty_chunks(self) -> None:
        """Empty chunks count as well."""
        for _ in range(20_000):
            self.far.chunk(b"")
        self.pair.pump()
        self.assertTrue(self.pair.near.held)

    def test_ended_unread(self) -> None:
        """A stream that has ended delays nobody any longer, however much of it is unread."""
        self.far.chunk(b"x" * 1_200_000)
        self.far.choke()
        self.pair.pump()
        self.assertFalse(self.pair.near.held)
        self.assertEqual(len(self.successResultOf(self.stream.read())[0]), 1_200_000)

    def test_closed_by_reader(self) -> None:
        """A reader that goes away lets go of what it did not read."""
        self.fill()
        self.stream.close()
        self.assertFalse(self.pair.near.held)
        self.assertIsNone(self.successResultOf(self.stream.read()))
        self.fill()
        self.assertFalse(self.pair.near.held)
        self.assertIsNone(self.successResultOf(self.stream.read()))

    def test_credit_is_no_end(self) -> None:
        """A credit that nobody asked for does not end a stream."""
        self.far.credit(7)
        self.far.chunk(b"1")
        self.pair.pump()
        self.assertEqual(self.successResultOf(self.stream.read()), (b"1",))

    def test_payload(self) -> None:
        """A chunk is one raw value."""
        self.assertEqual(payload((b"x", 5)), b"x")
        for args in ((), (5,), (None,)):
            self.assertRaises(InvalidArguments, payload, args)
        self.assertIsNone(Stream().channel)
