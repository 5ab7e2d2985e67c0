"""What application authors may import: these names, and no others, are kept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

import cocaine_tx.testing
import cocaine_tx.worker


class ExportTests(SynchronousTestCase):
    def test_worker(self) -> None:
        """``cocaine_tx.worker`` offers these, each of them importable."""
        names = [
            "HttpRequest", "HttpResponse", "Locator", "LogHandler", "Request", "Response", "Service", "Worker",
            "WorkerConfig", "http",
        ]  # fmt: skip
        self.assertEqual(sorted(cocaine_tx.worker.__all__), names)
        for name in names:
            self.assertTrue(callable(getattr(cocaine_tx.worker, name)), name)

    def test_testing(self) -> None:
        """``cocaine_tx.testing`` offers these to the tests of applications."""
        names = ["PretendEvent", "WorkerStage"]
        self.assertEqual(sorted(cocaine_tx.testing.__all__), names)
        for name in names:
            self.assertTrue(callable(getattr(cocaine_tx.testing, name)), name)
