"""The proxy's own error answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.errors import (
    ConnectionGone,
    HandlerFailed,
    HttpFormatError,
    InvocationTimeout,
    NotFound,
    QueueFull,
    RemoteError,
    ServiceNotFound,
)
from cocaine_tx.proxy.failure import error_answer, failed, not_routed, refused
from cocaine_tx.proxy.request import Refused


class FailureTests(SynchronousTestCase):
    """Which status, which words."""

    def test_statuses(self) -> None:
        """Each situation has the status of the contract."""
        cases = [
            (ServiceNotFound(), 503), (InvocationTimeout(), 504), (HandlerFailed("boom"), 500), (QueueFull(), 500),
            (HttpFormatError(), 500), (RemoteError(43, 1, "mine"), 500), (NotFound(), 500), (ConnectionGone(), 502),
        ]  # fmt: skip
        for error, status in cases:
            self.assertEqual(failed(error, "app", "1f").status, status, error)

    def test_marked(self) -> None:
        """Operators can tell that the proxy speaks, and of which application."""
        headers = dict(failed(HandlerFailed("boom"), "app", "1f").headers)
        self.assertEqual(headers[b"X-Error-Generated-By"], b"cocaine_tx")
        self.assertEqual(headers[b"X-Cocaine-Application"], b"app")
        self.assertIn(b"X-Error-Generated-By", dict(not_routed().headers))

    def test_unknown_application(self) -> None:
        """The words that scripts look for."""
        failure = failed(ServiceNotFound(), "app", "1f")
        self.assertEqual(failure.reason, b"No Such Application")
        self.assertEqual(failure.text, "current application app is unavailable")

    def test_text(self) -> None:
        """The text names the request, the application and the error."""
        self.assertEqual(failed(HandlerFailed("boom"), "app", "1f").body, b"UID 1f: application `app` error: boom\n")

    def test_queue_full(self) -> None:
        """A full queue says when to come back, with the status the site has chosen."""
        failure = failed(QueueFull(), "app", "1f", queue_full_status=503, retry_after=2)
        self.assertEqual((failure.status, dict(failure.headers)[b"Retry-After"]), (503, b"2"))

    def test_not_routed(self) -> None:
        """No route is 404."""
        self.assertEqual((not_routed().status, not_routed().body), (404, b"Invalid url\n"))

    def test_refused(self) -> None:
        """A refusal becomes an answer with its status and reason."""
        failure = refused(Refused(431, "too much"))
        self.assertEqual((failure.status, failure.body), (431, b"too much\n"))

    def test_no_injection(self) -> None:
        """No name of an application begins a new line."""
        failure = error_answer(500, "x", "a\r\nSet-Cookie: b", b"c\r\nd")
        self.assertNotIn(b"\n", b"".join(value for _, value in failure.headers) + failure.reason)
