"""Threads that leave signals to the program's own.

A signal to the process is taken by any thread that does not block it. When the
engine's thread takes a Ctrl-C, the main thread's system call is not interrupted, so
its wait goes on, and KeyboardInterrupt comes when the wait is over by itself: measured
in 15 - 40 % of interrupts while the engine's thread was busy. So segdl's threads block
what a program may handle, except while they call the user's functions: processes that
those start would ignore SIGTERM. And its waits last `SLICE_SECONDS` at most before they
look again, for the case that a thread of the program took the signal.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")

SLICE_SECONDS = 0.5

# What the kernel sends to the very thread that caused it must not be blocked.
_OWN_FAULT = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}


def start_without_signals(thread: threading.Thread) -> None:
    """
    Start a thread that takes no signal, from its first moment on.

    Processes it starts inherit that: workers set their own mask.

    Raises:
        RuntimeError: There is no thread left, or the interpreter is ending.
    """
    if sys.is_finalizing():
        # From 3.12 on `start` raises this itself; before it waits for ever.
        raise RuntimeError("can't create new thread at interpreter shutdown")
    if not hasattr(signal, "pthread_sigmask"):
        thread.start()
        return
    faults = {getattr(signal, name) for name in _OWN_FAULT if hasattr(signal, name)}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def blocked_signals() -> set[int]:
    """Give the signals that this thread blocks."""
    if not hasattr(signal, "pthread_sigmask"):
        return set()
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def with_callers_signals(function: Callable[[], _T]) -> Callable[[], _T]:
    """Give a function that, on any thread, runs with the signal mask of this one."""
    signals = blocked_signals()

    def call() -> _T:
        with blocking(signals):
            return function()

    return call


@contextmanager
def blocking(signals: set[int]) -> Iterator[None]:
    """
    Have this thread block just these signals for a while.

    Processes that are started meanwhile inherit that.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
