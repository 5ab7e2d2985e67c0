"""
A cluster in memory, driven by words: nodes, one gateway, one client, a fake clock and a network that can be cut.

Verbs, one a line; what each says is compared with the lines under ``----``:

``gateway KIND``                     the gateway under test: relay or adhoc
``node NAME [uuid=U] [port=P] APP..`` a node comes up with these apps; its address is its name's number in 10.0.0.0/8
``links``                            what the gateway's locator knows of its nodes
``run SECONDS``                      time passes; nodes announce themselves every 5 seconds
``where NAME [seed=S]``              all answers that the gateway gives to resolve
``ask APP [N] [chunks..]``           N requests through the gateway: which nodes answered, or which error
``hold APP``                         a request that is not answered yet; ``held`` says what became of all those
``once APP``                         the same, for a request that may be carried out only once
``info APP``                         what the gateway answers to ``info`` of the app
``answer NAME``                      the node answers what it holds
``kill NAME``, ``freeze NAME``, ``thaw NAME``, ``deafen NAME``, ``mute NAME``, ``heal NAME``  losses and their ends
``offer NAME APP``, ``withdraw NAME APP``, ``full NAME``, ``room NAME``                     what a node has
``group NAME APP=WEIGHT..``, ``refresh NAME``                                                 routing groups
"""

from collections import Counter
from random import Random

import msgpack
from twisted.internet.defer import Deferred

from cocaine_tx.errors import CocaineError, QueueFull
from cocaine_tx.gateway.adhoc import AdhocGateway
from cocaine_tx.gateway.relay import RelayGateway
from cocaine_tx.interfaces import Publication, ServiceInfo
from cocaine_tx.locator.directory import Directory
from cocaine_tx.locator.service import LocatorService
from cocaine_tx.locator.table import RoutingTable
from cocaine_tx.locator.uplinks import Uplinks
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.storage.memory import MemoryStorage
from cocaine_tx.testing.network import Network
from cocaine_tx.wire.headers import ONCE_HEADER
from cocaine_tx.wire.protocols import APP, LOCATOR

#: Of the gateway's choices among nodes, so that a story is told the same way every time.
SEED = 1
INTERVAL = 5.0


class EchoApp:
    """Answers every request with its node's name when the request has ended, unless told to hold."""

    def __init__(self, node):
        self.node = node
        self.held = []
        self.dispatch = Dispatch(APP, {"info": lambda headers: ({},)}, {"enqueue": self.enqueue})

    def enqueue(self, channel, headers, event, tag=b""):
        if self.node.full:
            raise QueueFull()
        channel.receiver = Request(self, event)

    def finish(self):
        held, self.held = self.held, []
        for channel in held:
            self.answer(channel, b"held")

    def answer(self, channel, said):
        channel.chunk(b"%s:%s" % (self.node.name.encode(), said))
        channel.choke()


class Request:
    def __init__(self, app, event):
        self.app = app
        self.event = event
        self.said = b""

    def received(self, channel, message, args, headers):
        if message.name == "write":
            self.said += args[0]
        elif message.name == "close":
            if self.event == b"hold":
                self.app.held.append(channel)
            elif self.event == b"begin":
                channel.chunk(b"begun")
                self.app.held.append(channel)
            else:
                self.app.answer(channel, self.said)

    def lost(self, channel, reason):
        pass


class Room:
    """Services on one host."""

    def __init__(self, network, address, port=0):
        self.host = network.host(address)
        self.address = address
        self.turn = Turn(self.host)
        self.hospitality = Hospitality(self.turn, self.host)
        self.dialer = Dialer(self.host, self.turn)

    def listen(self, dispatch, port=0):
        listening = self.host.listenTCP(port, ServiceFactory(dispatch, self.hospitality))
        where = ((self.address, listening.getHost().port),)
        return listening, ServiceInfo(where, dispatch.protocol.version, dispatch.protocol.graph())


class Node(Room):
    def __init__(self, network, name, uuid, port, apps):
        super().__init__(network, f"10.0.0.{int(name[1:])}")
        self.name = name
        self.uuid = uuid
        self.full = False
        self.alive = True
        self.audible = True
        self.locator = LocatorService(uuid, Directory(), RoutingTable(None, self.host), members=dict)
        _, self.info = self.listen(self.locator.dispatch, port)
        self.locator.publish("locator", self.info)
        self.apps = {}
        for app in apps:
            self.offer(app)

    def offer(self, app):
        made = EchoApp(self)
        listening, info = self.listen(made.dispatch)
        self.apps[app] = (made, listening, self.locator.publish(app, info))

    def withdraw(self, app):
        _, listening, withdraw = self.apps[app]
        withdraw()
        listening.stopListening()


