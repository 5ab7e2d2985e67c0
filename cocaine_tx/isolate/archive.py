"""
An app's archive, from the object in storage to a folder. Blocking calls, made from a thread.

The archive is a stranger's: no member may be written, and no link may lead, outside the folder, whatever names, links
and sizes it claims. Links are made last, so that nothing is ever written through one. The standard ``tarfile`` reads
the format; its extraction filters are not used, as the oldest Python we run on does not have them.

Source: reference ``http-tools-sdk.md`` section B.3 (msgpack raw around a compressed tar) and ``node-engine.md``
section 6.2.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import msgpack

from ..errors import ArchiveError, CocaineError, SpoolError

#: No header of an honest archive is longer; tarfile would read one of any size into memory.
_LARGEST_READ = 1024 * 1024
_CHUNK = 64 * 1024
_NEWEST = 2**33
#: What the disk, not the archive, is to blame for.
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True)
class Limits:
    """
    How much an archive may unpack to.

    :ivar size: bytes of all files together.
    :ivar members: files, folders and links together.
    """

    size: int = 4 * 1024**3
    members: int = 100_000


def unwrap(blob: bytes) -> bytes:
    """
    The archive inside the msgpack raw that storage holds.

    :raises ArchiveError: the object is anything else.
    """
    try:
        archive = msgpack.unpackb(blob, raw=True, max_str_len=len(blob), max_bin_len=len(blob))
    except (ValueError, msgpack.UnpackException) as error:
        raise ArchiveError(f"the stored archive is not one msgpack raw: {error or type(error).__name__}") from None
    if not isinstance(archive, bytes):
        raise ArchiveError(f"the stored archive is a msgpack {type(archive).__name__}, a raw was expected")
    return archive


def unpack(
    archive: bytes,
    folder: str,
    limits: Limits = Limits(),
    owner: tuple[int, int] | None = None,
    given_up: Callable[[], bool] = lambda: False,
) -> None:
    """
    Unpack a tar (plain, gzip, bzip2 or xz) into an empty folder; the folder is removed when that fails.

    Times and execute bits are kept; set-user, set-group and others' write bits are not.

    :param owner: user and group ids to give everything to; None leaves it to this process's own.
    :param given_up: asked now and then; True ends the work with `ArchiveError`.
    :raises ArchiveError: the archive is damaged, unsafe or too large; the reason names the member.
    :raises SpoolError: the disk is full or refuses.
    """
    work = _Unpacking(folder, limits, owner, given_up)
    try:
        work.run(archive)
    except CocaineError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:  # tarfile meets damaged headers with whatever exception they lead to
        shutil.rmtree(folder, ignore_errors=True)
        where = f"{work.member!r}: " if work.member else ""
        if isinstance(error, OSError) and error.errno is not None:
            text = os.strerror(error.errno)
            raise SpoolError(where + text) if error.errno in _DISK else ArchiveError(where + text) from error
        raise ArchiveError(f"{where}{error or type(error).__name__}") from error


class _Unpacking:
    """One archive on its way into one folder."""

    def __init__(
        self, folder: str, limits: Limits, owner: tuple[int, int] | None, given_up: Callable[[], bool]
    ) -> None:
        self.member = ""
        self._folder = folder
        self._limits = limits
        self._owner = owner
        self._given_up = given_up
        self._files: set[str] = set()
        self._links: dict[str, str] = {}
        self._folders: dict[str, tarfile.TarInfo] = {}

    def run(self, archive: bytes) -> None:
        stream = _Forward(_plain(archive), self._limits.size + self._limits.members * 2048)
        size = members = 0
        with tarfile.open(
            fileobj=cast(io.BytesIO, stream), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all in memory
                self.member = member.name
                members += 1
                size += member.size
                if members > self._limits.members:
                    raise ArchiveError(f"the archive has more than {self._limits.members} members")
                if size > self._limits.size:
                    raise ArchiveError(f"{member.name!r}: the archive unpacks to more than {self._limits.size} bytes")
                self._check_given_up()
                self._place(tar, member)
        # tarfile takes anything that is not a header for the end; the format's own mark is a block of zeros.
        if stream.last != bytes(tarfile.BLOCKSIZE):
            where = f"after {self.member!r}" if self.member else "at its start"
            raise ArchiveError(f"the archive is cut off or damaged {where}")
        self.member = ""
        while stream.read(_CHUNK):  # to the end, where the checksums are
            self._check_given_up()
        self._make_links()
        for path, member in reversed(self._folders.items()):
            self._finish(path, member, 0o700)

    def _check_given_up(self) -> None:
        if self._given_up():
            raise ArchiveError("unpacking has been given up")

    def _place(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._path(member, member.name)
        if member.isdir():
            if path:
                os.makedirs(self._at(path), exist_ok=True)
                self._folders[path] = member
        elif not path:
            raise ArchiveError(f"{member.name!r}: only a folder can have this name")
        elif member.isreg():
            self._make_room(path)
            self._write(tar, member, path)
        elif member.islnk():
            source = self._path(member, member.linkname)
            if source not in self._files:
                raise ArchiveError(f"{member.name!r}: hard link to {member.linkname!r}, which is not a file before it")
            if source != path:
                self._make_room(path)
                os.link(self._at(source), self._at(path))
                self._files.add(path)
        elif member.issym():
            inside = os.path.normpath(os.path.join(os.path.dirname(path), member.linkname))
            if member.linkname.startswith("/") or inside == ".." or inside.startswith("../"):
                raise ArchiveError(f"{member.name!r}: link to {member.linkname!r}, which is outside of the archive")
            self._make_room(path)
            self._links[path] = member.linkname
        else:
            raise ArchiveError(f"{member.name!r}: devices, fifos and the like are not unpacked")

    def _path(self, member: tarfile.TarInfo, name: str) -> str:
        """The plain relative path a name stands for; empty for the folder itself."""
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or "\0" in name:
            raise ArchiveError(f"{member.name!r}: the name {name!r} leads out of the archive")
        return "/".join(parts)

    def _at(self, path: str) -> str:
        return os.path.join(self._folder, os.fsdecode(path.encode("utf-8", "surrogateescape")))

    def _make_room(self, path: str) -> None:
        """A member that comes twice replaces the first."""
        place = self._at(path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        self._links.pop(path, None)
        if path in self._files:
            os.unlink(place)
            self._files.discard(path)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        source = tar.extractfile(member)
        assert source is not None
        left = member.size
        with open(self._at(path), "xb", buffering=0) as file:
            self._files.add(path)
            while left:
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise ArchiveError(f"{member.name!r}: the archive is cut off in the middle of it")
                left -= len(chunk)
                file.write(chunk)
                self._check_given_up()
        self._finish(path, member, 0o600)

    def _finish(self, path: str, member: tarfile.TarInfo, least: int) -> None:
        place = self._at(path)
        if self._owner:
            os.lchown(place, *self._owner)
        os.chmod(place, (member.mode & 0o755) | least)
        time = min(max(float(member.mtime), 0.0), float(_NEWEST))
        os.utime(place, (time, time))

    def _make_links(self) -> None:
        root = os.path.realpath(self._folder)
        for path, target in self._links.items():
            self.member = path
            os.symlink(os.fsdecode(target.encode("utf-8", "surrogateescape")), self._at(path))
        # One link inside may turn another's harmless words into a way out; only the finished tree tells.
        for path, target in self._links.items():
            end = os.path.realpath(self._at(path))
            if end != root and not end.startswith(root + os.sep):
                raise ArchiveError(f"{path!r}: link to {target!r}, which is outside of the archive")
        self.member = ""


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def _plain(archive: bytes) -> _Readable:
    """The tar's own bytes, whatever it is compressed with."""
    file = io.BytesIO(archive)
    if archive.startswith(b"\x1f\x8b"):
        return cast(_Readable, gzip.GzipFile(fileobj=file))
    if archive.startswith(b"BZh"):
        return cast(_Readable, bz2.BZ2File(file))
    if archive.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return cast(_Readable, lzma.LZMAFile(file))
    for magic, name in ((b"PK\3\4", "zip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"7z\xbc\xaf", "7z"), (b"0707", "cpio")):
        if archive.startswith(magic):
            raise ArchiveError(f"this is a {name} archive; a tar, plain or with gzip, bzip2 or xz, was expected")
    return file


class _Forward:
    """
    A stream tarfile can only go forward in, of limited length, and of which it cannot have much at once.

    :ivar last: what the last read gave.
    """

    def __init__(self, source: _Readable, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._position = 0
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise ArchiveError(f"the archive has a header of {size} bytes, {_LARGEST_READ} are allowed")
        self.last = self._source.read(size)
        self._position += len(self.last)
        if self._position > self._limit:
            raise ArchiveError(f"the archive unpacks to more than {self._limit} bytes")
        return self.last

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise ArchiveError("the archive's members overlap")
        while self._position < position:
            if not self.read(min(position - self._position, _CHUNK)):
                break
        return self._position
