"""Rates: the token bucket that paces the origin, and how a rate is written.

take(n) ──> reserves n bytes on a time line of n / rate seconds each
            └─> seconds to wait until they may be sent; 0.0 when behind the line
"""

from __future__ import annotations

__all__ = ["TokenBucket", "parse_rate", "slice_bytes"]

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

# A slice is what one connection sends between two waits. 20 ms of the rate keeps a
# short test smooth; 256 KiB keeps the waits few at high rates.
_SLICE_SECONDS = 0.02
_SLICE_MAX_BYTES = 256 << 10


def parse_rate(text: str) -> float:
    """
    Read a rate in bytes per second, such as "500k", "1.5M" or "2G".

    Args:
        text: A positive number, with a suffix of powers of 1024 as in curl's
            `--limit-rate`.

    Raises:
        ValueError: when it is no such number.
    """
    digits, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    try:
        rate = float(digits) * _UNITS[unit]
    except (ValueError, KeyError):
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ValueError(f"not a rate: {text!r}; write bytes/s such as 500k, 1.5M, 2G")
    return rate


def slice_bytes(rate: float) -> int:
    """
    Give how much to send between two waits.

    Args:
        rate: Bytes per second.
    """
    return max(1, min(_SLICE_MAX_BYTES, int(rate * _SLICE_SECONDS)))


class TokenBucket:
    """
    Pace to a rate; pure, the clock is passed in.

    Args:
        rate: Bytes per second; may be changed at any time.
        now: Monotonic seconds; the bucket begins empty.
        burst_seconds: How much of a delay can be caught up, in seconds of the rate.
            It makes the mean exact although every wait ends a little late.
    """

    __slots__ = ("_burst_seconds", "_empty_at", "rate")

    def __init__(self, rate: float, now: float, *, burst_seconds: float = 0.05) -> None:
        self.rate = rate
        self._empty_at = now
        self._burst_seconds = burst_seconds

    def take(self, count: int, now: float) -> float:
        """
        Reserve bytes and give the seconds to wait before they are sent.

        Args:
            count: How many bytes.
            now: Monotonic seconds.
        """
        begin = max(self._empty_at, now - self._burst_seconds)
        self._empty_at = begin + count / self.rate
        return max(0.0, self._empty_at - now)
