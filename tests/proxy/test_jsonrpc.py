"""Any service by JSON-RPC: what a caller gets, whatever it sends and whatever the service says."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import NotFound
from cocaine_tx.proxy import jsonrpc
from cocaine_tx.proxy.jsonrpc import Call, Refusal
from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.wire.headers import Headers
from cocaine_tx.wire.idl import PRIMITIVE, STREAMING, VOID, Slot, protocol
from cocaine_tx.wire.session import Channel
from tests.proxy.world import NODE, Client, World

SHELF = protocol("shelf", 1, (
    Slot(0, "find", VOID, PRIMITIVE, (bytes, tuple)),
    Slot(1, "emit", VOID, VOID, (bytes,)),
    Slot(2, "watch", VOID, STREAMING, ()),
    Slot(3, "talk", STREAMING, STREAMING, (bytes,)),
    Slot(4, "fail", VOID, PRIMITIVE, ()),
    Slot(5, "pair", VOID, PRIMITIVE, ()),
))  # fmt: skip


class Talk:
    """Says everything once more, in capitals."""

    def __init__(self, channel: Channel) -> None:
        channel.receiver = self

    def received(self, channel: Channel, message: Any, args: tuple[Any, ...], headers: Headers) -> None:
        if message.name == "write":
            channel.chunk(args[0].upper())
        else:
            channel.choke()

    def lost(self, channel: Channel, reason: Exception) -> None:
        pass


class Shelf:
    """
    A service of every shape.

    :ivar seen: calls with their headers; ``watchers``: open streams.
    """

    address = (NODE, 31000)
    spoken = SHELF

    def __init__(self, world: World) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.watchers: list[Channel] = []
        dispatch = Dispatch(
            SHELF, {"find": self._find, "emit": self._emit, "fail": self._fail, "pair": lambda headers: (b"a", 2)},
            {"watch": lambda channel, headers: self.watchers.append(channel), "talk": self._talk},
        )  # fmt: skip
        world.node.listenTCP(31000, ServiceFactory(dispatch, Hospitality(world.turn, world.node)), interface=NODE)

    def _find(self, headers: Headers, collection: bytes, tags: tuple[bytes, ...]) -> tuple[Any, ...]:
        self.seen.append((collection, tags, dict(headers)))
        return ([collection, b"\xff\x80", {b"k": (1, None)}],)

    def _emit(self, headers: Headers, line: bytes) -> tuple[Any, ...]:
        self.seen.append((line,))
        return ()

    def _fail(self, headers: Headers) -> tuple[Any, ...]:
        raise NotFound("a/b: No such file or directory")

    def _talk(self, channel: Channel, headers: Headers, word: bytes) -> None:
        channel.chunk(word)
        Talk(channel)


def post(body: Any, *headers: str, target: str = "/") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {target} HTTP/1.1", "Host: a", f"Content-Length: {len(raw)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + raw


def call(method: str, params: Any = None, id: Any = 1, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": id, **more}


def answer(client: Client) -> tuple[int, Any]:
    head, _, body = client.got.partition(b"\r\n\r\n")
    return int(head[9:12]), json.loads(body) if body.strip() else None


class JsonRpcTests(SynchronousTestCase):
    def world(self, **terms: Any) -> tuple[World, Shelf]:
        world = World(**{"services": frozenset(("shelf", "nope"))} | terms)
        self.addCleanup(world.stop)
        shelf = Shelf(world)
        world.apps["shelf"] = shelf  # type: ignore[assignment]
        return world, shelf

    def result(self, world: World, body: Any, *headers: str) -> Any:
        status, got = answer(world.ask(post(body, "X-Cocaine-JSON-RPC: 1", *headers)))
        self.assertEqual(status, 200, got)
        return got

    def code(self, world: World, body: Any) -> int:
        code: int = self.result(world, body)["error"]["code"]
        return code

    def test_off(self) -> None:
        """Nobody reaches a service unless the operator has said so."""
        world, _ = self.world(services=frozenset())
        for headers in (("X-Cocaine-JSON-RPC: 1",), ("Content-Type: application/json-rpc",)):
            client = world.ask(post(call("shelf.find", ["a", []]), *headers))
            self.assertTrue(client.got.startswith(b"HTTP/1.1 404 "), client.got)
        self.assertEqual(world.resolved, [])

    def test_one_value(self) -> None:
        """A call is answered by its value; bytes that are no text survive the way there and back."""
        world, shelf = self.world(mapped=frozenset((b"authorization",)))
        got = self.result(world, call("shelf.find", ["m\udcfe", ["app"]], "x"), "Authorization: TVM t")
        self.assertEqual(
            got, {"jsonrpc": "2.0", "id": "x", "result": ["m\udcfe", "\udcff\udc80", {"k": [1, None]}]}
        )
        ((collection, tags, headers),) = shelf.seen
        self.assertEqual((collection, tags, headers[b"authorization"]), (b"m\xfe", (b"app",), b"TVM t"))
        self.assertEqual(int.from_bytes(headers[b"request_timeout"], "little"), 30_000)
        self.assertEqual(self.result(world, call("shelf.pair"))["result"], ["a", 2])

    def test_by_content_type(self) -> None:
        """A POST of JSON that leads to no application needs no header."""
        world, _ = self.world()
        app = world.app()
        for kind in ("application/json-rpc", "application/json; charset=utf-8"):
            client = world.ask(post(call("shelf.pair"), f"Content-Type: {kind}"))
            self.assertEqual(answer(client), (200, {"jsonrpc": "2.0", "id": 1, "result": ["a", 2]}))
            self.assertIn(b"Content-Type: application/json-rpc\r\n", client.got)
        world.ask(post(b"{}", "Content-Type: application/json", target="/app/http/"))
        self.assertEqual(len(app.jobs), 1)
        world.ask(post(b"{}", "Content-Type: text/plain"))
        self.assertEqual(world.entries[-1].status, 404)

    def test_mute_and_notifications(self) -> None:
        """A call without an answer is null; one without an id is made and not answered."""
        world, shelf = self.world()
        self.assertIsNone(self.result(world, call("shelf.emit", ["one"]))["result"])
        silent = call("shelf.emit", ["two"])
        del silent["id"]
        client = world.ask(post(silent, "X-Cocaine-JSON-RPC: 1"))
        self.assertEqual(answer(client), (204, None))
        self.assertTrue(client.got.endswith(b"\r\n\r\n"))
        self.assertEqual(shelf.seen, [(b"one",), (b"two",)])

    def test_streams(self) -> None:
        """Both ways, in every form of chunks; the result is a list of what was said."""
        world, shelf = self.world()
        for request in (
            call("shelf.talk", ["hi"], chunks=[["write", ["a"]], ["write", ["b"]], ["close", []]]),
            call("shelf.talk", ["hi"], chunks=[["write", ["a"]], ["write", ["b"]]]),
            call("shelf.talk", {"args": ["hi"], "chunks": [{"write": ["a"]}, {"write": ["b"]}]}),
        ):
            self.assertEqual(self.result(world, request)["result"], ["hi", "A", "B"])
        client = world.ask(post(call("shelf.watch"), "X-Cocaine-JSON-RPC: 1"))
        shelf.watchers[0].chunk(b"1")
        world.advance(5)
        shelf.watchers[0].choke()
        world.advance()
        self.assertEqual(answer(client)[1]["result"], ["1"])

    def test_batch(self) -> None:
        """Calls in one request are answered together, in their order; each fails for itself."""
        world, _ = self.world()
        got = self.result(world, [call("shelf.pair", id=1), 7, call("shelf.nope", id=2), call("shelf.fail", id=3)])
        self.assertEqual([one["id"] for one in got], [1, None, 2, 3])
        self.assertEqual([one.get("error", {}).get("code") for one in got], [None, -32600, -32601, -32000])
        category, code = NotFound().pair
        self.assertEqual(got[3]["error"]["data"], {"category": category, "code": code})
        self.assertEqual(self.result(world, [])["error"]["code"], -32600)
        self.assertEqual(self.result(world, [1] * 101)["error"]["code"], -32600)

    def test_not_allowed(self) -> None:
        """A service that is not listed is not even looked for."""
        world, _ = self.world()
        error = self.result(world, call("node.list"))["error"]
        self.assertEqual(error["code"], -32601)
        self.assertIn("Forbidden", error["message"])
        self.assertEqual(world.resolved, [])

    def test_errors(self) -> None:
        """Each kind of mistake has its code."""
        world, shelf = self.world()
        status, got = answer(world.ask(post(b"{", "X-Cocaine-JSON-RPC: 1")))
        self.assertEqual((status, got["error"]["code"], got["id"]), (400, -32700, None))
        for expected, body in (
            (-32600, {"method": "shelf.pair", "id": 1}),
            (-32600, call("shelf.pair", id=[])),
            (-32601, call("pair")),
            (-32602, call("shelf.find", "text")),
            (-32602, call("shelf.find", {"other": 1})),
            (-32602, call("shelf.find", [2**64])),
            (-32602, call("shelf.find", ["\ud800", []])),
            (-32602, call("shelf.pair", [], chunks=[["write", []]])),
            (-32602, call("shelf.talk", ["a"], chunks=[["close", []], ["write", ["b"]]])),
            (-32001, call("nope.x")),
        ):
            self.assertEqual(self.code(world, body), expected, body)
        self.assertEqual(shelf.seen, [])
        self.assertEqual(answer(world.ask(post(b"[" * 100_000, "X-Cocaine-JSON-RPC: 1")))[0], 400)
        self.assertTrue(world.ask(b"GET / HTTP/1.1\r\nHost: a\r\nX-Cocaine-JSON-RPC: 1\r\n\r\n").got[9:12] == b"405")

    def test_time(self) -> None:
        """A service that says nothing is waited for as long as an app."""
        world, shelf = self.world(chunk=3.0)
        client = world.ask(post([call("shelf.watch"), call("shelf.pair", id=2)], "X-Cocaine-JSON-RPC: 1"))
        world.advance(2.9)
        self.assertEqual(client.got, b"")
        world.advance(0.2)
        status, (late, fine) = answer(client)
        self.assertEqual((status, late["error"]["code"], fine["result"]), (200, -32003, ["a", 2]))

    def test_size(self) -> None:
        """No answer and no request is larger than it may be."""
        world, shelf = self.world(json_size=1000, inline=500)
        client = world.ask(post(call("shelf.watch"), "X-Cocaine-JSON-RPC: 1"))
        shelf.watchers[0].chunk(b"x" * 600)
        shelf.watchers[0].chunk(b"x" * 600)
        world.advance()
        self.assertEqual(answer(client)[1]["error"]["code"], -32004)
        self.assertIn(b"HTTP/1.1 413 ", world.ask(post(b" " * 501, "X-Cocaine-JSON-RPC: 1")).got)
        chunked = b"POST / HTTP/1.1\r\nHost: a\r\nX-Cocaine-JSON-RPC: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertIn(b"HTTP/1.1 413 ", world.ask(chunked + b"1f5\r\n" + b" " * 501 + b"\r\n").got)
        self.assertEqual((world.door.gathered, world.door.calling), (0, 0))

    def test_client_leaves(self) -> None:
        """Nothing is left of a call whose client has gone."""
        world, shelf = self.world()
        client = world.ask(post(call("shelf.watch"), "X-Cocaine-JSON-RPC: 1"))
        self.assertEqual(world.door.calling, 1)
        assert client.transport is not None
        client.transport.abortConnection()  # type: ignore[attr-defined]
        world.advance()
        self.assertEqual((world.door.calling, world.door.gathered, shelf.watchers[0].open), (0, 0, False))
        self.assertEqual(world.entries[-1].status, 499)

    def test_counted(self) -> None:
        """An operator sees which methods are called and how it ends, and no name that a client has made up."""
        world, _ = self.world(chunk=3.0, services=frozenset(("shelf", "nope", "storage")))
        silent = call("shelf.pair")
        del silent["id"]
        invented = [call("other.pair"), call("shelf.invented"), call("nope.x"), call("storage.read", ["only one"])]
        self.result(world, [call("shelf.pair"), silent, call("shelf.fail"), *invented, 7])
        world.ask(post(call("shelf.watch"), "X-Cocaine-JSON-RPC: 1"))
        world.advance(3.1)
        leaving = world.ask(post(call("shelf.watch"), "X-Cocaine-JSON-RPC: 1"))
        leaving.transport.abortConnection()  # type: ignore[union-attr]
        world.advance()
        self.assertEqual(
            world.door.meters.calls,
            {
                ("shelf", "pair", "result"): 2,
                ("shelf", "fail", "error"): 1,
                ("shelf", "watch", "error"): 1,
                ("shelf", "(others)", "error"): 1,
                ("nope", "(others)", "error"): 1,
                ("storage", "read", "error"): 1,
                ("(others)", "(others)", "error"): 1,
            },
        )

    def test_expect(self) -> None:
        """Whoever asks before it sends is told to go on."""
        world, _ = self.world()
        raw = post(call("shelf.pair"), "X-Cocaine-JSON-RPC: 1", "Expect: 100-continue")
        head, _, body = raw.partition(b"\r\n\r\n")
        client = world.ask(head + b"\r\n\r\n")
        self.assertEqual(client.take(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(body)
        world.advance()
        self.assertEqual(answer(client)[0], 200)


class TextTests(SynchronousTestCase):
    def test_names_with_dots(self) -> None:
        """The method is what follows the last dot."""
        self.assertEqual(jsonrpc.read(b'{"jsonrpc": 2.0, "method": "a.b.c", "id": null}'),
                         (False, [Call("null", "a.b", "c", (), ())]))  # fmt: skip

    def test_numbers(self) -> None:
        """What JSON has no number for is null, and is no id."""
        self.assertEqual(jsonrpc.text_of((float("nan"), True, 2**63)), "[null, true, 9223372036854775808]")
        (_, (refused,)) = jsonrpc.read(b'{"jsonrpc": "2.0", "method": "a.b", "id": 1e999}')
        self.assertIsInstance(refused, Refusal)

    def test_depth(self) -> None:
        """A value that nests without end is refused either way."""
        value: Any = []
        for _ in range(100):
            value = [value]
        self.assertRaises(Refusal, jsonrpc.text_of, (value,))
        (_, (refused,)) = jsonrpc.read(json.dumps(call("a.b", value)).encode())
        self.assertEqual(refused.code if isinstance(refused, Refusal) else 0, jsonrpc.PARAMS)
