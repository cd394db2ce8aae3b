"""Signals that end the program in good order.

A handler only notes the number; the loop that waits for the downloads looks at it ten
times a second. So no exception appears in the middle of a change of state.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "caught"]

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Stop:
    """
    Whether the program should stop.

    Attributes:
        number: The signal that said so, None while none did.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def name(self) -> str:
        """The signal's name."""
        return "" if self.number is None else signal.Signals(self.number).name


@contextmanager
def caught() -> Iterator[Stop]:
    """Note SIGINT, SIGTERM and SIGHUP instead of ending by them."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
        stop.number = stop.number or number

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)
            # One that is ignored (by nohup, by a shell for its background) stays so.
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
