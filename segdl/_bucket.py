"""The rate limit: bytes are taken from a bucket that fills at a steady rate."""

from __future__ import annotations


class Bucket:
    """
    A token bucket: so many bytes a second, and a tenth of a second's in one go.

    Args:
        bytes_per_second: The rate, above 0.
        now: Monotonic time in seconds.
    """

    def __init__(self, bytes_per_second: float, now: float) -> None:
        self.bytes_per_second = bytes_per_second
        self._tokens = 0.0
        self._stamp = now

    def ready(self, now: float) -> bool:
        """Tell whether bytes may be taken now."""
        gained = (now - self._stamp) * self.bytes_per_second
        self._tokens = min(self._tokens + gained, self.bytes_per_second / 10)
        self._stamp = now
        return self._tokens > 0

    def take(self, count: int) -> None:
        """Take bytes; the last ones of a slice may go below zero."""
        self._tokens -= count
