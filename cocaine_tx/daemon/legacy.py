"""
Configuration files of the original ``cocaine-runtime``: its JSON dialect, and its older versions brought to version 4.

A version 4 file needs no change of meaning: our own YAML is the same tree.

Source: reference ``node-engine.md`` sections 1.1 and 1.7.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

#: Strings are matched so that what looks like a comment or a comma inside them is left alone.
_COMMENT = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'"(?:\\.|[^"\\])*"|,(?=\s*[}\]])', re.DOTALL)


def parse(text: str) -> Any:
    """
    JSON with ``//`` and ``/* */`` comments and trailing commas.

    :raise ValueError: with line and column in the text as it was given.
    """
    try:
        return json.loads(_TRAILING_COMMA.sub(_keep_string, _COMMENT.sub(_keep_string, text)))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _keep_string(match: re.Match[str]) -> str:
    """A string as it is; anything else blanked, its line breaks kept so that positions stay right."""
    found = match.group()
    return found if found.startswith('"') else re.sub(r"[^\n]", " ", found)


def looks_original(text: str) -> bool:
    """Whether a file is JSON rather than YAML: its first character that is not space or comment is a brace."""
    return _COMMENT.sub(_keep_string, text).lstrip().startswith("{")


def to_version_4(tree: Mapping[str, Any]) -> dict[str, Any]:
    """
    A tree of version 2, 3 or 4 as one of version 4. Values of the wrong kind are passed on for the reader to complain.

    :raise ValueError: the version is another.
    """
    version = tree.get("version")
    if type(version) is not int or version not in (2, 3, 4):
        raise ValueError("configuration file version is invalid: give 4")
    new: dict[str, Any] = {**tree, "version": 4}
    if version == 2:
        _from_version_2(new)
    if version in (2, 3):
        # Both kept back-ends and formats of the log where version 4 has sections; ours are set elsewhere.
        new.pop("loggers", None)
        new.pop("logging", None)
    return new


def _from_version_2(tree: dict[str, Any]) -> None:
    locator = _map(tree.pop("locator", None))
    network = _map(tree.get("network"))
    services = _map(tree.get("services"))
    args: dict[str, Any] = _map(_map(services.get("locator")).get("args"))
    group = network.pop("group", None)
    if group is not None:
        args["cluster"] = {"type": "multicast", "args": {"group": group}}
    gateway = network.pop("gateway", None)
    if gateway is not None:
        args["gateway"] = gateway
    for old, new in (("hostname", "hostname"), ("endpoint", "endpoint"), ("port-range", "shared")):
        if old in locator:
            network.setdefault(new, locator[old])
    if "port" in locator:
        network["pinned"] = {"locator": locator["port"], **_map(network.get("pinned"))}
    services["locator"] = {"type": "locator", "args": args}
    tree["network"], tree["services"] = network, services


def _map(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
