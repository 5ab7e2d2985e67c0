"""WebSockets of ASGI applications, in memory: wsproto is the client, too."""

import asyncio
import sys
from itertools import pairwise
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason

from cocaine_tx.errors import ConnectionGone, NotRunning
from cocaine_tx.testing.worker import WorkerStage
from cocaine_tx.wire.headers import window_header
from cocaine_tx.wire.http import pack_request, unpack_head
from cocaine_tx.wire.idl import REVOKE_SLOT
from cocaine_tx.worker import Worker, WorkerConfig, conversation, websocket
from cocaine_tx.worker.asgi import asgi

#: The key and the answer to it of RFC 6455, section 1.3.
KEY, TOKEN = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
OFFER = [
    ("Host", "h"), ("Upgrade", "websocket"), ("Connection", "keep-alive, Upgrade"), ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
]  # fmt: skip


class Client:
    """A WebSocket's other end."""

    def __init__(self, stage, event):
        self.stage, self.event = stage, event
        self.wire = Connection(ConnectionType.CLIENT)
        self.seen = 1

    async def until(self, condition):
        """Let tasks run until it is so; those that wait for nothing but each other need few turns."""
        for _ in range(2000):
            self.stage.settle()
            if condition():
                return
            await asyncio.sleep(0)
        raise AssertionError(f"it did not come to that: {self.event.chunks[-1:]!r:.200} {self.event.error}")

    async def head(self):
        await self.until(lambda: self.event.chunks or self.event.closed)
        return unpack_head(self.event.chunks[0])

    async def status(self):
        """Of an answer that is no switch."""
        await self.until(lambda: self.event.closed)
        return unpack_head(self.event.chunks[0])[0]

    def say(self, *events):
        for event in events:
            self.event.channel.chunk(bytes(self.wire.send(event)))

    async def hear(self):
        """The next that comes."""
        while True:
            for event in self.wire.events():
                return event
            await self.until(lambda: len(self.event.chunks) > self.seen)
            self.wire.receive_data(self.event.chunks[self.seen])
            self.seen += 1

    async def closed(self):
        """The close that comes, and then the end."""
        event = await self.hear()
        assert isinstance(event, CloseConnection), event
        if self.wire.state.name == "REMOTE_CLOSING":
            self.say(event.response())
        await self.until(lambda: self.event.closed)
        assert self.event.error is None, self.event.error
        return int(event.code)


class WebSocketCase(SynchronousTestCase):
    def setUp(self):
        self.heard = []
        self.told = None

    def play(self, application, act, more=(), offer=OFFER, headers=(), **terms):
        """An act with a client of an application, in a loop of its own."""

        async def kept(told, receive, send):
            async def noted():
                message = await receive()
                self.heard.append(message)
                return message

            self.told = told
            await application(told, noted, send)

        async def played():
            worker = Worker()
            worker.on("http", asgi(kept, **terms))
            stage = WorkerStage(worker, WorkerConfig(endpoint="/nowhere", uuid="U1", credits=True))
            stage.node.session.kin = True
            stage.node.session.revocation = REVOKE_SLOT
            event = stage.open("http", pack_request("GET", "/a%20b?c", "1.1", [*offer, *more]), headers=headers)
            client = Client(stage, event)
            async with asyncio.timeout(10):
                await act(client)
            await client.until(lambda: not len(stage.shift.intake))
            # Nothing is left behind.
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, others
            stage.cut_off()

        asyncio.run(played())

    def logged(self):
        """What the log gets from now on, as text."""
        lines = []
        observe = lambda event: lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        return lines

    def kinds(self):
        return [message["type"].partition(".")[2] for message in self.heard]


async def echo(scope, receive, send):
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        message.pop("type")
        await send({"type": "websocket.send", **message})


