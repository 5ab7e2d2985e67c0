"""
An app's folder as the archive that storage keeps: the same folder always gives the same bytes.

``.cocaineignore`` has the rules of ``.gitignore``; `pathspec` reads them, since nobody expects a dialect of their own.

Source: reference ``http-tools-sdk.md`` section B.4.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from .exits import WrongValue

IGNORE_FILE = ".cocaineignore"
#: Never part of an app, unless the ignore file takes them in again by ``!``.
_ALWAYS = (".git", IGNORE_FILE)
#: How deep folders may nest; links may make a tree endless.
_DEEPEST = 100


class Entry(NamedTuple):
    """A file or folder of the tree: its name in the archive, and where it is."""

    name: str
    path: str


def entries(folder: str) -> list[Entry]:
    """
    What belongs to the app, sorted, each folder before what is in it. Links are followed, as the original does.

    :raises WrongValue: a link leads nowhere or round in a circle, or something cannot be read.
    """
    return list(_walk(folder, "", _ignored(folder), ()))


def _ignored(folder: str) -> GitIgnoreSpec:
    lines = list(_ALWAYS)
    try:
        with open(os.path.join(folder, IGNORE_FILE), encoding="utf-8") as file:
            lines += file.read().splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as problem:
        raise WrongValue(f"{IGNORE_FILE} cannot be read: {problem}") from problem
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as problem:
        raise WrongValue(f"{IGNORE_FILE}: {problem}") from problem


def _walk(folder: str, prefix: str, ignored: GitIgnoreSpec, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
    try:
        status = os.stat(folder)
        names = sorted(os.listdir(folder))
    except OSError as problem:
        raise WrongValue(f"{prefix or folder!r} cannot be read: {problem.strerror}") from problem
    here = (status.st_dev, status.st_ino)
    if here in above or len(above) > _DEEPEST:
        raise WrongValue(f"{prefix!r}: links lead round in a circle")
    for name in names:
        path, archived = os.path.join(folder, name), prefix + name
        if os.path.isdir(path):
            # The spec knows folders by their trailing slash.
            if not ignored.match_file(archived + "/"):
                yield Entry(archived, path)
                yield from _walk(path, archived + "/", ignored, (*above, here))
        elif not ignored.match_file(archived):
            if not os.path.isfile(path):
                what = "a link that leads nowhere" if os.path.islink(path) else "neither a file nor a folder"
                raise WrongValue(f"{archived!r} is {what}")
            yield Entry(archived, path)


def archive(found: list[Entry]) -> bytes:
    """
    The entries as a tar.gz, without the owner's name and without the hour it was made.

    :raises WrongValue: a file cannot be read.
    """
    made = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=made, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, dereference=True) as tar,
    ):
        for entry in found:
            try:
                info = tar.gettarinfo(entry.path, entry.name)
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                info.mtime = int(info.mtime)
                if info.isfile():
                    with open(entry.path, "rb") as file:
                        tar.addfile(info, file)
                else:
                    tar.addfile(info)
            except OSError as problem:
                raise WrongValue(f"{entry.name!r} cannot be read: {problem.strerror or problem}") from problem
    return made.getvalue()


def packaged(path: str) -> bytes:
    """
    A ready-made archive.

    :raises WrongValue: it cannot be read, or is no tar archive.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            blob = file.read()
    except OSError as problem:
        raise WrongValue(f"cannot read package {path!r}: {problem.strerror}") from problem
    try:
        with tarfile.open(fileobj=io.BytesIO(blob)) as tar:
            # To the end: a truncated archive shows only there.
            while tar.next() is not None:
                pass
    except (tarfile.TarError, EOFError, OSError, ValueError, ArithmeticError) as problem:
        # tarfile has a line for each compression that it has tried.
        why = str(problem).partition("\n")[0].rstrip(":")
        raise WrongValue(f"package {path!r} is not a whole tar archive: {why}") from problem
    return blob


def manifest_among(found: list[Entry]) -> str | None:
    """
    The path of the file that looks most like a manifest: its name begins with ``manifest``, best at the top of the
    tree, best as ``manifest.json``.
    """
    best: tuple[int, str] | None = None
    for entry in found:
        name = os.path.basename(entry.name)
        if not name.startswith("manifest") or not os.path.isfile(entry.path):
            continue
        worth = 1 + (100 if "/" not in entry.name else 0) + (10 if name == "manifest.json" else 0)
        if best is None or worth > best[0]:
            best = (worth, entry.path)
    return best[1] if best else None
