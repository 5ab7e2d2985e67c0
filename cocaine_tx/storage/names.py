"""
Which names objects, collections and tags may have, and the words a caller is told when a name or an object is refused.

Shared by every provider in this room, so that a name legal in one is legal in all. Source: reference
``node-engine.md`` section 4.4 for the names in use, POSIX for what a folder entry can be called.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from ..errors import InvalidArgument, NotFound

#: Longest name, in bytes of UTF-8; the limit of every common file system.
LONGEST = 255

#: Most tags of one object; each is a folder entry of its own, and brought to disk.
MOST_TAGS = 256

#: Names of objects that are being written begin with this; no collection, key or tag can, so none is ever found.
ASIDE = b".~writing."


@lru_cache(maxsize=4096)  # the same few names are asked for again and again; looking at one costs a fifth of a read
def encoded(name: str, noun: str) -> bytes:
    """
    The bytes of one name as a folder entry.

    :param noun: what the name names, for the complaint: ``collection``, ``key`` or ``tag``.
    :raises InvalidArgument: the name is empty, ``.`` or ``..``, reserved, too long, or has a slash or zero byte.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidArgument(f"the {noun} name {name!r} is not text") from None
    if not raw:
        raise InvalidArgument(f"the {noun} name is empty")
    if len(raw) > LONGEST:
        raise InvalidArgument(f"the {noun} name is {len(raw)} bytes long, {LONGEST} are allowed")
    if b"/" in raw or b"\0" in raw or raw in (b".", b"..") or raw.startswith(ASIDE):
        raise InvalidArgument(f"the {noun} name {name!r} cannot be used")
    return raw


def decoded(raw: bytes) -> str:
    """The text of a folder entry; the mirror of `encoded`."""
    return raw.decode("utf-8", "surrogateescape")


def tag_names(key: str, tags: Sequence[str]) -> dict[bytes, str]:
    """
    The encoded tags of one object, each once.

    :raises InvalidArgument: a tag cannot be used, or is called as its own object is, or there are too many.
    """
    if len(tags) > MOST_TAGS:
        raise InvalidArgument(f"an object has at most {MOST_TAGS} tags, not {len(tags)}")
    if key in tags:
        raise key_is_tag(key)
    return {encoded(tag, "tag"): tag for tag in tags}


def absent(collection: str, key: str) -> NotFound:
    """The error for an object that is not there; the server's own path stays its own affair."""
    return NotFound(f"{collection}/{key}: No such file or directory")


def key_is_tag(name: str) -> InvalidArgument:
    """An object cannot be called as a tag of its collection is: both would be the same folder entry."""
    return InvalidArgument(f"the key name {name!r} is in use as a tag of the same collection")


def tag_is_key(name: str) -> InvalidArgument:
    """A tag cannot be called as an object of its collection is."""
    return InvalidArgument(f"the tag name {name!r} is in use as a key of the same collection")
