"""twistd knows the daemons by name."""

from __future__ import annotations

import sys
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import cocaine_tx

NAMES = ["cocaine-gateway", "cocaine-locator", "cocaine-node", "cocaine-proxy"]


class PluginTests(SynchronousTestCase):
    """What `twistd --help` lists."""

    def test_names(self) -> None:
        """Each daemon is listed under its name, once."""
        listed = [maker.tapname for maker in getPlugins(IServiceMaker) if maker.tapname.startswith("cocaine-")]
        self.assertEqual(sorted(listed), NAMES)

    def test_listing_imports_no_daemon(self) -> None:
        """Listing every daemon on a host does not load them: each name is only a string until it is used."""
        loaded = {name for name in sys.modules if name.startswith("cocaine_tx.daemon.")}
        list(getPlugins(IServiceMaker))
        self.assertEqual({name for name in sys.modules if name.startswith("cocaine_tx.daemon.")}, loaded)

    def test_no_package_in_the_way(self) -> None:
        """An ``__init__.py`` beside the plugin would hide all of Twisted's own, or ours."""
        folder = Path(cocaine_tx.__file__).parent.parent / "twisted"
        self.assertEqual(list(folder.rglob("__init__.py")), [])