class Cluster:
    """The words."""

    def __init__(self):
        self.network = Network()
        self.nodes = {}
        self.here = Room(self.network, "10.0.1.1")
        self.client = Room(self.network, "10.0.2.1")
        self.held = []

    def do(self, line):
        verb, *words = line.split()
        said = getattr(self, f"do_{verb}")(*words)
        self.network.advance(0)
        return said or "ok"

    # -- parts

    def do_gateway(self, kind):
        if kind == "relay":
            self.gateway = RelayGateway("gateway", self.here.dialer, self.open, chance=Random(SEED).random)
        else:
            self.gateway = AdhocGateway()
        self.gateway.start()
        self.uplinks = Uplinks("gateway", self.gateway, self.here.dialer)
        self.uplinks.jitter = lambda: 1.0
        self.storage = MemoryStorage()
        self.locator = LocatorService(
            "gateway", Directory(), RoutingTable(self.storage, self.network),
            gateway=self.gateway, members=self.uplinks.members,
        )  # fmt: skip
        _, info = self.here.listen(self.locator.dispatch, 10053)
        self.locator.publish("locator", info)
        self.locator.start()
        self.network.callLater(0, self.tick)

    def open(self, name, dispatch):
        listening, info = self.here.listen(dispatch)

        def withdraw():
            listening.stopListening()
            return Deferred()

        return Publication(name, info, withdraw)

    def tick(self):
        for node in self.nodes.values():
            if node.alive and node.audible:
                self.uplinks.link(node.uuid, node.info.endpoints)
        self.network.callLater(INTERVAL, self.tick)

    def do_node(self, name, *words):
        settings = dict(word.split("=") for word in words if "=" in word)
        apps = [word for word in words if "=" not in word]
        port = int(settings.get("port", 10053))
        self.nodes[name] = Node(self.network, name, settings.get("uuid", f"uuid-{name}"), port, apps)

    # -- time and losses

    def do_run(self, seconds):
        left = float(seconds)
        while left > 0:
            step = min(0.25, left)
            self.network.advance(step)
            left -= step

    def do_kill(self, name):
        node = self.nodes[name]
        node.alive = False
        self.network.kill(node.address)

    def _cut(self, act, name, *directions):
        node, here = self.nodes[name].address, self.here.address
        for direction in directions:
            act(*((node, here) if direction == "out" else (here, node)))

    def do_freeze(self, name):
        self.nodes[name].audible = False
        self._cut(self.network.cut, name, "out", "in")

    def do_mute(self, name):
        self._cut(self.network.cut, name, "out")

    def do_deafen(self, name):
        self._cut(self.network.cut, name, "in")

    def do_thaw(self, name):
        self.nodes[name].audible = True
        self._cut(self.network.mend, name, "out", "in")

    do_heal = do_thaw

    # -- what nodes have

    def do_offer(self, name, app):
        self.nodes[name].offer(app)

    def do_withdraw(self, name, app):
        self.nodes[name].withdraw(app)

    def do_full(self, name):
        self.nodes[name].full = True

    def do_room(self, name):
        self.nodes[name].full = False

    def do_answer(self, name):
        for app, _, _ in self.nodes[name].apps.values():
            app.finish()

    def do_group(self, name, *members):
        weights = {app: int(weight) for app, weight in (member.split("=") for member in members)}
        self.storage.write("groups", name, msgpack.packb(weights), ["group", "active"])

    def do_refresh(self, name):
        self._wait(self._locator().addCallback(lambda locator: locator.call("refresh", [name])))

    # -- what is seen

    def do_links(self):
        return "\n".join(
            f"{label} {state} {self.uplinks.members().get(label) or ''}".rstrip()
            for label, state in sorted(self.uplinks.states().items())
        ) or "none"

    def _locator(self):
        return Deferred.fromCoroutine(self.client.dialer.connect((("10.0.1.1", 10053),), LOCATOR))

    def _wait(self, waiting):
        found = []
        waiting.addBoth(found.append)
        self.network.advance(0)
        if not found:
            return "nothing yet"
        if isinstance(getattr(found[0], "value", None), CocaineError):
            error = found[0].value
            return f"error {list(error.pair)} {error.reason}"
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        return found[0]

    def do_where(self, name, *words):
        seed = dict(word.split("=") for word in words).get("seed", "").encode()
        places = set()
        for _ in range(100):
            try:
                places |= {host for host, _ in self.locator.find(name, seed).endpoints}
            except CocaineError as error:
                return f"error {list(error.pair)} {error.reason}"
        return " ".join(sorted(places))

    async def _request(self, app, event, chunks, headers=()):
        service = await self.client.dialer.service((("10.0.1.1", 10053),), app)
        try:
            channel, stream = service.stream("enqueue", event, headers=headers)
            for chunk in chunks:
                channel.chunk(chunk)
            channel.choke()
            said = []
            async for (answer,) in stream:
                said.append(answer)
        finally:
            service.close()
        return b" ".join(said).decode()

    def do_ask(self, app, count="1", *chunks):
        asked = [
            Deferred.fromCoroutine(self._request(app, "ping", [chunk.encode() for chunk in chunks]))
            for _ in range(int(count))
        ]
        answers = Counter(self._wait(one) for one in asked)
        if len(answers) > 1 and int(count) > 10:
            # Chance decides how many each gets; that each gets some is what matters.
            return "\n".join(sorted(answers))
        return "\n".join(f"{number} {answer}" for answer, number in sorted(answers.items()))

    def do_hold(self, app, event="hold", headers=()):
        outcome = []
        Deferred.fromCoroutine(self._request(app, event, [], headers)).addBoth(outcome.append)
        self.held.append(outcome)

    def do_info(self, app):
        async def asking():
            service = await self.client.dialer.service((("10.0.1.1", 10053),), app)
            try:
                return str(*await service.call("info"))
            finally:
                service.close()

        return self._wait(Deferred.fromCoroutine(asking()))

    def do_once(self, app):
        self.do_hold(app, headers=(ONCE_HEADER,))

    def do_begin(self, app):
        self.do_hold(app, "begin")

    def do_held(self):
        lines = [self._wait(_fired(outcome[0])) if outcome else "nothing yet" for outcome in self.held]
        self.held = [outcome for outcome in self.held if not outcome]
        return "\n".join(lines) or "none"

    def do_inflight(self):
        return str(self.gateway.in_flight)


def _fired(result):
    waiting = Deferred()
    waiting.callback(None)
    return waiting.addCallback(lambda _: result)
