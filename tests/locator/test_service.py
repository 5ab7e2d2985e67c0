"""The locator's face, against what the original was seen to answer and against its users' needs."""

import msgpack
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from cocaine_tx.errors import InvalidArgument, NotFound, ServiceNotFound
from cocaine_tx.interfaces import IGateway, IStorage, ServiceInfo
from cocaine_tx.locator.directory import Directory
from cocaine_tx.locator.service import LocatorService
from cocaine_tx.locator.table import RETRY, STORAGE_TIMEOUT, RoutingTable
from cocaine_tx.storage.memory import MemoryStorage
from cocaine_tx.wire.protocols import APP, LOCATOR, LOGGING, NODE, STORAGE
from tests.wire.captures import Stage, capture, decoded

UUID = "d1c27fa5-4624-4a4b-9949-53072ca0f9a5"
ZEROS = [[False, name, bytes(8)] for name in (b"trace_id", b"span_id", b"parent_id")]


def at(port, protocol):
    return ServiceInfo((("127.0.0.1", port),), protocol.version, protocol.graph())


@implementer(IGateway)
class FixedGateway:
    """Knows what it is told to know."""

    def __init__(self, known, exclusive=False):
        self.known = known
        self.exclusive = exclusive
        self.log = []

    def consume(self, session, uuid, name, info, extra):
        self.log.append(("consume", uuid, name, info.endpoints))

    def withdraw(self, session, uuid, name):
        self.log.append(("withdraw", uuid, name))

    def resolve(self, name):
        return self.known.get(name)


class SlowStorage(MemoryStorage):
    """Reads what is there at once and tells it when it is told to."""

    def __init__(self):
        super().__init__()
        self.waiting = []

    def answer(self, count):
        while self.waiting and count:
            later, now = self.waiting.pop(0)
            now.chainDeferred(later)
            count -= 1

    def _later(self, now):
        later = Deferred()
        self.waiting.insert(0, (later, now))  # the youngest first, as with several connections
        return later

    def read(self, collection, key):
        return self._later(super().read(collection, key))

    def find(self, collection, tags):
        return self._later(super().find(collection, tags))


class LocatorCase(SynchronousTestCase):
    def make(self, storage=None, **settings):
        self.clock = Clock()
        self.storage = storage if storage is not None else MemoryStorage()
        self.table = RoutingTable(self.storage, self.clock)
        self.locator = LocatorService(UUID, Directory(settings.pop("restrict", ())), self.table, **settings)
        self.stage = Stage(self.locator.dispatch)
        return self.locator

    def ask(self, client, *frame):
        return decoded(self.stage.say(client, msgpack.packb(frame, use_bin_type=False)))

    def group(self, name, members):
        self.successResultOf(self.storage.write("groups", name, msgpack.packb(members), ["group", "active"]))


