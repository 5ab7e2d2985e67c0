"""
What an app's ``main.py`` makes: handlers by event, and `Worker.run`.

Importing and making a worker installs no reactor and reads no command line; `Worker.run` does. This is the one place
of the SDK that takes Twisted's global reactor: the process is ours then.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, overload

from ..errors import ConfigError
from ..rpc.reactor import install_reactor
from ..wire.protocols import TEMPLATE_VARIABLE
from .config import WorkerConfig
from .invocation import Adapter, Binding, Start
from .running import Handler, Kind, Span, kind_of, known_kind, run_asyncio, run_coroutine, run_deferred
from .web import HttpHandler, adapt

H = TypeVar("H", bound=Handler | HttpHandler)
#: Seconds to reach the node's socket.
CONNECT_TIMEOUT = 5.0


class Worker:
    """
    An app's handlers, and the process around them.

    :param config: settings; without them `run` takes them from the command line.
    :ivar spans: what begins and ends with the process: those of the handlers.
    """

    def __init__(self, config: WorkerConfig | None = None) -> None:
        self.config = config
        self._handlers: dict[str, tuple[Handler, Kind, Adapter | None]] = {}
        self.spans: list[Span] = []

    @overload
    def on(self, event: str, *, run: Kind | None = None) -> Callable[[H], H]: ...

    @overload
    def on(self, event: str, handler: H, *, run: Kind | None = None) -> H: ...

    def on(self, event: str, handler: Any = None, *, run: Kind | None = None) -> Any:
        """
        Have an event answered by a handler; as a decorator, or called with the handler.

        ::

            @worker.on("greet")
            async def greet(request, response): ...

        A coroutine function runs in the reactor and awaits Deferreds; with ``run="asyncio"`` it is an asyncio task.
        A plain function blocks a thread; with ``run="deferred"`` it runs in the reactor and returns a Deferred.

        :raises ConfigError: the handler cannot be one, or the event has one already.
        """
        if handler is None:
            return lambda decorated: self._bind(event, decorated, run)
        return self._bind(event, handler, run)

    def _bind(self, event: str, handler: H, run: str | None) -> H:
        if event in self._handlers:
            raise ConfigError(f"event {event!r} has a handler already")
        adapter: Adapter | None = None
        bare: Handler
        if isinstance(handler, HttpHandler):
            bare, adapter, run = handler.handler, adapt, run or handler.run
            if handler.span is not None and handler.span not in self.spans:
                self.spans.append(handler.span)
        else:
            bare = handler
        looks = kind_of(bare)
        self._handlers[event] = (bare, looks if run is None else known_kind(run), adapter)
        return handler

    @property
    def events(self) -> list[str]:
        """Events that have handlers."""
        return list(self._handlers)

    @property
    def kinds(self) -> set[Kind]:
        """How the handlers run."""
        return {kind for _, kind, _ in self._handlers.values()}

    def bindings(self, threads: Start) -> dict[str, Binding]:
        """
        The handlers as a `Shift` takes them.

        :param threads: starts blocking handlers.
        """
        starts: dict[Kind, Start] = {
            "coroutine": run_coroutine, "deferred": run_deferred, "asyncio": run_asyncio, "thread": threads
        }  # fmt: skip
        return {
            event: Binding(event, handler, starts[kind], adapter)
            for event, (handler, kind, adapter) in self._handlers.items()
        }

    def leave(self) -> None:
        """The process has been asked to end: what would go on for long is told so. A `Shift` calls this."""
        for span in self.spans:
            span.leave()

    def run(
        self,
        handlers: Mapping[str, Any] | None = None,
        *,
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """
        Serve until the node, or a signal, ends it. Then return; the process should come to its end.

        For a warm app the node runs the program once, up to here, and this returns in each worker forked from it.

        :param handlers: more handlers by event.
        :param argv: a command line instead of the process's own.
        :raises SystemExit: with status 1 and a line on stderr, when there is no node to serve.
        """
        for event, handler in (handlers or {}).items():
            self.on(event, handler)
        try:
            if TEMPLATE_VARIABLE in os.environ and argv is None:
                from .template import become_template

                become_template(self.kinds)
            argv = sys.argv if argv is None else argv
            if self.config is None:
                self.config = WorkerConfig.from_argv(argv, os.environ if env is None else env)
            problem = serve(self, self.config)
        except ConfigError as error:
            problem = error.reason
        if problem:
            sys.stderr.write(f"{os.path.basename(argv[0]) if argv else 'worker'}: {problem}\n")
            sys.stderr.flush()
            raise SystemExit(1)


def serve(worker: Worker, config: WorkerConfig) -> str:
    """
    Run the reactor for one worker.

    :return: why there was no node to serve; empty after a regular end.
    """
    if "asyncio" in worker.kinds:
        _install_asyncio_reactor()
    install_reactor()
    # The process is ours from here on; everything below gets the reactor as an argument.
    from twisted.internet import reactor as installed
    from twisted.internet.defer import DeferredList
    from twisted.internet.protocol import ClientFactory
    from twisted.python.failure import Failure

    from .blocking import InThread
    from .shift import Shift
    from .threads import Crew

    reactor: Any = installed
    _log_to_stderr()
    crew = Crew(config.threads)
    problems: list[str] = []
    threads = InThread(crew, reactor.callFromThread)

    def farewell() -> Any:
        return DeferredList([span.end() for span in worker.spans])

    shift = Shift(reactor, config, worker.bindings(threads.start), lambda: _stop(reactor), farewell, worker.leave)

    def failed(reason: str) -> None:
        problems.append(reason)
        _stop(reactor)

    class Calling(ClientFactory):
        noisy = False

        def buildProtocol(self, addr: Any) -> Any:
            return shift.link

        def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
            problems.append(f"cannot connect to the node at {config.endpoint}: {reason.getErrorMessage()}")
            _stop(reactor)

    def begun() -> None:
        # What is there now stays; what requests leave is freed by counting. The collector need not look so often.
        gc.freeze()
        if gc.get_threshold() == (700, 10, 10):
            gc.set_threshold(20_000, 20, 50)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: reactor.callFromThread(shift.signalled))
        shift.watch()
        for span in worker.spans:
            span.begin(failed)
        reactor.connectUNIX(config.endpoint, Calling(), timeout=CONNECT_TIMEOUT)

    # asyncio's loop does not run yet when Twisted says that its reactor does.
    reactor.callWhenRunning(reactor.callLater, 0, begun)
    reactor.run()
    if len(crew):
        # Blocking handlers that did not come to their end in time; nothing can stop them but this.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if problems else 0)
    return "".join(problems)


def _stop(reactor: Any) -> None:
    if reactor.running:
        reactor.stop()


def _install_asyncio_reactor() -> None:
    """
    Have Twisted run on asyncio's loop.

    :raises ConfigError: another reactor has been installed.
    """
    from twisted.internet import asyncioreactor
    from twisted.internet.error import ReactorAlreadyInstalledError

    try:
        asyncioreactor.install()  # type: ignore[no-untyped-call]
    except ReactorAlreadyInstalledError:
        reactor: Callable[..., Any] | Any = sys.modules["twisted.internet.reactor"]
        if not isinstance(reactor, asyncioreactor.AsyncioSelectorReactor):
            raise ConfigError(
                "run='asyncio' needs Twisted's asyncio reactor, but the app has imported another one before run()"
            ) from None


def _log_to_stderr() -> None:
    """Failures of handlers must be readable in the crash log."""
    from twisted.logger import FilteringLogObserver, LogLevel, LogLevelFilterPredicate, globalLogBeginner
    from twisted.logger import textFileLogObserver as text_observer

    if getattr(globalLogBeginner, "_temporaryObserver", None) is None:
        return
    wanted = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    observer = FilteringLogObserver(text_observer(sys.stderr), [wanted])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
