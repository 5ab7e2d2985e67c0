"""
The file layout of storage, in blocking calls: ``<root>/<collection>/<key>`` is an object and
``<root>/<collection>/<tag>/`` a folder of links to the objects with that tag. `cocaine_tx.storage.files` calls this
from a thread.

The layout is the original's (reference ``protocol-v12.md`` section 12): a runtime of either kind can be started on the
folder the other one filled. An object counts as tagged when the tag's folder has an entry of its name and the object is
there; where the link points does not matter, so a folder that was moved with absolute links in it keeps its tags.

A write goes aside, to disk, under its new tags, and only then into place by one rename. A process killed at any point
leaves the old object or the new one; what it left aside is removed by the next `ObjectFolder.open`.

Several processes may have one folder open. A link without an object is then perhaps that of an object which another one
is just writing, so only a process that is alone removes such links.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ..errors import CocaineError, PermissionDenied
from .names import ASIDE, absent, decoded, encoded, key_is_tag, tag_is_key, tag_names

#: O_NONBLOCK: a fifo that somebody put among the objects must not hold the thread.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: Most objects are smaller than this and are read in one call.
_FIRST_READ = 4096
#: How often a tag's folder is made when other processes take it away again at once.
_ATTEMPTS = 100


class ObjectFolder:
    """
    Objects under one folder. Not safe for use by two threads at once.

    :param root: the folder; made by `open` when it is not there.
    """

    def __init__(self, root: str) -> None:
        self._root = os.fsencode(root)
        self._lock = -1
        # Not a process id: processes of two hosts or containers that share the folder may have the same.
        self._mark = secrets.token_hex(8).encode()
        self._numbers = itertools.count()

    def open(self) -> None:
        """
        Make the folder and, unless another process has it open too, remove what a killed writer left aside.

        :raises OSError: the folder cannot be made or opened.
        """
        # Manifests may hold secrets, crash logs do: a folder of our own making is nobody else's to read.
        os.makedirs(self._root, 0o700, exist_ok=True)
        self._lock = os.open(self._root, _FOLDER)
        with self._alone() as alone:
            if alone:
                self._sweep()

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process has the folder open; while this lasts none can open it."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            alone = False
        else:
            alone = True
        try:
            yield alone
        finally:
            # On a file system without locks nobody is ever alone, which costs space only.
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let go of the folder; it can be opened again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def read(self, collection: str, key: str) -> bytes:
        """
        The object's bytes.

        :raises NotFound: there is none.
        """
        path = b"%b/%b/%b" % (self._root, encoded(collection, "collection"), encoded(key, "key"))
        try:
            fd = os.open(path, _READ)
            try:
                blob = os.read(fd, _FIRST_READ)
                if len(blob) < _FIRST_READ:
                    return blob
                parts = [blob]
                while blob:
                    blob = os.read(fd, max(os.fstat(fd).st_size, _FIRST_READ))
                    parts.append(blob)
                return b"".join(parts)
            finally:
                os.close(fd)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise absent(collection, key) from None
        except OSError as error:
            raise _refusal(collection, key, error) from error

    def write(self, collection: str, key: str, blob: bytes, tags: Sequence[str]) -> None:
        """
        Put the object on disk with exactly these tags.

        :raises InvalidArgument: a name cannot be used, or is taken by a tag (or object) of the collection.
        """
        base = os.path.join(self._root, encoded(collection, "collection"))
        name = encoded(key, "key")
        wanted = tag_names(key, tags)
        with _telling(collection, key):
            if _make(base):
                _sync(self._root)
            self._claim(base, name, key, wanted)
            aside = os.path.join(base, ASIDE + b"%b.%d" % (self._mark, next(self._numbers)))
            linked: list[bytes] = []
            try:
                _put(aside, blob)
                for tag in wanted:
                    if _link(os.path.join(base, tag), name):
                        linked.append(tag)
                os.rename(aside, os.path.join(base, name))
            except OSError:
                _forget(aside)
                for tag in linked:
                    _forget(os.path.join(base, tag, name))
                raise
            for tag in _folders(base):
                if tag not in wanted:
                    _unlink(os.path.join(base, tag), name)
            _sync(base)

    def remove(self, collection: str, key: str) -> None:
        """Remove the object and its tags, if it is there."""
        base = os.path.join(self._root, encoded(collection, "collection"))
        name = encoded(key, "key")
        with _telling(collection, key):
            try:
                if _is_folder(os.path.join(base, name)):
                    return  # a tag, not an object
                os.unlink(os.path.join(base, name))
            except (FileNotFoundError, NotADirectoryError):
                pass
            for tag in _folders(base):
                _unlink(os.path.join(base, tag), name)
            if _is_folder(base):
                _sync(base)

    def find(self, collection: str, tags: Sequence[str]) -> list[str]:
        """Sorted keys of the objects with all the tags. Links that a killed process has left are removed on the way."""
        base = os.path.join(self._root, encoded(collection, "collection"))
        folders = [os.path.join(base, encoded(tag, "tag")) for tag in dict.fromkeys(tags)]
        if not folders:
            return []
        with _telling(collection, "".join(tags[:1])):
            try:
                names = set(os.listdir(folders[0])).intersection(*map(os.listdir, folders[1:]))
            except (FileNotFoundError, NotADirectoryError):
                return []
            found, dangling = [], []
            for name in names:
                if _is_object(os.path.join(base, name)):
                    found.append(decoded(name))
                else:
                    dangling.append(name)
            for folder in folders if dangling else ():
                self._tidy(base, folder, dangling)
            return sorted(found)

    def _tidy(self, base: bytes, folder: bytes, dangling: Iterable[bytes]) -> None:
        """Remove links without an object from a tag's folder, unless somebody else may be about to write the object."""
        with self._alone() as alone:
            for name in dangling if alone else ():
                if not _is_object(os.path.join(base, name)):
                    _unlink(folder, name)

    def _claim(self, base: bytes, name: bytes, key: str, wanted: dict[bytes, str]) -> None:
        """Complain before anything is touched when an object's name is a tag's, or a tag's an object's."""
        path = os.path.join(base, name)
        if _is_folder(path):
            try:
                self._tidy(base, path, os.listdir(path))
                os.rmdir(path)  # a tag that nothing carries any more gives its name back
            except FileNotFoundError:
                pass
            except OSError:
                raise key_is_tag(key) from None
        for tag, text in wanted.items():
            mode = _mode(os.path.join(base, tag))
            if mode and not stat.S_ISDIR(mode):
                raise tag_is_key(text)

    def _sweep(self) -> None:
        """Remove what was being written when an earlier process was killed."""
        for collection in _folders(self._root):
            base = os.path.join(self._root, collection)
            try:
                names = os.listdir(base)
            except PermissionError:
                continue  # not ours, as the lost+found of a disk that is the folder
            for name in names:
                if name.startswith(ASIDE):
                    _forget(os.path.join(base, name))


