"""
The real kernel's table, over netlink: a thread of its own, since every call waits for the kernel.

pyroute2 speaks the protocol; the alternative is to run ``ipvsadm`` and read what it prints.

Source: reference ``node-engine.md`` section 8.2; the kernel's ``ip_vs.h`` for the numbers.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from ..errors import ConfigError
from ..interfaces import Endpoint
from .kernel import (
    AddDestination,
    AddService,
    Destination,
    DropDestination,
    DropService,
    Operation,
    SetDestination,
    SetService,
    Table,
    Virtual,
)

T = TypeVar("T")

#: Forwarding by address translation, both ways through us.
MASQUERADE = 0
#: A netmask that means single addresses; the kernel wants a number of bits for IPv6, as pyroute2 packs an address.
WHOLE_ADDRESS = {socket.AF_INET: "255.255.255.255", socket.AF_INET6: "128.0.0.0"}

#: What is as it should be, although not by this call.
_SETTLED = {
    AddService: errno.EEXIST,
    AddDestination: errno.EEXIST,
    DropService: errno.ESRCH,
    DropDestination: errno.ENOENT,
}


class NetlinkKernel:
    """
    Keeps to `kernel.Kernel`.

    :param reactor: gets the answers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._thread = ThreadPool(1, 1, "ipvs")
        self._ipvs: Any = None

    def _ask(self, function: Callable[..., T], *args: Any) -> Deferred[T]:
        waiting: Deferred[T] = deferToThreadPool(self._reactor, self._thread, function, *args)
        return waiting

    def start(self) -> Deferred[None]:
        self._thread.start()
        return self._ask(self._open)

    def read(self) -> Deferred[Table]:
        return self._ask(self._read)

    def apply(self, operations: Sequence[Operation]) -> Deferred[Sequence[tuple[Operation, str]]]:
        return self._ask(self._apply, list(operations))

    def stop(self) -> Deferred[None]:
        def stopped(_: object) -> None:
            self._thread.stop()

        return self._ask(self._close).addBoth(stopped)

    # -- in the thread

    def _open(self) -> None:
        from pyroute2 import IPVS

        try:
            self._ipvs = IPVS()
            # The first question tells whether we may ask at all.
            list(self._ipvs.service("dump"))
        except Exception as problem:
            self._close()
            raise ConfigError(
                f"services.locator.args.gateway.type: the kernel's load balancer cannot be had ({problem}); "
                "load the module ip_vs and give the daemon CAP_NET_ADMIN, or choose 'relay'"
            ) from problem

    def _close(self) -> None:
        ipvs, self._ipvs = self._ipvs, None
        if ipvs is not None:
            ipvs.close()

    def _read(self) -> Table:
        from pyroute2 import IPVSService

        table: dict[Endpoint, Virtual] = {}
        for message in list(self._ipvs.service("dump")):
            service = message.get("IPVS_CMD_ATTR_SERVICE")
            if service is None or service.get("IPVS_SVC_ATTR_PROTOCOL") != socket.IPPROTO_TCP:
                continue
            family = service.get("IPVS_SVC_ATTR_AF")
            at = (service.get("IPVS_SVC_ATTR_ADDR"), service.get("IPVS_SVC_ATTR_PORT"))
            key = IPVSService(af=family, addr=at[0], port=at[1], protocol=socket.IPPROTO_TCP)
            destinations = {}
            for answer in list(self._ipvs.dest("dump", service=key)):
                found = answer.get("IPVS_CMD_ATTR_DEST")
                if found is not None:
                    to = (found.get("IPVS_DEST_ATTR_ADDR"), found.get("IPVS_DEST_ATTR_PORT"))
                    flows = found.get("IPVS_DEST_ATTR_ACTIVE_CONNS") or 0
                    destinations[to] = Destination(found.get("IPVS_DEST_ATTR_WEIGHT"), flows)
            table[at] = Virtual(service.get("IPVS_SVC_ATTR_SCHED_NAME"), destinations)
        return table

    def _apply(self, operations: Sequence[Operation]) -> Sequence[tuple[Operation, str]]:
        failures = []
        for operation in operations:
            try:
                self._do(operation)
            except Exception as problem:
                code = getattr(problem, "code", None)
                if code is None or _SETTLED.get(type(operation)) != code:
                    failures.append((operation, str(problem)))
        return failures

    def _do(self, operation: Operation) -> None:
        ipvs = self._ipvs
        match operation:
            case AddService(at, scheduler):
                ipvs.service("add", service=_service(at, scheduler))
            case SetService(at, scheduler):
                ipvs.service("set", service=_service(at, scheduler))
            case DropService(at):
                ipvs.service("del", service=_service(at))
            case AddDestination(at, to, weight):
                ipvs.dest("add", service=_service(at), dest=_destination(to, weight))
            case SetDestination(at, to, weight):
                ipvs.dest("set", service=_service(at), dest=_destination(to, weight))
            case DropDestination(at, to):
                ipvs.dest("del", service=_service(at), dest=_destination(to, 0))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _service(at: Endpoint, scheduler: str = "wlc") -> Any:
    from pyroute2 import IPVSService

    host, port = at
    family = _family(host)
    return IPVSService(
        af=family, addr=host, port=port, protocol=socket.IPPROTO_TCP, sched_name=scheduler,
        netmask=WHOLE_ADDRESS[family],
    )  # fmt: skip


def _destination(to: Endpoint, weight: int) -> Any:
    from pyroute2 import IPVSDest

    host, port = to
    return IPVSDest(addr_family=_family(host), addr=host, port=port, weight=weight, fwd_method=MASQUERADE)
