"""A proxy that follows what operators say in the cluster, with a pretend unicorn in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import CocaineError, PermissionDenied, RemoteError
from cocaine_tx.proxy.subscriptions import PATIENCE, Schema
from cocaine_tx.proxy.terms import Terms
from cocaine_tx.proxy.unicorn import FIRST_PAUSE, GATHER, LONGEST_PAUSE, Ticket, Unicorn
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.wire.headers import TRACE_BIT, Headers, find
from cocaine_tx.wire.idl import INT, MAP, PRIMITIVE, RAW, VOID, Slot, protocol
from cocaine_tx.wire.protocols import UNICORN
from cocaine_tx.wire.session import Channel

from .world import NODE, World, get

TIMEOUTS, TRACING = "/proxy_apps_timeouts", "/zipkin_sampling"
GONE = RemoteError(11, 8, "node has gone")


class Pretend:
    """
    The service as the reference has it, as far as a proxy sees it.

    :ivar nodes: path to value and version.
    :ivar watches: path to the channels that follow it; those of its children have a ``/`` behind it.
    :ivar asked: the authorization of each subscription.
    :ivar mute: it says nothing.
    :ivar problem: what it answers to every subscription.
    """

    spoken = UNICORN

    def __init__(self, world: World, port: int = 31000) -> None:
        self.address = (NODE, port)
        self.nodes: dict[str, tuple[Any, int]] = {}
        self.watches: dict[str, list[Channel]] = {}
        self.asked: list[bytes | None] = []
        self.mute = False
        self.problem: CocaineError | None = None
        self._world = world
        streams = {"subscribe": self._subscribe, "children_subscribe": self._children}
        self._factory = ServiceFactory(Dispatch(UNICORN, {}, streams), Hospitality(world.turn, world.node))
        self._port: Any = None
        self.open()

    def open(self) -> None:
        """Let clients in."""
        self._port = self._world.node.listenTCP(self.address[1], self._factory, interface=NODE)
        self._world.apps["unicorn"] = self  # type: ignore[assignment]

    def vanish(self) -> None:
        """The service ends; the locator knows it no more."""
        del self._world.apps["unicorn"]
        self._port.stopListening()
        self._factory.close_all()

    def put(self, path: str, value: Any) -> None:
        """A node gets a value; it is made if it is not there."""
        parent = path.rpartition("/")[0]
        fresh = path not in self.nodes
        self.nodes[path] = (value, self.nodes.get(path, (None, -1))[1] + 1)
        for channel in self.watches.get(path, []):
            channel.send("write", self.nodes[path])
        if fresh and parent:
            self.list(parent)

    def list(self, path: str) -> None:
        for channel in self.watches.get(path + "/", []):
            channel.send("write", 1, self._names(path))

    def _names(self, path: str) -> list[str]:
        return [node.removeprefix(path + "/") for node in self.nodes if node.rpartition("/")[0] == path]

    def remove(self, path: str) -> None:
        """A node goes; who follows it is told by an error."""
        del self.nodes[path]
        self.fail(path, GONE)
        self.list(path.rpartition("/")[0])

    def fail(self, path: str, error: CocaineError) -> None:
        """Everybody who follows this is told an error."""
        for channel in self.watches.pop(path, []):
            channel.fail(error)

    def followed(self) -> list[str]:
        return sorted(path for path, channels in self.watches.items() for _ in channels)

    def _watched(self, path: str, channel: Channel, headers: Headers) -> bool:
        self.asked.append(find(headers, b"authorization"))
        if self.problem is not None:
            raise self.problem
        self.watches.setdefault(path, []).append(channel)
        channel.receiver = _Unwatch(self.watches[path])
        return not self.mute

    def _subscribe(self, channel: Channel, headers: Headers, raw: bytes) -> None:
        path = raw.decode()
        if self._watched(path, channel, headers):
            channel.send("write", self.nodes.get(path, (None, -1)))

    def _children(self, channel: Channel, headers: Headers, raw: bytes) -> None:
        path = raw.decode()
        if path not in self.nodes:
            raise GONE
        if self._watched(path + "/", channel, headers):
            channel.send("write", 1, self._names(path))


class _Unwatch:
    def __init__(self, watches: list[Channel]) -> None:
        self._watches = watches

    def received(self, channel: Channel, message: Any, args: tuple[Any, ...], headers: Headers) -> None:
        self.lost(channel, GONE)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if channel in self._watches:
            self._watches.remove(channel)


class Tickets:
    """The service that gives tickets."""

    spoken = protocol("tvm", 1, (Slot(0, "ticket_full", VOID, PRIMITIVE, (INT, RAW, RAW, MAP)),))

    def __init__(self, world: World) -> None:
        self.address = (NODE, 31001)
        dispatch = Dispatch(self.spoken, {"ticket_full": self._ticket})
        world.node.listenTCP(31001, ServiceFactory(dispatch, Hospitality(world.turn, world.node)), interface=NODE)
        self.silent = False
        self.given = 0
        world.apps["tvm"] = self  # type: ignore[assignment]

    def _ticket(self, headers: Headers, client: int, secret: bytes, grant: bytes, more: Any) -> Any:
        if self.silent:
            return Deferred()
        self.given += 1
        return (b"%d:%b:%b:%d" % (client, secret, grant, self.given),)


class UnicornTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(chunk=30.0, apps={"filed": {"": 7.0}})
        self.addCleanup(self.world.stop)
        self.warnings: list[str] = []
        globalLogPublisher.addObserver(self._logged)
        self.addCleanup(globalLogPublisher.removeObserver, self._logged)

    def _logged(self, event: Any) -> None:
        if event["log_level"].name == "warn":
            self.warnings.append(event.get("fault") or event.get("reason"))

    def follow(
        self,
        schema: Schema = Schema.EACH,
        timeouts: str | None = TIMEOUTS,
        tracing: str | None = None,
        ticket: Ticket | None = None,
    ) -> Unicorn:
        door = self.world.door
        reach = self.world.upstreams.reach
        made = Unicorn(door.clock, reach, "unicorn", ticket, schema, timeouts, tracing, door.override)
        made.start()
        self.addCleanup(made.stop)
        self.settle()
        return made

    def settle(self, seconds: float = 0.0) -> None:
        """What is on its way arrives, time passes, and what that has caused takes effect."""
        for some in (0.0, seconds, GATHER):
            self.world.advance(some)

    def times(self, *places: str) -> list[float]:
        """The chunk times of some ``app/event``."""
        terms = self.world.door.terms
        return [terms.chunk_time(*place.split("/")) for place in places]

    def pretend(self, **nodes: Any) -> Pretend:
        unicorn = Pretend(self.world)
        unicorn.put(TIMEOUTS, None)
        for app, value in nodes.items():
            unicorn.put(f"{TIMEOUTS}/{app}", value)
        return unicorn


class NodesOfAppsTests(UnicornTests):
    def test_read_and_changed(self) -> None:
        """What operators say of an app holds for the next request; what they say later, too."""
        unicorn = self.pretend(app={"": 5, "slow": 60.0}, filed={"e": 8})
        self.follow()
        self.assertEqual(self.times("app/x", "app/slow", "filed/e", "filed/x", "z/x"), [5, 60, 8, 7, 30])
        unicorn.put(TIMEOUTS + "/app", {"": 6})
        unicorn.put(TIMEOUTS + "/new", {"e": 1})
        self.settle()
        self.assertEqual(self.times("app/x", "app/slow", "new/e", "new/x"), [6, 6, 1, 30])

    def test_it_takes_effect(self) -> None:
        """A request to an app that is silent for longer than its operators allow is answered 504."""
        self.pretend(app={"": 2})
        app = self.world.app()
        self.follow()
        client = self.world.ask(get("/app/http/"))
        self.assertEqual(len(app.jobs), 1)
        self.world.advance(1.5)
        self.assertEqual(client.got, b"")
        self.world.advance(5)
        self.assertTrue(client.got.startswith(b"HTTP/1.1 504 "), client.got)

    def test_removed(self) -> None:
        """An app whose node has been removed goes by the file again, and comes back with its node."""
        unicorn = self.pretend(filed={"": 5}, other={"": 9})
        self.follow()
        unicorn.remove(TIMEOUTS + "/filed")
        self.settle()
        self.assertEqual(self.times("filed/x", "other/x"), [7, 9])
        unicorn.put(TIMEOUTS + "/filed", {"": 4})
        self.settle()
        self.assertEqual(self.times("filed/x", "other/x"), [4, 9])
        self.assertEqual(len(unicorn.asked), 4)
        self.assertEqual(self.warnings, [])

    def test_removed_and_made_again_at_once(self) -> None:
        """A node that came back before anybody heard that it had gone is followed again."""
        unicorn = self.pretend(app={"": 5})
        self.follow()
        unicorn.fail(TIMEOUTS + "/app", GONE)
        self.settle(0.5)
        self.assertEqual(self.times("app/x"), [30])
        self.settle(FIRST_PAUSE)
        self.assertEqual(self.times("app/x"), [5])
        self.assertEqual(unicorn.followed(), [TIMEOUTS + "/", TIMEOUTS + "/app"])

    def test_not_listed_any_more(self) -> None:
        """A subscription that nobody needs is closed, since unicorn would keep it for ever."""
        unicorn = self.pretend(a={"": 1}, b={"": 2})
        self.follow()
        del unicorn.nodes[TIMEOUTS + "/a"]
        unicorn.list(TIMEOUTS)
        self.settle()
        self.assertEqual(unicorn.followed(), [TIMEOUTS + "/", TIMEOUTS + "/b"])
        self.assertEqual(self.times("a/x", "b/x"), [30, 2])

    def test_garbage(self) -> None:
        """What cannot be used is said once and changes nothing; the next good value does."""
        unicorn = self.pretend(app={"": 5})
        self.follow()
        for _ in range(3):
            unicorn.put(TIMEOUTS + "/app", "soon")
            self.settle()
        self.assertEqual(self.times("app/x"), [5])
        self.assertEqual(self.warnings, ["b'soon' is no number from 0.001 to 2.14748e+09"])
        unicorn.put(TIMEOUTS + "/app", {"": 3})
        self.settle()
        self.assertEqual(self.times("app/x"), [3])

    def test_garbage_of_other_shapes(self) -> None:
        """News that no unicorn sends are said, and the subscriptions go on."""
        unicorn = self.pretend(app={"": 5})
        self.follow()
        for args in ((), (5,), ("x",), ([1],), ([1, 2, 3],)):
            unicorn.watches[TIMEOUTS + "/app"][0].send("write", *args)
        for args in ((), (5,), (5, 5), (5, "x"), (5, {})):
            unicorn.watches[TIMEOUTS + "/"][0].send("write", *args)
        self.settle()
        self.assertEqual(self.times("app/x"), [5])
        self.assertEqual(len(self.warnings), 2, self.warnings)
        unicorn.list(TIMEOUTS)
        unicorn.put(TIMEOUTS + "/app", {"": 3})
        unicorn.watches[TIMEOUTS + "/"][0].send("write", 5, ["app", "", "a/b", b"\xff", 7])
        self.settle()
        self.assertEqual(self.times("app/x"), [3])
        self.assertEqual(unicorn.followed(), [TIMEOUTS + "/", TIMEOUTS + "/app"])

    def test_path_absent(self) -> None:
        """A path that nobody has made yet is looked for again and again, and removed it leaves the file's word."""
        unicorn = Pretend(self.world)
        self.follow()
        self.assertEqual(self.warnings, ["node has gone [11,8]"])
        unicorn.put(TIMEOUTS, None)
        unicorn.put(TIMEOUTS + "/filed", {"": 5})
        self.settle(FIRST_PAUSE)
        self.assertEqual(self.times("filed/x"), [5])
        unicorn.nodes.clear()
        unicorn.fail(TIMEOUTS + "/", GONE)
        self.settle()
        self.assertEqual(self.times("filed/x"), [7])

    def test_chances(self) -> None:
        """Chances are percent, and decide which requests of an app carry a trace."""
        unicorn = self.pretend()
        unicorn.put(TRACING, None)
        unicorn.put(TRACING + "/app", 100)
        app, other = self.world.app(), self.world.app("other")
        self.follow(tracing=TRACING)
        self.world.ask(get("/app/http/"))
        self.world.ask(get("/other/http/"))
        self.assertEqual(app.jobs[0].headers.get(TRACE_BIT), b"1")
        self.assertNotIn(TRACE_BIT, other.jobs[0].headers)


