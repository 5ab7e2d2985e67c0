"""
The tool's configuration files and what they mean together with the options.

Source: reference ``http-tools-sdk.md`` section B.1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ..interfaces import Endpoint
from .exits import Refused, WrongValue

#: Read in this order; what comes later wins.
FILES = ("/etc/cocaine/.cocaine/tools.yml", "~/.cocaine/tools.yml")
HOST, PORT = "localhost", 10053
#: Seconds to wait for each answer.
TIMEOUT = 20.0

_KNOWN: dict[str, dict[str, type]] = {
    "locator": {"host": str, "port": int},
    "secure": {"mod": str, "client_id": int, "client_secret": str},
}


@dataclass(frozen=True, slots=True)
class Secure:
    """Whom to be for services that ask: the client's number and secret for tickets of the ``tvm`` service."""

    client_id: int
    client_secret: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the locator is and who we are there."""

    locator: Endpoint = (HOST, PORT)
    secure: Secure | None = None


def read(files: Sequence[str] = FILES) -> dict[str, Any]:
    """
    All the files as one; absent ones are passed over.

    :raises Refused: a file cannot be read or has an unknown key or a wrong value; the reason names it.
    """
    together: dict[str, Any] = {}
    for name in files:
        path = os.path.expanduser(name)
        try:
            with open(path, encoding="utf-8") as file:
                content = yaml.safe_load(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
            raise Refused(f"{path}: cannot be read: {' '.join(str(problem).split())}") from problem
        if content is None:
            continue
        _check(content, path)
        for section, values in content.items():
            together[section] = together.get(section, {}) | values
    return together


def _check(content: Any, path: str) -> None:
    if not isinstance(content, dict):
        raise Refused(f"{path}: must be a map with the keys {', '.join(_KNOWN)}")
    for section, values in content.items():
        known = _KNOWN.get(section)
        if known is None:
            raise Refused(f"{path}: unknown key {section!r}; known are {', '.join(_KNOWN)}")
        if not isinstance(values, dict):
            raise Refused(f"{path}: {section} must be a map with the keys {', '.join(known)}")
        for key, value in values.items():
            if key not in known:
                raise Refused(f"{path}: unknown key {section}.{key}; known are {', '.join(known)}")
            if type(value) is not known[key]:
                raise Refused(f"{path}: {section}.{key} must be of type {known[key].__name__}")


def settings(content: dict[str, Any], host: str | None, port: str | None) -> Settings:
    """
    What the files say, where the options do not say otherwise.

    :raises WrongValue: no port number.
    :raises Refused: a security module that nobody has.
    """
    locator = content.get("locator", {})
    where = host or locator.get("host", HOST)
    number = _port(port if port is not None else locator.get("port", PORT))
    secure = content.get("secure", {})
    kind = secure.get("mod")
    if kind is None:
        return Settings((where, number))
    if kind != "TVM":
        raise Refused(f"secure.mod: unknown {kind!r}; known is TVM")
    missing = [key for key in ("client_id", "client_secret") if key not in secure]
    if missing:
        raise Refused(f"secure.mod TVM needs secure.{missing[0]}")
    return Settings((where, number), Secure(secure["client_id"], secure["client_secret"]))


def _port(value: str | int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 < number < 65536:
        raise WrongValue(f"port must be a number from 1 to 65535, not {value!r}")
    return number
