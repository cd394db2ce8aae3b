"""The thread on which a user's callbacks run: never two at once, in order.

    scheduler ──put──> queue ──> callback thread ──> the user's functions

A callback that raises is logged and harms nothing; one that takes long delays the
other callbacks only. Of the progress reports of a task at most one waits, so a slow
callback sees fewer of them, never a backlog.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from segdl._threads import SLICE_SECONDS, blocked_signals, blocking


class Callbacks:
    """The user's functions, by kind, and the thread that calls them."""

    def __init__(self) -> None:
        self._functions: dict[str, list[Callable[[Any], object]]] = {}
        self._queue: SimpleQueue[tuple[str, Any, str | None] | None] = SimpleQueue()
        self._waiting: set[str] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lock = threading.RLock()
        self._signals = blocked_signals()

    def register(self, kind: str, function: Callable[[Any], object]) -> None:
        """
        Add a function.

        Args:
            kind: "progress", "completion" or "event".
            function: Called with one argument.

        Raises:
            TypeError: It can't be called.
        """
        if not callable(function):
            raise TypeError(f"a callback is a function, not {type(function).__name__}")
        with self._lock:
            self._functions.setdefault(kind, []).append(function)

    def wanted(self, kind: str) -> bool:
        """Whether there is a function of a kind."""
        return kind in self._functions

    def put(self, kind: str, argument: Any, *, once: str | None = None) -> None:
        """
        Have the functions of a kind called.

        Args:
            kind: Of the functions.
            argument: What they are called with.
            once: Leave it out while a call with the same key waits.
        """
        with self._lock:
            if self._closed or kind not in self._functions or once in self._waiting:
                return
            if once is not None:
                self._waiting.add(once)
            if self._thread is None and not sys.is_finalizing():
                thread = threading.Thread(
                    target=self._run, name="segdl-callbacks", daemon=True
                )
                # First: a signal handler that calls this must not start another one.
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:
                    # Without a thread to spare the calls wait for the next try.
                    self._thread = None
            self._queue.put((kind, argument, once))

    def close(self, timeout: float | None) -> None:
        """Let what waits be called, for so long at most; then no more."""
        with self._lock:
            thread = self._thread
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if thread is None or thread is threading.current_thread():
            return
        if timeout is not None:
            thread.join(timeout)
        while timeout is None and thread.is_alive():
            thread.join(SLICE_SECONDS)

    def _run(self) -> None:
        item = self._queue.get()
        while item is not None:
            # Else what they start would ignore SIGTERM and Ctrl-C for good. Once for
            # all that waits: it takes 0.3 ms.
            with blocking(self._signals):
                while item is not None:
                    self._call(*item)
                    try:
                        item = self._queue.get_nowait()
                    except Empty:
                        break
            if item is not None:
                item = self._queue.get()

    def _call(self, kind: str, argument: Any, once: str | None) -> None:
        with self._lock:
            self._waiting.discard(once or "")
            functions = list(self._functions[kind])
        for function in functions:
            try:
                function(argument)
            except BaseException:  # sys.exit() too: it would end this thread
                _log_failure(kind, function)


def _log_failure(kind: str, function: Callable[[Any], object]) -> None:
    import logging

    name = getattr(function, "__qualname__", type(function).__name__)
    logging.getLogger("segdl").exception("the %s callback %s raised", kind, name)
