"""
What an app and its node can do beyond the original: asked once, on every new connection to it.

Source: reference ``protocol-v12.md`` section 13 for ``info``; ``docs/protocol.rst``, "Between our own peers".
"""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.defer import TimeoutError as TooLate

from ..errors import AppStopped, CocaineError, ConnectionGone, NotRunning, Unreachable
from ..rpc.client import Remote
from ..wire.headers import KNOWS_ONCE

#: Seconds for the app to say what it takes, and for one that does not to say that it lives.
INFO_TIME, PING_TIME = 5.0, 1.0


class Abilities(NamedTuple):
    """
    :ivar streams: the app takes bodies in parts and can switch protocols.
    :ivar windows: its node knows windows.
    :ivar once: it is a gateway, which can be told that a request may be carried out only once.
    """

    streams: bool = False
    windows: bool = False
    once: bool = False


async def abilities(remote: Remote) -> Abilities:
    """
    Ask; an original knows neither word.

    :raises Unreachable: nobody is there who could take a request: the peer says nothing, or that the app does not run.
    """
    if remote.protocol.named("info") is None:
        return Abilities()
    try:
        (info, *_) = await remote.call("info", timeout=INFO_TIME)
    except TooLate:
        # A gateway of another make may know events alone; one that hangs says nothing at all.
        if await _lives(remote):
            return Abilities()
        raise Unreachable("it takes connections, and says nothing") from None
    except (AppStopped, ConnectionGone, NotRunning) as problem:
        raise Unreachable(problem.reason) from problem
    except (CocaineError, ValueError):
        return Abilities()
    if not isinstance(info, dict):
        return Abilities()
    return Abilities(*(info.get(key) is True for key in (b"http-streaming", b"credits", KNOWS_ONCE)))


async def _lives(remote: Remote) -> bool:
    if remote.protocol.named("ping") is None:
        return False
    try:
        await remote.ping(PING_TIME)
    except (CocaineError, TooLate):
        return False
    return True
