"""
The ``auth`` commands: groups of services that share a secret token.

Tokens are stored as they are, without msgpack. Source: reference ``http-tools-sdk.md`` section B.3.
"""

from __future__ import annotations

from .command import Command, Job, all_of, name_of, option
from .console import Data, Result
from .exits import Refused
from .storage import Storage

_GROUPS, _TOKENS = "auth-groups", "tokens"


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogateescape")


async def _members(storage: Storage, group: str) -> list[str]:
    return await storage.find(_TOKENS, "auth", "tokens", group)


async def listed(job: Job) -> Result:
    """All groups."""
    return Data(await Storage(job.platform).find(_GROUPS, "auth"))


async def view(job: Job) -> Result:
    """A group's token and members."""
    name = job.named("group")
    storage = Storage(job.platform)
    token = await storage.read(_GROUPS, name)
    return Data({"token": _text(token), "members": await _members(storage, name)})


async def create(job: Job) -> Result:
    """A group with a token; over an existing one only on purpose, and then its members get the new token too."""
    name, token = job.named("group"), job.args.token.encode("utf-8", "surrogateescape")
    storage = Storage(job.platform)

    async def give(member: str) -> None:
        await storage.write(_TOKENS, member, token, ("auth", "tokens", name))

    with job.console.step(f'Creating authorization group "{name}"'):
        if not job.args.force and await storage.read_or_none(_GROUPS, name) is not None:
            raise Refused(f'Authorization group "{name}" exists already; --force replaces its token')
        await storage.write(_GROUPS, name, token, ("auth",))
        await all_of(await _members(storage, name), give)
    return None


async def remove(job: Job) -> Result:
    """A group; its members' tokens too with ``--drop``."""
    name = job.named("group")
    storage = Storage(job.platform)

    async def drop(member: str) -> None:
        await storage.remove(_TOKENS, member)

    with job.console.step(f'Removing authorization group "{name}"'):
        if job.args.drop:
            await all_of(await _members(storage, name), drop)
        await storage.remove(_GROUPS, name)
    return None


async def add(job: Job) -> Result:
    """A service into a group: it gets the group's token."""
    name, service = job.named("group"), job.args.service
    storage = Storage(job.platform)
    with job.console.step(f'Adding "{service}" to authorization group "{name}"'):
        await storage.write(_TOKENS, service, await storage.read(_GROUPS, name), ("auth", "tokens", name))
    return None


async def exclude(job: Job) -> Result:
    """A service out of a group: it loses its token."""
    name, service = job.named("group"), job.args.service
    storage = Storage(job.platform)
    with job.console.step(f'Excluding "{service}" from authorization group "{name}"'):
        if service not in await _members(storage, name):
            raise Refused(f'"{service}" is not in authorization group "{name}"')
        await storage.remove(_TOKENS, service)
    return None


_NAME = name_of("Group")
_SERVICE = option("--service", metavar="SERVICE", required=True, help="service or app name")
COMMANDS = (
    Command(("auth", "list"), "List authorization groups.", listed),
    Command(("auth", "view"), "Show a group's token and members.", view, (_NAME,)),
    Command(
        ("auth", "create"), "Create an authorization group.", create,
        (
            _NAME,
            option("--token", metavar="TOKEN", required=True, help="the secret, as ID:SECRET"),
            option("--force", action="store_true", help="replace the token of an existing group and of its members"),
        ),
    ),
    Command(
        ("auth", "rm"), "Remove an authorization group.", remove,
        (
            _NAME,
            option("--drop", action="store_true", help="remove its members' tokens too"),
            option("--no-drop", dest="drop", action="store_false", help="leave them (the default)"),
        ),
    ),
    Command(("auth", "add"), "Add a service to a group.", add, (_NAME, _SERVICE)),
    Command(("auth", "exclude"), "Exclude a service from a group.", exclude, (_NAME, _SERVICE)),
)  # fmt: skip