async def listen(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        pass


def frame(first, data, mask):
    """A client's frame, in the shortest form."""
    size = len(data)
    length = bytes([128 + size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([first]) + length + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


class HandshakeTests(WebSocketCase):
    def test_accept(self):
        """The offer is told as ASGI wants; subprotocol and headers of the application's answer reach the client."""

        async def application(scope, receive, send):
            await receive()
            accept = {"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-y", b"z")]}
            await send(accept)
            await send({"type": "websocket.close", "code": 4001, "reason": "why"})

        async def act(client):
            status, headers = await client.head()
            self.assertEqual(status, 101)
            found = dict(headers)
            self.assertEqual(found[b"Sec-WebSocket-Accept"], TOKEN)
            self.assertEqual((found[b"Sec-WebSocket-Protocol"], found[b"x-y"]), (b"b", b"z"))
            event = await client.hear()
            self.assertEqual((event.code, event.reason), (4001, "why"))
            self.assertFalse(client.event.closed)
            client.say(event.response())
            await client.until(lambda: client.event.closed)

        more = [("Sec-WebSocket-Protocol", "a, b"), ("Sec-WebSocket-Protocol", "c"), ("X-Forwarded-Proto", "https")]
        self.play(application, act, more)
        told = self.told
        self.assertEqual((told["type"], told["scheme"], told["path"]), ("websocket", "wss", "/a b"))
        self.assertEqual((told["subprotocols"], told["query_string"]), (["a", "b", "c"], b"c"))
        self.assertIn((b"host", b"h"), told["headers"])
        self.assertNotIn("method", told)

    def test_bad_offers(self):
        """Another version is 426, a key that is none 400; what is no offer is a request like any other."""

        async def application(scope, receive, send):
            await send({"type": "http.response.start", "status": 204})
            await send({"type": "http.response.body"})

        def changed(**values):
            return [(name, values.get(name.replace("-", "_"), value)) for name, value in OFFER]

        for offer, wanted in (
            (changed(Sec_WebSocket_Version="8"), 426),
            (OFFER[:3] + OFFER[4:], 426),
            (changed(Sec_WebSocket_Key="short"), 400),
            (changed(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25j"), 400),
            (changed(Sec_WebSocket_Key="é"), 400),
            (OFFER[:4], 400),
            ([*OFFER, OFFER[4]], 400),
            (changed(Upgrade="h2c"), 204),
            (changed(Connection="close"), 204),
        ):

            async def act(client, wanted=wanted, offer=offer):
                self.assertEqual(await client.status(), wanted, offer)

            self.play(application, act, offer=offer)

    def test_no_streaming(self):
        """An application whose manifest does not ask for it has no WebSockets; its log says what is missing."""

        async def act(client):
            client.event.channel.choke()
            self.assertEqual(await client.status(), 501)

        lines = self.logged()
        self.play(echo, act)
        self.assertEqual(self.heard, [])
        self.assertEqual(len([line for line in lines if '"http-streaming": true in the manifest' in line]), 1)

    def test_no_library(self):
        """Without wsproto there are no WebSockets; everything else goes on."""

        async def act(client):
            self.assertEqual(await client.status(), 501)

        lines = self.logged()
        with mock.patch.dict(sys.modules, {"wsproto": None}):
            self.play(echo, act)
        self.assertEqual(len([line for line in lines if "pip install 'cocaine_tx[asgi]'" in line]), 1)
        self.assertEqual(self.heard, [])

    def test_denied(self):
        """A close instead of an answer is 403; an application may also say it in its own words."""

        async def application(scope, receive, send):
            await receive()
            await send({"type": "websocket.close"})
            await receive()

        async def in_words(scope, receive, send):
            self.assertIn("websocket.http.response", scope["extensions"])
            start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x", b"y")]}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": b"no", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"!"})

        async def act(client):
            self.assertEqual(await client.status(), 403)

        async def other(client):
            self.assertEqual(await client.status(), 401)
            self.assertEqual(client.event.chunks[1:], [b"no", b"!"])

        self.play(application, act)
        self.assertEqual(self.kinds(), ["connect", "disconnect"])
        self.play(in_words, other)

    def test_unanswered(self):
        """An application that returns, or fails, before it has answered is the client's 500."""

        async def silent(scope, receive, send):
            await receive()

        async def failing(scope, receive, send):
            raise ValueError("never")

        async def early(scope, receive, send):
            await send({"type": "websocket.send", "text": "early"})

        async def unasked(scope, receive, send):
            await send({"type": "websocket.accept", "subprotocol": "unasked"})

        async def act(client):
            await client.until(lambda: client.event.closed)
            self.assertEqual((client.event.error.pair, client.event.chunks), ((42, 100), []))

        for application, kind in (
            (silent, RuntimeError), (failing, ValueError), (early, ValueError), (unasked, ValueError)
        ):
            self.play(application, act)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)


