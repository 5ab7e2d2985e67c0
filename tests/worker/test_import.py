import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import cocaine_tx.worker

PROGRAM = """
import sys
from cocaine_tx.worker import Worker, http
worker = Worker()
print([name for name in sys.modules if name == "twisted.internet.reactor" or name.startswith("twisted.web")
       or name == "cocaine_tx.rpc.client"])
"""


class ImportTests(SynchronousTestCase):
    def test_light(self):
        """Importing the SDK and making a worker installs no reactor, reads no command line and brings no client."""
        root = str(Path(cocaine_tx.worker.__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], env={"PYTHONPATH": root}, capture_output=True, timeout=20, check=False
        )
        self.assertEqual((done.stdout, done.stderr), (b"[]\n", b""))

    def test_names(self):
        """Every public name is there, the late ones too; others are not."""
        for name in cocaine_tx.worker.__all__:
            self.assertTrue(callable(getattr(cocaine_tx.worker, name)), name)
        self.assertRaises(AttributeError, getattr, cocaine_tx.worker, "nosuch")
