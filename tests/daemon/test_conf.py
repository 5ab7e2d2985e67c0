"""The shipped configuration files say what happens without them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.daemon.document import Document, read
from cocaine_tx.daemon.proxy_settings import proxy_settings
from cocaine_tx.daemon.runtime_reader import Role, runtime_settings
from cocaine_tx.daemon.section import Section, Source
from cocaine_tx.errors import ConfigError

CONF = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "conf")
ENVIRON = {"HOME": "/home/u"}


def places(tree: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Every map of a tree with each of its keys."""
    for key, value in tree.items():
        yield tree, key
        if isinstance(value, dict):
            yield from places(value)


class ConfTests(SynchronousTestCase):
    def test_runtime(self) -> None:
        """node.yaml and gateway.yaml hold the built-in defaults, and nothing that is not understood."""
        for name, role in (("node", Role.NODE), ("node", Role.LOCATOR), ("gateway", Role.GATEWAY)):
            shipped = runtime_settings(read(os.path.join(CONF, f"{name}.yaml"), ENVIRON), role)
            self.assertEqual((shipped, shipped.warnings), (runtime_settings(read(None, ENVIRON), role), ()))

    def test_proxy(self) -> None:
        """proxy.yaml holds the built-in defaults, and nothing that is not understood."""
        shipped = proxy_settings(read(os.path.join(CONF, "proxy.yaml"), ENVIRON))
        self.assertEqual((shipped, shipped.warnings), (proxy_settings(read(None, ENVIRON)), ()))

    def test_anything_else(self) -> None:
        """Whatever stands in place of a value, the daemon starts or says what is wrong with it."""
        odd = (5, -1, 10**30, float("nan"), "x", "", True, False, [], [1], [[]], {}, {"a": 1}, {"a": []}, {1: 2})
        for name, reader in (
            ("node", lambda document: runtime_settings(document, Role.NODE)),
            ("gateway", lambda document: runtime_settings(document, Role.GATEWAY)),
            ("proxy", proxy_settings),
        ):
            with open(os.path.join(CONF, f"{name}.yaml"), encoding="utf-8") as file:
                tree = yaml.safe_load(file)
            for place, key in list(places(tree)):
                kept = place[key]
                for value in odd:
                    place[key] = value
                    try:
                        reader(Document(Section(Source("x.yaml", "/"), "", tree), False, "/s"))
                    except ConfigError:
                        pass
                place[key] = kept

    def test_complete(self) -> None:
        """The files name every section that is read."""
        for name in ("node", "gateway", "proxy"):
            document = read(os.path.join(CONF, f"{name}.yaml"), ENVIRON)
            with open(os.path.join(CONF, f"{name}.yaml"), encoding="utf-8") as file:
                given = set(yaml.safe_load(file))
            if name == "proxy":
                proxy_settings(document)
            else:
                runtime_settings(document, Role.NODE if name == "node" else Role.GATEWAY)
            foreign = {"authentications", "authorizations", "unicorns", "context", "senders", "postgres"}
            self.assertEqual(document.root.asked() - foreign, given)