class MessageTests(WebSocketCase):
    def test_echo(self):
        """Text and bytes, whole and in parts, with pings between them, come back; the client's close is answered."""

        async def act(client):
            await client.head()
            for sent, back in (
                (TextMessage("é"), "é"), (BytesMessage(b"\xff"), b"\xff"), (TextMessage(""), ""),
                (BytesMessage(bytes(70_000)), bytes(70_000)), (TextMessage("x" * 200), "x" * 200),
            ):
                client.say(sent)
                event = await self.whole(client)
                self.assertEqual(event, back)
            client.say(TextMessage("a", message_finished=False), Ping(b"1"), TextMessage("é", message_finished=False))
            event = await client.hear()
            self.assertEqual((type(event), event.payload), (Pong, b"1"))
            client.say(TextMessage("", message_finished=False), TextMessage("c"))
            self.assertEqual(await self.whole(client), "aéc")
            client.say(BytesMessage(b"1", message_finished=False), BytesMessage(b"2"))
            self.assertEqual(await self.whole(client), b"12")
            client.say(CloseConnection(3001, "bye"))
            self.assertEqual(await client.closed(), 3001)

        self.play(echo, act)
        self.assertEqual(self.heard[-1], {"type": "websocket.disconnect", "code": 3001, "reason": "bye"})

    async def whole(self, client):
        parts = []
        while True:
            event = await client.hear()
            parts.append(event.data)
            if event.message_finished:
                return parts[0][:0].join(parts)

    def test_any_cut(self):
        """Messages arrive as they were sent, whatever parts they come in and wherever the stream is cut."""
        piece = st.binary(max_size=4) | st.text(max_size=4).map(lambda text: text.encode() + b"\0" * 200)
        message = st.tuples(st.booleans(), st.lists(piece, min_size=1, max_size=4), st.binary(min_size=4, max_size=4))

        @given(st.lists(message, max_size=5), st.data())
        @settings(max_examples=60, deadline=None)
        def check(sent, data):
            wire, wanted = b"", []
            for text, parts, mask in sent:
                whole = b"".join(parts).decode("utf-8", "replace") if text else b"".join(parts)
                wanted.append(whole)
                # In text also within a character.
                said = whole.encode() if text else whole
                cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=3)))
                for number, (begin, end) in enumerate(pairwise([0, *cuts, len(said)])):
                    opcode = (1 if text else 2) if number == 0 else 0
                    wire += frame(opcode | (128 if number == len(cuts) else 0), said[begin:end], mask)
                    if data.draw(st.booleans()):
                        wire += frame(0x89, b"ping", mask)
            wire += frame(0x88, b"\x03\xe8", b"1234")
            cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))

            async def act(client):
                await client.head()
                for begin, end in pairwise([0, *cuts, len(wire)]):
                    client.event.channel.chunk(wire[begin:end])
                    client.stage.settle()
                await client.until(lambda: client.event.closed)

            self.heard.clear()
            self.play(listen, act)
            heard = [message.get("text", message.get("bytes")) for message in self.heard[1:-1]]
            self.assertEqual((heard, self.heard[-1]["code"]), (wanted, 1000))

        check()

    def test_flood(self):
        """A client that sends frames of nothing keeps nobody else from working."""
        turns = []

        async def act(client):
            await client.head()
            client.event.channel.chunk(frame(2, b"", b"1234") + frame(0, b"", b"1234") * 20_000)
            client.stage.settle()
            client.say(CloseConnection(1000))
            client.stage.settle()
            while not client.event.closed:
                turns.append(1)
                client.stage.settle()
                await asyncio.sleep(0)

        self.play(echo, act)
        self.assertGreater(len(turns), 100)

    def test_byte_by_byte(self):
        """A client whose bytes trickle in is understood as well."""

        async def act(client):
            await client.head()
            for byte in bytes(client.wire.send(TextMessage("né"))):
                client.event.channel.chunk(bytes([byte]))
                await client.until(lambda: True)
            self.assertEqual(await self.whole(client), "né")
            client.say(CloseConnection(1000))
            self.assertEqual(await client.closed(), 1000)

        self.play(echo, act)

    def test_no_status(self):
        """A close without a code is 1005 for the application."""

        async def act(client):
            await client.head()
            client.say(CloseConnection(CloseReason.NO_STATUS_RCVD))
            self.assertEqual(await client.closed(), 1005)

        self.play(echo, act)
        self.assertEqual(self.heard[-1]["code"], 1005)

    def test_broken_rules(self):
        """What is no UTF-8 is closed with 1007, what is no frame with 1002, and the application is told so."""
        for data, code in (
            (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
            (b"\x81\x81\0\0\0\0\xc3", 1007),
            (b"\x81\x01a", 1002),
            (b"\xc1\x81\0\0\0\0a", 1002),
            (b"\x83\x80\0\0\0\0", 1002),
            (b"\x80\x80\0\0\0\0", 1002),
            (b"\x88\x81\0\0\0\0\x03", 1002),
            (b"\x09\x80\0\0\0\0", 1002),
        ):

            async def act(client, data=data, code=code):
                await client.head()
                client.event.channel.chunk(data)
                self.assertEqual(await client.closed(), code, data)

            self.play(echo, act)
            self.assertEqual((self.heard[-1]["type"], self.heard[-1]["code"]), ("websocket.disconnect", code))

    def test_message_limit(self):
        """A message may be as large as the limit; one byte more is 1009, however it is cut, and at once."""

        async def act(client):
            await client.head()
            client.say(BytesMessage(b"12345", message_finished=False), BytesMessage(b"67890"), TextMessage("é" * 5))
            self.assertEqual([await self.whole(client), await self.whole(client)], [b"1234567890", "é" * 5])
            client.say(*self.too_large)
            self.assertEqual(await client.closed(), 1009)

        for too_large in (
            [TextMessage("é" * 5 + "x")],
            [TextMessage("é" * 5, message_finished=False), TextMessage("x", message_finished=False)],
            [BytesMessage(b"1", message_finished=False)] * 11,
        ):
            self.too_large = too_large
            self.play(echo, act, message_limit=10)
            self.assertEqual(self.heard[-1]["code"], 1009)

    def test_slow_application(self):
        """What an application does not read is not taken from its client, and comes in order when it does."""
        gates = []

        async def slow(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            gates.append(asyncio.Event())
            await gates[0].wait()
            count = 0
            while (message := await receive())["type"] == "websocket.receive":
                self.assertEqual(message["bytes"], bytes(10_000) + b"%d" % count)
                count += 1
            self.assertEqual(count, 500)

        async def act(client):
            await client.head()
            granted = []
            received = client.event.received

            def watched(channel, message, args, headers):
                if message.name == "credit":
                    granted.append(args[0])
                else:
                    received(channel, message, args, headers)

            client.event.received = watched
            for number in range(500):
                client.say(BytesMessage(bytes(10_000) + b"%d" % number))
            for _ in range(200):
                await client.until(lambda: True)
            self.assertLess(sum(granted), 300_000)
            gates[0].set()
            client.say(CloseConnection(1000))
            self.assertEqual(await client.closed(), 1000)
            self.assertGreater(sum(granted), 4_500_000)

        self.play(slow, act, headers=[window_header(100_000)])

    def test_slow_client(self):
        """An application that awaits what it sends is as fast as its client."""
        sent = []

        async def fast(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            for number in range(100):
                await send({"type": "websocket.send", "bytes": bytes(10_000)})
                sent.append(number)

        async def act(client):
            await client.head()
            for _ in range(300):
                await client.until(lambda: True)
            self.assertLess(len(sent), 12)
            client.event.channel.credit(2_000_000)
            for _ in range(100):
                self.assertIsInstance(await client.hear(), Message)
            self.assertEqual(await client.closed(), 1000)

        self.play(fast, act, headers=[window_header(100_000)])


class EndTests(WebSocketCase):
    def test_client_gone(self):
        """A client that goes without a word is 1006; the application may do its last things, but send no more."""
        seen = []

        async def application(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            seen.append(await receive())
            await asyncio.sleep(0)
            seen.append("later")
            await send({"type": "websocket.send", "text": "nobody"})

        async def fail(client):
            client.event.channel.fail(ConnectionGone())

        async def half(client):
            client.event.channel.choke()

        for leave in (fail, half):

            async def act(client, leave=leave):
                await client.head()
                await leave(client)
                await client.until(lambda: "later" in seen)

            self.play(application, act)
            self.assertEqual(seen, [{"type": "websocket.disconnect", "code": 1006, "reason": ""}, "later"])
            seen.clear()

    def test_failed_afterwards(self):
        """What goes wrong in an application when its client has gone is printed, as any failure is."""

        async def at_once(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            raise ValueError("failed")

        async def later(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            raise ValueError("failed")

        async def act(client):
            await client.head()
            await client.until(lambda: len(client.event.chunks) == 2 or len(self.heard) == 1)
            client.event.channel.fail(ConnectionGone())

        for application in at_once, later:
            self.heard.clear()
            self.play(application, act)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_read_before_end(self):
        """What a client said before the end is heard before it, whoever ended it."""

        async def slow(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await self.gate.wait()
            while (await receive())["type"] == "websocket.receive":
                pass

        for end, code in (
            (lambda client: client.say(CloseConnection(3000)), 3000),
            (lambda client: client.say(BytesMessage(bytes(11))), 1009),
            (lambda client: client.event.channel.chunk(b"\x81\x01a"), 1002),
            (lambda client: client.event.channel.choke(), 1006),
            (lambda client: client.stage.node.terminate(1, "enough"), 1012),
        ):

            async def act(client, end=end, code=code):
                self.gate = asyncio.Event()
                await client.head()
                client.say(TextMessage("1"), TextMessage("2"))
                client.stage.settle()
                await asyncio.sleep(0)
                for _ in range(5):
                    await client.until(lambda: True)
                end(client)
                if code != 1006:
                    await client.closed()
                self.gate.set()

            self.heard.clear()
            self.play(slow, act, message_limit=10)
            self.assertEqual([message.get("text", message.get("code")) for message in self.heard[1:]], ["1", "2", code])

    def test_gone_before_answer(self):
        """A client that does not wait for the answer to its offer is gone for the application, too."""

        async def application(scope, receive, send):
            await receive()
            self.assertEqual((await receive())["code"], 1006)
            with self.assertRaises(OSError):
                await send({"type": "websocket.accept"})

        async def act(client):
            await client.until(lambda: self.kinds() == ["connect"])
            client.event.channel.fail(ConnectionGone())

        self.play(application, act)
        self.assertEqual(self.kinds(), ["connect", "disconnect"])

    def test_returned(self):
        """An application that returns closes with 1000, one that fails with 1011, and its traceback is printed."""

        async def returning(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})

        async def failing(scope, receive, send):
            await returning(scope, receive, send)
            raise ValueError("failed")

        async def leaving(scope, receive, send):
            await returning(scope, receive, send)
            sys.exit(3)

        for application, code, kind in (
            (returning, 1000, None), (failing, 1011, ValueError), (leaving, 1011, SystemExit)
        ):

            async def act(client, code=code):
                await client.head()
                self.assertEqual(await client.closed(), code)

            self.play(application, act)
            self.assertEqual(len(self.flushLoggedErrors()), 0 if kind is None else 1)

    def test_after_close(self):
        """Whoever has closed hears no more messages, and can send none."""

        async def application(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4000})
            with self.assertRaises(RuntimeError):
                await send({"type": "websocket.send", "text": "late"})
            await receive()

        async def act(client):
            await client.head()
            client.say(TextMessage("crossing"), Ping())
            self.assertEqual(await client.closed(), 4000)

        self.play(application, act)
        self.assertEqual(self.heard[-1], {"type": "websocket.disconnect", "code": 4000, "reason": ""})

    def test_close_unanswered(self):
        """A client that does not answer a close is let go all the same."""
        self.patch(websocket, "CLOSING", 0.01)

        async def application(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})

        async def act(client):
            await client.head()
            self.assertEqual((await client.hear()).code, 1000)
            await self.ended(client)
            self.assertIsNone(client.event.error)

        self.play(application, act)

    async def ended(self, client):
        """When real time has to pass."""
        while not client.event.closed:
            client.stage.settle()
            await asyncio.sleep(0.001)

    def test_deaf_application(self):
        """An application that does not listen for the end is cancelled some time after it."""
        self.patch(conversation, "AFTERWARDS", 0.01)
        seen = []

        async def application(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            try:
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        async def act(client):
            await client.head()
            client.say(CloseConnection(1000))
            self.assertEqual(await client.closed(), 1000)
            while not seen:
                await asyncio.sleep(0.001)

        self.play(application, act)

    def test_pings(self):
        """A client is pinged though nothing is said; one that does not answer has gone."""

        async def act(client):
            await client.head()
            for _ in range(5):
                event = await self.heard_within(client)
                self.assertIsInstance(event, Ping)
                client.say(event.response())
            self.assertFalse(client.event.closed)
            await self.ended(client)
            self.assertEqual(client.event.error.pair, (42, 408))

        self.play(echo, act, ping_interval=0.01)
        self.assertEqual(self.heard[-1]["code"], 1006)

    async def heard_within(self, client):
        while len(client.event.chunks) <= client.seen:
            client.stage.settle()
            await asyncio.sleep(0.001)
        return await client.hear()

    def test_worker_ends(self):
        """A worker that has to end says so to everybody (1012), waits for applications, and takes no more."""
        for ask in (lambda stage: stage.node.terminate(1, "enough"), lambda stage: stage.shift.signalled()):

            async def act(client, ask=ask):
                stage = client.stage
                await client.head()
                ask(stage)
                event = stage.open("http", pack_request("GET", "/", "1.1", OFFER))
                stage.settle()
                self.assertEqual(await client.closed(), 1012)
                await client.until(lambda: event.closed)
                if event.error is None:
                    self.assertEqual(unpack_head(event.chunks[0])[0], 503)
                else:
                    self.assertEqual(event.error.pair, NotRunning("").pair)
                await client.until(lambda: stage.node.farewell is not None)

            self.play(echo, act)
            self.assertEqual(self.heard[-1]["code"], 1012)

    def test_worker_ends_early(self):
        """An application that takes an offer when its worker has been asked to end hears of that at once."""
        gates = []

        async def slow(scope, receive, send):
            gates.append(asyncio.Event())
            await gates[-1].wait()
            await echo(scope, receive, send)

        async def act(client):
            await client.until(lambda: gates)
            client.stage.node.terminate(1, "enough")
            client.stage.settle()
            gates[-1].set()
            await client.head()
            self.assertEqual(await client.closed(), 1012)

        self.play(slow, act)
        self.assertEqual(self.heard[-1]["code"], 1012)

    def test_worker_cut(self):
        """A worker that must stop at once cancels the application that had begun its last things."""
        seen = []

        async def application(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            try:
                seen.append("last")
                await asyncio.Event().wait()
            finally:
                seen.append("cancelled")

        async def act(client):
            await client.head()
            client.event.channel.fail(ConnectionGone())
            await client.until(lambda: seen == ["last"])
            client.stage.shift.cut_handlers()
            await client.until(lambda: seen == ["last", "cancelled"])

        self.play(application, act)
