"""The isolate that tests play keeps the contract."""

from twisted.internet.defer import fail, succeed

from cocaine_tx.errors import NotFound
from cocaine_tx.interfaces import Exit, Launch
from cocaine_tx.testing.isolate import MemoryIsolate, isolate_contract


class MemoryBench:
    def __init__(self, case):
        self.isolate = MemoryIsolate(lambda app: fail(NotFound()) if app == "missing" else succeed(None))

    def launch(self):
        return Launch("run", {}, {}, "")

    def broken(self):
        return Launch("broken", {}, {}, "")

    def begins(self, process):
        if process.launch.executable == "broken":
            process.refuse("No such file or directory")
        else:
            process.start()

    def says(self, process, launch, word):
        process.say(word.encode() + b"\n")

    def ends(self, process, launch, code):
        process.end(Exit(code=code))

    def obeys(self, process):
        process.end(Exit(signal=15))

    def moment(self):
        return succeed(None)


MemoryIsolateTests = isolate_contract(MemoryBench)
