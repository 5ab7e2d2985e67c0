"""The ``info`` command: what the node says about its running apps."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from .command import Command, Job, in_batches, name_of, option
from .console import Data, Result
from .documents import plain
from .exits import TimedOut
from .platform import Service

#: Parts of an app's report (reference ``node-engine.md`` section 3.2).
BRIEF, REPORT, MANIFEST, PROFILE = 0, 1, 2, 4


async def info(job: Job) -> Result:
    """Every asked app's report, or the reason why there is none."""
    args = job.args
    flags = BRIEF if args.brief else REPORT | (MANIFEST if args.manifest else 0) | (PROFILE if args.profile else 0)
    node = await job.platform.service("node")
    if args.exact and args.name:
        apps = [args.name]
    else:
        apps = await app_names(node)
        if args.name:
            apps = [app for app in apps if (app == args.name if args.exact else fnmatchcase(app, args.name))]

    async def report(app: str) -> Any:
        return plain(await node.value("info", app, flags))

    reports = {app: _told(app, outcome) for app, outcome in await in_batches(apps, report)}
    return Data({"apps": reports, "count": len(reports)})


async def app_names(node: Service) -> list[str]:
    """The apps a node has, in any state."""
    return sorted(plain(await node.value("list")) or [])


def _told(app: str, outcome: Any) -> Any:
    if isinstance(outcome, TimedOut):
        return {"error": str(outcome), "state": "unresponsive", "meta": {"name": app}}
    return str(outcome) if isinstance(outcome, Exception) else outcome


COMMANDS = (
    Command(
        ("info",), "Show what the node says about its running apps.", info,
        (
            name_of("App", required=False),
            option("-m", dest="manifest", action="store_true", help="with the manifests"),
            option("-p", dest="profile", action="store_true", help="with the profiles"),
            option("-b", dest="brief", action="store_true", help="states only; -m and -p mean nothing then"),
            option("-w", dest="exact", action="store_true", help="NAME is a name, not a pattern with * ? [ ]"),
        ),
        details="An app that does not answer in time is shown as unresponsive, an app whose report fails as the text "
        "of the failure; neither fails the command.",
        aliases=("i",),
    ),
)  # fmt: skip
