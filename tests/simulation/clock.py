"""A clock that stands still while somebody works, and jumps to what comes next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

# Not 0: much of what is measured against the clock begins as 0.0, "long ago".
BEGIN_SECONDS = 1000.0


class Clock:
    """
    The time, and what is to be called when.

    Attributes:
        now: Monotonic seconds.
    """

    def __init__(self) -> None:
        self.now = BEGIN_SECONDS
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def due(self) -> float:
        """The moment of the next call; infinite without one."""
        return self._calls[0][0] if self._calls else float("inf")

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """
        Have something called.

        Args:
            seconds: From now, 0 or more.
            call: Those for the same moment are called in the order they came in.
        """
        self._count += 1
        heapq.heappush(self._calls, (self.now + seconds, self._count, call))

    def call_next(self) -> None:
        """Call what is due, one of it; the time must have come."""
        heapq.heappop(self._calls)[2]()
