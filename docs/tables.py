"""
Tables of the manual that the code already knows: services and their messages, errors, static headers, limits.

Numbers live in one place, the code; the manual shows them and holds none. ``conf.py`` calls `write` at each build.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cocaine_tx import errors
from cocaine_tx.daemon import settings
from cocaine_tx.wire import frames, headers, idl, protocols

#: The protocols that the manual shows, in its order.
PROTOCOLS = (
    protocols.LOCATOR, protocols.STORAGE, protocols.LOGGING, protocols.NODE, protocols.APP, protocols.UNICORN,
    protocols.METRICS, protocols.WORKER, protocols.EVENTS,
)  # fmt: skip

_STATES = {idl.VOID: "nothing", idl.PRIMITIVE: "value or error", idl.STREAMING: "stream"}
_KINDS = {idl.RAW: "raw", idl.INT: "int", idl.LIST: "array", idl.MAP: "map", idl.ANY: "any"}


def list_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a reST table; every row has as many cells as the head."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in (head, *rows):
        if len(cells) != len(head):
            raise ValueError(f"{len(cells)} cells under {len(head)} headings: {cells!r}")
        lines += [f"   {'* -' if not place else '  -'} {cell}".rstrip() for place, cell in enumerate(cells)]
    return [*lines, ""]


def services() -> Iterator[str]:
    """A table for each protocol: what may be called, with what, and what may travel each way afterwards."""
    for protocol in PROTOCOLS:
        yield f"**{protocol.name}**, version {protocol.version}"
        yield ""
        rows = (
            (str(slot.id), f"``{slot.name}``", _arguments(slot), _state(slot.downstream), _state(slot.upstream))
            for slot in protocol.slots.values()
        )
        yield from list_table(("Id", "Message", "Arguments", "Caller may add", "Answer"), rows)


def _arguments(slot: idl.Slot) -> str:
    kinds = (f"{_KINDS[k.kind]}?" if isinstance(k, idl.Optional) else _KINDS[k] for k in slot.arguments or ())
    return ", ".join(kinds) or "none"


def _state(state: idl.State) -> str:
    return _STATES.get(state) or ", ".join(f"{message.id} ``{message.name}``" for message in state.values())


def error_pairs() -> list[str]:
    """Every error that travels, by category and code."""
    found = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.CocaineError)}
    # These take their pair from elsewhere, or never leave the process.
    found -= {errors.CocaineError, errors.RemoteError, errors.ConfigError}
    rows = (
        (str(cls.category), str(cls.code), str(cls.http_status), (cls.__doc__ or "").strip().split("\n")[0])
        for cls in sorted(found, key=lambda cls: (cls.category, cls.code, cls.__name__))
    )
    return list_table(("Category", "Code", "HTTP", "Means"), rows)


def static_headers() -> list[str]:
    """The static header table, without its reserved empty entries."""
    rows = (
        (str(index), f"``{name.decode()}``", _value(value))
        for index, (name, value) in enumerate(headers.STATIC_TABLE, 1)
        if name
    )
    return list_table(("Index", "Name", "Value"), rows)


def _value(value: bytes) -> str:
    if not value:
        return ""
    return f"``{value.decode()}``" if value.decode().isprintable() else f"{len(value)} zero bytes"


def limits() -> list[str]:
    """What one peer may make a daemon keep: settings under their names in its file, then what none of them changes."""
    given = {field.name: field.default for field in dataclasses.fields(settings.Limits)}
    sizes = {name: default for name, default in given.items() if isinstance(default, int)}
    rows = [(f"``limits.{name.replace('_', '-')}``", f"{default:,}") for name, default in sizes.items()]
    fixed = frames.Limits()
    rows.append(("bytes of a frame outside of its long strings", f"{fixed.dense:,}"))
    rows.append(("elements of an array or a map", f"{fixed.items:,}"))
    return list_table(("Limit", "Default"), rows)


def write(folder: Path) -> None:
    """Write each table into ``folder``."""
    for name, lines in (
        ("services", services()), ("errors", error_pairs()), ("headers", static_headers()), ("limits", limits()),
    ):  # fmt: skip
        write_changed(folder / f"{name}.txt", "\n".join(lines))


def write_changed(target: Path, text: str) -> None:
    """Write a file unless it holds just that already: Sphinx reads again whatever has a new time."""
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