class Recorded(LocatorCase):
    """Exchanges recorded from the original runtime are answered byte for byte."""

    services = {
        "locator": (10053, LOCATOR),
        "storage": (10130, STORAGE),
        "logging": (10156, LOGGING),
        "echocap": (10073, APP),
    }

    def setUp(self):
        self.make()
        for name, (port, protocol) in self.services.items():
            self.locator.publish(name, at(port, protocol))

    def check(self, name):
        recorded, client = self.stage.play(name)
        self.assertEqual(client.data.hex(), recorded.answered.hex())
        self.assertEqual(client.closed, recorded.closed)

    def test_locator_resolves_itself(self):
        """A client that knows only the locator's name gets its graph."""
        self.check("locator-resolve-locator")

    def test_storage(self):
        """Plain services."""
        self.check("locator-resolve-storage")

    def test_storage_by_bin(self):
        """A name sent as bin is as good as one sent as raw."""
        self.check("locator-resolve-bin-type")

    def test_logging(self):
        """A service with a mute call."""
        self.check("locator-resolve-logging")

    def test_app(self):
        """A service with streams."""
        self.check("locator-resolve-app")

    def test_absent(self):
        """An unknown name is an error with the original's text."""
        self.check("locator-resolve-absent")

    def test_cluster_and_uuid(self):
        """Alone, a locator knows nobody and its own uuid."""
        self.check("locator-cluster-uuid")

    def test_connect_alone(self):
        """Without a cluster the stream of announcements is closed at once."""
        self.check("locator-connect")

    def test_publish_and_discard(self):
        """An external service comes and goes without a further answer."""
        self.check("locator-publish")
        self.assertRaises(ServiceNotFound, self.locator.find, "pub-ext")

    def test_refresh(self):
        """A group that does not exist can be refreshed."""
        self.check("locator-refresh")

    def test_routing(self):
        """A router gets the full map at once, even an empty one."""
        self.check("locator-routing")

    def test_node(self):
        """The node service shows the original's slots and, above them, our own."""
        self.locator.publish("node", at(10090, NODE))
        recorded, client = self.stage.play("locator-resolve-node")
        [ours], [theirs] = decoded(client.data), decoded(recorded.answered)
        graph = ours[2][2]
        self.assertEqual({number: graph[number] for number in theirs[2][2]}, theirs[2][2])
        self.assertEqual((ours[2][:2], ours[3]), (theirs[2][:2], theirs[3]))

    def test_connect_in_a_cluster(self):
        """A gateway gets the dump, then each change; a service that has gone has no endpoints."""
        locator = self.make(members=dict)
        locator.uuid = "fab5757f-226b-4413-9ece-5fcd2a4733b0"
        locator.publish("locator", at(10053, LOCATOR))
        locator.publish("logging", at(10370, LOGGING))
        recorded = capture("locator-connect-cluster")
        client = self.stage.client()
        first = decoded(self.stage.say(client, recorded.sent[0]))
        withdraw = locator.publish("echo", at(10379, APP))
        self.stage.network.advance(0)
        withdraw()
        self.stage.network.advance(0)
        ours, theirs = decoded(client.data), decoded(recorded.answered)
        self.assertEqual(first[0][2][1][b"logging"], theirs[0][2][1][b"logging"])
        self.assertNotIn(b"locator", first[0][2][1])
        self.assertEqual(first[0][3], theirs[0][3])
        self.assertEqual(ours[1:], theirs[1:3])


