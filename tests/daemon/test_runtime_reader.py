"""What operators write in a runtime's configuration, and what they are told."""

# Complaints stand on one line, as the operator sees them.
# ruff: noqa: E501

from __future__ import annotations

import dataclasses

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.document import parse, read, state_folder
from cocaine_tx.daemon.runtime_reader import Role, runtime_settings
from cocaine_tx.daemon.settings import Component, Gateway, Limits, Locator, Multicast, Network, Predefined, Runtime
from cocaine_tx.errors import ConfigError
from cocaine_tx.wire import frames

ENVIRON = {"HOME": "/home/u"}

ORIGINAL = """
{ "version": 4, // as documented
  "logging": {"severity": "info", "loggers": {"core": []}},
  "network": {"pinned": {"locator": 10053}, "shared": [32768, 61000], "pool": 4},
  "paths": {"runtime": "/var/run/cocaine", "plugins": ["/usr/lib/cocaine"]},
  "services": {
    "locator": {"type": "locator", "args": {
        "restrict": ["storage", "logging"],
        "extra_param": {"x-cocaine-cluster": "production"},
        "cluster": {"type": "multicast", "args": {"group": "239.0.100.53"}}}},
    "logging": {"type": "logging"},
    "metrics": {"type": "metrics"},
    "storage": {"type": "storage"},
    "node": {"type": "node::v2", "args": {"runlist": "default"}}},
  "storages": {"core": {"type": "files", "args": {"path": "/var/lib/cocaine"}}, "cache": {"type": "files"}},
  "authentications": {"core": {"type": "promiscuous"}},
  "authorizations": {"event": {"type": "event"}, "storage": {"type": "disabled"}},
  "senders": {"x": {}},
}
"""


def settings(text: str, role: Role = Role.NODE, file: str = "/etc/c/node.yaml") -> Runtime:
    return runtime_settings(parse(text, file, ENVIRON), role)


def changed(text: str, role: Role = Role.NODE) -> dict[str, object]:
    """The attributes that differ from the defaults."""
    default, got = settings("", role), settings(text, role)
    names = [field.name for field in dataclasses.fields(Runtime) if field.name != "warnings"]
    return {name: getattr(got, name) for name in names if getattr(got, name) != getattr(default, name)}


class LimitsTests(SynchronousTestCase):
    def test_session(self) -> None:
        """What an operator writes is what a connection obeys."""
        self.assertEqual(Limits().session, frames.Limits(frame=128 * 2**20))
        given = Limits(frame_size=1, header_size=2, channels=3, write_buffer=4).session
        self.assertEqual(given, frames.Limits(frame=1, headers=2, channels=3, unsent=4))


class DefaultTests(SynchronousTestCase):
    def test_node(self) -> None:
        """Without a file a node is on loopback, keeps everything in the user's folder, and runs all services."""
        state = "/home/u/.local/state/cocaine_tx"
        self.assertEqual(
            runtime_settings(read(None, ENVIRON), Role.NODE),
            Runtime(
                uuid=None,
                runtime=f"{state}/run",
                spool=f"{state}/spool",
                network=Network("127.0.0.1", None, {"locator": 10053}, None),
                severity="info",
                limits=Limits(),
                storages={"core": Component("files", {"path": f"{state}/storage"})},
                locator=Locator((), {}, None, None),
                node=True,
                runlist=None,
                storage="core",
                logging="core",
                verbosity=0,
            ),
        )

    def test_roles(self) -> None:
        """A locator is a node without apps; a gateway relays to the node beside it."""
        self.assertEqual(settings("", Role.LOCATOR), dataclasses.replace(settings(""), node=False))
        gateway = settings("", Role.GATEWAY)
        self.assertEqual((gateway.node, gateway.storage, gateway.logging), (False, None, None))
        self.assertEqual(gateway.network.pinned, {"locator": 10054})
        self.assertEqual(
            gateway.locator, Locator((), {}, Predefined({"local": ("127.0.0.1", 10053)}), Gateway("relay"))
        )

    def test_state_folder(self) -> None:
        """systemd's folder wins, then the XDG rule."""
        for environ, expected in (
            ({"STATE_DIRECTORY": "/var/lib/c:/x", "XDG_STATE_HOME": "/s", "HOME": "/h"}, "/var/lib/c"),
            ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/cocaine_tx"),
            ({"HOME": "/h"}, "/h/.local/state/cocaine_tx"),
            ({}, "/var/lib/cocaine_tx"),
        ):
            self.assertEqual(state_folder(environ), expected)


