"""Clusters told as stories: each ``*.txt`` here is one."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.transcripts.cluster import Cluster

HERE = Path(__file__).parent


def stories(path):
    """``(line number, command lines, expected)`` for each block."""
    commands, expected, inside, start = [], [], False, 0
    for number, line in enumerate([*path.read_text().splitlines(), ""], 1):
        if inside:
            if line.strip():
                expected.append(line)
            else:
                yield start, commands, "\n".join(expected)
                commands, expected, inside = [], [], False
        elif line == "----":
            inside = True
        elif line.strip() and not line.startswith("#"):
            start = start if commands else number
            commands.append(line)


class Transcripts(SynchronousTestCase):
    """What happens to a cluster is what its story says."""

    def tell(self, name):
        path = HERE / f"{name}.txt"
        cluster = Cluster()
        for number, commands, expected in stories(path):
            for command in commands:
                said = cluster.do(command)
            self.assertEqual(said, expected, f"{path.name}, line {number}: {commands[-1]}")


def _add(path):
    def test(self):
        self.tell(path.stem)

    test.__doc__ = path.read_text().splitlines()[0].lstrip("# ")
    setattr(Transcripts, f"test_{path.stem}", test)


for _path in sorted(HERE.glob("*.txt")):
    _add(_path)
