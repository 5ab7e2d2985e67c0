"""
The ``vicodyn`` commands: what a gateway of that kind says about itself.

Source: reference ``protocol-v12.md`` section 17.
"""

from __future__ import annotations

from .command import Act, Command, Job, name_of
from .console import Data, Result
from .documents import plain


def _asking(method: str) -> Act:
    """A command that shows what the gateway answers, about one thing if it is named."""

    async def ask(job: Job) -> Result:
        service = await job.platform.service("vicodyn")
        name = getattr(job.args, "name", None)
        return Data(plain(await service.value(method, *([name] if name else []))))

    return ask


COMMANDS = (
    Command(("vicodyn", "info"), "Show the gateway's state.", _asking("info")),
    Command(("vicodyn", "peers"), "Show the nodes it knows.", _asking("peers"), (name_of("Node", required=False),)),
    Command(("vicodyn", "apps"), "Show the apps it knows.", _asking("apps"), (name_of("App", required=False),)),
)
