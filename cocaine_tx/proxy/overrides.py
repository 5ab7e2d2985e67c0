"""
What operators say of single apps in the cluster, over what the proxy's own configuration says.

Pure: what nodes of the ``unicorn`` service hold becomes values here, with what is wrong with them; `unicorn` brings the
nodes and `cocaine_tx.proxy.door.Door` puts the values to use. A value that cannot be used leaves the last good one.

Source: reference ``http-tools-sdk.md`` sections A.2 (``/proxy_apps_timeouts``, ``/zipkin_sampling``) and A.3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from ..errors import InvalidArgument
from .terms import Terms

T = TypeVar("T")

#: What is kept at most: apps, events of an app, and bytes of a name.
MOST_APPS, MOST_EVENTS, LONGEST_NAME = 4096, 100, 128
#: Seconds that an app may be given.
LEAST, MOST = 0.001, 2.0**31
#: Faults that are told of; the others are counted.
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Overrides:
    """
    :ivar times: app to event to its ``chunk`` time in seconds; event ``""`` is all others of the app.
    :ivar chances: app to the share of its requests that are traced, 0 to 1.
    """

    times: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    chances: Mapping[str, float] = field(default_factory=dict)


def overridden(terms: Terms, overrides: Overrides) -> Terms:
    """
    The terms with the overrides over them.

    What an override says of an event wins, then what it says of all others of the app, then the terms.
    """
    if not overrides.times and not overrides.chances:
        return terms
    apps = dict(terms.apps)
    for app, events in overrides.times.items():
        apps[app] = events if "" in events else {**terms.apps.get(app, {}), **events}
    return replace(terms, apps=apps, chances={**terms.chances, **overrides.chances})


class Book(Generic[T]):
    """
    What one kind of node says of each app.

    :param read: the value of one app, or `InvalidArgument`.
    :ivar apps: the last good values.
    """

    def __init__(self, read: Callable[[Any], T]) -> None:
        self.apps: dict[str, T] = {}
        self._read = read

    def enter(self, app: str, value: Any) -> str:
        """
        What the app's own node holds; nil if there is none.

        :return: what is wrong with it, for people; empty if nothing is.
        """
        if value is None:
            self.apps.pop(app, None)
            return ""
        try:
            self.apps[app] = self._read(value)
        except InvalidArgument as fault:
            return fault.reason
        return ""

    def enter_all(self, value: Any) -> str:
        """What the one node of all apps holds, likewise: app to value. Apps that are not in it are forgotten."""
        if value is None:
            value = {}
        if not isinstance(value, dict):
            return "it holds no map of apps"
        names, wrong = names_of(value)
        self.keep(names.keys())
        faults = [f"{app}: {fault}" for app, raw in names.items() if (fault := self.enter(app, value[raw]))]
        return told([*wrong, *faults])

    def keep(self, names: Collection[str]) -> None:
        """Forget every app that is not among these."""
        self.apps = {app: value for app, value in self.apps.items() if app in names}


def times(value: Any) -> Mapping[str, float]:
    """
    The times of one app: a map of event to seconds, or seconds for all.

    :raises InvalidArgument: it is neither.
    """
    if not isinstance(value, dict):
        return {"": number(value, LEAST, MOST)}
    if len(value) > MOST_EVENTS:
        raise InvalidArgument(f"more than {MOST_EVENTS} events")
    return {name(event): number(seconds, LEAST, MOST) for event, seconds in value.items()}


def percent(value: Any) -> float:
    """
    A chance as the nodes of single apps hold it.

    :raises InvalidArgument: it is none from 0 to 100.
    """
    return number(value, 0.0, 100.0) / 100


def share(value: Any) -> float:
    """
    A chance as the one node of all apps holds it.

    :raises InvalidArgument: it is none from 0 to 1.
    """
    return number(value, 0.0, 1.0)


def number(value: Any, least: float, most: float) -> float:
    """
    A number within bounds.

    :raises InvalidArgument: it is none.
    """
    if value.__class__ not in (int, float) or not least <= value <= most:
        raise InvalidArgument(f"{_shown(value)} is no number from {least:g} to {most:g}")
    return float(value)


def name(raw: Any) -> str:
    """
    The name of an app or an event, as requests have it.

    :raises InvalidArgument: no request can have it.
    """
    try:
        text: str = raw.decode("utf-8")
    except (AttributeError, UnicodeDecodeError):
        raise InvalidArgument(f"{_shown(raw)} is no name") from None
    if len(raw) > LONGEST_NAME:
        raise InvalidArgument(f"{text[:40]!a}... is too long a name")
    return text


def names_of(raws: Iterable[Any]) -> tuple[dict[str, Any], list[str]]:
    """
    The apps among these names, each with its name as it came, and what is wrong with the others.

    When there are too many it is always the same ones that are left out.
    """
    names: dict[str, Any] = {}
    wrong: list[str] = []
    for raw in raws:
        try:
            app = name(raw)
        except InvalidArgument as fault:
            wrong.append(fault.reason)
            continue
        if app and "/" not in app:
            names[app] = raw
        else:
            wrong.append(f"{app!a} is no app")
    if len(names) > MOST_APPS:
        wrong.append(f"only {MOST_APPS} of its {len(names)} apps are kept")
        names = {app: names[app] for app in sorted(names)[:MOST_APPS]}
    return names, wrong


def told(faults: list[str]) -> str:
    """Some faults on one line of bearable length."""
    more = len(faults) - _SHOWN
    return "; ".join(faults[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _shown(value: Any) -> str:
    text = ascii(value) if value.__class__ in (int, float, bool, bytes) else f"a {value.__class__.__name__}"
    return text if len(text) <= 40 else text[:40] + "..."
