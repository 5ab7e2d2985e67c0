"""Five nodes, a gateway and a proxy as real daemons on hosts of their own, under load; nodes are lost in every way."""

import signal
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import hosts

NODES = (1, 2, 3, 4, 5)
GATEWAY, PROXY, CLIENT = 100, 101, 200
CLUSTER = {"type": "multicast", "args": {"group": "239.77.0.53", "interval": 1}}


def locator(**args):
    return {"services": {"locator": {"type": "locator", "args": args}}}


def serving(report):
    """The nodes that have answered since the report before."""
    return {int(host.rpartition(".")[2]) for host in report["recent"]}


class Losses(SynchronousTestCase):
    """What clients notice of a node's end."""

    skip = hosts.missing() or None

    def setUp(self):
        self.hosts = hosts.Hosts()
        self.addCleanup(self.hosts.remove)
        for number in (*NODES, GATEWAY, PROXY, CLIENT):
            self.hosts.add(number)
        for number in NODES:
            self.start(number)
        self.hosts.start(GATEWAY, "cocaine-gateway", locator(cluster=CLUSTER, gateway={"type": "relay"}))
        self.hosts.start_proxy(PROXY, GATEWAY)
        hosts.until(lambda: self.hosts.tool(1, "locate", "-n", "node").returncode == 0, 30, "the first node")
        for words in (
            ("profile", "upload", "-n", "default", "-r", '{"pool-limit": 2}'),
            ("app", "upload", str(hosts.ECHO), "-n", "echo"),
            ("runlist", "create", "-n", "all"),
            ("runlist", "add-app", "-n", "all", "--app", "echo", "--profile", "default"),
        ):
            done = self.hosts.tool(1, *words)
            self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")
        for number in NODES:
            hosts.until(
                lambda number=number: self.hosts.tool(number, "app", "start", "-n", "echo", "-r", "default").returncode
                == 0,
                30,
                f"node {number}",
            )

    def start(self, number):
        settings = locator(cluster=CLUSTER)
        settings["services"]["node"] = {"type": "node", "args": {"runlist": "all"}}
        self.hosts.start(number, "cocaine-node", settings)

    def serving_all(self, seconds):
        """Every node answers."""
        seen = set()

        def all_seen():
            seen.update(serving(self.load.report()))
            return seen == set(NODES)

        self.load.report()
        hosts.until(all_seen, seconds, "all nodes serve")

    def gone(self, number, seconds):
        """Requests are answered, and the node neither answers one of them nor keeps one waiting; returns the report."""
        begun = time.monotonic()
        while True:
            since = time.monotonic() - begun
            self.assertLessEqual(since, seconds, f"node {number} is still in rotation")
            self.load.report()
            time.sleep(0.5)
            report = self.load.report()
            # Every request from before this half second has ended, and none of those since hangs.
            if report["recent"] and number not in serving(report) and report["oldest"] < 0.3:
                return report

    def back(self, number, seconds=60):
        """The node answers again."""
        self.load.report()
        hosts.until(lambda: number in serving(self.load.report()), seconds, f"node {number} is back")

    def test_losses(self):
        """
        Nodes are killed, cut off, paused and brought back, one at a time: no request is answered twice or not at all,
        by the gateway or through the proxy, and a node that is lost is out of rotation within five seconds.
        """
        self.load = self.hosts.load(CLIENT, GATEWAY, "echo", 12, PROXY, 4)
        self.addCleanup(self.load.kill)
        self.serving_all(40)
        before = self.load.report()
        self.assertGreater(before["visits"], 0)

        self.hosts.kill("cocaine-node1")
        killed = self.gone(1, 5)
        self.start(1)
        self.back(1)

        self.hosts.unplug(2)
        cut = self.gone(2, 5)
        self.hosts.plug(2)
        self.back(2)

        self.hosts.signal("cocaine-node3", signal.SIGSTOP)
        self.gone(3, 5)
        self.hosts.signal("cocaine-node3", signal.SIGCONT)
        self.back(3)

        self.hosts.daemons["cocaine-node4"].terminate()
        self.gone(4, 15)
        result = self.load.end()
        self.assertEqual((result["twice"], result["wrong"], result["late"]), (0, 0, 0))
        self.assertEqual(before["errors"], {})
        # 16 requests are in flight at a time, over five nodes; those of a victim may fail when it had begun to answer.
        for errors in (killed["errors"], cut["errors"], result["errors"]):
            self.assertLessEqual(sum(errors.values()), 16, errors)
