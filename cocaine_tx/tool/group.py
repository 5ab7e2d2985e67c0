"""The ``group`` commands: routing groups, which spread a name over several apps by weight."""

from __future__ import annotations

from typing import Any

from .command import Command, Job, name_of, option
from .console import Result
from .documents import load, mapping
from .exits import Refused, WrongValue
from .shelf import Shelf, commands
from .storage import Storage

#: What locators load: apps of one group, and the largest weight.
MEMBER_LIMIT, WEIGHT_LIMIT = 512, 2**32 - 1


def _check(document: Any) -> None:
    """What no locator would load must not take the place of what it does load: it would be missed at its next start."""
    weights = mapping(document, "a routing group")
    if not weights:
        raise WrongValue("a routing group must have at least one app")
    if len(weights) > MEMBER_LIMIT:
        raise WrongValue(f"a routing group has at most {MEMBER_LIMIT} apps, not {len(weights)}")
    for app, weight in weights.items():
        if not app:
            raise WrongValue("an app of a routing group must have a name")
        if type(weight) is not int or not 0 <= weight <= WEIGHT_LIMIT:
            raise WrongValue(f'weight of "{app}" must be a whole number from 0 to {WEIGHT_LIMIT}')
    if not sum(weights.values()):
        raise WrongValue("the weights of a routing group must not all be 0")


GROUPS = Shelf("group", "Routing group", "groups", ("group", "active"), _check)


async def create(job: Job) -> Result:
    """Write a routing group, replacing what is there."""
    name = job.named("routing group")
    content = load(job.args.content, "routing group")
    with job.console.step(f'Creating routing group "{name}"'):
        await GROUPS.write(Storage(job.platform), name, content)
    return None


async def push(job: Job) -> Result:
    """Put an app into a group, or give it another weight there."""
    name = job.named("routing group")
    storage = Storage(job.platform)
    with job.console.step(f'Adding app "{job.args.app}" to routing group "{name}"'):
        weights = mapping(await GROUPS.read(storage, name), f'Routing group "{name}"')
        await GROUPS.write(storage, name, weights | {job.args.app: job.args.weight})
    return None


async def pop(job: Job) -> Result:
    """Take an app out of a group."""
    name, app = job.named("routing group"), job.args.app
    storage = Storage(job.platform)
    with job.console.step(f'Removing app "{app}" from routing group "{name}"'):
        weights = mapping(await GROUPS.read(storage, name), f'Routing group "{name}"')
        if app not in weights:
            raise Refused(f'App "{app}" is not in routing group "{name}"')
        del weights[app]
        await GROUPS.write(storage, name, weights)
    return None


async def refresh(job: Job) -> Result:
    """Have the locator read groups anew."""
    names = [job.args.name] if job.args.name else await GROUPS.names(Storage(job.platform))
    with job.console.step(f"Refreshing routing groups: {', '.join(names) or 'there are none'}"):
        locator = await job.platform.locator()
        await locator.call("refresh", names)
    return None


_NAME = name_of("Routing group")
_APP = option("--app", metavar="APP", required=True, help="app name")
COMMANDS = (
    *commands(GROUPS, "-c", "--copyname"),
    Command(
        ("group", "create"), "Create a routing group; an existing one is replaced.", create,
        (
            _NAME,
            option(
                "-c", "--content", metavar="JSON", required=True,
                help="apps and their weights: path of a JSON file, or the JSON itself",
            ),
        ),
        details="Weights are whole numbers from 0 to 4294967295, not all of them 0. Locators see a changed group after "
        "`group refresh`.",
    ),
    Command(
        ("group", "push"), "Add an app with its weight to a routing group.", push,
        (_NAME, _APP, option("-w", "--weight", metavar="WEIGHT", type=int, required=True, help="the app's weight")),
    ),
    Command(("group", "pop"), "Remove an app from a routing group.", pop, (_NAME, _APP)),
    Command(
        ("group", "refresh"), "Have the locator read routing groups anew, all of them without a name.", refresh,
        (name_of("Routing group", required=False),),
    ),
)  # fmt: skip
