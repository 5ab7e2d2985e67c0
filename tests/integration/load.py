"""
Steady load on an app through a locator, until stdin is closed; then one line of JSON that says how it went.

``python load.py LOCATOR APP CONNECTIONS``. Every request carries a word of its own, and is looked at: answered once, by
whom, failed with what, or not answered in time.
"""

import json
import sys
from collections import Counter

from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from cocaine_tx.errors import CocaineError
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.turn import Turn

LOCATOR, APP, CONNECTIONS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PATIENCE = 15.0


class Load:
    def __init__(self):
        self.dialer = Dialer(reactor, Turn(reactor))
        self.ended = False
        self.answers = Counter()
        self.errors = Counter()
        self.twice = self.wrong = self.late = self.number = 0
        self.slowest = 0.0
        self.recent = Counter()

    async def run(self, name):
        while not self.ended:
            try:
                service = await self.dialer.service([(LOCATOR, 10053)], APP)
            except CocaineError as error:
                self.errors[f"resolve: {error.pair} {error.reason}"] += 1
                await deferLater(reactor, 0.1)
                continue
            while not self.ended and not service.connection.gone:
                await self.ask(service)
                await deferLater(reactor, 0.01)
            service.close()

    async def ask(self, service):
        self.number += 1
        word = b"w%d" % self.number
        begun = reactor.seconds()
        said = []
        try:
            channel, stream = service.stream("enqueue", "echo")
            channel.chunk(word)
            channel.choke()
            while True:
                item = await stream.read().addTimeout(PATIENCE, reactor)
                if item is None:
                    break
                said.append(item[0])
        except CocaineError as error:
            self.errors[f"{list(error.pair)} {error.reason.split(':')[0]}"] += 1
            return
        except Exception as error:
            self.errors[type(error).__name__] += 1
            self.late += 1
            return
        self.slowest = max(self.slowest, reactor.seconds() - begun)
        if len(said) != 1:
            self.twice += 1
        elif said[0].split(b"@")[0] != word:
            self.wrong += 1
        else:
            host = said[0].split(b"@")[1].decode()
            self.answers[host] += 1
            self.recent[host] += 1

    def report(self):
        recent, self.recent = dict(self.recent), Counter()
        print(json.dumps({
            "answers": dict(self.answers), "recent": recent, "errors": dict(self.errors), "twice": self.twice,
            "wrong": self.wrong, "late": self.late, "slowest": round(self.slowest, 3),
        }), flush=True)  # fmt: skip


class Orders(Protocol):
    """A line on stdin asks for a report; its end is ours."""

    def __init__(self, load, done):
        self.load = load
        self.done = done

    def dataReceived(self, data):
        self.load.report()

    def connectionLost(self, reason):
        self.load.ended = True
        self.done.addCallback(lambda _: self.load.report()).addBoth(lambda _: reactor.stop())


load = Load()
stdio.StandardIO(Orders(load, DeferredList([Deferred.fromCoroutine(load.run(n)) for n in range(CONNECTIONS)])))
reactor.run()
