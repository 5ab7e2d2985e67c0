"""
Steady load on an app through a locator, until stdin is closed; then one line of JSON that says how it went.

``python load.py LOCATOR APP CONNECTIONS [PROXY VISITORS]``; visitors come by HTTP. Every request carries a word of its
own, and is looked at: answered once, by whom, failed with what, or not answered in time.
"""

import io
import json
import sys
import warnings
from collections import Counter

from twisted.internet import reactor, stdio
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody

from cocaine_tx.errors import CocaineError
from cocaine_tx.rpc.client import Dialer
from cocaine_tx.rpc.turn import Turn

LOCATOR, APP, CONNECTIONS = sys.argv[1], sys.argv[2], int(sys.argv[3])
PROXY, VISITORS = (sys.argv[4], int(sys.argv[5])) if len(sys.argv) > 4 else ("", 0)
PATIENCE = 15.0


class Load:
    def __init__(self):
        self.dialer = Dialer(reactor, Turn(reactor))
        self.ended = False
        self.answers = Counter()
        self.errors = Counter()
        self.twice = self.wrong = self.late = self.number = 0
        self.visits = 0
        self.slowest = 0.0
        self.recent = Counter()
        self.waiting = {}

    async def run(self, name):
        while not self.ended:
            try:
                service = await self.dialer.service([(LOCATOR, 10053)], APP)
            except CocaineError as error:
                self.errors[f"resolve: {error.pair} {error.reason}"] += 1
                await deferLater(reactor, 0.1)
                continue
            while not self.ended and not service.connection.gone:
                await self.timed(self.ask, service)
                await deferLater(reactor, 0.01)
            service.close()

    async def visit(self):
        """One visitor, who keeps the connection."""
        pool = HTTPConnectionPool(reactor)
        pool.maxPersistentPerHost = 1
        # A request sent again by the client would hide one that was lost.
        pool.retryAutomatically = False
        agent = Agent(reactor, connectTimeout=PATIENCE, pool=pool)
        while not self.ended:
            await self.timed(self.fetch, agent)
            await deferLater(reactor, 0.01)
        await pool.closeCachedConnections()

    async def timed(self, ask, *args):
        """One request, with how long it took whatever came of it."""
        self.number += 1
        number, begun = self.number, reactor.seconds()
        self.waiting[number] = begun
        try:
            await ask(b"w%d" % number, *args)
        finally:
            del self.waiting[number]
            self.slowest = max(self.slowest, reactor.seconds() - begun)

    async def fetch(self, word, agent):
        url = f"http://{PROXY}:8080/{APP}/http/".encode()
        try:
            answer = await agent.request(b"POST", url, None, FileBodyProducer(io.BytesIO(word))).addTimeout(
                PATIENCE, reactor
            )
            body = await readBody(answer).addTimeout(PATIENCE, reactor)
        except Exception as error:
            self.errors[f"http {type(error).__name__}"] += 1
            self.late += 1
            return
        if answer.code != 200:
            self.errors[f"http {answer.code}"] += 1
        else:
            self.visits += 1
            self.judge(word, [body])

    async def ask(self, word, service):
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
        self.judge(word, said)

    def judge(self, word, said):
        """Look at an answer."""
        words = b"".join(said).split(b"@")
        if len(said) != 1 or len(words) > 2:
            self.twice += 1
        elif len(words) != 2 or words[0] != word:
            self.wrong += 1
        else:
            host = words[1].decode()
            self.answers[host] += 1
            self.recent[host] += 1

    def report(self):
        recent, self.recent = dict(self.recent), Counter()
        print(json.dumps({
            "answers": dict(self.answers), "recent": recent, "errors": dict(self.errors), "twice": self.twice,
            "wrong": self.wrong, "late": self.late, "visits": self.visits, "slowest": round(self.slowest, 3),
            "oldest": round(reactor.seconds() - min(self.waiting.values(), default=reactor.seconds()), 3),
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


# Twisted says it of every connection that it keeps for later.
warnings.filterwarnings("ignore", "Using readBody", DeprecationWarning)
load = Load()
asking = [load.run(n) for n in range(CONNECTIONS)] + [load.visit() for _ in range(VISITORS)]
stdio.StandardIO(Orders(load, DeferredList([Deferred.fromCoroutine(one) for one in asking])))
reactor.run()
