"""
HTTP visitors: so many keep-alive connections, each of which asks again when it has been answered.

Plain sockets and one epoll, since whatever this spends is missing to what it measures: both share a few cores.
"""

from __future__ import annotations

import select
import socket
import time

#: Seconds without any answer after which it is no use to wait on.
PATIENCE = 60.0


class Visitors:
    """
    A closed loop of GETs on connections that stay.

    :raises ConnectionError: the service is not there, or does not answer each of them the same once.
    """

    def __init__(self, port: int, path: str, connections: int) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
        self._clients: dict[int, socket.socket] = {}
        self._waiting = select.epoll()
        try:
            for _ in range(connections):
                client = socket.create_connection(("127.0.0.1", port), PATIENCE)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[client.fileno()] = client
                self._waiting.register(client, select.EPOLLIN)
            bodies = {self._first(client) for client in self._clients.values()}
            if len(bodies) != 1 or b"" in bodies:
                raise ConnectionError("the answers differ, or are empty")
            (self._body,) = bodies
        except BaseException:
            self.leave()
            raise

    def ask(self, count: int) -> list[float]:
        """
        So many requests in all; the seconds of each, in the order of their ends.

        :raises ConnectionError: an answer that is not 200, not whole, or not like the first one.
        """
        request, body, clients, now = self._request, self._body, self._clients, time.perf_counter
        took: list[float] = []
        begun: dict[int, float] = {}
        left = count
        for number, client in list(clients.items())[:count]:
            begun[number] = now()
            client.send(request)
            left -= 1
        while len(took) < count:
            ready = self._waiting.poll(PATIENCE)
            if not ready:
                raise ConnectionError("no answer within a minute")
            for number, _ in ready:
                client = clients[number]
                data = client.recv(65536)
                while not data.endswith(body):
                    data += _more(client)
                if not data.startswith(b"HTTP/1.1 200"):
                    raise ConnectionError(data[:200].decode("latin-1"))
                at = now()
                took.append(at - begun[number])
                if left:
                    left -= 1
                    begun[number] = at
                    client.send(request)
        return took

    def _first(self, client: socket.socket) -> bytes:
        """Ask once; the body of the answer."""
        client.sendall(self._request)
        data = _more(client)
        while b"\r\n\r\n" not in data:
            data += _more(client)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(lines[b"content-length"]):
            body += _more(client)
        return body

    def leave(self) -> None:
        """Close every connection."""
        self._waiting.close()
        for client in self._clients.values():
            client.close()


def _more(client: socket.socket) -> bytes:
    """What comes next; the sockets block, with a limit of time, and are read when there is something."""
    data = client.recv(65536)
    if not data:
        raise ConnectionError("the server closed the connection")
    return data
