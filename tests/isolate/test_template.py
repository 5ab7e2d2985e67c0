"""Workers that are forks of a template: as good as others, and nothing is left of them or of it."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase
from zope.interface import implementer

from cocaine_tx.errors import SpawnFailed
from cocaine_tx.interfaces import Exit, IIsolate, Launch
from cocaine_tx.isolate import forks as forks_module
from cocaine_tx.isolate.forks import Forks
from cocaine_tx.rpc.connection import Connection
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.isolate import isolate_contract
from cocaine_tx.testing.worker import PretendNode
from cocaine_tx.wire import template as messages

from .test_process import ROOT, Bench, alive, archive, parent, target

#: Becomes a template if it is told to, then does what is written into the fifo named by $ORDERS.
OBEDIENT = f"""#!{sys.executable}
import os, subprocess, sys
print("importing", flush=True)
{{more}}
if "COCAINE_TX_TEMPLATE" in os.environ:
    from cocaine_tx.worker.template import become_template
    become_template(set())
    print("forked", flush=True)
for line in open(os.environ["ORDERS"]) if "ORDERS" in os.environ else ():
    words = line.split(None, 1)
    if words[0] == "exit":
        sys.exit(int(words[1]))
    if words[0] == "sleep":
        words[1] = str(subprocess.Popen(line.split()).pid)
    print(words[1].strip().strip("'"), flush=True)
"""


def program(more=""):
    return OBEDIENT.format(more=more).encode()


WARM = Launch("run", {"--app": "app"}, {}, "")


@implementer(IIsolate)
class Warming:
    """An isolate all of whose images are warm."""

    def __init__(self, isolate):
        self._isolate = isolate
        self.sweep = isolate.sweep

    def spool(self, app):
        async def spool():
            image = await self._isolate.spool(app)
            await image.warm(WARM)
            return image

        return Deferred.fromCoroutine(spool())


class WarmBench(Bench):
    def __init__(self, case, args=None, more=""):
        super().__init__(case, args, {**os.environ, "PYTHONPATH": ROOT})
        self.storage.write("apps", "app", archive(run=program(more)), [])
        self.plain, self.isolate = self.isolate, Warming(self.isolate)
        self.warnings = []
        observer = lambda event: self.warnings.append(event) if event["log_level"] is LogLevel.warn else None  # noqa: E731
        globalLogPublisher.addObserver(observer)
        case.addCleanup(globalLogPublisher.removeObserver, observer)

    def launch(self, **environment):
        launch = super().launch(**environment)
        return Launch(launch.executable, {**WARM.arguments, "--uuid": "u"}, launch.environment, "")

    def template(self, image):
        return image._template._child.pid

    async def worker(self, image):
        launch, output = self.launch(), []
        process = image.spawn(launch, output.append)
        await process.started
        return process, launch, output


class ContractBench(WarmBench):
    """What a worker prints begins with its own words; the contract knows nothing of the template's."""

    def __init__(self, case):
        super().__init__(case)
        quiet = program().replace(b'print("importing", flush=True)', b"").replace(b'print("forked", flush=True)', b"")
        self.storage.write("apps", "app", archive(run=quiet), [])
        case.addCleanup(lambda: case.assertEqual(self.warnings, []))


WarmIsolateTests = isolate_contract(ContractBench)


