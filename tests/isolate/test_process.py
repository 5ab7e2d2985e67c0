"""Real programs started by the process isolate, and what they leave behind: nothing."""

import fcntl
import io
import itertools
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile

import msgpack
from twisted.internet import reactor, task
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import SkipTest, TestCase
from zope.interface.verify import verifyObject

import cocaine_tx
from cocaine_tx.errors import ArchiveError, InvalidArgument, NotFound, SpawnFailed, SpoolError
from cocaine_tx.interfaces import Exit, Launch
from cocaine_tx.isolate import body as body_module
from cocaine_tx.isolate import versions
from cocaine_tx.isolate.archive import Limits
from cocaine_tx.isolate.process import ProcessIsolate
from cocaine_tx.storage.memory import MemoryStorage
from cocaine_tx.testing.isolate import isolate_contract

ROOT = os.path.dirname(os.path.dirname(cocaine_tx.__file__))

#: Does what is written into the fifo named by $ORDERS.
OBEDIENT = b"""#!/bin/sh
exec 3<"$ORDERS"
while read -r order <&3; do eval "$order"; done
"""


def archive(**programs):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, text in programs.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text))
    return msgpack.packb(file.getvalue(), use_bin_type=False)


def sh(text):
    return b"#!/bin/sh\n" + text.encode()


class Bench:
    """A spool, a storage and programs that obey."""

    def __init__(self, case, args=None, environ=os.environ):
        self.case = case
        self.storage = MemoryStorage()
        self.storage.write("apps", "app", archive(run=OBEDIENT), [])
        self.path = os.path.abspath(case.mktemp())
        self.threads = ThreadPool(1, 4)
        self.threads.start()
        case.addCleanup(self.threads.stop)
        self.isolate = ProcessIsolate(reactor, self.threads, self.storage, self.path, args or {}, environ)
        self.numbers = itertools.count()
        self.fifos = {}

    def launch(self, **environment):
        fifo = os.path.abspath(self.case.mktemp())
        os.mkfifo(fifo)
        self.fifos[fifo] = os.open(fifo, os.O_RDWR)
        self.case.addCleanup(os.close, self.fifos[fifo])
        return Launch("run", {"--uuid": "u", "--app": "app"}, {"ORDERS": fifo, **environment}, "")

    def broken(self):
        return Launch("nosuch", {}, {}, "")

    def begins(self, process):
        pass

    def order(self, launch, order):
        os.write(self.fifos[launch.environment["ORDERS"]], order.encode() + b"\n")

    def says(self, process, launch, word):
        self.order(launch, f"echo '{word}'")

    def ends(self, process, launch, code):
        self.order(launch, f"exit {code}")

    def obeys(self, process):
        pass

    def moment(self):
        return task.deferLater(reactor, 0.005, lambda: None)

    async def until(self, told):
        while not told():
            await self.moment()

    async def run(self, program, *arguments, endpoint="", **environment):
        """Run a shell text to its end: how it ended and what it printed."""
        await self.storage.write("apps", "one", archive(run=sh(program)), [])
        image = await self.isolate.spool("one")
        output = []
        process = image.spawn(Launch("run", dict(arguments), environment, endpoint), output.append)
        await process.started
        end = await process.exited
        await image.discard()
        return end, b"".join(output).decode()


ProcessIsolateTests = isolate_contract(Bench)


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


