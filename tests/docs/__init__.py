"""The code that makes parts of the manual; it stands beside the pages, outside any package, so it is found by path."""

import sys
from pathlib import Path

_DOCS = str(Path(__file__).resolve().parent.parent.parent / "docs")
if _DOCS not in sys.path:
    sys.path.append(_DOCS)

import machines  # noqa: E402
import tables  # noqa: E402

__all__ = ["machines", "tables"]
