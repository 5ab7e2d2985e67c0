"""
Run inside the machine, as root of a kernel with IPVS: the real table keeps the contract, and the gateway balances.

``ipvsadm`` is the independent witness. Clients and servers are namespaces around this one, which routes.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from cocaine_tx.gateway import ipvs
from cocaine_tx.gateway.ipvs import IpvsGateway, Place
from cocaine_tx.gateway.kernel import AddDestination, AddService
from cocaine_tx.gateway.netlink import NetlinkKernel
from cocaine_tx.interfaces import ServiceInfo
from cocaine_tx.testing.kernel import kernel_contract
from cocaine_tx.wire.protocols import APP

PEERS = Path(__file__).with_name("peers.py")
FOREIGN = ("10.9.0.1", 80)
V4 = "10.9.0.1"
SERVERS = {"s1": ("10.9.1.2", 7000), "s2": ("10.9.2.2", 7000)}


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def host(name, number):
    """A namespace behind a cable of its own; this one is its router."""
    run("ip", "netns", "add", name)
    run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
    run("ip", "addr", "add", f"10.9.{number}.1/24", "dev", f"to-{name}")
    run("ip", "link", "set", f"to-{name}", "up")
    run("ip", "-n", name, "addr", "add", f"10.9.{number}.2/24", "dev", "eth0")
    run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", name, "link", "set", "eth0", "up")
    run("ip", "-n", name, "route", "add", "default", "via", f"10.9.{number}.1")


def table():
    """What ``ipvsadm`` sees: service to server to weight."""
    seen, at = {}, None
    for line in run("ipvsadm", "-Ln").splitlines():
        if line.startswith("TCP"):
            at = line.split()[1]
            seen[at] = {}
        elif found := re.match(r"\s+-> (\S+:\d+)\s+Masq\s+(\d+)", line):
            seen[at][found[1]] = int(found[2])
    return seen


def peers(namespace, *words, **pipes):
    return subprocess.Popen(["ip", "netns", "exec", namespace, sys.executable, str(PEERS), *words], text=True, **pipes)


def count(port, number):
    done = run("ip", "netns", "exec", "client", sys.executable, str(PEERS), "count", V4, str(port), str(number))
    return json.loads(done)


class Contract(kernel_contract(lambda: NetlinkKernel(reactor)), TestCase):
    """The kernel's own table."""


class Balancing(TestCase):
    """Clients, a gateway and two servers."""

    timeout = 150

    def setUp(self):
        run("ip", "addr", "add", f"{V4}/32", "dev", "lo")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        conntrack = Path("/proc/sys/net/ipv4/vs/conntrack")
        if conntrack.exists():
            conntrack.write_text("1")
        for number, name in enumerate(("client", "s1", "s2")):
            host(name, number or 3)
        for name, (address, port) in SERVERS.items():
            server = peers(name, "serve", name, address, str(port))
            self.addCleanup(server.wait)
            self.addCleanup(server.kill)
        self.gateways = []

    async def gateway(self):
        gateway = IpvsGateway(NetlinkKernel(reactor), reactor, Place((V4,), (30000, 30010), "wrr"))
        await gateway.start()
        self.gateways.append(gateway)
        return gateway

    def consume(self, gateway, name, **extra):
        gateway.consume("s", name, "app", ServiceInfo((SERVERS[name],), 1, APP.graph()), extra)

    async def until(self, condition):
        while not condition():
            await deferLater(reactor, 0.1)

    def test_balancing(self):
        """Requests spread as the weights say, nodes go and return, and a restart breaks no flow."""
        return Deferred.fromCoroutine(self._balancing())

    async def _balancing(self):
        self.patch(ipvs, "CLAIM", 2.0)
        self.patch(ipvs, "LOOK", 0.5)
        kernel = NetlinkKernel(reactor)
        await kernel.start()
        await kernel.apply([AddService(FOREIGN, "rr"), AddDestination(FOREIGN, ("10.9.1.2", 80), 7)])
        await kernel.stop()
        gateway = await self.gateway()
        self.consume(gateway, "s1", **{"x-cocaine-weight": 3})
        self.consume(gateway, "s2")
        await self.until(lambda: table().get(f"{V4}:30000", {}).keys() == {"10.9.1.2:7000", "10.9.2.2:7000"})
        # The kernel knows it first, the gateway when its thread has told it.
        await self.until(lambda: gateway.resolve("app") is not None)
        self.assertEqual(gateway.resolve("app").endpoints, ((V4, 30000),))
        self.assertEqual(table()[f"{V4}:30000"], {"10.9.1.2:7000": 3, "10.9.2.2:7000": 1})
        self.assertEqual(count(30000, 40), {"s1": 30, "s2": 10})

        # A flow to each server, over all that follows.
        flows = {}
        while flows.keys() != {"s1", "s2"}:
            flow = peers("client", "hold", V4, "30000", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.addCleanup(flow.kill)
            name = flow.stdout.readline().strip()
            self.assertTrue(name, "a flow was not answered")
            flows[name] = flow

        # One leaves: nothing new goes there, and its flow goes on.
        gateway.withdraw("s", "s1", "app")
        await self.until(lambda: table()[f"{V4}:30000"].get("10.9.1.2:7000", 0) == 0)
        self.assertEqual(count(30000, 10), {"s2": 10})
        self.assertEqual(table()[f"{V4}:30000"], {"10.9.1.2:7000": 0, "10.9.2.2:7000": 1})
        self.consume(gateway, "s1")
        await self.until(lambda: table()[f"{V4}:30000"]["10.9.1.2:7000"] == 1)
        self.assertEqual(count(30000, 10), {"s1": 5, "s2": 5})

        # A restart: the table stays, the next life takes it over, and only one node comes again.
        await gateway.stop()
        self.assertEqual(table()[f"{V4}:30000"], {"10.9.1.2:7000": 1, "10.9.2.2:7000": 1})
        gateway = await self.gateway()
        self.consume(gateway, "s1")
        await self.until(lambda: gateway.resolve("app") is not None)
        self.assertEqual(gateway.resolve("app").endpoints, ((V4, 30000),))
        await self.until(lambda: table()[f"{V4}:30000"].get("10.9.2.2:7000", 0) == 0)
        for name, flow in flows.items():
            answers, _ = flow.communicate("", timeout=20)
            answered = json.loads(answers)
            self.assertEqual(list(answered), [name])
            self.assertGreater(answered[name], 5)
        # With its last flow ended, the node that did not come again is gone.
        await self.until(lambda: table()[f"{V4}:30000"] == {"10.9.1.2:7000": 1})
        self.assertEqual(table()["10.9.0.1:80"], {"10.9.1.2:80": 7})
        await gateway.stop()
