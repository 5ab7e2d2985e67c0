"""
WSGI applications (PEP 3333) as handlers: each request in a thread.

::

    from cocaine_tx.worker.wsgi import wsgi

    worker.on("http", wsgi(application))
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from .web import BlockingHttpRequest, BlockingHttpResponse, HttpHandler

Application = Callable[..., Iterable[bytes]]


def wsgi(application: Application, name: str = "localhost", port: int = 80) -> HttpHandler:
    """
    A handler that calls a WSGI application.

    :param name: the server's name when the request has no ``Host``.
    :param port: the same for its port.
    """

    def serve(request: BlockingHttpRequest, response: BlockingHttpResponse) -> None:
        _Exchange(request, response).run(application, environ(request, name, port))

    return HttpHandler(serve, "thread")


#: The body is whole and its length known, whatever brought it; applications would look for chunks in it.
_FRAMING = frozenset(("CONTENT_LENGTH", "TRANSFER_ENCODING"))


def environ(request: BlockingHttpRequest, name: str, port: int) -> dict[str, Any]:
    """The request as PEP 3333 describes it. The body is read as a whole; headers with ``_`` in a name are left out."""
    body = request.read_all()
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
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.headers.get("x-forwarded-proto") or "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
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
