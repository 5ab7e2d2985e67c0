"""The daemons' names for twistd; strings only, so that listing them imports none of them."""

from twisted.application.service import ServiceMaker

node = ServiceMaker(
    "cocaine-node",
    "cocaine_tx.daemon.node",
    "Run applications: a pool of worker processes for each, and the services around them.",
    "cocaine-node",
)
locator = ServiceMaker(
    "cocaine-locator",
    "cocaine_tx.daemon.locator",
    "Say where services are, and keep objects; the same runtime without applications.",
    "cocaine-locator",
)
gateway = ServiceMaker(
    "cocaine-gateway",
    "cocaine_tx.daemon.gateway",
    "Give clients one address for every application of many nodes.",
    "cocaine-gateway",
)
proxy = ServiceMaker(
    "cocaine-proxy",
    "cocaine_tx.daemon.proxy",
    "Turn HTTP requests into events for applications, and their answers into HTTP.",
    "cocaine-proxy",
)
