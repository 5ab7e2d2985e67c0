"""All the commands."""

from __future__ import annotations

from .. import __version__
from . import app, auth, crashlog, filters, group, info, locator, metrics, profile, runlist, upload, vicodyn
from .command import Command, Job
from .console import Result, Text


async def version(job: Job) -> Result:
    """The version of the tool."""
    return Text(__version__, __version__)


COMMANDS: tuple[Command, ...] = (
    Command(("version",), "Show the version of this tool.", version),
    *locator.COMMANDS, *info.COMMANDS, *metrics.COMMANDS, *app.COMMANDS, *upload.COMMANDS, *profile.COMMANDS,
    *runlist.COMMANDS, *group.COMMANDS, *crashlog.COMMANDS, *filters.COMMANDS, *auth.COMMANDS, *vicodyn.COMMANDS,
)  # fmt: skip

#: What the words above the leaves stand for.
NOUNS: dict[tuple[str, ...], str] = {
    ("app",): "Apps: in storage and on the node.",
    ("profile",): "Profiles: how an app's pool of workers behaves.",
    ("runlist",): "Runlists: which apps a node starts at boot.",
    ("group",): "Routing groups: one name for several apps by weight.",
    ("crashlog",): "Crash logs: what workers printed before they died.",
    ("logging",): "Filters of a logging service that has them.",
    ("auth",): "Authorization groups: services that share a token (experimental).",
    ("vicodyn",): "What a gateway of that kind says about itself.",
}