class OriginalTests(SynchronousTestCase):
    def test_unchanged(self) -> None:
        """The documented version 4 file keeps its meaning; what means nothing here is named once and is never fatal."""
        got = settings(ORIGINAL, file="/etc/cocaine/cocaine.conf")
        self.assertEqual(
            got,
            Runtime(
                uuid=None,
                runtime="/var/run/cocaine",
                spool="/var/spool/cocaine",
                network=Network("::", None, {"locator": 10053}, (32768, 61000)),
                severity="info",
                limits=Limits(),
                storages={"core": Component("files", {"path": "/var/lib/cocaine"})},
                locator=Locator(
                    ("storage", "logging"), {"x-cocaine-cluster": "production"}, Multicast("239.0.100.53"), None, False
                ),
                node=True,
                runlist="default",
                storage="core",
                logging="core",
                verbosity=0,
            ),
        )
        odd = [warning.split(": ")[1] for warning in got.warnings]
        self.assertEqual(
            sorted(odd),
            ["authentications", "authorizations.event", "logging.loggers", "network.pool", "paths.plugins", "senders",
             "services.metrics", "storages.cache"],
        )  # fmt: skip

    def test_only_what_is_listed(self) -> None:
        """An original file runs the services it lists; the locator always."""
        got = settings('{"version": 4, "services": {"storage": {"type": "storage"}}}', file="c.conf")
        self.assertEqual((got.node, got.storage, got.logging), (False, "core", None))
        self.assertEqual(got.network.endpoint, "::")

    def test_both_places_of_uuid(self) -> None:
        """The uuid may stand at the top or, as once, with the locator."""
        for text in ('{"version": 4, "uuid": "u1"}', '{"version": 4, "services": {"locator": {"args": {"uuid": "u1"}}}}'):
            self.assertEqual(settings(text, file="c.conf").uuid, "u1")

    def test_old_gateways(self) -> None:
        """The original's kinds of gateway and their arguments."""
        for kind, args, expected in (
            ("adhoc", "", Gateway("adhoc", cluster="eu")),
            ("ipvs", '"scheduler": "rr", "weight": 5, "x-cocaine-cluster": "us"', Gateway("ipvs", "us", "rr", 5)),
            ("vicodyn", '"retry_count": 7, "wrapped": {"type": "adhoc"}', Gateway("relay", cluster="eu", tries=7)),
        ):
            text = f"""{{"version": 4, "services": {{"locator": {{"args": {{"extra_param": {{"x-cocaine-cluster": "eu"}},
                "gateway": {{"type": "{kind}", "args": {{{args}}}}}}}}}}}}}"""
            self.assertEqual(settings(text, file="c.conf").locator.gateway, expected)

    def test_version_2(self) -> None:
        """A file of version 0.11 is understood."""
        got = settings('{"version": 2, "network": {"group": "239.0.0.1"}, "locator": {"port": 999}}', file="c.conf")
        self.assertEqual((got.locator.cluster, got.network.pinned), (Multicast("239.0.0.1"), {"locator": 999}))