@contextmanager
def _telling(collection: str, key: str) -> Iterator[None]:
    """What the system refuses reaches the caller without the server's path."""
    try:
        yield
    except OSError as error:
        raise _refusal(collection, key, error) from error


def _refusal(collection: str, key: str, error: OSError) -> CocaineError:
    reason = f"{collection}/{key}: {os.strerror(error.errno or errno.EIO)}"
    return PermissionDenied(reason) if isinstance(error, PermissionError) else CocaineError(reason)


def _mode(path: bytes) -> int:
    """The entry's own type and mode (links are not followed), 0 when there is no such entry."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _is_folder(path: bytes) -> bool:
    return stat.S_ISDIR(_mode(path))


def _is_object(path: bytes) -> bool:
    return stat.S_ISREG(_mode(path))


def _folders(path: bytes) -> list[bytes]:
    """Names of the folders in a folder; none when it is not there."""
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make(path: bytes) -> bool:
    """Make one folder; False when it was there. A collection may be a link to a folder on another disk."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True


def _sync(folder: bytes) -> None:
    """Bring a folder's entries to disk."""
    fd = os.open(folder, _FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _put(path: bytes, blob: bytes) -> None:
    """A new file with these bytes, on disk."""
    fd = os.open(path, _CREATE, 0o666)
    try:
        rest = memoryview(blob)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.fsync(fd)
    finally:
        os.close(fd)


def _forget(path: bytes) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # what cannot be removed now is swept at the next start


def _link(folder: bytes, name: bytes) -> bool:
    """Enter the object in a tag's folder, on disk; False when it was there."""
    for attempt in itertools.count(1):
        _make(folder)
        try:
            os.symlink(b"../" + name, os.path.join(folder, name))
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Another process has taken its last object, and the folder, out of this tag.
            if attempt == _ATTEMPTS:
                raise
        else:
            break
    _sync(folder)
    return True


def _unlink(folder: bytes, name: bytes) -> None:
    """Take an object out of a tag's folder, and the folder away when nothing is left in it."""
    try:
        os.unlink(os.path.join(folder, name))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EPERM):
            return
        raise
    try:
        os.rmdir(folder)
    except OSError:
        with suppress(FileNotFoundError):  # another process was quicker
            _sync(folder)
