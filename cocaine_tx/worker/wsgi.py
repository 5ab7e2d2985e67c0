"""
WSGI applications (PEP 3333) as handlers: each request in a thread.

::

    from cocaine_tx.worker.wsgi import wsgi

    worker.on("http", wsgi(application))

A body that comes in parts is read by the application as it arrives; any other is there as a whole.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from .request import BODY_LIMIT
from .web import BlockingHttpRequest, BlockingHttpResponse, HttpHandler

Application = Callable[..., Iterable[bytes]]

#: Bytes of a body in parts that are taken from the reactor's thread at once, if they are there.
_READ = 65536


def wsgi(application: Application, name: str = "localhost", port: int = 80) -> HttpHandler:
    """
    A handler that calls a WSGI application.

    :param name: the server's name when the request has no ``Host``.
    :param port: the same for its port.
    """

    def serve(request: BlockingHttpRequest, response: BlockingHttpResponse) -> None:
        _Exchange(request, response).run(application, environ(request, name, port))

    return HttpHandler(serve, "thread")


#: Said by the body itself; applications would look for chunks in one that has none.
_FRAMING = frozenset(("CONTENT_LENGTH", "TRANSFER_ENCODING"))


class _Parts(io.RawIOBase):
    """A body in parts, as a file."""

    def __init__(self, request: BlockingHttpRequest) -> None:
        self._request = request
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = self._request.read()
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def environ(request: BlockingHttpRequest, name: str, port: int) -> dict[str, Any]:
    """
    The request as PEP 3333 describes it.

    ``wsgi.input`` ends with the body (``wsgi.input_terminated``). Headers with an underscore in their name are left
    out, since here they cannot be told from those that a front may have set.
    """
    host, _, digits = (request.headers.get("host") or f"{name}:{port}").rpartition(":")
    if not host or not digits.isdigit():
        host, digits = request.headers.get("host") or name, str(port)
    made: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": _unquoted(request.path),
        "QUERY_STRING": request.query,
        "SERVER_NAME": host,
        "SERVER_PORT": digits,
        "SERVER_PROTOCOL": f"HTTP/{request.version}",
        "REMOTE_ADDR": request.headers.get("x-real-ip") or "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.headers.get("x-forwarded-proto") or "http",
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if "x-cocaine-http-streaming" in request.headers:
        made["wsgi.input"] = io.BufferedReader(_Parts(request), _READ)
        length = request.headers.get("content-length")
    else:
        body = request.read_all(max(BODY_LIMIT, len(request.body)))
        made["wsgi.input"] = io.BytesIO(body)
        length = str(len(body))
    if length is not None:
        made["CONTENT_LENGTH"] = length
    for key, value in request.headers:
        if "_" in key:
            continue  # it would pass for the name with hyphens, which fronts vouch for
        variable = key.upper().replace("-", "_")
        if variable == "CONTENT_TYPE":
            made[variable] = value
        elif variable not in _FRAMING:
            variable = f"HTTP_{variable}"
            made[variable] = f"{made[variable]}, {value}" if variable in made else value
    return made


def _unquoted(path: str) -> str:
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")


class _Exchange:
    """One call of the application: ``start_response`` and what follows."""

    def __init__(self, request: BlockingHttpRequest, response: BlockingHttpResponse) -> None:
        self._response = response
        self._bodiless = request.method == "HEAD"
        self._head: tuple[int, list[tuple[str, str]]] | None = None
        self._sent = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise AssertionError("start_response was called twice")
        self._head = (int(status.split(" ", 1)[0]), headers)
        return self.write

    def write(self, data: bytes) -> None:
        if not self._sent:
            if self._head is None:
                raise AssertionError("the application has sent a body before it called start_response")
            self._sent = True
            self._response.write_head(*self._head)
        if data and not self._bodiless:
            self._response.write(data)

    def run(self, application: Application, variables: dict[str, Any]) -> None:
        result = application(variables, self.start_response)
        try:
            for piece in result:
                if piece:
                    self.write(piece)
            self.write(b"")
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