class Resolving(LocatorCase):
    """Names to places."""

    def test_traced(self):
        """A traced request's answer belongs to the trace."""
        self.make()
        trace = [[False, "trace_id", b"1" * 8], [False, "span_id", b"2" * 8], [False, "parent_id", b"3" * 8]]
        [answer] = self.ask(self.stage.client(), 1, 0, ["absent"], trace)
        self.assertEqual([entry[2] for entry in answer[3]], [b"1" * 8, b"2" * 8, b"3" * 8])

    def test_moved(self):
        """A service that came back elsewhere is found there."""
        locator = self.make()
        locator.publish("app", at(1, APP))()
        locator.publish("app", at(2, APP))
        [answer] = self.ask(self.stage.client(), 1, 0, ["app"])
        self.assertEqual(answer[2][0], [[b"127.0.0.1", 2]])

    def test_taken(self):
        """Two services cannot have one name, and the first is left alone."""
        locator = self.make()
        withdraw = locator.publish("app", at(1, APP))
        error = self.assertRaises(InvalidArgument, locator.publish, "app", at(2, APP))
        self.assertEqual(error.reason, "service 'app' already exists")
        self.assertEqual(locator.find("app"), at(1, APP))
        withdraw()
        locator.publish("app", at(3, APP))
        withdraw()
        self.assertEqual(locator.find("app"), at(3, APP))

    def test_seed(self):
        """One seed always leads to one member, the same as in the original."""
        self.make()
        self.group("app", {"app_v1": 1, "app_v2": 3})
        self.successResultOf(self.locator.start())
        for port, name in ((1, "app_v1"), (2, "app_v2")):
            self.locator.publish(name, at(port, APP))
        client = self.stage.client()
        ports = []
        for number, seed in enumerate(("user1", "user2", "user3", "abc"), 1):
            [answer] = self.ask(client, number, 0, ["app", seed])
            ports.append(answer[2][0][0][1])
        self.assertEqual(ports, [1, 1, 2, 2])

    def test_no_seed(self):
        """Without a seed both members are found in time."""
        self.make()
        self.group("app", {"app_v1": 1, "app_v2": 3})
        self.successResultOf(self.locator.start())
        for port, name in ((1, "app_v1"), (2, "app_v2")):
            self.locator.publish(name, at(port, APP))
        self.assertEqual({self.locator.find("app").endpoints[0][1] for _ in range(200)}, {1, 2})

    def test_gateway_second(self):
        """A gateway that is not exclusive is asked for what is not here."""
        there = ServiceInfo((("10.0.0.2", 5),), 1, {})
        locator = self.make(gateway=FixedGateway({"app": there, "storage": there}))
        locator.publish("storage", at(1, STORAGE))
        self.assertEqual(locator.find("app"), there)
        self.assertEqual(locator.find("storage"), at(1, STORAGE))

    def test_gateway_first(self):
        """An exclusive gateway's word goes before our own services, but never before the locator itself."""
        there = ServiceInfo((("10.0.0.2", 5),), 1, {})
        locator = self.make(gateway=FixedGateway({"app": there, "locator": there}, exclusive=True))
        locator.publish("app", at(1, APP))
        locator.publish("locator", at(2, LOCATOR))
        locator.publish("hidden", at(3, APP))
        self.assertEqual(locator.find("app"), there)
        self.assertEqual(locator.find("locator"), at(2, LOCATOR))
        self.assertEqual(locator.find("hidden"), at(3, APP))

    def test_gateway_knows_ours(self):
        """The gateway hears of our own services, restricted ones too, as they come and go."""
        gateway = FixedGateway({})
        locator = self.make(gateway=gateway, restrict=["logging"])
        locator.publish("locator", at(2, LOCATOR))
        withdraw = locator.publish("logging", at(1, LOGGING))
        self.successResultOf(locator.start())
        withdraw()
        self.assertEqual(
            gateway.log,
            [("consume", UUID, "logging", (("127.0.0.1", 1),)), ("withdraw", UUID, "logging")],
        )

    def test_bounded_answers(self):
        """Answers packed once do not fill the memory."""
        locator = self.make()
        client = self.stage.client()
        self.patch(locator, "_answers", {})
        from cocaine_tx.locator import service

        self.patch(service, "ANSWERS", 3)
        for number in range(1, 10):
            locator.publish(f"app{number}", at(number, APP))
            [answer] = self.ask(client, number, 0, [f"app{number}"])
            self.assertEqual(answer[2][0], [[b"127.0.0.1", number]])
        self.assertLessEqual(len(locator._answers), 3)


class Following(LocatorCase):
    """The streams of announcements."""

    def test_restricted(self):
        """Restricted services and the locator stay at home."""
        locator = self.make(members=dict, restrict=["logging"], extra={"x-cocaine-cluster": "a"})
        for name, protocol in (("locator", LOCATOR), ("logging", LOGGING), ("storage", STORAGE)):
            locator.publish(name, at(1, protocol))
        [dump] = self.ask(self.stage.client(), 1, 1, ["gateway"])
        self.assertEqual(list(dump[2][1]), [b"storage"])
        self.assertEqual(dump[3], [*ZEROS, [False, b"x-cocaine-locator-extra", b"\x81\xb1x-cocaine-cluster\xa1a"]])

    def test_second_connect(self):
        """A gateway that comes again is told on its new stream; the old one is closed."""
        locator = self.make(members=dict)
        first, second = self.stage.client(), self.stage.client()
        self.ask(first, 1, 1, ["gateway"])
        self.ask(second, 1, 1, ["gateway"])
        locator.publish("app", at(1, APP))
        self.stage.network.advance(0)
        self.assertEqual([frame[1] for frame in decoded(first.data)], [0, 2])
        self.assertEqual([list(frame[2][1]) for frame in decoded(second.data)], [[], [b"app"]])
        first.transport.loseConnection()
        self.stage.network.advance(0)
        locator.publish("more", at(2, APP))
        self.stage.network.advance(0)
        self.assertEqual(len(decoded(second.data)), 3)

    def test_long_names(self):
        """A caller with an endless uuid or router's name loses its connection, and nothing is kept of it."""
        self.make(members=dict)
        for method in (1, 5):
            client = self.stage.client()
            self.ask(client, 1, method, ["x" * 2000])
            self.assertTrue(client.closed)
        self.stage.network.advance(0)
        self.assertEqual((self.locator._peers, self.locator._routers), ({}, {}))

    def test_stop(self):
        """A locator that stops says so."""
        locator = self.make(members=dict)
        client = self.stage.client()
        self.ask(client, 1, 1, ["gateway"])
        locator.stop()
        self.stage.network.advance(0)
        self.assertEqual(decoded(client.data)[-1][1:3], [2, []])

    def test_gone(self):
        """Nothing is kept for a gateway whose connection has ended."""
        locator = self.make(members=dict)
        client = self.stage.client()
        self.ask(client, 1, 1, ["gateway"])
        client.transport.abortConnection()
        self.stage.network.advance(0)
        self.assertEqual(locator._peers, {})
        self.assertEqual(locator._directory.peers(), ())

    def test_cluster(self):
        """Linked nodes are listed; one that is being linked has no address yet."""
        self.make(members=lambda: {"a": ("10.0.0.2", 10053), "b": None})
        [answer] = self.ask(self.stage.client(), 1, 3, [])
        self.assertEqual(answer[2], [{b"a": [b"10.0.0.2", 10053], b"b": [b"0.0.0.0", 0]}])


