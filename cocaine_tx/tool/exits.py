"""
How a command ends when it does not succeed: an exception for each kind, its words and its exit code.

Scripts written for the original tool test these codes (reference ``http-tools-sdk.md`` section B.1).
"""

from __future__ import annotations

from typing import Any

from ..errors import CocaineError

SUCCESS = 0
ABORTED = 1
USAGE = 2
WRONG_VALUE = 22
EXCLUSIVE = 64
FAILED = 128


class ToolError(Exception):
    """
    A command cannot be carried out; the text is for the person at the terminal.

    :cvar status: the exit code.
    """

    status = FAILED

    def details(self) -> dict[str, Any]:
        """What ``--json`` tells about it."""
        return {"message": str(self), "status": self.status}


class Aborted(ToolError):
    """The user has had enough."""

    status = ABORTED


class Refused(ToolError):
    """What was asked for makes no sense in the present state of the platform."""


class WrongValue(ToolError):
    """A value given by the user cannot be used."""

    status = WRONG_VALUE


class WrongUsage(ToolError):
    """The options do not fit together."""

    status = USAGE


class ExclusiveOptions(ToolError):
    """Two options that exclude each other."""

    status = EXCLUSIVE

    def __init__(self, one: str, other: str) -> None:
        super().__init__(
            f"Wrong usage: option {one} and {other} are mutual exclusive, you can only use one"
        )  # fmt: skip


class Unreachable(ToolError):
    """Nobody answers where a service should be."""


class TimedOut(ToolError):
    """
    An answer did not come in time.

    :param seconds: how long it was waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"Operation timed out after {seconds:g} seconds")


class ServiceError(ToolError):
    """
    A service answered an error.

    :param service: its name.
    :param error: what it answered.
    :param mend: what to do about it, where we know more than the service.
    """

    def __init__(self, service: str, error: CocaineError, mend: str = "") -> None:
        self.service = service
        self.error = error
        told = f'Error in service "{service}" - {error.reason} [{error.pair[1]}]'
        super().__init__(f"{told}; {mend}" if mend else told)

    def details(self) -> dict[str, Any]:
        category, code = self.error.pair
        told = {"service": self.service, "reason": self.error.reason, "category": category, "code": code}
        return super().details() | told
