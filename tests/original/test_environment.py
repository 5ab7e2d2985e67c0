"""The original framework is really there, and really original."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.original import PATH, PYTHON, original_python


class OriginalPythonTests(SynchronousTestCase):
    """Where the interoperability tests find their other side."""

    def test_nothing_is_named(self) -> None:
        """Without the variables there is no environment, and no error."""
        with mock.patch.dict(os.environ):
            os.environ.pop(PYTHON, None)
            self.assertIsNone(original_python())

    def test_named_but_missing(self) -> None:
        """A variable that names an interpreter which has been deleted is no environment either."""
        here = str(Path(__file__).parent)
        with mock.patch.dict(os.environ, {PYTHON: self.mktemp(), PATH: here}):
            self.assertIsNone(original_python())

    def test_the_framework_imports(self) -> None:
        """The unmodified client and worker of the pinned release can be imported."""
        found = original_python()
        if found is None:
            self.skipTest("the original framework's environment was not built; make test builds it")
        python, environment = found
        program = (
            "import cocaine.services, cocaine.worker, importlib.metadata as m;"
            "print(m.version('cocaine'), m.version('msgpack'))"
        )
        answer = subprocess.run([python, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual((answer.returncode, answer.stdout.split()), (0, ["0.12.14.5", "0.6.2"]), answer.stderr)