class ForkTests(TestCase):
    timeout = 60

    def setUp(self):
        self.bench = WarmBench(self)

    async def test_forked(self):
        """Workers are children of one template, and the first gets what that printed while it imported."""
        image = await self.bench.isolate.spool("app")
        template = self.bench.template(image)
        first, launch, output = await self.bench.worker(image)
        second, launch_2, output_2 = await self.bench.worker(image)
        self.assertEqual([parent(first.pid), parent(second.pid)], [template, template])
        self.bench.says(first, launch, "hello")
        await self.bench.until(lambda: b"".join(output) == b"importing\nforked\nhello\n")
        await self.bench.until(lambda: b"".join(output_2) == b"forked\n")
        self.bench.ends(first, launch, 3)
        self.assertEqual(await first.exited, Exit(code=3))
        self.assertFalse(second.exited.called)
        second.kill()
        self.assertEqual(await second.exited, Exit(signal=15))
        await image.discard()
        self.assertFalse(alive(template))
        self.assertEqual(self.bench.warnings, [])

    async def test_another_program(self):
        """A program that is not the template's is started by itself."""
        image = await self.bench.isolate.spool("app")
        process = image.spawn(Launch("nosuch", {}, {}, ""), lambda data: None)
        await self.assertFailure(process.started, SpawnFailed)
        await image.discard()

    async def test_template_killed(self):
        """When a template dies its workers go with it, and the next ones are started plainly; it is said once."""
        image = await self.bench.isolate.spool("app")
        process, _, _ = await self.bench.worker(image)
        os.kill(self.bench.template(image), signal.SIGKILL)
        self.assertEqual(await process.exited, Exit(signal=9))
        for _ in range(2):
            process, launch, output = await self.bench.worker(image)
            self.bench.ends(process, launch, 5)
            self.assertEqual(await process.exited, Exit(code=5))
            self.assertEqual(b"".join(output), b"importing\n")
        self.assertEqual(len(self.bench.warnings), 1)
        await image.discard()

    async def test_template_killed_while_it_forks(self):
        """Workers that a dying template was asked for are started plainly."""
        image = await self.bench.isolate.spool("app")
        template = self.bench.template(image)
        os.kill(template, signal.SIGSTOP)
        launches = [self.bench.launch() for _ in range(3)]
        processes = [image.spawn(launch, lambda data: None) for launch in launches]
        processes[2].kill()
        os.kill(template, signal.SIGKILL)
        await gatherResults([process.started for process in processes[:2]])
        await self.assertFailure(processes[2].started, SpawnFailed)
        for process, launch in zip(processes[:2], launches, strict=False):
            self.bench.ends(process, launch, 6)
            self.assertEqual(await process.exited, Exit(code=6))
        await processes[2].exited
        await image.discard()

    async def test_silent_template(self):
        """A template that does not answer is done without; what it forks too late is ended."""
        image = await self.bench.isolate.spool("app")
        kept, kept_launch, _ = await self.bench.worker(image)
        template = self.bench.template(image)
        self.patch(forks_module, "PATIENCE", 0.1)
        os.kill(template, signal.SIGSTOP)
        process, launch, _ = await self.bench.worker(image)
        self.assertNotEqual(parent(process.pid), template)
        self.assertEqual(len(self.bench.warnings), 1)
        os.kill(template, signal.SIGCONT)
        await self.bench.until(lambda: children(template) == [kept.pid])
        self.bench.ends(kept, kept_launch, 7)
        self.assertEqual(await kept.exited, Exit(code=7))
        self.bench.ends(process, launch, 8)
        self.assertEqual(await process.exited, Exit(code=8))
        await image.discard()
        self.assertFalse(alive(template))

    async def test_user(self):
        """Forks run as the profile's user, under its limits, and can be ended by us."""
        if os.geteuid() != 0:
            raise SkipTest("only root can")
        spool = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, spool)
        os.chmod(spool, 0o755)
        more = "import resource; print(os.getuid(), resource.getrlimit(resource.RLIMIT_NOFILE)[1], flush=True)"
        self.bench = WarmBench(self, {"user": "nobody", "rlimits": {"nofile": 77}, "spool": spool}, more)
        image = await self.bench.isolate.spool("app")
        if self.bench.warnings:
            raise SkipTest("nobody cannot read the packages here")
        output = []
        process = image.spawn(Launch("run", {}, {"ORDERS": "/dev/zero"}, ""), output.append)
        await process.started
        self.assertEqual(parent(process.pid), self.bench.template(image))
        await self.bench.until(lambda: b"forked" in b"".join(output))
        self.assertEqual(b"".join(output).split()[1:3], [b"%d" % pwd.getpwnam("nobody").pw_uid, b"77"])
        process.kill()
        await process.exited
        await image.discard()

    async def test_children_of_the_worker(self):
        """What a forked worker started goes with it."""
        image = await self.bench.isolate.spool("app")
        process, launch, output = await self.bench.worker(image)
        self.bench.order(launch, "sleep 1000")
        await self.bench.until(lambda: output and output[-1].strip().split()[-1].isdigit())
        grandchild = int(output[-1].split()[-1])
        self.bench.ends(process, launch, 0)
        await process.exited
        await self.bench.until(lambda: not alive(grandchild))
        await image.discard()

    async def test_two_hundred(self):
        """Two hundred forks, killed or ended by themselves, leave nothing behind."""
        image = await self.bench.isolate.spool("app")
        await self.bench.plain.sweep()

        def level():
            return sorted(map(target, os.listdir("/proc/self/fd"))), children(self.bench.template(image))

        before = level()
        for _ in range(10):
            processes = [image.spawn(WARM, lambda data: None) for _ in range(20)]
            for process in processes[::4]:
                process.kill()
            for process in processes:
                process.started.addErrback(lambda failure: failure.trap(SpawnFailed))
            await gatherResults([process.started for process in processes])
            for process in processes[1::4]:
                process.kill()
            await gatherResults([process.exited for process in processes])
        self.assertEqual(level(), before)
        self.assertEqual(self.bench.warnings, [])
        await image.discard()
        self.assertEqual(os.listdir(self.bench.path), [".running"])
        self.assertEqual(os.listdir(f"{self.bench.path}/.running"), [])


