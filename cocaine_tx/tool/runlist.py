"""The ``runlist`` commands: which apps a node starts at boot, and with which profiles."""

from __future__ import annotations

from typing import Any

from .command import Command, Job, name_of, option
from .console import Data, Result
from .documents import load, mapping
from .exits import Refused, WrongValue
from .shelf import Shelf, commands
from .storage import Storage


def _check(document: Any) -> None:
    for app, profile in mapping(document, "a runlist").items():
        if not isinstance(profile, str):
            raise WrongValue(f'a runlist maps apps to names of profiles; that of "{app}" is not a text')


RUNLISTS = Shelf("runlist", "Runlist", "runlists", ("runlist",), _check)


async def upload(job: Job) -> Result:
    """Write a runlist, replacing what is there."""
    name = job.named("runlist")
    document = load(job.args.runlist, "runlist")
    with job.console.step(f'Uploading runlist "{name}"'):
        await RUNLISTS.write(Storage(job.platform), name, document)
    return None


async def create(job: Job) -> Result:
    """Write an empty runlist, never over one that has apps in it."""
    name = job.named("runlist")
    storage = Storage(job.platform)
    with job.console.step(f'Creating runlist "{name}"'):
        present = await storage.read_or_none("runlists", name)
        if present is not None and RUNLISTS.decoded(name, present) != {} and not job.args.force:
            raise Refused(f'Runlist "{name}" exists already and is not empty; --force empties it')
        await RUNLISTS.write(storage, name, {})
    return None


async def add_app(job: Job) -> Result:
    """Put an app into a runlist, or give it another profile there."""
    name = job.named("runlist")
    storage = Storage(job.platform)
    status = "modified"
    if job.args.force and await storage.read_or_none("runlists", name) is None:
        runlist, status = {}, "created"
    else:
        runlist = mapping(await RUNLISTS.read(storage, name), f'Runlist "{name}"')
    runlist[job.args.app] = job.args.profile
    await RUNLISTS.write(storage, name, runlist)
    return Data({"runlist": name, "status": status, "added": {"app": job.args.app, "profile": job.args.profile}})


async def remove_app(job: Job) -> Result:
    """Take an app out of a runlist."""
    name, app = job.named("runlist"), job.args.app
    storage = Storage(job.platform)
    runlist = mapping(await RUNLISTS.read(storage, name), f'Runlist "{name}"')
    if app not in runlist:
        return Data({"runlist": name, "app": app, "status": "not found"})
    del runlist[app]
    await RUNLISTS.write(storage, name, runlist)
    return Data({"runlist": name, "app": app, "status": "removed"})


_NAME = name_of("Runlist")
_APP = option("--app", metavar="APP", required=True, help="app name")
COMMANDS = (
    *commands(RUNLISTS, "-c", "--copyname"),
    Command(
        ("runlist", "upload"), "Upload a runlist; an existing one is replaced.", upload,
        (_NAME, option("--runlist", metavar="RUNLIST", required=True, help="path of a JSON file, or the JSON itself")),
    ),
    Command(
        ("runlist", "create"), "Create an empty runlist.", create,
        (_NAME, option("-f", "--force", action="store_true", help="empty it if it exists")),
    ),
    Command(
        ("runlist", "add-app"), "Add an app with its profile to a runlist.", add_app,
        (
            _NAME, _APP,
            option("--profile", metavar="PROFILE", required=True, help="profile name"),
            option("-f", "--force", action="store_true", help="create the runlist if there is none"),
        ),
        details="Neither the app nor the profile needs to exist yet.",
    ),
    Command(("runlist", "remove-app"), "Remove an app from a runlist.", remove_app, (_NAME, _APP)),
)  # fmt: skip