class Publishing(LocatorCase):
    """Services of others, offered here."""

    def test_resolvable(self):
        """What is published is found, with its graph or without one."""
        self.make()
        client = self.stage.client()
        graph = {0: ["ping", {}, {0: ["value", {}], 1: ["error", {}]}]}
        self.ask(client, 1, 4, ["ext", [["10.0.0.9", 9000]], [1, graph]])
        self.ask(client, 2, 4, ["http-ext", [["10.0.0.9", 8080]]])
        [native], [foreign] = self.ask(client, 3, 0, ["ext"]), self.ask(client, 4, 0, ["http-ext"])
        expected = {0: [b"ping", {}, {0: [b"value", {}], 1: [b"error", {}]}]}
        self.assertEqual(native[2], [[[b"10.0.0.9", 9000]], 1, expected])
        self.assertEqual(foreign[2], [[[b"10.0.0.9", 8080]], 0, {}])

    def test_withdrawn_with_its_connection(self):
        """A publisher that dies takes its service along."""
        locator = self.make()
        client = self.stage.client()
        self.ask(client, 1, 4, ["ext", [["10.0.0.9", 9000]]])
        client.transport.loseConnection()
        self.stage.network.advance(0)
        self.assertRaises(ServiceNotFound, locator.find, "ext")

    def test_taken(self):
        """A name in use is refused, and the connection goes on."""
        locator = self.make()
        locator.publish("storage", at(1, STORAGE))
        client = self.stage.client()
        [answer] = self.ask(client, 1, 4, ["storage", [["10.0.0.9", 9000]]])
        self.assertEqual(answer[1:3], [1, [[12, 22], b"service 'storage' already exists"]])
        self.assertEqual(self.ask(client, 2, 6, [])[0][2], [UUID.encode()])

    def test_malformed(self):
        """A publisher that breaks the protocol loses its connection, nobody else anything."""
        deep = None
        for _ in range(1018):
            deep = {0: deep}
        for args in (
            ["x", [["10.0.0.9"]]],
            ["x", [[1, 2]]],
            ["x", [["10.0.0.9", 70000]]],
            ["x", ["10.0.0.9"]],
            ["x", [], [0, {0: ["ping", {}, {}]}]],
            ["x", [], ["1", {}]],
            ["x", [], [1]],
            ["x" * 2000, []],
            ["x", [], [1, deep]],
            ["x", [], [1, {0: ["ping"]}]],
            ["x", [], [1, {b"ping": [0, {}, {}]}]],
        ):
            locator = self.make()
            client, other = self.stage.client(), self.stage.client()
            self.ask(client, 1, 4, args)
            self.assertTrue(client.closed)
            self.assertRaises(ServiceNotFound, locator.find, "x")
            self.assertNotIn("x", locator._directory)
            self.assertEqual(self.ask(other, 1, 6, [])[0][2], [UUID.encode()])


@implementer(IStorage)
class BrokenStorage:
    """Fails, or never answers."""

    def __init__(self):
        self.answer = lambda: fail(NotFound("the disk is gone"))

    def find(self, collection, tags):
        return self.answer()


