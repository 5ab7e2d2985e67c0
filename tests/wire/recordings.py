"""
Exchanges recorded from the original runtime, the original workers and the original Python framework, as test values.

A file of ``vectors/`` is one exchange. A line is ``seconds connection direction length hex``; ``C>S`` is the connecting
side. Indented comments below a packet are the frames that were complete with it, as Python literals.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).with_name("vectors")
CLIENT, SERVER = "C>S", "S>C"


@dataclass
class Recording:
    """
    One recorded connection.

    :ivar name: file and number of the connection in it.
    :ivar packets: ``(direction, bytes)`` in the order seen.
    :ivar values: direction to the frames its comments show, as lists.
    :ivar hung_up: directions that ended, the first to end first.
    """

    name: str
    packets: list[tuple[str, bytes]] = field(default_factory=list)
    values: dict[str, list] = field(default_factory=lambda: {CLIENT: [], SERVER: []})
    hung_up: list[str] = field(default_factory=list)

    def said(self, direction: str) -> bytes:
        """All that went one way."""
        return b"".join(data for way, data in self.packets if way == direction)

    @property
    def refused(self) -> bool:
        """The original closed the connection before its client did."""
        return self.hung_up[:1] == [SERVER]


def load(path: Path) -> list[Recording]:
    """The connections of one file."""
    found: dict[str, Recording] = {}
    current = None
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            text = line[1:].strip()
            if line.startswith("#   ") and not text.startswith("undecodable"):
                recording, direction = current
                recording.values[direction].append(ast.literal_eval(text))
            continue
        _, number, direction, rest = line.split(" ", 3)
        recording = found.setdefault(number, Recording(f"{path.stem}#{number}"))
        if direction == "OPEN":
            continue
        if rest == "EOF":
            recording.hung_up.append(direction)
            continue
        length, text = rest.split()
        data = bytes.fromhex(text)
        if len(data) != int(length):
            raise ValueError(f"{path.name}: a packet is not {length} bytes long")
        recording.packets.append((direction, data))
        current = recording, direction
    return list(found.values())


RECORDINGS = [recording for path in sorted(FOLDER.glob("*.hex")) for recording in load(path)]


def recording(name: str) -> Recording:
    """The first connection of ``vectors/<name>.hex``."""
    return next(made for made in RECORDINGS if made.name == f"{name}#1")
