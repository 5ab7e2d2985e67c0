"""
The original Python framework in an environment of its own, for the tests that need a stranger at the other end.

``make test`` builds it (``make_env.sh``) and says where it is in two environment variables; a test asks
`original_python`, and skips with a reason when there is none.
"""

from __future__ import annotations

import os
from pathlib import Path

#: The interpreter that has the original framework.
PYTHON = "COCAINE_ORIGINAL_PYTHON"
#: The folder with the ``sitecustomize.py`` that the framework needs on a Python of today.
PATH = "COCAINE_ORIGINAL_PATH"


def original_python() -> tuple[str, dict[str, str]] | None:
    """
    The interpreter to start an original client or worker with, and the whole environment to give it.

    Our own package's ``PYTHONPATH`` is left out of that environment: the two must not be able to see each other.

    :return: ``None`` when the environment has not been built, also when a variable names what is not there.
    """
    python, path = os.environ.get(PYTHON), os.environ.get(PATH)
    if not python or not path or not os.access(python, os.X_OK) or not (Path(path) / "sitecustomize.py").is_file():
        return None
    return python, {**os.environ, "PYTHONPATH": path}
