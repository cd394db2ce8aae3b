"""Helper threads: they wait for the disk, and for the user's functions, for others.

    run(work) ──> an idle thread, else a new one ──> work() ──> idle again

No work ever waits for a thread: one that hangs with a dead disk is not idle, so what
comes next gets another. Starting a thread for each piece of work, with the signal mask
around it, cost 1.5 ms, and a small file needs three. The threads are daemons, so one
that hangs keeps nobody from ending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from segdl._threads import start_without_signals

# More than so many that have nothing to do are not kept.
_MOST_IDLE = 16


class Helpers:
    """
    The threads; they start when they are needed.

    Args:
        name: Of each thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle: set[threading.Thread] = set()
        self._promised = 0  # of the idle ones, so many have work in the queue
        self._closed = False

    def run(self, work: Callable[[], None]) -> None:
        """
        Have something called on one of the threads, at once.

        Args:
            work: It has nobody to raise anything to.

        Raises:
            RuntimeError: None is idle, and none can be started.
        """
        with self._lock:
            idle = len(self._idle) > self._promised
            if idle:
                self._promised += 1
        if idle:
            self._work.put(work)
            return
        thread = threading.Thread(
            target=self._serve, args=(work,), name=self._name, daemon=True
        )
        start_without_signals(thread)

    def close(self, timeout: float) -> None:
        """
        End the idle threads, and each other one after what it does.

        Args:
            timeout: The longest wait for the idle ones, in seconds.
        """
        with self._lock:
            self._closed = True
            idle = list(self._idle)
        for _ in idle:
            self._work.put(None)
        deadline = time.monotonic() + timeout
        for thread in idle:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, work: Callable[[], None] | None) -> None:
        own = threading.current_thread()
        while work is not None:
            work()
            del work  # what it holds is not kept until the next one comes
            with self._lock:
                if self._closed or len(self._idle) >= _MOST_IDLE:
                    return
                self._idle.add(own)
            work = self._work.get()
            with self._lock:
                self._idle.discard(own)
                if work is not None:
                    self._promised -= 1
