"""
What an app's user does with the original Python client; prints what it got as one JSON object.

Run with the original's interpreter: ``original_client.py PORT``; the app ``play`` answers ``echo`` and ``fails``.
"""

import json
import sys

from cocaine.exceptions import ServiceError
from cocaine.services import Locator, Service
from tornado import gen, ioloop

PLACE = [("127.0.0.1", int(sys.argv[1]))]
seen = {}


def text(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, (list, tuple)):
        return [text(item) for item in value]
    if isinstance(value, dict):
        return {str(text(key)): text(item) for key, item in value.items()}
    return value


@gen.coroutine
def told(future):
    """An answer, or the error's numbers and words."""
    try:
        channel = yield future
        answer = text((yield channel.rx.get(timeout=10)))
    except ServiceError as error:
        answer = [error.category, error.code, text(error.reason)]
    raise gen.Return(answer)


@gen.coroutine
def main():
    locator = Locator(endpoints=PLACE)
    channel = yield locator.resolve("storage")
    endpoints, version, api = yield channel.rx.get(timeout=10)
    seen["resolve"] = [endpoints[0][0].decode(), version, sorted(text(row[0]) for row in api.values())[:4]]
    seen["unknown service"] = yield told(locator.resolve("nosuch"))
    try:
        yield Service("nosuch", endpoints=PLACE).connect()
    except ServiceError as error:
        seen["connect to unknown"] = [error.category, error.code]

    storage = Service("storage", endpoints=PLACE)
    seen["write"] = yield told(storage.write("things", "one", "value", ["tag", "other"]))
    yield told(storage.write("things", "two", "second", ["tag"]))
    seen["read"] = yield told(storage.read("things", "one"))
    seen["find"] = yield told(storage.find("things", ["tag"]))
    seen["find both"] = yield told(storage.find("things", ["tag", "other"]))
    seen["remove"] = yield told(storage.remove("things", "one"))
    seen["read removed"] = (yield told(storage.read("things", "one")))[:2]
    try:
        yield storage.levitate("things")
    except AttributeError as error:
        seen["unknown method"] = str(error)

    app = Service("play", endpoints=PLACE)
    channel = yield app.enqueue("echo")
    got = []
    for word in (b"a", b"bc", b"d" * 100000):
        yield channel.tx.write(word)
        answer = yield channel.rx.get(timeout=10)
        got.append(answer == word)
    yield channel.tx.close()
    got.append(type((yield channel.rx.get(timeout=10))).__name__)
    seen["stream"] = got
    for event in ("nosuch", "fails"):
        channel = yield app.enqueue(event)
        yield channel.tx.write(b"x")
        try:
            yield channel.rx.get(timeout=10)
        except ServiceError as error:
            seen[event] = [error.category, error.code, text(error.reason)]
    seen["info"] = "pool" in text((yield (yield app.info()).rx.get(timeout=10)))

    node = Service("node", endpoints=PLACE)
    seen["list"] = yield told(node.list())
    seen["start twice"] = yield told(node.start_app("play", "play"))
    seen["pause unknown"] = yield told(node.pause_app("nosuch"))
    channel = yield node.enqueue("play", "echo")
    yield channel.tx.write(b"by the node")
    seen["by the node"] = text((yield channel.rx.get(timeout=10)))
    yield channel.tx.close()
    seen["pause"] = yield told(node.pause_app("play"))
    seen["after the pause"] = yield told(app.enqueue("echo"))


ioloop.IOLoop.current().run_sync(main, timeout=60)
print(json.dumps(seen))
