"""
One gateway and very many nodes: what it costs to learn of them all, to answer, and to lose and find them all again.

``python -m bench.cluster [NODES] [APPS]`` (500 and 200). The nodes are locators in a second process, on loopback; each
announces the same apps, and the first app is really there, for requests. The gateway runs in this process, so its CPU
time and memory are those of a gateway alone.
"""

import gc
import resource
import subprocess
import sys
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from cocaine_tx.gateway.relay import RelayGateway
from cocaine_tx.interfaces import Publication, ServiceInfo
from cocaine_tx.locator.directory import Directory
from cocaine_tx.locator.service import LocatorService
from cocaine_tx.locator.table import RoutingTable
from cocaine_tx.locator.uplinks import Uplinks
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.wire.protocols import APP


class Room:
    def __init__(self):
        self.turn = Turn(reactor)
        self.hospitality = Hospitality(self.turn, reactor)
        self.dialer = Dialer(reactor, self.turn)

    def listen(self, dispatch):
        factory = ServiceFactory(dispatch, self.hospitality)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1", backlog=1024)
        where = (("127.0.0.1", port.getHost().port),)
        return factory, ServiceInfo(where, dispatch.protocol.version, dispatch.protocol.graph())


class Echo:
    """Says back what it is told when it has been told all."""

    def received(self, channel, message, args, headers):
        if message.name == "write":
            channel.chunk(args[0])
        elif message.name == "close":
            channel.choke()

    def lost(self, channel, reason):
        pass


def nodes(count, apps):
    """The second process: prints its ports, then cuts all links at every line it reads."""
    room = Room()
    factories, ports = [], []

    def enqueue(channel, headers, event, tag=b""):
        channel.receiver = Echo()

    _, real = room.listen(Dispatch(APP, {"info": lambda headers: ({},)}, {"enqueue": enqueue}))
    for number in range(count):
        locator = LocatorService(f"node-{number:04}", Directory(), RoutingTable(None, reactor), members=dict)
        locator.publish("app-000", real)
        for app in range(1, apps):
            locator.publish(f"app-{app:03}", ServiceInfo((("127.0.0.1", 10000 + app),), real.version, real.graph))
        factory, info = room.listen(locator.dispatch)
        factories.append(factory)
        ports.append(info.endpoints[0][1])
    print(*ports, flush=True)

    def cut():
        for factory in factories:
            for connection in list(factory.connections):
                connection.abort()

    def orders():
        for _ in sys.stdin:
            reactor.callFromThread(cut)
        reactor.callFromThread(reactor.stop)

    reactor.callInThread(orders)
    reactor.run()


def memory():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


class Measurement:
    def __init__(self, count, apps):
        self.count, self.apps = count, apps
        self.room = Room()
        gateway = self.gateway = RelayGateway("gateway", self.room.dialer, self.open)
        gateway.start()
        self.uplinks = Uplinks("gateway", gateway, self.room.dialer)
        self.locator = LocatorService(
            "gateway", Directory(), RoutingTable(None, reactor), gateway=gateway, members=self.uplinks.members
        )
        _, self.info = self.room.listen(self.locator.dispatch)
        self.latencies = []
        self.asking = True

    def open(self, name, dispatch):
        _, info = self.room.listen(dispatch)
        return Publication(name, info, Deferred)

    async def converged(self):
        while sum(state == "live" for state in self.uplinks.states().values()) < self.count:
            await deferLater(reactor, 0.05)

    async def requests(self):
        service = await self.room.dialer.service(self.info.endpoints, "app-000")
        while self.asking:
            begun = time.perf_counter()
            channel, stream = service.stream("enqueue", "echo")
            channel.chunk(b"x" * 100)
            channel.choke()
            while await stream.read() is not None:
                pass
            self.latencies.append(time.perf_counter() - begun)
            await deferLater(reactor, 0.002)

    def worst(self):
        latencies, self.latencies = sorted(self.latencies), []
        if not latencies:
            return "no requests"
        return (
            f"{len(latencies)} requests, median {latencies[len(latencies) // 2] * 1000:.1f} ms, "
            f"99th {latencies[len(latencies) * 99 // 100] * 1000:.1f} ms, worst {latencies[-1] * 1000:.1f} ms"
        )

    async def run(self, child):
        ports = [int(word) for word in child.stdout.readline().split()]
        before = memory()
        cpu, wall = time.process_time(), time.perf_counter()
        for number, port in enumerate(ports):
            self.uplinks.link(f"node-{number:04}", (("127.0.0.1", port),))
        await self.converged()
        print(f"{self.count} nodes with {self.apps} apps each, joining at once:")
        print(f"  converged after {time.process_time() - cpu:.2f} s of CPU, {time.perf_counter() - wall:.2f} s of time")
        print(f"  memory {before:.0f} MB before, {memory():.0f} MB after")
        locator = await self.room.dialer.locator(self.info.endpoints)
        await locator.call("resolve", "app-001")
        cpu = time.process_time()
        for _ in range(500):
            await locator.call("resolve", "app-001")
        print(f"  resolve: {(time.process_time() - cpu) / 500 * 1e6:.0f} us of CPU, client and server together")
        asking = Deferred.fromCoroutine(self.requests())
        await deferLater(reactor, 3)
        cpu = time.process_time()
        await deferLater(reactor, 5)
        print(f"  at rest: {(time.process_time() - cpu) / 5 * 100:.0f}% of a core, pings and a request each 2 ms")
        print(f"  requests: {self.worst()}")
        cpu, wall = time.process_time(), time.perf_counter()
        child.stdin.write("cut\n")
        child.stdin.flush()
        while len(self.uplinks.states()) == sum(state == "live" for state in self.uplinks.states().values()):
            await deferLater(reactor, 0.01)
        await self.converged()
        print(f"all {self.count} links cut at once:")
        print(f"  converged after {time.process_time() - cpu:.2f} s of CPU, {time.perf_counter() - wall:.2f} s of time")
        print(f"  requests meanwhile: {self.worst()}")
        print(f"  memory {memory():.0f} MB")
        self.asking = False
        await asking


def main():
    gc.set_threshold(50_000, 20, 20)
    words = sys.argv[1:]
    if words[:1] == ["--nodes"]:
        nodes(int(words[1]), int(words[2]))
        return
    count, apps = int(words[0]) if words else 500, int(words[1]) if len(words) > 1 else 200
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.cluster", "--nodes", str(count), str(apps)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    failures = []

    def begin():
        measurement = Measurement(count, apps)
        Deferred.fromCoroutine(measurement.run(child)).addErrback(failures.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    try:
        reactor.run()
    finally:
        child.stdin.close()
        child.wait(20)
    if failures:
        failures[0].printTraceback(sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
