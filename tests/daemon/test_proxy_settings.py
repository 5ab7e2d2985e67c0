"""What operators write in the proxy's configuration."""

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.document import parse
from cocaine_tx.daemon.proxy import terms
from cocaine_tx.daemon.proxy_settings import (
    AccessLog,
    HttpLimits,
    Pool,
    Proxy,
    Retry,
    Timeouts,
    Tvm,
    Unicorn,
    proxy_settings,
)
from cocaine_tx.daemon.settings import Limits
from cocaine_tx.errors import ConfigError


def settings(text: str) -> Proxy:
    return proxy_settings(parse(text, "/etc/c/proxy.yaml", {}))


class ProxySettingsTests(SynchronousTestCase):
    def test_single_keys(self) -> None:
        """Each key changes what it names and nothing else."""
        self.assertEqual(settings(""), Proxy())
        for text, expected in (
            ("endpoints: [a, b]", {"endpoints": ("a", "b")}),
            ("endpoints: 'unix:/x'", {"endpoints": ("unix:/x",)}),
            ("operations: 'tcp:8081'", {"operations": "tcp:8081"}),
            ("locators: 'a, b:2'", {"locators": (("a", 10053), ("b", 2))}),
            ("locators: ['[::1]:2']", {"locators": (("::1", 2),)}),
            ("locators: ['[::1]']", {"locators": (("::1", 10053),)}),
            ("processes: 0", {"processes": 0}),
            ("request-header: X-R", {"request_header": "X-R"}),
            ("mapped-headers: [X-A]", {"mapped_headers": ("X-A",)}),
            ("host-suffix: a.b", {"host_suffix": "a.b"}),
            ("tracing: {chance: 0.5}", {"tracing_chance": 0.5}),
            ("json-rpc: {services: [storage]}", {"jsonrpc": ("storage",)}),
            ("json-rpc: {answer-size: 2000}", {"jsonrpc_size": 2000}),
            ("limits: {bodies: 5}", {"limits": HttpLimits(bodies=5)}),
            ("timeouts: {chunk: 3, apps: {a: 1, b: {e: 2, '': 3}}}",
             {"timeouts": Timeouts(chunk=3.0, apps={"a": {"": 1.0}, "b": {"e": 2.0, "": 3.0}})}),
            ("timeouts: {requests: {a: 600, b: {e: 2}}}",
             {"timeouts": Timeouts(requests={"a": {"": 600.0}, "b": {"e": 2.0}})}),
            ("pool: {size: 9, services: {a: 20}}", {"pool": Pool(9, services={"a": 20})}),
            ("retry: {queue-full-status: 500}", {"retry": Retry(queue_full_status=500)}),
            ("limits: {inline-body: 134075840}", {"limits": HttpLimits(inline_body=134075840)}),
            ("limits: {body: 0}", {"limits": HttpLimits(body=0)}),
            ("access-log: {format: json, file: log/a}", {"access_log": AccessLog("json", "/etc/c/log/a")}),
            ("unicorn: {schema: tornado}",
             {"unicorn": Unicorn("tornado", "unicorn", "/proxy_apps_timeouts", "/zipkin_sampling")}),
            ("unicorn: {schema: tornado, service: u, timeouts: /t/, tracing: false}",
             {"unicorn": Unicorn("tornado", "u", "/t")}),
            ("unicorn: {schema: rust, tracing: /c/tracing}", {"unicorn": Unicorn("rust", tracing="/c/tracing")}),
            ("unicorn: {schema: rust, timeouts: /t, tvm: {client-id: 5, client-secret: s}}",
             {"unicorn": Unicorn("rust", timeouts="/t", tvm=Tvm(5, "s"))}),
            ("wire: {connect-timeout: 1}", {"wire": Limits(connect_timeout=1.0)}),
        ):  # fmt: skip
            self.assertEqual(settings(text), dataclasses.replace(Proxy(), **expected), text)

    def test_complaints(self) -> None:
        """What cannot be used is refused in one line with the file, the key and the mend."""
        for text, words in (
            ("endpoints: []", "endpoints: give at least one endpoint such as tcp:8080:interface=127.0.0.1, not a list"),
            ("locators: ['a:b']", "locators: give host:port, not 'a:b'"),
            ("locators: ['::1']", "locators: give host:port, not '::1'"),
            ("request-header: 'X:'", "request-header: give the name of an HTTP header, not 'X:'"),
            ("locators: ['a:0']", "locators: give host:port, not 'a:0'"),
            ("retry: {queue-full-status: 200}", "retry.queue-full-status: give 503 or 500, not 200"),
            ("timeouts: {apps: {a: x}}", "timeouts.apps.a: give a number from 0.001 up, not 'x'"),
            ("timeouts: {apps: {a: {e: 0}}}", "timeouts.apps.a.e: give a number from 0.001 up, not 0"),
            ("tracing: {chance: 101}", "tracing.chance: give a number from 0 to 100, not 101"),
            ("unicorn: {schema: c}", "unicorn.schema: give one of tornado, rust, not 'c'"),
            ("unicorn: {timeouts: /t}", "unicorn.schema: give one of tornado, rust, not nothing"),
            ("unicorn: {schema: rust}",
             "unicorn.timeouts: give the path of a node here or as tracing, such as /cocaine/timeouts, not nothing"),
            ("unicorn: {schema: rust, timeouts: t}",
             "unicorn.timeouts: give a path such as /cocaine/timeouts, or false, not 't'"),
            ("unicorn: {schema: rust, timeouts: /t, tvm: {client-id: 5}}",
             "unicorn.tvm.client-secret: give both, or neither, not nothing"),
            ("limits: {inline-body: 134217728}",
             "limits.inline-body: give at most 134075840, since such a body and its head travel in one frame "
             "(wire.frame-size), not 134217728"),
        ):
            error = self.assertRaises(ConfigError, settings, text)
            self.assertEqual(error.reason, f"/etc/c/proxy.yaml: {words}")

    def test_header_line(self) -> None:
        """Who allows larger heads has larger single lines in them; who allows smaller ones does not lose cookies."""
        for size, line in ((65536, 16384), (262144, 65536), (8192, 16384)):
            self.assertEqual(terms(settings(f"limits: {{header-size: {size}}}")).parser.field, line)

    def test_not_a_proxy_file(self) -> None:
        """The runtime's own file is not taken for the proxy's."""
        document = parse('{"version": 4}', "cocaine.conf", {})
        self.assertIn("a YAML file of its own", self.assertRaises(ConfigError, proxy_settings, document).reason)

    def test_secret(self) -> None:
        """The secret is not shown where settings are."""
        made = settings("unicorn: {schema: tornado, tvm: {client-id: 5, client-secret: hidden}}")
        self.assertNotIn("hidden", repr(made))
