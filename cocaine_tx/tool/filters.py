"""
The ``logging`` commands: what a logging service with dynamic filters lets through.

The platform's own logging service has no filters; these are for runtimes that have the plugin.

Source: reference ``protocol-v12.md`` section 11.2.
"""

from __future__ import annotations

from .command import Act, Command, Job, name_of, option
from .console import Data, Result
from .documents import parse, plain
from .exits import WrongValue


def _asking(method: str) -> Act:
    """A command that shows what the service answers."""

    async def ask(job: Job) -> Result:
        service = await job.platform.service("logging")
        return Data(plain(await service.value(method)))

    return ask


def _setting(method: str) -> Act:
    """A command that sets a filter and shows its id."""

    async def put(job: Job) -> Result:
        definition = parse(job.args.filter_def, "filter definition")
        service = await job.platform.service("logging")
        return Data(plain(await service.value(method, job.args.name, definition, _whole(job.args.ttl, "ttl"))))

    return put


async def remove(job: Job) -> Result:
    """Remove a filter; whether there was one."""
    number = _whole(job.args.filter_id, "filter id")
    service = await job.platform.service("logging")
    return Data(plain(await service.value("remove_filter", number)))


def _whole(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise WrongValue(f"{what} must be a whole number, not {text!r}")
    return int(text)


_FILTER = (
    name_of("Logger"),
    option("--filter_def", "--filter-def", metavar="JSON", required=True, help='such as ["severity", 2]'),
    option("--ttl", metavar="SECONDS", required=True, help="how long it is to live"),
)
COMMANDS = (
    Command(("logging", "list_loggers"), "List the loggers.", _asking("list_loggers")),
    Command(("logging", "list_filters"), "List the filters.", _asking("list_filters")),
    Command(("logging", "set_filter"), "Set a filter on this node.", _setting("set_filter"), _FILTER),
    Command(("logging", "set_cluster_filter"), "Set a filter on all nodes.", _setting("set_cluster_filter"), _FILTER),
    Command(
        ("logging", "remove_filter"), "Remove a filter.", remove,
        (option("-i", "--filter-id", metavar="ID", required=True, help="the filter's id"),),
    ),
)  # fmt: skip
