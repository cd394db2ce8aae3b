"""When one more worker process is worth starting: when those there are can't do more.

    workers' reports ──> all busy, three looks in a row ──┐
    processors       ──> half of one idle meanwhile ──────┴──> one more

A slow link costs one process so. Where client and server share two processors, a second
worker only adds to the switching: 4 GiB over TLS took 5.2 s with one worker, 5.8 s with
two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

LOOK_SECONDS = 0.2
_LOOKS = 3
# The share of the time in which a worker's loop used a processor.
_BUSY = 0.85
# Idle meanwhile, in processors.
_IDLE = 0.5


class Saturation:
    """
    Decides for the workers of one engine.

    Args:
        idle_seconds: Gives the time that all processors together have been idle.
    """

    def __init__(self, idle_seconds: Callable[[], float]) -> None:
        self._idle_seconds = idle_seconds
        self._looks = 0
        self._looked_at = 0.0
        self._since = 0.0
        self._idle_since = 0.0

    def look(self, busy: Collection[float], now: float) -> bool:
        """
        Decide anew; to be called often.

        Args:
            busy: Of each worker, the share of the time in which its loop used a
                processor, as it said last.
            now: Monotonic time in seconds.

        Returns:
            Whether one more is worth starting.
        """
        if now - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = now
        if not busy or min(busy) < _BUSY:
            self._looks = 0
            return False
        if not self._looks:
            # Not before: it takes a package that few need.
            self._since, self._idle_since = now, self._idle_seconds()
        self._looks += 1
        if self._looks <= _LOOKS:
            return False
        self._looks = 0
        idle = (self._idle_seconds() - self._idle_since) / (now - self._since)
        return idle >= _IDLE


def idle_seconds() -> float:
    """Give the seconds that all processors together have had nothing to do."""
    import psutil

    times = psutil.cpu_times()
    return float(times.idle + getattr(times, "iowait", 0.0))
