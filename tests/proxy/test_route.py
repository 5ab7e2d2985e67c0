"""Where requests go, and what the worker sees of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.proxy.request import RequestHead
from cocaine_tx.proxy.route import HostSuffix, Route, Verdict, route

HOST = (b"Host", b"a")


def request(target: bytes, *headers: tuple[bytes, bytes], host: bytes = b"a") -> RequestHead:
    return RequestHead(b"GET", target, b"1.1", [HOST, *headers], host, 0, True, False, b"")


def headers(service: bytes, event: bytes, name: bytes = b"X-Cocaine-Event") -> list[tuple[bytes, bytes]]:
    return [(b"X-Cocaine-Service", service), (name, event)]


class HeaderTests(SynchronousTestCase):
    """Routing by headers."""

    def test_event(self) -> None:
        """The two headers name application and event; URI and headers are forwarded as they came."""
        asked = request(b"/x/y?q", *headers(b"app", b"ev"), (b"Cookie", b"c=1"))
        self.assertEqual(route(asked), Route("app", "ev", b"/x/y?q", asked.headers))

    def test_handle(self) -> None:
        """X-Cocaine-Handle is another name for X-Cocaine-Event, which wins if both are there."""
        asked = request(b"/", *headers(b"app", b"ev", b"x-cocaine-HANDLE"))
        self.assertEqual(route(asked), Route("app", "ev", b"/", asked.headers))
        both = request(b"/", *headers(b"app", b"ev"), (b"X-Cocaine-Handle", b"other"))
        self.assertEqual(route(both), Route("app", "ev", b"/", both.headers))

    def test_empty(self) -> None:
        """An empty name is no name, and the path is not asked."""
        self.assertEqual(route(request(b"/app/ev", *headers(b"", b"ev"))), Verdict.NOWHERE)
        self.assertEqual(route(request(b"/app/ev", *headers(b"app", b""))), Verdict.NOWHERE)

    def test_undecodable(self) -> None:
        """Names are text."""
        self.assertEqual(route(request(b"/", *headers(b"\xff", b"ev"))), Verdict.NOWHERE)

    def test_repeated(self) -> None:
        """The same name twice is one name; two names are an attack or a mistake."""
        self.assertIsInstance(route(request(b"/", *headers(b"app", b"ev") * 2)), Route)
        twice = request(b"/", *headers(b"app", b"ev"), (b"x-cocaine-service", b"admin"))
        self.assertEqual(route(twice), Verdict.AMBIGUOUS)

    def test_asterisk(self) -> None:
        """OPTIONS * can be routed by headers only."""
        self.assertEqual(route(request(b"*", *headers(b"app", b"ev"))).uri, b"*")  # type: ignore[union-attr]
        self.assertEqual(route(request(b"*")), Verdict.NOWHERE)


class PathTests(SynchronousTestCase):
    """Routing by path."""

    def test_rewritten(self) -> None:
        """Two segments are taken off and the rest begins with a slash."""
        for tail, uri in [(b"", b"/"), (b"/", b"/"), (b"/a/b?c=/d", b"/a/b?c=/d"), (b"?q", b"/?q"), (b"//x", b"//x")]:
            wanted = [HOST, (b"X-Cocaine-Service", b"app"), (b"X-Cocaine-Event", b"ev")]
            self.assertEqual(route(request(b"/app/ev" + tail)), Route("app", "ev", uri, wanted))

    def test_one_header(self) -> None:
        """One header alone is not enough; the worker then sees what the path says."""
        for lone in ((b"X-Cocaine-Service", b"other"), (b"X-Cocaine-Event", b"other"), (b"X-Cocaine-Handle", b"other")):
            found = route(request(b"/app/ev", lone))
            assert isinstance(found, Route)
            self.assertEqual((found.app, found.event, found.headers), ("app", "ev", [HOST, *headers(b"app", b"ev")]))

    def test_nowhere(self) -> None:
        """Less than two segments, or empty ones, lead nowhere."""
        for target in (b"/", b"/app", b"/app/", b"//ev", b"/app//x", b"/app?/ev", b"/?/app/ev", b"/app/?q", b"///"):
            self.assertEqual(route(request(target)), Verdict.NOWHERE, target)

    def test_ping(self) -> None:
        """/ping is the proxy's own, unless headers send it elsewhere."""
        self.assertEqual(route(request(b"/ping")), Verdict.PING)
        self.assertEqual(route(request(b"/ping?x")), Verdict.PING)
        self.assertEqual(route(request(b"/pingx")), Verdict.NOWHERE)
        self.assertIsInstance(route(request(b"/ping", *headers(b"app", b"ev"))), Route)


class HostTests(SynchronousTestCase):
    """Routing by host name, where it is switched on."""

    suffix = HostSuffix(b".apps.example.org")

    def test_suffix(self) -> None:
        """The label in front of the suffix is the application; nothing is rewritten."""
        for host in (b"hello.apps.example.org", b"HELLO.apps.example.ORG:8080", b"hello.apps.example.org."):
            asked = request(b"/a/b", host=host)
            self.assertEqual(route(asked, self.suffix), Route("hello", "http", b"/a/b", asked.headers))

    def test_off(self) -> None:
        """It is off unless configured."""
        self.assertEqual(route(request(b"/", host=b"hello.apps.example.org")), Verdict.NOWHERE)

    def test_others(self) -> None:
        """Other hosts, deeper names and the bare suffix are routed by path."""
        for host in (b"example.org", b"a.b.apps.example.org", b".apps.example.org", b"apps.example.org", b"[::1]:80"):
            self.assertEqual(route(request(b"/x", host=host), self.suffix), Verdict.NOWHERE, host)

    def test_headers_first(self) -> None:
        """Headers win."""
        found = route(request(b"/", *headers(b"app", b"ev"), host=b"hello.apps.example.org"), self.suffix)
        self.assertEqual(found.app, "app")  # type: ignore[union-attr]
