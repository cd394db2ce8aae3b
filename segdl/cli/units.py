"""Numbers as people read them."""

from __future__ import annotations

__all__ = ["amount_text", "bytes_text", "rate_text", "seconds_text"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def _unit_of(count: float) -> int:
    unit = 0
    # From 1023.95 on it would show as 1024.0.
    while count >= 1023.95 * 1024**unit and unit < len(_UNITS) - 1:
        unit += 1
    return unit


def bytes_text(count: float) -> str:
    """Give a number of bytes with up to five digits: 1000 B, 1.5 MiB, 12.0 GiB."""
    unit = _unit_of(count)
    return f"{count / 1024**unit:.{1 if unit else 0}f} {_UNITS[unit]}"


def amount_text(done: int, total: int) -> str:
    """Give a part of a number of bytes, in the unit of the whole: 3.5/5.0 GiB."""
    unit = _unit_of(total)
    return f"{done / 1024**unit:.{1 if unit else 0}f}/{bytes_text(total)}"


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
