"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["bytes_text", "rate_text", "seconds_text"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def bytes_text(count: float) -> str:
    """Give a number of bytes with three or four digits: 1000 B, 1.5 MiB, 12.0 GiB."""
    value = float(count)
    unit = 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:  # what would show as 1024.0
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{value:.0f} B"


def rate_text(bytes_per_second: float) -> str:
    """Give a rate: 85.2 MiB/s."""
    return f"{bytes_text(bytes_per_second)}/s"


def seconds_text(seconds: float) -> str:
    """Give a duration: 0.4 s, 12 s, 3:25, 1:02:03, 2d 3h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if whole < 60:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes}:{rest:02}"
    if hours < 48:
        return f"{hours}:{minutes:02}:{rest:02}"
    return f"{hours // 24}d {hours % 24}h"
