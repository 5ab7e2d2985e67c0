"""The ``profile`` commands: how an app's pool of workers behaves."""

from __future__ import annotations

from typing import Any

from .command import Command, Job, name_of, option
from .console import Result
from .documents import load, mapping
from .shelf import Shelf, commands
from .storage import Storage


def _check(document: Any) -> None:
    mapping(document, "a profile")


PROFILES = Shelf("profile", "Profile", "profiles", ("profile",), _check)


async def upload(job: Job) -> Result:
    """Write a profile, replacing what is there."""
    name = job.named("profile")
    document = load(job.args.profile, "profile")
    with job.console.step(f'Uploading profile "{name}"'):
        await PROFILES.write(Storage(job.platform), name, document)
    return None


COMMANDS = (
    *commands(PROFILES, "--copyname", "-c"),
    Command(
        ("profile", "upload"), "Upload a profile; an existing one is replaced.", upload,
        (
            name_of("Profile"),
            option("-r", "--profile", metavar="PROFILE", required=True, help="path of a JSON file, or the JSON itself"),
        ),
    ),
)  # fmt: skip
