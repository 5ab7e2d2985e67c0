"""How Sphinx builds the manual; warnings are errors (``make docs``)."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

import commands  # noqa: E402
import machines  # noqa: E402
import tables  # noqa: E402

from cocaine_tx import __version__  # noqa: E402

project = "cocaine_tx"
author = "the cocaine_tx authors"
copyright = f"2026, {author}"
version = release = __version__

html_theme = "alabaster"
html_theme_options = {"description": "Runs people's applications", "fixed_sidebar": True, "page_width": "60em"}
exclude_patterns = ["_build", "generated"]
nitpicky = True

for part in (commands, machines, tables):
    part.write(_HERE / "generated")
