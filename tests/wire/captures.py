"""Exchanges recorded from the original runtime (``vectors/*.hex``): read, and played against a service of ours."""

from dataclasses import dataclass
from pathlib import Path

import msgpack
from twisted.internet.protocol import ClientFactory, Protocol

from cocaine_tx.rpc.dispatch import Dispatch, Hospitality, ServiceFactory
from cocaine_tx.rpc.turn import Turn
from cocaine_tx.testing.network import Network

VECTORS = Path(__file__).with_name("vectors")


@dataclass(frozen=True)
class Capture:
    """
    The first connection of an exchange.

    ``closed`` tells that the runtime hung up before its client did.
    """

    sent: list[bytes]
    answered: bytes
    closed: bool


def capture(name: str) -> Capture:
    """Read ``vectors/<name>.hex``."""
    sent, answered, ends = [], b"", []
    for line in (VECTORS / f"{name}.hex").read_text().splitlines():
        words = line.split()
        if line.startswith("#") or len(words) < 4 or words[1] != "1" or words[2] == "OPEN":
            continue
        if words[3] == "EOF":
            ends.append(words[2])
        elif words[2] == "C>S":
            sent.append(bytes.fromhex(words[4]))
        else:
            answered += bytes.fromhex(words[4])
    return Capture(sent, answered, ends[:1] == ["S>C"])


def decoded(data: bytes) -> list:
    """The frames in some bytes."""
    unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
    unpacker.feed(data)
    return list(unpacker)


class RawClient(Protocol):
    """Sends bytes and keeps what comes back."""

    def __init__(self):
        self.data = b""
        self.closed = False

    def dataReceived(self, data):
        self.data += data

    def connectionLost(self, reason):
        self.closed = True


class Stage:
    """One service listening in memory."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.network = Network()
        self.server = self.network.host("10.0.0.1")
        self.turn = Turn(self.server)
        self.factory = ServiceFactory(dispatch, Hospitality(self.turn, self.server))
        self.server.listenTCP(10053, self.factory)

    def client(self) -> RawClient:
        """A new connection."""
        client = RawClient()
        self.network.host("10.0.0.9").connectTCP("10.0.0.1", 10053, ClientFactory.forProtocol(lambda: client))
        self.network.advance(0)
        return client

    def say(self, client: RawClient, *pieces: bytes) -> bytes:
        """Send these one after another; returns what was answered to them."""
        before = len(client.data)
        for piece in pieces:
            client.transport.write(piece)
            self.network.advance(0)
        return client.data[before:]

    def play(self, name: str) -> tuple[Capture, RawClient]:
        """The client's half of a capture, on a connection of its own."""
        recorded = capture(name)
        client = self.client()
        self.say(client, *recorded.sent)
        return recorded, client
