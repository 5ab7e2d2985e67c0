"""
Versions of apps on disk and the processes that run from them: what to keep, and what an earlier life left behind.
Blocking calls, made from threads by `cocaine_tx.isolate.process`.

``<spool>/<app>/<version>/`` holds one version's code. Whoever uses it holds a lock on the folder, which the kernel lets
go of when its process ends, however it ends: a version nobody has locked is a leftover, and so are the processes that
run from it. They are known by ``<spool>/.running/<pid>`` (which process, since when) and by the variable
`MARK` in their environment, which their own children inherit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..errors import ArchiveError, SpoolError
from .archive import Limits, unpack, unwrap

#: The environment variable that tells which version a process runs from.
MARK = "COCAINE_TX_VERSION"
_RECORDS = ".running"
_ATTEMPTS = 100
_VERSION = re.compile(r"v[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Version:
    """
    One version's folder, locked.

    :ivar folder: absolute path.
    :ivar lock: the descriptor that holds the lock.
    """

    spool: str
    folder: str
    lock: int

    @property
    def name(self) -> str:
        """Unique among all versions of all apps."""
        return os.path.basename(self.folder)


def bring(
    spool: str,
    app: str,
    blob: bytes,
    limits: Limits,
    owner: tuple[int, int] | None,
    given_up: Callable[[], bool],
) -> Version:
    """
    Unpack an app's stored archive as a new version, beside those there are. Nothing is left of one that fails.

    :raises ArchiveError: the archive is damaged or unsafe.
    :raises SpoolError: the app's name cannot be a folder, or the disk refuses.
    """
    if app in ("", ".", "..", _RECORDS) or "/" in app or "\0" in app:
        raise SpoolError(f"an app cannot be spooled under the name {app!r}")
    archive = unwrap(blob)
    try:
        version = _locked(spool, app)
    except OSError as error:
        raise SpoolError(f"{os.path.join(spool, app)}: {error.strerror}") from error
    try:
        unpack(archive, version.folder, limits, owner, given_up)
        if given_up():
            raise ArchiveError("unpacking has been given up")
    except BaseException:
        remove(version)
        raise
    return version


def _locked(spool: str, app: str) -> Version:
    place = os.path.join(os.path.abspath(spool), app)
    for _ in range(_ATTEMPTS):
        folder = os.path.join(place, f"v{secrets.token_hex(8)}")
        try:
            os.makedirs(place, exist_ok=True)
            os.mkdir(folder, 0o755)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, FileExistsError):
            continue  # the app's last other version is being discarded at this moment, and the app's folder with it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)  # somebody is sweeping it
            continue
        except OSError:
            pass  # a file system without locks; nothing is swept there
        if os.path.isdir(folder):
            return Version(os.path.abspath(spool), folder, lock)
        os.close(lock)  # another daemon swept it before it was locked
    raise FileExistsError(errno.EEXIST, "a folder for the app cannot be made there")


def remove(version: Version) -> None:
    """Take the folder away and let go of it; the app's own folder too when this was its last version."""
    shutil.rmtree(version.folder, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.dirname(version.folder))
    os.close(version.lock)


def record(version: Version, pid: int) -> None:
    """Remember that a process runs from the version. Failure costs only the sweep one of its two ways to find it."""
    with suppress(OSError):
        os.makedirs(os.path.join(version.spool, _RECORDS), exist_ok=True)
        with open(os.path.join(version.spool, _RECORDS, str(pid)), "w", encoding="ascii") as file:
            file.write(f"{version.name} {_since(pid)}")


def forget(version: Version, pid: int) -> None:
    """The process has ended."""
    with suppress(OSError):
        os.unlink(os.path.join(version.spool, _RECORDS, str(pid)))


def sweep(spool: str) -> list[int]:
    """
    End the processes and remove the folders of every version that nobody holds.

    :return: the processes that were killed.
    """
    records = list(_records(spool))
    dead, alive = _versions(spool)
    killed = []
    for pid, name, since in records:
        if name not in alive:
            if since and since == _since(pid):
                killed.append(pid)
                _kill(pid, os.killpg)
            with suppress(OSError):
                os.unlink(os.path.join(spool, _RECORDS, str(pid)))
    for pid in _marked({version.name for version in dead}):
        killed.append(pid)
        _kill(pid, os.kill)
    for version in dead:
        remove(version)
    return killed


def _versions(spool: str) -> tuple[list[Version], set[str]]:
    """The versions whose lock was free, locked by us now, and the names of the others."""
    dead: list[Version] = []
    alive: set[str] = set()
    for app in _entries(spool):
        for name in _entries(os.path.join(spool, app)) if app != _RECORDS else ():
            if not _VERSION.fullmatch(name):
                continue  # not ours to remove: the original unpacks straight into the app's folder
            folder = os.path.join(spool, app, name)
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                alive.add(name)
            else:
                dead.append(Version(spool, folder, lock))
    return dead, alive


def _records(spool: str) -> Iterator[tuple[int, str, str]]:
    """Process, version and start of every record."""
    for name in _entries(os.path.join(spool, _RECORDS)):
        try:
            with open(os.path.join(spool, _RECORDS, name), encoding="ascii") as file:
                version, _, since = file.read(200).partition(" ")
            yield int(name), version, since
        except (ValueError, OSError):
            continue


def _since(pid: int) -> str:
    """When a process began, in words that no other process with its number ever shares; empty when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            ticks = file.read().rpartition(b")")[2].split()[19].decode()
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{ticks} {file.read().strip()}"
    except (OSError, IndexError):
        return ""


def _marked(names: set[str]) -> Iterator[int]:
    """Processes with the mark of one of the versions in their environment."""
    marks = {f"{MARK}={name}".encode() for name in names}
    for entry in _entries("/proc") if marks else ():
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if marks.intersection(file.read().split(b"\0")):
                        yield int(entry)
            except OSError:
                continue


def _kill(pid: int, how: Callable[[int, int], None]) -> None:
    try:
        how(pid, signal.SIGKILL)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