class UnfitTests(TestCase):
    """Whatever is wrong with a template, workers are started."""

    timeout = 60

    async def started(self, more, args=None):
        self.bench = WarmBench(self, args, more)
        image = await self.bench.isolate.spool("app")
        process, launch, _ = await self.bench.worker(image)
        self.assertEqual(parent(process.pid), os.getpid())
        self.bench.ends(process, launch, 4)
        self.assertEqual(await process.exited, Exit(code=4))
        await image.discard()
        self.assertEqual(os.listdir(self.bench.path), [".running"])
        [warning] = self.bench.warnings
        return warning["why"] + warning["said"]

    async def test_reactor(self):
        """An app that makes a reactor while it is imported is started plainly."""
        self.assertIn("twisted.internet.reactor", await self.started("from twisted.internet import reactor"))

    async def test_ends(self):
        """A program that ends before it is ready, and its last word."""
        more = "if 'COCAINE_TX_TEMPLATE' in os.environ: sys.exit('no such module')"
        why = await self.started(more)
        self.assertIn("exit status 1", why)
        self.assertIn("no such module", why)

    async def test_never_ready(self):
        """A program that is not ready in time is ended."""
        more = "import time\nif 'COCAINE_TX_TEMPLATE' in os.environ: time.sleep(1000)"
        self.assertIn("0.1 s", await self.started(more, {"warm_timeout": 0.1}))

    async def test_discarded_while_it_imports(self):
        """An image that is discarded while its template imports takes it along."""
        bench = WarmBench(self, None, "import time; time.sleep(1000)")
        image = await bench.plain.spool("app")
        warm = image.warm(WARM)
        await bench.until(lambda: bench.template(image) is not None)
        template = bench.template(image)
        await image.discard()
        await warm
        self.assertFalse(alive(template))
        self.assertEqual(bench.warnings, [])


class ServingTests(TestCase):
    timeout = 60

    async def test_serves(self):
        """Forks of an app's program shake hands, answer and end like any worker."""
        bench = WarmBench(self)
        with open(os.path.join(os.path.dirname(__file__), "..", "worker", "app.py"), "rb") as file:
            await bench.storage.write("apps", "app", archive(run=f"#!{sys.executable}\n".encode() + file.read()), [])
        image = await bench.isolate.spool("app")
        # Not below the test's own folder: where that is deep the workers could not connect, and would be waited for.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        endpoint = os.path.join(folder, "s")
        nodes, greeted, output = [], [], []

        class Listening:
            noisy = False
            doStart = doStop = lambda self: None  # noqa: E731

            def buildProtocol(self, address):
                done = Deferred()
                greeted.append(done)
                nodes.append(PretendNode(lambda: done.callback(None)))
                return Connection(nodes[-1].session, Turn(reactor), reactor)

        port = reactor.listenUNIX(endpoint, Listening())
        self.addCleanup(port.stopListening)
        arguments = {**WARM.arguments, "--endpoint": endpoint}
        processes = [
            image.spawn(Launch("run", {**arguments, "--uuid": f"U{number}"}, {}, ""), output.append)
            for number in range(2)
        ]
        await bench.until(lambda: len(greeted) == 2 or any(process.exited.called for process in processes))
        self.assertEqual(len(greeted), 2, b"".join(output))
        await gatherResults(greeted)
        self.assertEqual({node.uuid for node in nodes}, {b"U0", b"U1"})
        for node in nodes:
            node.terminate(11, "over")
        self.assertEqual(await gatherResults([process.exited for process in processes]), [Exit(code=0)] * 2)
        await image.discard()


