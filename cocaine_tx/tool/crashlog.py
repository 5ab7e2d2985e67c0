"""
The ``crashlog`` commands: what workers printed before they died.

Source: reference ``http-tools-sdk.md`` sections B.3 and B.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .command import Command, Job, all_of, name_of, option
from .console import Done, Result, Text, table
from .days import between, day, microseconds, tag, written
from .documents import decode
from .exits import WrongValue
from .storage import Storage

_COLLECTION = "crashlogs"


class Crash(NamedTuple):
    """
    A crash log's key, ordered by time.

    :ivar moment: microseconds since the epoch.
    :ivar worker: uuid.
    :ivar key: the whole key as it is in storage.
    """

    moment: int
    worker: str
    key: str

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        return {"timestamp": self.moment, "time": written(self.moment), "uuid": self.worker}


def crashes(keys: Iterable[str]) -> list[Crash]:
    """The crash logs of these keys, oldest first; keys of another form are passed over."""
    found = []
    for key in keys:
        moment, _, worker = key.partition(":")
        if moment.isascii() and moment.isdigit():
            found.append(Crash(int(moment), worker, key))
    return sorted(found)


async def _of(job: Job, *more: str) -> list[Crash]:
    return crashes(await Storage(job.platform).find(_COLLECTION, job.named("crashlog"), *more))


def _at(found: list[Crash], moment: str | None) -> list[Crash]:
    """Those of one moment, if one was given."""
    if moment is None:
        return found
    wanted = microseconds(moment)
    return [crash for crash in found if crash.moment == wanted]


async def listed(job: Job) -> Result:
    """An app's crash logs, oldest first."""
    days = [tag(day(job.args.day, job.workplace.now()))] if job.args.day else []
    found = await _of(job, *days)
    rows = [(str(crash.moment), written(crash.moment), crash.worker) for crash in found]
    return Text(table(rows), [crash.facts() for crash in found])


async def view(job: Job) -> Result:
    """The lines of one crash log: the latest, or that of a moment."""
    found = _at(await _of(job), job.args.timestamp)
    if not found:
        moment = f" at {job.args.timestamp}" if job.args.timestamp else ""
        raise WrongValue(f'There is no crashlog of "{job.args.name}"{moment}')
    crash = found[-1]
    lines = decode(await Storage(job.platform).read(_COLLECTION, crash.key), f"Crashlog {crash.key}")
    if not isinstance(lines, list):
        lines = [lines]
    text = "\n".join(str(line).rstrip("\n") for line in lines)
    # What a worker printed may be anything; a stream that takes text only must still take it.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return Text(text, crash.facts() | {"lines": lines})


async def status(job: Job) -> Result:
    """How many crash logs each app has, and when the latest was."""
    storage = Storage(job.platform)

    async def of(app: str) -> tuple[str, list[Crash]]:
        return app, crashes(await storage.find(_COLLECTION, app))

    known = [(app, found) for app, found in await all_of(await storage.find("manifests", "app"), of) if found]
    rows = [(app, str(len(found)), written(found[-1].moment), found[-1].worker) for app, found in known]
    facts = [{"app": app, "count": len(found), "last": found[-1].facts()} for app, found in known]
    return Text(table(rows), facts)


async def remove(job: Job) -> Result:
    """Remove the crash log of a moment."""
    if not job.args.timestamp:
        raise WrongValue("Please specify timestamp (removeall removes all crashlogs)")
    return await _removed(job, _at(await _of(job), job.args.timestamp))


async def remove_all(job: Job) -> Result:
    """Remove all crash logs of an app."""
    return await _removed(job, await _of(job))


async def clean(job: Job) -> Result:
    """Remove what is older than a moment, or all but the newest."""
    found = await _of(job)
    if job.args.timestamp:
        wanted = microseconds(job.args.timestamp)
        return await _removed(job, [crash for crash in found if crash.moment < wanted])
    if job.args.size < 0:
        raise WrongValue("size must be at least 0")
    return await _removed(job, found[: max(0, len(found) - job.args.size)])


async def clean_range(job: Job) -> Result:
    """Remove the crash logs of all apps of some days."""
    now = job.workplace.now()
    storage = Storage(job.platform)

    async def of(tagged: str) -> list[Crash]:
        return crashes(await storage.find(_COLLECTION, tagged))

    days = between(day(job.args.from_day, now), day(job.args.up_to_day, now))
    found = await all_of([tag(each) for each in days], of)
    return await _removed(job, sorted({crash for crashes_of_day in found for crash in crashes_of_day}))


async def _removed(job: Job, doomed: list[Crash]) -> Result:
    storage = Storage(job.platform)

    async def one(crash: Crash) -> None:
        await storage.remove(_COLLECTION, crash.key)

    with job.console.step(f"Removing {len(doomed)} crashlogs"):
        await all_of(doomed, one)
    return Done("", {"removed": [crash.key for crash in doomed]})


_NAME = name_of("App")
_MOMENT = option("-t", "--timestamp", metavar="TIME", help="microseconds since the epoch, or YYYY-MM-DDTHH:MM:SS")
COMMANDS = (
    Command(("crashlog", "status"), "Show how many crash logs each app has, and the latest.", status),
    Command(
        ("crashlog", "list"), "List an app's crash logs, oldest first.", listed,
        (_NAME, option("-d", "--day", metavar="DAY", help="only of this UTC day: today, yesterday, D, D-M or D-M-Y")),
    ),
    Command(("crashlog", "view"), "Show an app's latest crash log, or that of a moment.", view, (_NAME, _MOMENT)),
    Command(("crashlog", "remove"), "Remove an app's crash log of a moment.", remove, (_NAME, _MOMENT)),
    Command(("crashlog", "removeall"), "Remove all crash logs of an app.", remove_all, (_NAME,)),
    Command(
        ("crashlog", "clean"), "Remove an app's crash logs older than a moment, or all but the newest.", clean,
        (_NAME, _MOMENT, option("-s", "--size", metavar="COUNT", type=int, default=1000, help="how many to leave")),
    ),
    Command(
        ("crashlog", "cleanrange"), "Remove the crash logs of all apps of a range of UTC days.", clean_range,
        (
            option("--from_day", "--from-day", metavar="DAY", required=True, help="the first day"),
            option("--up_to_day", "--up-to-day", metavar="DAY", default="yesterday", help="the last day"),
        ),
    ),
)  # fmt: skip
