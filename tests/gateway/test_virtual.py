"""Which services a relaying gateway takes for apps."""

from twisted.trial.unittest import SynchronousTestCase

from cocaine_tx.gateway.virtual import app_protocol
from cocaine_tx.interfaces import ServiceInfo
from cocaine_tx.wire.protocols import APP, NODE, STORAGE


class ProtocolTests(SynchronousTestCase):
    def test_apps(self):
        """An app is one, a node's own service is none though it takes events too: its callers must get to a node."""
        found = [
            app_protocol(ServiceInfo((("10.0.0.1", 1),), spoken.version, spoken.graph())) is not None
            for spoken in (APP, NODE, STORAGE)
        ]
        self.assertEqual(found, [True, False, False])
