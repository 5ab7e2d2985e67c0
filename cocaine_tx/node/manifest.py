"""
Manifests: what an app is. Read once when the app starts; also the rules for an app's name and its socket's path.

Source: reference ``node-engine.md`` sections 2.2 and 4.1. Keys of our own: ``warm`` and ``http-streaming``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import InvalidArgument
from .fields import Fields, decode, shown

#: Longest app name, in bytes: leaves room for a version or a pid in a file name of 255.
NAME_LIMIT = 128
#: Longest path a UNIX socket can have on Linux, in bytes, without the closing NUL.
SOCKET_PATH_LIMIT = 107
#: Linux gives no process a number above this.
LARGEST_PID = 2**22


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    What an app is.

    :ivar name: the app.
    :ivar slave: the program of its workers; relative to the app's own folder unless absolute.
    :ivar environment: variables added to every worker's environment.
    :ivar warm: workers may be forks of one template that has the app's modules imported.
    :ivar http_streaming: the proxy may send the request's head first and the body as it comes.
    :ivar raw: the map as stored, other tools' keys included.
    """

    name: str
    slave: str
    environment: Mapping[str, str]
    warm: bool
    http_streaming: bool
    raw: Mapping[str, Any]

    @classmethod
    def from_blob(cls, blob: bytes, name: str = "") -> Self:
        """
        :raise UncaughtError: the object is not msgpack or not a map.
        :raise InvalidArgument: as `from_dict`.
        """
        return cls.from_dict(decode(blob, f"manifest of app {name!r}"), name)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], name: str = "") -> Self:
        """
        :raise InvalidArgument: ``slave`` is missing, or a value is of the wrong kind.
        """
        fields = Fields(f"manifest of app {name!r}", raw)
        slave = fields.text("slave", "")
        if not slave:
            raise InvalidArgument("runnable object has not been specified")
        return cls(
            name=name,
            slave=slave,
            environment=_environment(fields),
            warm=fields.flag("warm"),
            http_streaming=fields.flag("http-streaming"),
            raw=dict(raw),
        )

    def expanded(self) -> dict[str, Any]:
        """The manifest as ``info`` shows it with flag 2: all stored keys, and the two that have defaults."""
        return {"slave": self.slave, "environment": dict(self.environment)} | dict(self.raw)


def _environment(fields: Fields) -> dict[str, str]:
    value = fields.values.get("environment")
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise InvalidArgument("environment should be a map of string -> string")
    for variable, text in value.items():
        if not variable or "=" in variable or "\0" in variable or "\0" in text:
            raise InvalidArgument(f"{fields.what}: environment: {shown(variable)} cannot be a variable of a process")
    return dict(value)


def check_app_name(name: str, taken: Collection[str] = ()) -> None:
    """
    Refuse a name that cannot name a folder and a socket, or that a service of the runtime itself has.

    :param taken: names of the services that are not apps.
    :raise InvalidArgument: with the reason.
    """
    if name in taken:
        raise InvalidArgument(f"service '{name}' already exists")
    if not name:
        raise InvalidArgument("an app's name must not be empty")
    if "/" in name or not name.isprintable():
        raise InvalidArgument(f"app name {shown(name)}: slashes and unprintable characters are not allowed")
    if name[0] in ".-":
        raise InvalidArgument(f"app name {shown(name)}: must not begin with a dot or a dash")
    if len(name.encode()) > NAME_LIMIT:
        raise InvalidArgument(f"app name {shown(name)}: longer than {NAME_LIMIT} bytes")


def socket_path(folder: str, app: str, pid: int) -> str:
    """
    Where the app's workers connect: ``<folder>/<app>.<pid>``.

    :raise InvalidArgument: the path is longer than a UNIX socket's may be.
    """
    path = os.path.join(folder, f"{app}.{pid}")
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise InvalidArgument(
            f"socket path {shown(path)} is longer than {SOCKET_PATH_LIMIT} bytes; give the app a shorter name"
            " or the node a shorter paths.runtime"
        )
    return path