class OneNodeTests(UnicornTests):
    def test_read_and_changed(self) -> None:
        """One node has the seconds of all apps, another their chances from 0 to 1."""
        unicorn = Pretend(self.world)
        unicorn.put("/c/timeouts", {"app": 5, "filed": 6})
        self.follow(Schema.ALL, "/c/timeouts", "/c/tracing")
        self.assertEqual(self.times("app/x", "filed/x"), [5, 6])
        unicorn.put("/c/timeouts", {"app": 4, "filed": -1, "more": 3})
        unicorn.put("/c/tracing", {"app": 0.5})
        self.settle()
        self.assertEqual(self.times("app/x", "filed/x", "more/x"), [4, 6, 3])
        self.assertEqual(self.world.door.terms.tracing_chance_of("app"), 0.5)
        self.assertEqual(len(self.warnings), 1)
        unicorn.remove("/c/timeouts")
        self.settle()
        self.assertEqual(self.times("app/x", "filed/x", "more/x"), [30, 7, 30])


class TroubleTests(UnicornTests):
    def attempts(self, seconds: int) -> list[int]:
        """When unicorn is asked for."""
        found = []
        for second in range(seconds):
            before = len(self.world.resolved)
            self.world.advance(1)
            if "unicorn" in self.world.resolved[before:]:
                found.append(second + 1)
        return found

    def test_no_service(self) -> None:
        """Without the service the proxy serves by its file, asks ever more rarely, and says so once."""
        app = self.world.app(play=lambda job: job.answer(b"ok"))
        self.follow()
        when = self.attempts(130)
        self.assertEqual([b - a for a, b in zip(when, when[1:], strict=False)], [4, 8, 16, 32, 32, 32])
        self.assertEqual(len(self.warnings), 1, self.warnings)
        self.assertIn(b"200 OK", self.world.ask(get("/app/http/")).got)
        self.assertEqual(len(app.jobs), 1)
        self.pretend(app={"": 5})
        self.settle(LONGEST_PAUSE)
        self.assertEqual(self.times("app/x"), [5])

    def test_lost_and_found(self) -> None:
        """When unicorn restarts what was known holds, and what has changed meanwhile is learned."""
        unicorn = self.pretend(a={"": 1}, b={"": 2}, c={"": 3})
        self.follow()
        self.settle(LONGEST_PAUSE)
        unicorn.vanish()
        self.settle(1)
        self.assertEqual(self.times("a/x", "b/x", "c/x"), [1, 2, 3])
        self.assertEqual(unicorn.followed(), [])
        unicorn.nodes[TIMEOUTS + "/a"] = ({"": 9}, 7)
        del unicorn.nodes[TIMEOUTS + "/b"]
        unicorn.open()
        self.settle(FIRST_PAUSE)
        self.assertEqual(self.times("a/x", "b/x", "c/x"), [9, 30, 3])
        self.assertEqual(unicorn.followed(), [TIMEOUTS + path for path in ("/", "/a", "/c")])

    def test_errors(self) -> None:
        """A subscription that ends with an error is made again after a pause; values stay."""
        unicorn = self.pretend(app={"": 5})
        self.follow()
        unicorn.fail(TIMEOUTS + "/app", RemoteError(11, 10, "connection loss"))
        unicorn.problem = PermissionDenied()
        self.settle(FIRST_PAUSE + 4)
        self.assertEqual((self.times("app/x"), unicorn.followed()), ([5], []))
        unicorn.problem = None
        self.settle(8)
        self.assertEqual(unicorn.followed(), [TIMEOUTS + "/", TIMEOUTS + "/app"])
        unicorn.watches[TIMEOUTS + "/app"][0].send("close")
        self.settle(LONGEST_PAUSE)
        self.assertEqual(unicorn.followed(), [TIMEOUTS + "/", TIMEOUTS + "/app"])

    def test_silence(self) -> None:
        """A unicorn that takes subscriptions and says nothing is left, and asked again."""
        unicorn = self.pretend(app={"": 5})
        unicorn.mute = True
        self.follow()
        self.assertEqual(unicorn.followed(), [TIMEOUTS + "/"])
        self.settle(PATIENCE)
        self.assertEqual((unicorn.followed(), self.warnings), ([], ["it does not answer in time"]))
        unicorn.mute = False
        self.settle(FIRST_PAUSE)
        self.assertEqual(self.times("app/x"), [5])
        self.settle(PATIENCE)
        self.assertEqual(len(self.warnings), 1)

    def test_another_service(self) -> None:
        """A service that is no unicorn is no reason to end."""
        self.world.apps["unicorn"] = self.world.app("other")
        self.follow()
        self.assertEqual(self.warnings, ["service unicorn has no method 'children_subscribe'"])

    def test_many_changes(self) -> None:
        """Changes that come together take effect together."""
        unicorn = self.pretend(**{f"app{n}": 5 for n in range(50)})
        told: list[int] = []
        door = self.world.door
        following = Unicorn(
            door.clock, self.world.upstreams.reach, "unicorn", None, Schema.EACH, TIMEOUTS, None,
            lambda overrides: told.append(len(overrides.times)),
        )  # fmt: skip
        following.start()
        self.addCleanup(following.stop)
        self.settle()
        for n in range(50):
            unicorn.put(f"{TIMEOUTS}/app{n}", 6)
        self.settle()
        self.assertEqual(told, [50, 50])
        unicorn.put(TIMEOUTS + "/app0", 6)
        self.settle()
        self.assertEqual(told, [50, 50])

    def test_reload(self) -> None:
        """A configuration that is read again holds under what unicorn says, as the one before did."""
        self.pretend(app={"": 5})
        self.follow()
        self.world.door.reload(Terms(chunk=20.0, apps={"app": {"": 1.0}}))
        self.assertEqual(self.times("app/x", "filed/x"), [5, 20])

    def test_stop(self) -> None:
        """A proxy that is stopped leaves unicorn, whatever it was doing, and no timer behind."""
        for scene in ("resolving", "following", "silent", "resting", "changed"):
            world = self.world = World()
            world.mute = scene == "resolving"
            unicorn = self.pretend(app={"": 5})
            unicorn.mute = scene == "silent"
            if scene == "resting":
                unicorn.vanish()
            made = self.follow()
            if scene == "changed":
                unicorn.put(TIMEOUTS + "/app", {"": 6})
                world.advance()
            made.stop()
            world.stop()
            world.advance(1)
            self.assertEqual(unicorn.followed(), [], scene)
            self.assertEqual(world.network.getDelayedCalls(), [], scene)


