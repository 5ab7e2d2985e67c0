"""
What a worker was told when it was started: words after its name, and a few environment variables.

Nothing is read at import: `Worker.run` asks once, tests pass their own lists.

Source: reference ``protocol-v12.md`` section 20.1, ``http-tools-sdk.md`` section C.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from ..errors import ConfigError
from ..wire.protocols import CREDITS_VARIABLE

DEFAULT_APP = "app/standalone"
DEFAULT_LOCATORS = (("127.0.0.1", 10053),)

#: Environment variables that change a setting; each is a positive number.
_VARIABLES = {
    "COCAINE_TX_HEARTBEAT": "heartbeat",
    "COCAINE_TX_DISOWN": "disown",
    "COCAINE_TX_DRAIN": "drain",
    "COCAINE_TX_THREADS": "threads",
}


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """
    One worker's settings.

    :ivar endpoint: path of the node's UNIX socket.
    :ivar uuid: who we are to the node.
    :ivar app: the app's name.
    :ivar locators: where services are found, in order of preference.
    :ivar protocol: version of the worker protocol the node speaks; only 1 exists any more.
    :ivar token: type and body of the app's security token, or None.
    :ivar heartbeat: seconds between heartbeats.
    :ivar disown: seconds without an answer to one after which we are on our own, and leave.
    :ivar drain: seconds that running handlers get when the worker is told to stop. The node's own patience
        (``terminate-timeout``, 10) is a little longer.
    :ivar threads: blocking handlers that run at once; more wait for their turn.
    :ivar credits: the node knows windows, so that each stream can be limited by itself.
    :ivar buffer: bytes of one request kept for a handler that does not read them yet.
    """

    endpoint: str
    uuid: str
    app: str = DEFAULT_APP
    locators: tuple[tuple[str, int], ...] = DEFAULT_LOCATORS
    protocol: int = 1
    token: tuple[str, str] | None = None
    heartbeat: float = 20.0
    disown: float = 5.0
    drain: float = 8.0
    threads: int = 16
    credits: bool = False
    buffer: int = 1024 * 1024

    @classmethod
    def from_argv(cls, argv: Sequence[str], env: Mapping[str, str]) -> Self:
        """
        Settings out of a command line and an environment.

        Options are whole words, each followed by its value; everything unknown is the app's own business.

        :raises ConfigError: there is no endpoint or uuid, or a value makes no sense.
        """
        endpoint, uuid = option(argv, "--endpoint"), option(argv, "--uuid")
        if not endpoint or not uuid:
            raise ConfigError(
                f"no {'--uuid' if endpoint else '--endpoint'} on the command line: a worker is started by its node; "
                "upload the app and start it, or pass --endpoint SOCKET --uuid UUID"
            )
        protocol = option(argv, "--protocol") or "1"
        if not protocol.isdigit():
            raise ConfigError(f"--protocol {protocol}: not a number")
        kind = env.get("COCAINE_APP_TOKEN_TYPE", "")
        settings = {setting: _positive(name, env[name]) for name, setting in _VARIABLES.items() if name in env}
        threads = max(1, int(settings.pop("threads", 16)))
        return cls(
            endpoint=endpoint,
            uuid=uuid,
            app=option(argv, "--app") or DEFAULT_APP,
            locators=locators_of(argv),
            protocol=int(protocol),
            token=(kind, env.get("COCAINE_APP_TOKEN_BODY", "")) if kind else None,
            threads=threads,
            credits=CREDITS_VARIABLE in env,
            **settings,  # type: ignore[arg-type]
        )


def locators_of(argv: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """
    The locators named on a command line: ``host:port``, several joined by commas, IPv6 in brackets.

    :raises ConfigError: one is not an address.
    """
    text = option(argv, "--locator")
    if not text:
        return DEFAULT_LOCATORS
    places = []
    for place in text.split(","):
        host, _, port = place.strip().rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"--locator {text}: {place!r} is not host:port")
        places.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return tuple(places)


def option(argv: Sequence[str], word: str) -> str | None:
    """The word that follows this one on a command line, or None."""
    for place, given in enumerate(argv):
        if given == word and place + 1 < len(argv):
            return argv[place + 1]
    return None


def _positive(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{name}={text}: must be a number above zero")
    return number