#: A node in a nutshell: it owns an isolate, a template and two workers, says their numbers, and is killed.
OWNER = """
import sys
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.threadpool import ThreadPool
from cocaine_tx.interfaces import Launch
from cocaine_tx.isolate.process import ProcessIsolate
from cocaine_tx.storage.memory import MemoryStorage
from tests.isolate.test_process import archive

async def own():
    storage = MemoryStorage()
    await storage.write("apps", "app", archive(run=sys.stdin.buffer.read()), [])
    threads = ThreadPool(1, 2)
    threads.start()
    image = await ProcessIsolate(reactor, threads, storage, sys.argv[1], {}).spool("app")
    await image.warm(Launch("run", {}, {}, ""))
    workers = [image.spawn(Launch("run", {}, {"ORDERS": sys.argv[2]}, ""), lambda data: None) for _ in range(2)]
    for worker in workers:
        await worker.started
    print(image._template._child.pid, *(worker.pid for worker in workers), flush=True)

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(own()).addErrback(lambda f: f.printTraceback()))
reactor.run()
"""


class OwnerTests(TestCase):
    timeout = 60

    async def killed(self, deaf):
        bench = Bench(self)
        fifo = bench.launch().environment["ORDERS"]
        environment = {**os.environ, "PYTHONPATH": ROOT}
        if deaf:
            environment["PATH"] = "/nowhere"
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, bench.path, fifo], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(owner.stdout.close)
        self.addCleanup(owner.wait)
        self.addCleanup(owner.kill)
        owner.stdin.write(program())
        owner.stdin.close()
        pids = [int(word) for word in owner.stdout.readline().split()]
        self.assertEqual(len(pids), 3)
        owner.kill()
        # The killed node holds its locks until the kernel has closed its last descriptor.
        await bench.until(lambda: owner.poll() is not None and not any(map(alive, pids)))
        await bench.isolate.sweep()
        self.assertEqual((os.listdir(bench.path), os.listdir(f"{bench.path}/.running")), ([".running"], []))

    async def test_killed(self):
        """Nothing outlives a node that was killed, and the next one sweeps up the rest."""
        await self.killed(deaf=False)

    async def test_killed_without_setpriv(self):
        """Not even where the kernel was not asked to end the template with its node."""
        await self.killed(deaf=True)


class LiarTests(SynchronousTestCase):
    """A template runs an app's code: what it says is believed only as far as it can be checked."""

    def setUp(self):
        self.failures = []
        self.ready = lambda: None
        self.hung_up = lambda: None
        self.failed = self.failures.append
        self.started = []
        self.forks = Forks(Silent(), lambda child, program: self.started.append(child), self)
        self.forks.pid = os.getpid()
        self.addCleanup(self.forks.abandon)
        self.addCleanup(self.forks.close)

    def say(self, data, *descriptors):
        socket.send_fds(self.forks.theirs, [data], descriptors)
        self.forks.read()

    def test_somebody_else(self):
        """A process that is not the template's own child is neither taken for a worker nor ended."""
        stranger = subprocess.Popen(["sleep", "1000"])
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        self.forks.pid = stranger.pid
        for pid in (os.getpid(), stranger.pid):
            pidfd = os.pidfd_open(pid)
            self.say(messages.pack_report(messages.Forked(0)), pidfd)
            os.close(pidfd)
        self.assertEqual(len(self.failures), 2)
        self.assertIsNone(stranger.poll())

    def test_nonsense(self):
        """Nonsense, descriptors that are none, and numbers nobody asked for, do no harm and keep no descriptor."""
        before = len(os.listdir("/proc/self/fd"))
        with open(os.devnull) as file:
            self.say(messages.pack_report(messages.Forked(0)), file.fileno())
            self.say(b"\xc1", file.fileno())
        self.say(messages.pack_report(messages.Forked(0)))
        self.assertEqual(len(self.failures), 3)
        self.say(messages.pack_report(messages.Ended(5, 0)))
        self.say(messages.pack_report(messages.Failed(5, "x")))
        self.assertEqual(len(self.failures), 3)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_too_long(self):
        """A worker with more words than a message holds is not asked for."""
        before = len(os.listdir("/proc/self/fd"))
        self.assertFalse(self.forks.ask(None, None, Launch("run", {}, {"A": "x" * 2**20}, "")))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class Silent:
    """A reactor in which nothing happens."""

    def addReader(self, reader):
        pass

    removeReader = addReader

    def callLater(self, delay, function, *arguments):
        return self

    def cancel(self):
        pass


def children(pid):
    found = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as file:
        found = [int(word) for word in file.read().split()]
    return found
