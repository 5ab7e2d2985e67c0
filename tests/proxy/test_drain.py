"""What clients get while the proxy is being stopped."""

from __future__ import annotations

from tests.proxy.world import WorldCase, get


class DrainTests(WorldCase):
    def test_drain(self) -> None:
        """When the proxy is stopped, idle clients go within a moment and running requests get their answer."""
        world = self.world()
        app = world.app()
        idle, busy = world.client(), world.ask(get())
        drained = world.door.drain()
        world.advance(2)
        self.assertIsNotNone(idle.ended)
        self.assertNoResult(drained)
        app.jobs[0].answer(b"done")
        world.advance()
        self.assertIn(b"Connection: close\r\n", busy.got)
        self.assertIn(b"done", busy.got)
        self.successResultOf(drained)

    def test_on_its_way(self) -> None:
        """A request that was sent before its client could know that the proxy is stopped is answered, and the last."""
        world = self.world()
        world.app(play=lambda job: job.answer(b"x"))
        new, old = world.client(), world.ask(get())
        old.take()
        drained = world.door.drain()
        for client in (new, old):
            client.send(get())
            world.advance()
            self.assertEqual(self.status(client), 200)
            self.assertIn(b"Connection: close\r\n", client.got)
            self.assertIsNotNone(client.ended)
        self.successResultOf(drained)

    def test_pipelined_before(self) -> None:
        """Requests that had arrived behind another one when the proxy was stopped are answered; the last says so."""
        world = self.world()
        app = world.app()
        client = world.ask(get() * 3)
        drained = world.door.drain()
        for number in range(3):
            app.jobs[number].answer(b"answer %d" % number)
            world.advance()
        self.assertEqual(client.got.count(b"answer "), 3)
        self.assertEqual(client.got.count(b"Connection: close\r\n"), 1)
        self.assertLess(client.got.index(b"answer 1"), client.got.index(b"Connection: close\r\n"))
        self.successResultOf(drained)

    def test_answered_meanwhile(self) -> None:
        """The same behind an answer that had begun before."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        world.advance()
        drained = world.door.drain()
        app.jobs[0].channel.choke()
        world.advance()
        self.assertIsNone(client.ended)
        client.take()
        client.send(get())
        world.advance()
        app.jobs[1].answer(b"x")
        world.advance()
        self.assertEqual(self.status(client), 200)
        self.successResultOf(drained)

    def test_cut_off(self) -> None:
        """Whoever is left at the end is in the log, with the reason."""
        world = self.world()
        app = world.app()
        client = world.ask(get())
        app.jobs[0].head()
        world.advance()
        closed = world.door.close()
        world.advance()
        self.successResultOf(closed)
        self.assertIsNotNone(client.ended)
        (entry,) = world.entries
        self.assertEqual((entry.status, entry.error), (200, "the proxy has been stopped"))
