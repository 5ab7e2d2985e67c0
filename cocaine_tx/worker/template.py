"""
A worker's program as a template: it has imported everything and is forked by its node's orders, each fork a worker.

Only `Worker.run` comes here, when the node asked for it. There is no reactor and no thread in a template, so that
nothing is missing in a fork: it installs its own reactor. The node's side is in its isolate; what the two say is in
`cocaine_tx.wire.template`.

``ctypes`` was taken for ``prctl``: nothing else makes the kernel end a worker whose template has died.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, MutableSequence
from importlib import import_module

from ..errors import ConfigError
from ..wire.protocols import TEMPLATE_VARIABLE
from ..wire.template import LARGEST, Ended, Failed, Fork, Forked, Ready, Report, Unfit, pack_report, unpack_order
from .running import Kind

#: What a worker imports between its fork and its first answer, beside what the app has. None of these makes a reactor.
_PRELOADED = (
    "cocaine_tx.worker.blocking", "cocaine_tx.worker.shift", "cocaine_tx.worker.threads", "twisted.internet.default",
    "twisted.internet.endpoints", "twisted.internet.protocol", "twisted.internet.unix", "twisted.logger",
    "twisted.python.failure",
)  # fmt: skip
_PRELOADED_FOR_ASYNCIO = ("asyncio", "twisted.internet.asyncioreactor")
_PR_SET_PDEATHSIG = 1


def become_template(kinds: set[Kind]) -> None:
    """
    Be a template. Returns in each worker, with its own ``sys.argv`` and ``os.environ``; never in the template itself.

    :param kinds: how the app's handlers run.
    :raises ConfigError: the node's socket is not there: the variable was inherited by a program not meant by it.
    """
    try:
        control = socket.socket(fileno=int(os.environ.pop(TEMPLATE_VARIABLE)))
    except (ValueError, OSError) as problem:
        raise ConfigError(f"{TEMPLATE_VARIABLE} is set by nodes only, for their own workers: {problem}") from problem
    control.set_inheritable(False)
    template = _Template(control)
    if complaint := _complaint():
        template.say(Unfit(complaint))
        os._exit(0)
    for name in _PRELOADED + (_PRELOADED_FOR_ASYNCIO if "asyncio" in kinds else ()):
        import_module(name)
    sys.stdout.flush()
    sys.stderr.flush()
    # What is there now will be shared by all workers; the collector must not write to each page of it.
    gc.collect()
    gc.freeze()
    template.serve()


def _complaint() -> str:
    """Why this process cannot be forked well; empty if it can."""
    if "twisted.internet.reactor" in sys.modules:
        return "the app imports twisted.internet.reactor before Worker.run(), and a reactor cannot be forked"
    if (count := threading.active_count()) > 1:
        return f"the app has started {count - 1} threads before Worker.run(), and threads are not forked"
    if not hasattr(os, "pidfd_open"):
        return "the system has no pidfd_open"
    return ""


class _Template:
    """
    :param control: where the node gives its orders.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, int] = {}
        self._prctl: Callable[..., int] = ctypes.CDLL(None).prctl

    def serve(self) -> None:
        """Returns in each worker; ends with the node."""
        # Children must wait for the node to be reaped, whatever the app thinks of children.
        before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.say(Ready())
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
            except ConnectionError:
                data, descriptors = b"", []
            if not data:
                os._exit(0)  # Its workers are ended by the kernel.
            order = unpack_order(data)
            if not isinstance(order, Fork):
                self._reap(order.number)
            elif self._fork(order, descriptors):
                signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
                return

    def say(self, report: Report, *descriptors: int) -> None:
        """Tell the node; end if there is none."""
        try:
            socket.send_fds(self._control, [pack_report(report)], descriptors)
        except ConnectionError:
            os._exit(0)

    def _fork(self, order: Fork, descriptors: list[int]) -> bool:
        """Make a worker. True in the worker."""
        if not descriptors:
            self.say(Failed(order.number, "the template has no descriptor left for the worker's output"))
            return False
        output = descriptors[0]
        template = os.getpid()
        pid = -1
        try:
            pid = os.fork()
            if pid == 0:
                self._settle(order, output, template)
                return True
            pidfd = os.pidfd_open(pid)
        except OSError as problem:
            if pid > 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            self.say(Failed(order.number, f"the template cannot fork: {problem.strerror}"))
            return False
        finally:
            if pid != 0:
                os.close(output)
        self._children[order.number] = pid
        self.say(Forked(order.number), pidfd)
        os.close(pidfd)
        return False

    def _settle(self, order: Fork, output: int, template: int) -> None:
        """In the worker: become a process like one that was started."""
        os.setsid()
        self._prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != template:
            os._exit(1)
        self._control.close()
        os.dup2(output, 1)
        os.dup2(output, 2)
        if output > 2:
            os.close(output)
        os.environ.update(order.environment)
        adjust(sys.argv, order.arguments)
        if (numpy := sys.modules.get("numpy.random")) is not None:
            numpy.seed()  # Python's own generator does so by itself.

    def _reap(self, number: int) -> None:
        _, status = os.waitpid(self._children.pop(number), 0)
        self.say(Ended(number, os.waitstatus_to_exitcode(status)))


def adjust(words: MutableSequence[str], arguments: Mapping[str, str]) -> None:
    """
    Have a command line say these options: in their places if it has them, else at its end.

    What else is there (a wrapper's own words, the program's name) stays.
    """
    for name, value in arguments.items():
        place = words.index(name) if name in words else -1
        if 0 <= place < len(words) - 1:
            words[place + 1] = value
        else:
            words.extend((name, value))
