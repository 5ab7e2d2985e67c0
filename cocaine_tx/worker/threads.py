"""
Threads for blocking handlers.

`concurrent.futures` and Twisted's pool both wait at exit for threads that may never end; a worker that was told to stop
must go. So: daemon threads, at most so many, made when needed.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

from twisted.logger import Logger


class Crew:
    """
    :param size: threads at most; more work waits, first come first served.
    """

    _log = Logger()

    def __init__(self, size: int) -> None:
        self._size = size
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = Lock()
        self._threads = 0
        self._busy = 0

    def __len__(self) -> int:
        """Pieces of work given and not finished."""
        return self._busy

    def give(self, work: Callable[[], None]) -> None:
        """Have it done by a thread."""
        with self._lock:
            self._busy += 1
            more = self._threads < self._size and self._busy > self._threads
            if more:
                self._threads += 1
            number = self._threads
        self._work.put(work)
        if more:
            Thread(target=self._serve, name=f"handler-{number}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except Exception:
                self._log.failure("a thread's work failed")
            finally:
                with self._lock:
                    self._busy -= 1
            del work