class YamlTests(SynchronousTestCase):
    def test_single_keys(self) -> None:
        """Each key changes what it names and nothing else."""
        network = Network("127.0.0.1", None, {"locator": 10053}, None)
        for text, expected in (
            ("uuid: u", {"uuid": "u"}),
            ("network: {endpoint: '::1'}", {"network": dataclasses.replace(network, endpoint="::1")}),
            ("network: {hostname: h}", {"network": dataclasses.replace(network, hostname="h")}),
            ("network: {pinned: {node: 1}}",
             {"network": dataclasses.replace(network, pinned={"locator": 10053, "node": 1})}),
            ("network: {shared: [1000, 2000]}", {"network": dataclasses.replace(network, shared=(1000, 2000))}),
            ("network: {shared: [0, 0]}", {}),
            ("paths: {runtime: run}", {"runtime": "/etc/c/run"}),
            ("paths: {runtime: /r}", {"runtime": "/r"}),
            ("services: {node: false}", {"node": False}),
            ("services: {storage: false}", {"storage": None}),
            ("services: {logging: {args: {verbosity: 2}}}", {"verbosity": 2}),
            ("services: {node: {args: {runlist: r}}}", {"runlist": "r"}),
            ("services: {locator: {args: {restrict: [a]}}}", {"locator": Locator(("a",), {}, None, None)}),
            ("logging: {severity: debug}", {"severity": "debug"}),
            ("limits: {frame-size: 4096}", {"limits": Limits(frame_size=4096)}),
            ("storages: {core: {args: {path: s}}}", {"storages": {"core": Component("files", {"path": "/etc/c/s"})}}),
            ("storages: {core: {type: s3, args: {bucket: b}}}", {"storages": {"core": Component("s3", {"bucket": "b"})}}),
        ):  # fmt: skip
            self.assertEqual(changed(text), expected, text)

    def test_state_moves_all(self) -> None:
        """One key moves everything that is kept."""
        self.assertEqual(
            changed("paths: {state: ../var}"),
            {
                "runtime": "/etc/var/run",
                "spool": "/etc/var/spool",
                "storages": {"core": Component("files", {"path": "/etc/var/storage"})},
            },
        )

    def test_clusters(self) -> None:
        """Both ways of discovery, and the two names of the second."""
        for args, expected in (
            ("{type: multicast, args: {group: 'ff02::1', port: 1, interval: 2, interface: 3, loopback: true, hops: 4}}",
             Multicast("ff02::1", 1, 2.0, 3, True, 4)),
            ("{type: predefine, args: {nodes: {a: 'h:1'}}}", Predefined({"a": ("h", 1)})),
            ("{type: predefined, args: {nodes: {a: '[::1]:1', b: '::1:2'}, interval: 1}}",
             Predefined({"a": ("::1", 1), "b": ("::1", 2)}, 1.0)),
            ("{type: unicorn, args: {backend: core}}", None),
        ):  # fmt: skip
            got = settings(f"services: {{locator: {{args: {{cluster: {args}}}}}}}")
            self.assertEqual(got.locator.cluster, expected)

    def test_unknown_keys(self) -> None:
        """A key that means nothing is named, with the one that was probably meant."""
        got = settings("netwrok: {}\nlimits: {frame_size: 1, zzz: 2}\nservices: {node: {args: {runlists: x}}}")
        self.assertEqual(
            sorted(got.warnings),
            [
                "/etc/c/node.yaml: limits.frame_size: unknown key, ignored; did you mean frame-size?",
                "/etc/c/node.yaml: limits.zzz: unknown key, ignored",
                "/etc/c/node.yaml: netwrok: unknown key, ignored; did you mean network?",
                "/etc/c/node.yaml: services.node.args.runlists: unknown key, ignored; did you mean runlist?",
            ],
        )

    def test_complaints(self) -> None:
        """What cannot be used is refused in one line with the file, the key and the mend."""
        for text, words in (
            ("version: 3", "version: give 4, not 3"),
            ("network: {endpoint: localhost}", "network.endpoint: give a numeric IP address such as 127.0.0.1 or ::, not 'localhost'"),
            ("network: {pinned: {locator: 70000}}", "network.pinned.locator: give a whole number from 0 to 65535, not 70000"),
            ("network: {shared: [1]}", "network.shared: give [first port, one after the last port], not a list"),
            ("network: 5", "network: give a map, not 5"),
            ("network: {hostname: 5}", "network.hostname: give text, not 5"),
            ("logging: {severity: loud}", "logging.severity: give one of debug, info, warning, error, not 'loud'"),
            ("limits: {connect-timeout: .nan}", "limits.connect-timeout: give a number from 0.001 up, not nan"),
            ("limits: {channels: yes}", "limits.channels: give a whole number from 1 up, not true"),
            ("storages: {core: {type: filez}}", "storages.core.type: give files, not 'filez'"),
            ("services: {storage: {args: {backend: x}}}", "services.storage.args.backend: give one of core, not 'x'"),
            ("services: {locator: false}", "services.locator: the locator cannot be switched off, not false"),
            ("services: {node: {type: nodes}}", "services.node.type: give one of node, node::v2, not 'nodes'"),
            ("services: {locator: {args: {restrict: 5}}}", "services.locator.args.restrict: give a list of texts, not 5"),
            ("services: {locator: {args: {cluster: {}}}}", "services.locator.args.cluster.type: give one of multicast, predefined, not nothing"),
            ("services: {locator: {args: {cluster: {type: multicast}}}}",
             "services.locator.args.cluster.args.group: give a multicast address such as 239.0.100.53, not nothing"),
            ("services: {locator: {args: {cluster: {type: multicast, args: {group: 10.0.0.1}}}}}",
             "services.locator.args.cluster.args.group: give a multicast address such as 239.0.100.53, not '10.0.0.1'"),
            ("services: {locator: {args: {cluster: {type: predefined}}}}",
             "services.locator.args.cluster.args.nodes: give a map of label to host:port with at least one entry, not nothing"),
            ("services: {locator: {args: {cluster: {type: predefined, args: {nodes: {a: h}}}}}}",
             "services.locator.args.cluster.args.nodes.a: give host:port, not 'h'"),
            ("1: 2", "top level: write the key 1 in quotes"),
            ("[1]", "give a map at the top level"),
            ("a: 1\na: 2", "line 2, column 1: a is given twice"),
        ):  # fmt: skip
            error = self.assertRaises(ConfigError, settings, text)
            self.assertEqual(error.reason, f"/etc/c/node.yaml: {words}", text)
            self.assertNotIn("\n", error.reason)

    def test_files(self) -> None:
        """A file that is not there, or not text, is named."""
        folder = self.mktemp()
        self.assertIn("cannot be read: No such file", self.assertRaises(ConfigError, read, folder, ENVIRON).reason)
        with open(folder, "wb") as file:
            file.write(b"\xff\xfe\x00")
        self.assertIn("not UTF-8", self.assertRaises(ConfigError, read, folder, ENVIRON).reason)
        for text in ("{", "a: [", "a: *b", "- : :", "{\"version\": 4", "!!python/object:os.system {}"):
            self.assertRaises(ConfigError, parse, text, "x.conf", ENVIRON)