class ProgramTests(TestCase):
    def setUp(self):
        self.bench = Bench(self)

    async def test_command_line(self):
        """A program is started by its absolute path, with its arguments sorted by name, in its own folder."""
        end, text = await self.bench.run(
            'echo "$0" "$@"; pwd', ("--uuid", "u u"), ("--app", "a"), ("--locator", "127.0.0.1:10053")
        )
        line, folder = text.splitlines()
        self.assertEqual(line, f"{folder}/run --app a --locator 127.0.0.1:10053 --uuid u u")
        self.assertTrue(folder.startswith(f"{self.bench.path}/one/"))
        self.assertTrue(end.clean)

    async def test_environment(self):
        """The manifest's variables win; of the daemon's own only the harmless ones are passed on."""
        self.bench = Bench(self, environ={"PATH": os.environ["PATH"], "LC_ALL": "C", "LANG": "de", "SECRET": "s"})
        _, text = await self.bench.run("env", LANG="en", MINE="1")
        seen = set(text.splitlines())
        self.assertTrue({"LANG=en", "MINE=1", "LC_ALL=C"} <= seen)
        self.assertNotIn("SECRET", text)

    async def test_descriptors(self):
        """A program inherits no descriptor but its output, and reads nothing."""
        held = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(held, True)
        self.addCleanup(os.close, held)
        _, text = await self.bench.run("ls /proc/self/fd; readlink /proc/self/fd/0; cat")
        self.assertEqual(text.split(), ["0", "1", "2", "3", "/dev/null"])  # 3 is the listing itself

    async def test_own_session(self):
        """A program has a session and a group of its own, so that signals for one side never reach the other."""
        _, text = await self.bench.run('cut -d" " -f1,5,6 /proc/$$/stat')
        pid, group, session = text.split()
        self.assertEqual([pid, pid], [group, session])

    async def test_both_outputs(self):
        """Standard output and standard error come in one stream, in order."""
        self.assertEqual((await self.bench.run("echo a; echo b >&2; echo c; printf tail"))[1], "a\nb\nc\ntail")

    async def test_flood(self):
        """All of a flood of output arrives, in pieces of limited size, before the end is told."""
        await self.bench.storage.write("apps", "one", archive(run=sh("head -c 3000000 /dev/zero; exit 4")), [])
        image = await self.bench.isolate.spool("one")
        sizes = []
        process = image.spawn(Launch("run", {}, {}, ""), lambda data: sizes.append(len(data)))
        self.assertEqual(await process.exited, Exit(code=4))
        self.assertEqual(sum(sizes), 3_000_000)
        self.assertLessEqual(max(sizes), 65536)
        await image.discard()

    async def test_owner_who_fails(self):
        """An owner that chokes on the output does not stop the process, and sees its end."""
        image = await self.bench.isolate.spool("app")
        launch = self.bench.launch()

        def choke(data):
            raise RuntimeError("no")

        process = image.spawn(launch, choke)
        self.bench.says(process, launch, "x")
        self.bench.ends(process, launch, 5)
        self.assertEqual(await process.exited, Exit(code=5))
        self.assertTrue(self.flushLoggedErrors(RuntimeError))
        await image.discard()

    async def test_stubborn(self):
        """A program that ignores the polite signal is ended by the other one after the kill timeout."""
        self.bench = Bench(self, {"kill_timeout": 0.1})
        image = await self.bench.isolate.spool("app")
        launch, output = self.bench.launch(), []
        process = image.spawn(launch, output.append)
        self.bench.order(launch, "trap '' TERM; echo deaf")
        await self.bench.until(lambda: output)
        process.kill()
        self.assertEqual(await process.exited, Exit(signal=9))
        await image.discard()

    async def test_stopped(self):
        """A stopped program can be ended too."""
        self.bench = Bench(self, {"kill_timeout": 0.05})
        image = await self.bench.isolate.spool("app")
        process = image.spawn(self.bench.launch(), lambda data: None)
        await process.started
        os.kill(process.pid, signal.SIGSTOP)
        process.kill()
        self.assertIsNotNone((await process.exited).signal)
        await image.discard()

    async def test_children_of_the_program(self):
        """What a program started goes with it, and does not hold its end back by holding its output."""
        image = await self.bench.isolate.spool("app")
        launch, output = self.bench.launch(), []
        process = image.spawn(launch, output.append)
        self.bench.order(launch, "sleep 1000 & echo $!; exit 6")
        self.assertEqual(await process.exited, Exit(code=6))
        grandchild = int(b"".join(output))
        await self.bench.until(lambda: not alive(grandchild))
        await image.discard()

    async def test_runaway_holds_the_pipe(self):
        """A process that left the group and prints for ever does not keep the program's end from being told."""
        image = await self.bench.isolate.spool("app")
        launch, output = self.bench.launch(), []
        process = image.spawn(launch, output.append)
        self.bench.order(launch, "setsid sh -c 'echo $$; exec yes' & sleep 0.05; exit 7")
        self.assertEqual(await process.exited, Exit(code=7))
        runaway = int(b"".join(output).split()[0])
        await self.bench.until(lambda: not alive(runaway))  # by SIGPIPE
        await image.discard()

    async def test_without_pidfd(self):
        """On a system without pidfds a process's end is seen all the same."""
        self.patch(body_module.os, "pidfd_open", lambda pid: exec("raise OSError(38, 'no')"))
        self.assertEqual((await self.bench.run("echo x; exit 8")), (Exit(code=8), "x\n"))

    async def test_without_setpriv(self):
        """Where setpriv is not installed programs run all the same."""
        self.patch(os, "environ", {**os.environ, "PATH": "/nowhere"})
        self.assertEqual((await self.bench.run("echo x; exit 9")), (Exit(code=9), "x\n"))

    async def test_reader(self):
        """What the reactor watches is what a reactor can watch."""
        image = await self.bench.isolate.spool("app")
        process = image.spawn(self.bench.launch(), lambda data: None)
        await process.started
        verifyObject(IReadDescriptor, process._pipe)
        process.kill()
        await process.exited
        await image.discard()

    async def test_refusals(self):
        """A program that cannot be run is named, with the reason, by the start's failure and in the output."""
        programs = archive(text=b"no program", lost=b"#!/no/such/interpreter\n", run=OBEDIENT)
        await self.bench.storage.write("apps", "one", programs, [])
        image = await self.bench.isolate.spool("one")
        folder = f"{self.bench.path}/one/{os.listdir(f'{self.bench.path}/one')[0]}"
        os.chmod(f"{folder}/text", 0o644)
        for name, word in (("nosuch", "No such file"), ("text", "Permission denied"), (".", "Is a directory"),
                           ("lost", "/no/such/interpreter")):
            output = []
            process = image.spawn(Launch(name, {}, {}, ""), output.append)
            error = await self.assertFailure(process.started, SpawnFailed)
            self.assertIn(word, error.reason)
            self.assertIn(word, b"".join(output).decode())
            self.assertEqual(await process.exited, Exit(code=127))
        await image.discard()

    async def test_bad_words(self):
        """Arguments no command line can hold fail the start."""
        image = await self.bench.isolate.spool("app")
        process = image.spawn(Launch("run", {"--a": "nul\0"}, {}, ""), lambda data: None)
        await self.assertFailure(process.started, SpawnFailed)
        await process.exited
        await image.discard()

    async def test_rlimits(self):
        """Limits are those of the profile when the program begins."""
        self.bench = Bench(self, {"rlimits": {"nofile": 77, "core": 0}})
        self.assertEqual((await self.bench.run("ulimit -n; ulimit -Hn; ulimit -c"))[1].split(), ["77", "77", "0"])

    async def test_rlimits_need_a_program(self):
        """Limits that could not be set before the program begins fail the spool."""
        self.patch(os, "environ", {**os.environ, "PATH": "/nowhere"})
        self.bench = Bench(self, {"rlimits": {"nofile": 77}})
        await self.assertFailure(self.bench.isolate.spool("app"), SpoolError)

    async def test_user(self):
        """Workers can run as another user, who owns the code and has its own home, and die with the node too."""
        self.as_nobody()
        entry = pwd.getpwnam("nobody")
        _, text = await self.bench.run("id -u; id -g; id -G; echo $HOME; stat -c %u run")
        uid, gid, groups, home, owner = text.splitlines()
        self.assertEqual((int(uid), int(gid), home), (entry.pw_uid, entry.pw_gid, entry.pw_dir))
        self.assertEqual(int(owner), entry.pw_uid)
        self.assertNotIn("0", groups.split())
        _, text = await self.bench.run("exec setpriv --dump")
        self.assertIn("Parent death signal: KILL", text.replace("[", "").replace("]", ""))

    def as_nobody(self):
        if os.geteuid() != 0:
            raise SkipTest("only root can")
        spool = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, spool)
        os.chmod(spool, 0o755)
        self.bench = Bench(self, {"user": "nobody", "spool": spool})
        return spool

    async def test_user_can_connect(self):
        """Workers of another user reach the socket that their node keeps for itself; nobody else does then."""
        folder = self.as_nobody()
        path = os.path.join(folder, "app.1")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            os.chmod(path, 0o600)
            self.assertEqual((await self.bench.run(f"test -w {path} && echo may", endpoint=path))[1], "may\n")
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)

    async def test_loader_variables(self):
        """An app cannot bring code of its own into what still runs as root: the loader does as it says only then."""
        folder = self.as_nobody()
        os.chmod(folder, 0o777)
        trace = os.path.join(folder, "trace")
        _, text = await self.bench.run("echo $LD_DEBUG; id -u", LD_DEBUG="files", LD_DEBUG_OUTPUT=trace)
        self.assertEqual(text.split(), ["files", str(pwd.getpwnam("nobody").pw_uid)])
        owners = {os.stat(os.path.join(folder, name)).st_uid for name in os.listdir(folder) if "trace" in name}
        self.assertEqual(owners, {pwd.getpwnam("nobody").pw_uid})

    async def test_unknown_user(self):
        """A user that does not exist fails the spool, by its name."""
        self.bench = Bench(self, {"user": "nobody-of-this-name"})
        error = await self.assertFailure(self.bench.isolate.spool("app"), SpoolError)
        self.assertIn("nobody-of-this-name", error.reason)