class TicketTests(UnicornTests):
    def test_shown(self) -> None:
        """With a ticket every subscription shows it, and a new connection gets a new one."""
        tickets = Tickets(self.world)
        unicorn = self.pretend(app={"": 5})
        self.follow(ticket=Ticket("tvm", 12, "secret"))
        self.assertEqual(unicorn.asked, [b"TVM 12:secret:client_credentials:1"] * 2)
        unicorn.fail(TIMEOUTS + "/", RemoteError(11, 10, "connection loss"))
        self.settle(FIRST_PAUSE)
        self.assertEqual(unicorn.asked[2:], [b"TVM 12:secret:client_credentials:2"] * 2)
        self.assertEqual(tickets.given, 2)

    def test_none(self) -> None:
        """Without one the header is not sent at all: unicorn takes us for anybody."""
        unicorn = self.pretend(app={"": 5})
        self.follow()
        self.assertEqual(unicorn.asked, [None, None])

    def test_not_given(self) -> None:
        """A service of tickets that is not there, or silent, is like a unicorn that is not."""
        self.pretend(app={"": 5})
        self.follow(ticket=Ticket("tvm", 12, "secret"))
        self.assertEqual(len(self.warnings), 1)
        tickets = Tickets(self.world)
        tickets.silent = True
        self.settle(FIRST_PAUSE)
        self.settle(PATIENCE)
        self.assertEqual(self.warnings[1:], ["it does not answer in time"])
        tickets.silent = False
        self.settle(LONGEST_PAUSE)
        self.assertEqual(self.times("app/x"), [5])
