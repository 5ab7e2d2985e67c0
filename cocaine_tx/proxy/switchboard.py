"""
JSON-RPC requests carried out: the calls of one HTTP request, one after another, each on its service.

An exchange makes a `Caller` in place of an upload when a request is JSON-RPC. Each HTTP request has connections of its
own, since a peer ends a connection on which something malformed is said, and whoever says it here is unknown to us:
nobody else must suffer. Closing them is also what ends a stream that nobody reads any more.

Source: reference ``http-tools-sdk.md`` sections A.2 and A.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from ..errors import CocaineError
from ..rpc.client import Remote
from ..wire.headers import Headers, timeout_header
from ..wire.idl import CREDIT, PRIMITIVE, STREAMING, Message, Slot
from ..wire.protocols import BY_NAME
from ..wire.session import Channel, error_of
from . import jsonrpc
from .failure import Failure, error_answer
from .gathering import Gathering
from .jsonrpc import Call, Refusal

if TYPE_CHECKING:
    from .exchange import Exchange

#: JSON-RPC requests of one process at once; each may have a connection to every service allowed.
MOST_AT_ONCE = 100

_JSON = [(b"Content-Type", b"application/json-rpc"), (b"X-Content-Type-Options", b"nosniff")]


class _Answer:
    """
    Receives what a service says in one call.

    :param room: bytes of JSON there may be.
    :ivar done: fires with the result as JSON text.
    """

    def __init__(self, slot: Slot, room: int) -> None:
        self.done: Deferred[str] = Deferred()
        self._single = slot.upstream is PRIMITIVE
        self._room = room
        self._parts: list[str] = []

    def received(self, channel: Channel, message: Message | Slot, args: tuple[Any, ...], headers: Headers) -> None:
        if self.done.called or message is CREDIT:
            return
        if message.name == "error":
            self.done.errback(error_of(args))
            return
        ends = isinstance(message, Message) and not message.next
        try:
            if args or self._single or not ends:
                self._keep(jsonrpc.text_of(args))
        except Refusal as refusal:
            self.done.errback(refusal)
            channel.abandon()
            return
        if ends:
            self.done.callback(self._parts[0] if self._single else f"[{', '.join(self._parts)}]")

    def _keep(self, text: str) -> None:
        self._room -= len(text) + 2
        if self._room < 0:
            raise Refusal(jsonrpc.LARGE, "the answer is too large")
        self._parts.append(text)

    def lost(self, channel: Channel, reason: CocaineError) -> None:
        if not self.done.called:
            self.done.errback(reason)


class Caller:
    """
    One JSON-RPC request.

    :param wire: headers that go along with every call.
    """

    _log = Logger()

    def __init__(self, exchange: Exchange, wire: Headers) -> None:
        self._exchange = exchange
        self._door = exchange.http.door
        self._wire = wire
        self._gathering = Gathering(self._door, self._door.terms.inline)
        self._remotes: dict[str, Remote] = {}
        self._running: Deferred[None] | None = None
        self._until = 0.0
        self._room = self._door.terms.json_size

    def begin(self) -> None:
        """The head has arrived."""
        head = self._exchange.head
        if head.method != b"POST":
            refusal = error_answer(405, "JSON-RPC is a POST")
            refusal.headers.append((b"Allow", b"POST"))
            self._exchange.reply(refusal)
        elif (head.length or 0) > self._door.terms.inline:
            self._too_large()
        elif head.expect_continue:
            self._exchange.http.outbox.say(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _too_large(self) -> None:
        self._exchange.reply(error_answer(413, f"JSON-RPC takes bodies of at most {self._door.terms.inline} bytes"))

    def take(self, data: bytes) -> None:
        """Some of the body has arrived."""
        full = self._gathering.add(data)
        if self._gathering.excess:
            self._too_large()
        elif full is not None:
            self._exchange.reply(full)

    def end(self) -> None:
        """The body is complete."""
        if self._exchange.over:
            return
        if self._door.calling >= MOST_AT_ONCE:
            self._exchange.reply(error_answer(503, "too many JSON-RPC requests at once", retry_after=1))
            return
        self._door.calling += 1
        self._until = self._door.clock.seconds() + self._door.terms.request
        running = Deferred.fromCoroutine(self._run())
        if not running.called:
            self._running = running
        running.addErrback(self._broken)

    def _broken(self, failure: Reason) -> None:
        if not failure.check(CancelledError):  # type: ignore[no-untyped-call]
            self._log.failure("JSON-RPC failed", failure)

    async def _run(self) -> None:
        try:
            status, text = await self._answered()
        finally:
            self._door.calling -= 1
            for remote in self._remotes.values():
                remote.close()
        self._running = None
        self._exchange.reply(Failure(status, text, headers=_JSON if text else []))

    async def _answered(self) -> tuple[int, str]:
        try:
            batch, calls = jsonrpc.read(self._gathering.whole())
        except Refusal as refusal:
            return 400 if refusal.code == jsonrpc.PARSE else 200, refusal.text("null")
        texts = [text for call in calls if (text := await self._response(call))]
        if not texts:
            return 204, ""
        return 200, f"[{', '.join(texts)}]" if batch else texts[0]

    async def _response(self, call: Call | Refusal) -> str:
        """The response to one call; empty to a notification."""
        if isinstance(call, Refusal):
            return call.text(call.id)
        try:
            result = await self._counted(call)
        except Refusal as refusal:
            problem = refusal
        except CocaineError as error:
            problem = jsonrpc.refusal_of(error)
        except TooLate:
            problem = Refusal(jsonrpc.LATE, f"{call.service} does not answer in time")
            remote = self._remotes.pop(call.service, None)
            if remote is not None:
                remote.close()
        except CancelledError:
            raise
        except Exception:
            self._log.failure("{service}.{method} failed", service=call.service, method=call.method)
            problem = Refusal(jsonrpc.OTHER, "this is a mistake of the proxy's; its log has more")
        else:
            self._room -= len(result)
            return f'{{"jsonrpc": "2.0", "id": {call.id}, "result": {result}}}' if call.id else ""
        self._exchange.error = f"{call.service}.{call.method}: {problem.message}"
        return problem.text(call.id) if call.id else ""

    async def _counted(self, call: Call) -> str:
        try:
            result = await self._call(call)
        except CancelledError:
            raise  # it has no outcome: whoever wanted one has gone
        except Exception:
            self._count(call, "error")
            raise
        self._count(call, "result")
        return result

    def _count(self, call: Call, outcome: str) -> None:
        allowed = call.service in self._door.terms.services
        remote = self._remotes.get(call.service)
        protocol = BY_NAME.get(call.service) if remote is None else remote.protocol
        known = allowed and protocol is not None and protocol.named(call.method) is not None
        self._door.meters.called(call.service if allowed else None, call.method if known else None, outcome)

    async def _call(self, call: Call) -> str:
        terms, clock = self._door.terms, self._door.clock
        if call.service not in terms.services:
            raise Refusal(jsonrpc.UNKNOWN, f"Forbidden: service {call.service!r} may not be called from here")
        seconds = min(terms.chunk_time(call.service, call.method), self._until - clock.seconds())
        if seconds <= 0:
            raise TooLate
        return await Deferred.fromCoroutine(self._asked(call, seconds)).addTimeout(seconds, clock)

    async def _asked(self, call: Call, seconds: float) -> str:
        known = BY_NAME.get(call.service)
        slot = known.named(call.method) if known is not None else None
        if slot is not None:
            slot.check(call.args)
        remote = self._remotes.get(call.service)
        if remote is None or remote.connection.gone:
            remote = self._remotes[call.service] = await self._door.upstreams.reach(call.service)
        slot = remote.protocol.named(call.method)
        if slot is None:
            raise Refusal(jsonrpc.UNKNOWN, f"service {call.service} has no method {call.method!r}")
        _check(slot, call)
        answer = _Answer(slot, self._room)
        channel = remote.open(
            call.method, *call.args, receiver=answer, headers=(timeout_header(seconds), *self._wire)
        )
        for name, args in call.chunks:
            channel.send(name, *args)
        if channel.sending is STREAMING:
            channel.choke()
        return await answer.done if channel.slot.upstream else "null"

    def leave(self) -> None:
        """Nobody waits for the answer any more."""
        if self._running is not None:
            self._running.cancel()

    def release(self) -> None:
        """The request has come to its end."""
        self._gathering.release()


def _check(slot: Slot, call: Call) -> None:
    """
    That the chunks are what may follow, before anything is sent.

    :raises Refusal: they are not.
    """
    state = slot.downstream
    for name, _ in call.chunks:
        message = state.named(name)
        if message is None:
            raise Refusal(jsonrpc.PARAMS, f"{slot.name} takes no {name!r} there")
        state = message.next


__all__ = ["MOST_AT_ONCE", "Caller"]