class SettingsTests(TestCase):
    def test_wrong_values(self):
        """A value that cannot be used is named with its key."""
        for args, word in (
            ({"spool": 1}, "spool"), ({"kill_timeout": "x"}, "kill_timeout"), ({"kill_timeout": -1}, "kill_timeout"),
            ({"kill_timeout": float("nan")}, "kill_timeout"), ({"kill_timeout": True}, "kill_timeout"),
            ({"user": 0}, "user"), ({"rlimits": []}, "rlimits"), ({"rlimits": {"none": 1}}, "'none'"),
            ({"rlimits": {"nofile": "1"}}, "nofile"), ({"archive_size": None}, "archive_size"),
        ):  # fmt: skip
            error = self.assertRaises(InvalidArgument, ProcessIsolate, reactor, None, None, "spool", args)
            self.assertIn(word, error.reason)

    async def test_spool_of_the_profile(self):
        """The profile may name another spool folder; control groups are ignored."""
        path = os.path.abspath(self.mktemp())
        bench = Bench(self, {"spool": path, "cpu": {"cpu.shares": 512}})
        image = await bench.isolate.spool("app")
        self.assertEqual(os.listdir(path), ["app"])
        await image.discard()
        self.assertEqual(os.listdir(path), [])

    async def test_leftovers_in_the_spool_of_the_profile(self):
        """What a killed node left in such a folder is removed before the next app is brought there."""
        path = os.path.abspath(self.mktemp())
        left = os.path.join(path, "app", "v0123456789abcdef")
        os.makedirs(left)
        bench = Bench(self, {"spool": path})
        image = await bench.isolate.spool("app")
        self.assertFalse(os.path.exists(left))
        await image.discard()

    async def test_swept_while_it_is_made(self):
        """A version that somebody sweeps before it is locked is given up for another."""
        path = os.path.abspath(self.mktemp())
        swept = []

        def flock(lock, how, flock=fcntl.flock):
            if not swept:
                swept.append(True)
                raise BlockingIOError
            flock(lock, how)

        self.patch(fcntl, "flock", flock)
        version = versions.bring(path, "app", archive(run=b""), Limits(), None, lambda: False)
        locked = os.open(version.folder, os.O_RDONLY)
        self.addCleanup(os.close, locked)
        self.assertRaises(BlockingIOError, fcntl.flock, locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        versions.remove(version)


class SpoolTests(TestCase):
    def setUp(self):
        self.bench = Bench(self)

    def left(self):
        return os.listdir(self.bench.path) if os.path.exists(self.bench.path) else []

    async def test_failures_leave_nothing(self):
        """A missing, damaged or misnamed app fails with the reason and leaves nothing in the spool."""
        storage = self.bench.storage
        await storage.write("apps", "cut", msgpack.packb(b"\x1f\x8b\x08"), [])
        await storage.write("apps", "raw", b"\x1f\x8b\x08", [])
        await storage.write("apps", ".running", archive(run=OBEDIENT), [])
        for app, kind in (("none", NotFound), ("cut", ArchiveError), ("raw", ArchiveError), (".running", SpoolError)):
            await self.assertFailure(self.bench.isolate.spool(app), kind)
            self.assertEqual(self.left(), [])

    async def test_cancel(self):
        """A spool given up at any moment leaves nothing behind."""
        await self.bench.storage.write("apps", "big", archive(**{f"f{n}": bytes(20_000) for n in range(300)}), [])
        for turns in range(12):
            spool = self.bench.isolate.spool("big")
            for _ in range(turns):
                await task.deferLater(reactor, 0.002, lambda: None)
            if spool.called:
                await (await spool).discard()
            else:
                spool.cancel()
                await self.assertFailure(spool, CancelledError)
        await self.bench.until(lambda: not self.left())

    async def test_two_hundred(self):
        """Two hundred processes, killed or ended by themselves, leave nothing behind."""
        await self.bench.run("exit 0")

        def level():
            children = [pid for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == os.getpid()]
            return sorted(map(target, os.listdir("/proc/self/fd"))), children, self.left()

        before = level()
        await self.bench.storage.write("apps", "mixed", archive(run=sh("[ $1 = --quit ] && exit 0; sleep 1000")), [])
        for _ in range(5):
            image = await self.bench.isolate.spool("mixed")
            processes = [
                image.spawn(Launch("run", {"--quit" if n % 2 else "--stay": "x"}, {}, ""), lambda data: None)
                for n in range(40)
            ]
            await gatherResults([process.started for process in processes])
            for process in processes:
                process.kill()
            await gatherResults([process.exited for process in processes])
            await image.discard()
        after = level()
        self.assertEqual(after[0], before[0])
        self.assertEqual(after[1], before[1])
        self.assertEqual(after[2], [".running"])
        self.assertEqual(os.listdir(f"{self.bench.path}/.running"), [])


def target(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""  # the listing itself


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None


NODE = """
import sys
sys.path[:0] = sys.argv[3].split(":")
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from cocaine_tx.interfaces import Launch
from cocaine_tx.isolate.process import ProcessIsolate
from cocaine_tx.storage.memory import MemoryStorage

async def main():
    storage = MemoryStorage()
    with open(sys.argv[2], "rb") as file:
        await storage.write("apps", "app", file.read(), [])
    isolate = ProcessIsolate(reactor, reactor.getThreadPool(), storage, sys.argv[1], {})
    image = await isolate.spool("app")
    def show(data):
        sys.stdout.write(data.decode())
        sys.stdout.flush()
    for _ in range(2):
        image.spawn(Launch("run", {}, {}, ""), show)

def stop(reason):
    reason.printTraceback()
    reactor.stop()

reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(stop))
reactor.run()
"""

#: Ignores every polite end, and has a child that left its session.
FOREIGN = sh("trap '' TERM HUP PIPE; (exec setsid sleep 1000) & sleep 0.02; echo $$ $!; while :; do sleep 1000; done")


class KilledNodeTests(TestCase):
    async def orphans(self, bench, environ):
        """Kill a node that runs two foreign programs; the four processes it leaves."""
        blob = self.mktemp()
        with open(blob, "wb") as file:
            file.write(archive(run=FOREIGN))
        node = subprocess.Popen(
            [sys.executable, "-c", NODE, bench.path, blob, ":".join([ROOT, *sys.path])],
            stdout=subprocess.PIPE, env=environ,
        )  # fmt: skip
        pids = []
        try:
            while len(pids) < 4:
                line = node.stdout.readline()
                self.assertTrue(line)
                pids += map(int, line.split())
                for pid in pids[-2:]:
                    self.addCleanup(end, pid)
            records = [f"{bench.path}/.running/{pid}" for pid in pids[::2]]
            await bench.until(lambda: all(map(os.path.exists, records)))
        finally:
            node.kill()
            node.wait()
            node.stdout.close()
        return pids

    async def test_programs_die_with_the_node(self):
        """A killed node's programs die with it, without the next start."""
        bench = Bench(self)
        pids = await self.orphans(bench, None)
        await bench.until(lambda: not alive(pids[0]) and not alive(pids[2]))
        await bench.isolate.sweep()
        await bench.until(lambda: not any(map(alive, pids)))
        self.assertEqual(os.listdir(bench.path), [".running"])
        self.assertEqual(os.listdir(f"{bench.path}/.running"), [])

    async def test_sweep_without_setpriv(self):
        """Without setpriv the next start ends what a killed node left, and only that."""
        bench = Bench(self)
        mine = await bench.isolate.spool("app")
        survivor = mine.spawn(bench.launch(), lambda data: None)
        await survivor.started
        os.mkdir("bin")
        for tool in ("sh", "sleep", "setsid"):
            os.symlink(f"/usr/bin/{tool}", f"bin/{tool}")
        pids = await self.orphans(bench, {"PATH": os.path.abspath("bin")})
        self.assertTrue(all(map(alive, pids)))
        await bench.isolate.sweep()
        await bench.until(lambda: not any(map(alive, pids)))
        self.assertTrue(alive(survivor.pid))
        survivor.kill()
        await survivor.exited
        await mine.discard()
        self.assertEqual(os.listdir(bench.path), [".running"])

    async def test_foreign_things_stay(self):
        """A sweep touches neither what the original unpacked there nor a process that got a dead one's number."""
        bench = Bench(self)
        os.makedirs(f"{bench.path}/app/vendor")
        os.makedirs(f"{bench.path}/.running")
        stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        self.addCleanup(stranger.wait)
        self.addCleanup(stranger.kill)
        for name, text in ((str(stranger.pid), "v0123456789abcdef 1 boot"), ("junk", "x"), ("7", "")):
            with open(f"{bench.path}/.running/{name}", "w") as file:
                file.write(text)
        await bench.isolate.sweep()
        self.assertTrue(alive(stranger.pid))
        self.assertTrue(os.path.isdir(f"{bench.path}/app/vendor"))
        self.assertEqual(versions.sweep(os.path.join(bench.path, "nowhere")), [])
