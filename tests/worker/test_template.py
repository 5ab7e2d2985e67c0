"""A worker's program as a template: what each fork is told, and who must not be one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.wire.protocols import TEMPLATE_VARIABLE
from cocaine_tx.wire.template import Ended, Failed, Fork, Forked, Ready, Reap, Unfit, pack_order, unpack_report
from cocaine_tx.worker.template import adjust

ROOT = str(Path(__file__).resolve().parents[2])
#: Each worker says what it was told and that it has nothing of its template's but the imports.
PROGRAM = """
import atexit, gc, os, random, signal, sys
print("importing")
{more}
from cocaine_tx.worker.template import become_template
state = random.getstate()
become_template(set())
print(*sys.argv[1:], os.environ["A"], os.environ.get("B"))
print("own session", os.getsid(0) == os.getpid(), "frozen", gc.get_freeze_count() > 1000)
print("reactor", "twisted.internet.reactor" in sys.modules, "random", random.getstate() != state)
print("descriptors", *sorted(os.listdir("/proc/self/fd")))
sys.exit(int(sys.argv[-1]))
"""


class TemplateTests(SynchronousTestCase):
    def begin(self, more=""):
        """A template, and our end of its socket."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(20)
        self.addCleanup(self.control.close)
        environment = {"PYTHONPATH": ROOT, TEMPLATE_VARIABLE: str(theirs.fileno()), "A": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(more=more), "--app", "a"],
            env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(self.end)
        theirs.close()

    def end(self):
        self.process.kill()
        self.process.communicate()

    def heard(self):
        data, descriptors, _, _ = socket.recv_fds(self.control, 10_000, 1)
        for descriptor in descriptors:
            self.addCleanup(os.close, descriptor)
        return unpack_report(data), descriptors

    def fork(self, number, arguments, environment):
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        socket.send_fds(self.control, [pack_order(Fork(number, arguments, environment))], [write])
        os.close(write)
        report, descriptors = self.heard()
        self.assertEqual(report, Forked(number))
        with open(read, closefd=False) as file:
            return file.read(), descriptors

    def reaped(self, number):
        self.control.send(pack_order(Reap(number)))
        return self.heard()[0]

    def test_forks(self):
        """Each fork is a process of its own, with its own words, variables, output and exit status."""
        self.begin()
        self.assertEqual(self.heard(), (Ready(), []))
        for number, status in ((5, 3), (6, 0)):
            said, pidfds = self.fork(number, {"--app": "b", "--uuid": str(status)}, {"B": "2"})
            self.assertEqual(len(pidfds), 1)
            self.assertEqual(said.splitlines()[:3], [
                f"--app b --uuid {status} 1 2",
                "own session True frozen True",
                "reactor False random True",
            ])  # fmt: skip
            self.assertEqual(said.splitlines()[3], "descriptors 0 1 2 3")  # 3 is the listing itself
            self.assertEqual(self.reaped(number), Ended(number, status))
        self.control.close()
        self.assertEqual(self.process.wait(20), 0)
        self.assertEqual(self.process.stdout.read(), b"importing\n")

    def test_no_output(self):
        """An order that comes without the worker's output is refused, and the template lives on."""
        self.begin()
        self.heard()
        self.control.send(pack_order(Fork(1, {}, {})))
        self.assertIsInstance(self.heard()[0], Failed)
        self.fork(2, {"--uuid": "0"}, {})
        self.assertEqual(self.reaped(2), Ended(2, 0))

    def test_reactor(self):
        """An app that has made a reactor is no template, and says why."""
        self.begin("from twisted.internet import reactor")
        report = self.heard()[0]
        self.assertIsInstance(report, Unfit)
        self.assertIn("twisted.internet.reactor", report.reason)
        self.assertEqual(self.process.wait(20), 0)

    def test_threads(self):
        """An app that has started threads is no template either."""
        self.begin("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()")
        self.assertIn("threads", self.heard()[0].reason)

    def test_careless_parent(self):
        """What an app does with signals of children costs no worker its exit status."""
        self.begin("signal.signal(signal.SIGCHLD, signal.SIG_IGN)")
        self.heard()
        self.fork(1, {"--uuid": "4"}, {})
        self.assertEqual(self.reaped(1), Ended(1, 4))

    def test_stray_variable(self):
        """A program that only inherited the variable says so in one line and exits with status 1."""
        program = "from cocaine_tx.worker import Worker; Worker().run()"
        environment = {"PYTHONPATH": ROOT, TEMPLATE_VARIABLE: "77"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, timeout=20, check=False
        )
        self.assertEqual((done.returncode, done.stderr.count(b"\n")), (1, 1))
        self.assertIn(TEMPLATE_VARIABLE.encode(), done.stderr)


class AdjustTests(SynchronousTestCase):
    def test_adjust(self):
        """Options are changed where they stand, added where they are missing; the rest stays."""
        words = ["main.py", "--own", "x", "--app", "a", "y"]
        adjust(words, {"--app": "b", "--uuid": "u"})
        self.assertEqual(words, ["main.py", "--own", "x", "--app", "b", "y", "--uuid", "u"])
