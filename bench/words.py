"""The command line of a benchmark: one number, and help."""

from __future__ import annotations

import argparse


def number(manual: str | None, what: str, otherwise: int) -> int:
    """
    The program's one argument, or its default.

    :param manual: what ``--help`` prints: the program's own docstring.
    """
    parser = argparse.ArgumentParser(description=manual, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(what, nargs="?", type=int, default=otherwise, help=f"{otherwise} if not given")
    asked: int = getattr(parser.parse_args(), what)
    return asked
