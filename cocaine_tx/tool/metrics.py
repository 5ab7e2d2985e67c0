"""The ``metrics`` command."""

from __future__ import annotations

from .command import Command, Job, option
from .console import Data, Result
from .documents import parse, plain
from .mql import compiled


async def fetch(job: Job) -> Result:
    """What the metrics service has measured."""
    query = job.args.query
    if query:
        query = compiled(query) if job.args.query_type == "mql" else parse(query, "query")
    metrics = await job.platform.service("metrics")
    return Data(plain(await metrics.value("fetch", job.args.type, query or None)))


COMMANDS = (
    Command(
        ("metrics",), "Show what the runtime has measured.", fetch,
        (
            option("--type", choices=("plain", "json"), default="plain", help="dotted names, or a tree of them"),
            option("--query", metavar="QUERY", help="only the metrics that fit"),
            option("--query-type", choices=("mql", "ast"), default="mql", help="language of the query"),
        ),
        details="A query is made of words, name(), type(), tag(WORD) and contains(A, B), compared by == and >=, joined "
        "by && and ||, grouped by parentheses: `contains(type(), meter) || name() == locator.connections.accepted`. "
        "An ast query is its tree as JSON.",
    ),
)  # fmt: skip
