"""The few parts of HTTP/1.1 the origin needs, from RFC 9110 and 9112; pure."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

__all__ = [
    "REASONS",
    "RequestHead",
    "http_date",
    "parse_head",
    "parse_range",
    "strong_match",
]

REASONS = {
    200: "OK",
    206: "Partial Content",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    410: "Gone",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """
    A request without its content.

    Args:
        method: As received; methods are case-sensitive.
        path: The target before "?", without scheme and authority.
        query: The target after "?".
        version: "HTTP/1.0" or "HTTP/1.1".
        headers: Names in lower case; a repeated field is joined by ", ".
    """

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may serve another request (RFC 9112 section 9.3)."""
        options = {
            option.strip().lower()
            for option in self.headers.get("connection", "").split(",")
        }
        if "close" in options or self.has_content:
            return False
        return self.version == "HTTP/1.1" or "keep-alive" in options

    @property
    def has_content(self) -> bool:
        """Whether a body follows, which the origin never reads."""
        return (
            self.headers.get("content-length", "0") != "0"
            or "transfer-encoding" in self.headers
        )


def parse_head(head: bytes) -> RequestHead:
    """
    Read a request head.

    Args:
        head: Everything before the empty line.

    Raises:
        ValueError: when it is none.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"}:
        raise ValueError("not an HTTP/1 request line")
    target = words[1]
    if target[:7].lower() == "http://":  # the form a proxy gets
        target = "/" + target[7:].partition("/")[2]
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise ValueError("not a header field line")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    path, _, query = target.partition("?")
    return RequestHead(
        method=words[0], path=path, query=query, version=words[2], headers=headers
    )


def parse_range(value: str | None, size: int) -> tuple[int, int] | None:
    """
    Read a Range field (RFC 9110 section 14.2).

    Args:
        value: Of the field, None without one.
        size: Complete length of the representation, bytes.

    Returns:
        The half-open range, cut at the size; an empty one at the size when it cannot
        be satisfied (416); None when the field is to be ignored: another unit, several
        ranges, bad syntax.
    """
    match = _RANGE.match(value or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        # "-0" cannot be satisfied, any other suffix can; of an empty file no 206 can
        # be said, so the whole file it is.
        if size == 0 and int(match[2]) > 0:
            return None
        return max(0, size - int(match[2])), size
    first, last = int(match[1]), int(match[2] or size)
    if match[2] and last < first:
        return None
    return (first, min(last + 1, size)) if first < size else (size, size)


def strong_match(if_range: str, etag: str | None, last_modified: str | None) -> bool:
    """
    Tell whether an If-Range holds (RFC 9110 section 13.1.5).

    Args:
        if_range: Value of the field: an entity tag, or a date.
        etag: The representation's entity tag.
        last_modified: Its modification date, compared to the letter.
    """
    if if_range.startswith(('"', "W/")):
        return if_range == etag and not if_range.startswith("W/")
    return last_modified is not None and if_range == last_modified


def http_date(timestamp: float) -> str:
    """
    Write a date as header fields have it (IMF-fixdate), whatever the locale.

    Args:
        timestamp: Seconds since the epoch.
    """
    t = time.gmtime(timestamp)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )
