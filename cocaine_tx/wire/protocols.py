"""
Every protocol spoken in this house, as tables. Message numbers live here (and the two canonical streams in `idl`).

Source: reference ``protocol-v12.md`` sections 4.2 and 10 to 20, ``observed-runtime.md`` items 8 to 10.
"""

from __future__ import annotations

from .idl import ANY, INT, LIST, MAP, PRIMITIVE, RAW, STREAMING, VOID, Optional, Protocol, Slot, protocol, state

_DISCARD = state((0, "discard", VOID))

LOCATOR = protocol("locator", 3, (
    Slot(0, "resolve", VOID, PRIMITIVE, (RAW, Optional(RAW))),
    Slot(1, "connect", VOID, STREAMING, (RAW,)),
    Slot(2, "refresh", VOID, PRIMITIVE, (LIST,)),
    Slot(3, "cluster", VOID, PRIMITIVE, ()),
    Slot(4, "publish", _DISCARD, PRIMITIVE, (RAW, LIST, Optional(LIST))),
    Slot(5, "routing", _DISCARD, STREAMING, (RAW,)),
    Slot(6, "uuid", VOID, PRIMITIVE, ()),
))  # fmt: skip

LOGGING = protocol("logging", 2, (
    Slot(0, "emit", VOID, VOID, (INT, RAW, RAW, Optional(LIST))),
    Slot(1, "verbosity", VOID, PRIMITIVE, ()),
    Slot(2, "set_verbosity", VOID, PRIMITIVE, (INT,)),
))  # fmt: skip

STORAGE = protocol("storage", 1, (
    Slot(0, "read", VOID, PRIMITIVE, (RAW, RAW)),
    Slot(1, "write", VOID, PRIMITIVE, (RAW, RAW, RAW, Optional(LIST))),
    Slot(2, "remove", VOID, PRIMITIVE, (RAW, RAW)),
    Slot(3, "find", VOID, PRIMITIVE, (RAW, LIST)),
))  # fmt: skip

NODE = protocol("node", 1, (
    Slot(0, "start_app", VOID, PRIMITIVE, (RAW, RAW)),
    Slot(1, "pause_app", VOID, PRIMITIVE, (RAW,)),
    Slot(2, "list", VOID, PRIMITIVE, ()),
    Slot(3, "info", VOID, PRIMITIVE, (RAW, Optional(INT))),
    Slot(4, "control", STREAMING, PRIMITIVE, (RAW,)),
    Slot(5, "enqueue", STREAMING, STREAMING, (RAW, RAW)),
    # Ours: replace a running app's code and profile without losing a request. Old clients never ask for it.
    Slot(6, "restart_app", VOID, PRIMITIVE, (RAW, Optional(RAW))),
))  # fmt: skip

APP = protocol("app", 1, (
    Slot(0, "enqueue", STREAMING, STREAMING, (RAW, Optional(RAW))),
    Slot(1, "info", VOID, PRIMITIVE, ()),
    Slot(2, "control", STREAMING, PRIMITIVE, ()),
))  # fmt: skip

UNICORN = protocol("unicorn", 1, tuple(
    Slot(number, name, state((0, "close", VOID)), upstream, arguments)
    for number, name, upstream, arguments in (
        (0, "subscribe", STREAMING, (RAW,)),
        (1, "children_subscribe", STREAMING, (RAW,)),
        (2, "put", PRIMITIVE, (RAW, ANY, INT)),
        (3, "get", PRIMITIVE, (RAW,)),
        (4, "create", PRIMITIVE, (RAW, ANY)),
        (5, "del", PRIMITIVE, (RAW, INT)),
        (6, "remove", PRIMITIVE, (RAW, INT)),
        (7, "increment", PRIMITIVE, (RAW, ANY)),
        (8, "lock", STREAMING, (RAW,)),
        (9, "named_lock", STREAMING, (RAW, ANY)),
    )
))  # fmt: skip

METRICS = protocol("metrics", 1, (Slot(0, "fetch", VOID, PRIMITIVE, (Optional(RAW), Optional(ANY))),))

#: A worker's control channel: both sides send heartbeats and terminate, for ever.
CONTROL = state((0, "heartbeat", None), (1, "terminate", None))
HEARTBEAT, TERMINATE = CONTROL[0], CONTROL[1]

#: What a worker may open at its node: one handshake, on channel 1. Its answer direction is the node's half of CONTROL.
#: The map is ours: what the worker can do beyond the original (`CREDITS`); the original runtime ignores it.
WORKER = protocol("worker", 1, (Slot(0, "handshake", CONTROL, CONTROL, (RAW, Optional(MAP))),))
HANDSHAKE = WORKER.slots[0]
#: Key of that map: the worker knows `idl.CREDIT`. And the variable by which a node tells its workers that it does.
CREDITS = "credits"
CREDITS_VARIABLE = "COCAINE_TX_CREDITS"
#: The variable that tells a worker's program that it is to be a template (`cocaine_tx.wire.template`), and by which
#: descriptor it talks to its node.
TEMPLATE_VARIABLE = "COCAINE_TX_TEMPLATE"

#: What a node opens at its worker: an event and the request stream, answered by a stream.
EVENTS = protocol("events", 1, (Slot(0, "invoke", STREAMING, STREAMING, (RAW,)),))
INVOKE = EVENTS.slots[0]



def is_app(spoken: Protocol) -> bool:
    """
    Whether a service is an application's, whatever its message numbers are: it takes events, and streams both ways.

    A node's own service takes events as well, each with the name of the application it is for.
    """
    enqueue = spoken.named("enqueue")
    if enqueue is None or spoken.named("start_app") is not None:
        return False
    return enqueue.downstream is STREAMING and enqueue.upstream is STREAMING


#: Protocols of the services whose ids a client knows without asking.
BY_NAME = {made.name: made for made in (LOCATOR, LOGGING, STORAGE, NODE, APP)}

__all__ = [
    "APP", "BY_NAME", "CONTROL", "CREDITS", "CREDITS_VARIABLE", "EVENTS", "HANDSHAKE", "HEARTBEAT", "INVOKE",
    "LOCATOR", "LOGGING", "METRICS",
    "NODE", "STORAGE", "TEMPLATE_VARIABLE", "TERMINATE", "UNICORN", "WORKER", "is_app",
]  # fmt: skip