class Groups(LocatorCase):
    """Routing groups while they change."""

    def test_refresh(self):
        """An edited group is in force after refresh, and routers are told; a router's extra argument is ignored."""
        self.make()
        client = self.stage.client()
        self.assertEqual(self.ask(client, 1, 5, ["tools:host", True])[0][2], [{}])
        self.group("app", {"app_v1": 1, "app_v2": 3})
        told, answer = self.ask(client, 2, 2, [["app"]])
        self.assertEqual(answer[:3], [2, 0, []])
        ring = told[2][0][b"app"]
        self.assertEqual((len(ring), ring[0], ring[-1]), (512, [10939163, b"app_v2"], [4288951102, b"app_v2"]))
        self.successResultOf(self.storage.remove("groups", "app"))
        told, _ = self.ask(client, 3, 2, [["app"]])
        self.assertEqual(told[2], [{}])

    def test_discard(self):
        """A router that says it is done hears no more."""
        self.make()
        client = self.stage.client()
        self.ask(client, 1, 5, ["router"])
        self.ask(client, 1, 0, [])
        self.group("app", {"app_v1": 1})
        frames = self.ask(client, 2, 2, [["app"]])
        self.assertEqual([frame[0] for frame in frames], [2])
        self.assertFalse(client.closed)

    def test_same_router(self):
        """A router that calls again is served on the new channel only."""
        self.make()
        client = self.stage.client()
        self.ask(client, 1, 5, ["router"])
        self.ask(client, 2, 5, ["router"])
        self.group("app", {"app_v1": 1})
        frames = self.ask(client, 3, 2, [["app"]])
        self.assertEqual([frame[0] for frame in frames], [2, 3])

    def test_unreadable(self):
        """A refresh that fails says why and leaves the group in force."""
        self.make()
        self.group("app", {"app_v1": 1})
        self.successResultOf(self.locator.start())
        self.successResultOf(self.storage.write("groups", "app", b"\xc1", ["group", "active"]))
        [answer] = self.ask(self.stage.client(), 1, 2, [["app"]])
        self.assertEqual((answer[1], answer[2][0]), (1, [10, 2]))
        self.assertEqual(self.table.target("app", b""), "app_v1")

    def test_bare_string(self):
        """A name instead of a list breaks the protocol; so does a list of numbers."""
        for args in (["app"], [[1]]):
            self.make()
            client = self.stage.client()
            self.ask(client, 1, 2, args)
            self.assertTrue(client.closed)

    def test_storage_down_at_start(self):
        """A locator starts without its storage and loads the groups when it is back."""
        broken = BrokenStorage()
        self.make(storage=broken)
        self.successResultOf(self.locator.start())
        memory = MemoryStorage()
        self.successResultOf(memory.write("groups", "app", msgpack.packb({"app_v1": 1}), ["group", "active"]))
        self.table._storage = memory
        self.clock.advance(RETRY)
        self.assertEqual(self.table.target("app", b""), "app_v1")

    def test_refresh_while_loading(self):
        """What a refresh has read stays, also when the groups of the start were being read before it and come later."""
        slow = SlowStorage()
        self.make(storage=slow)
        self.group("app", {"old": 1})
        self.group("bpp", {"old": 1})
        self.locator.start()
        slow.answer(2)
        self.group("app", {"new": 1})
        refreshed = self.table.refresh(["app"])
        slow.answer(100)
        self.successResultOf(refreshed)
        self.assertEqual([self.table.target(name, b"") for name in ("app", "bpp")], ["new", "old"])

    def test_storage_silent(self):
        """A storage that never answers costs an error, not a wait without end."""
        broken = BrokenStorage()
        broken.answer = Deferred
        self.make(storage=broken)
        started = self.locator.start()
        self.clock.advance(STORAGE_TIMEOUT)
        self.successResultOf(started)
        client = self.stage.client()
        self.assertEqual(self.ask(client, 1, 2, [["app"]]), [])
        self.clock.advance(STORAGE_TIMEOUT)
        self.stage.network.advance(0)
        self.assertEqual(decoded(client.data)[0][2][0], [10, 2])
        self.locator.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_while_loading(self):
        """A locator can be stopped while its groups are being loaded."""
        broken = BrokenStorage()
        broken.answer = Deferred
        self.make(storage=broken)
        self.locator.start()
        self.locator.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
