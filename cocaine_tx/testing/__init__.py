"""
Connected pairs, and fakes that keep the same contract as the real thing.

For the tests of an application: `WorkerStage` and `PretendEvent`. The other modules are for the platform's own tests.
"""

from __future__ import annotations

from .worker import PretendEvent, WorkerStage

__all__ = ["PretendEvent", "WorkerStage"]
