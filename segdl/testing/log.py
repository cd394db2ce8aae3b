"""The request log: what clients really asked for, and what they were sent.

    connection thread ── begin() ──> record ── sent grows ── finish() ──> JSON line
                                       │
    test ── entries, served(), ... <───┘   snapshots, at any time

`sent_bytes` counts what was handed to the system, and is raised before the bytes leave:
at no time has a client got a byte that is not counted. Once `ended` is set it is
exact; `settle()` waits for that. A client that goes away mid-answer may have left up to
a socket buffer of counted bytes unread.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TextIO

__all__ = ["Record", "Request", "RequestLog"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    One request, as it stood when it was looked at.

    Args:
        number: 1 for the first request of the log.
        connection: Number of the connection it came on, from 1.
        method: As received.
        path: The target without its query.
        query: The query without the faults (`f=`).
        headers: Names in lower case; a repeated field is joined by ", ".
        range: The single range that was asked for, half-open and cut at the size;
            None without one that can be satisfied.
        status: Status of the answer, 0 before there is one.
        offset: Where in the representation the body began; None when the body is none
            of its bytes.
        sent_bytes: Bytes of the body that were sent.
        began: Monotonic seconds when the request had been read.
        ended: Monotonic seconds when the answer was over, None while it runs.
        complete: Whether the answer was sent to its end.
    """

    number: int
    connection: int
    method: str
    path: str
    query: str
    headers: dict[str, str]
    range: tuple[int, int] | None
    status: int
    offset: int | None
    sent_bytes: int
    began: float
    ended: float | None
    complete: bool


class Record:
    """The entry of a request in the making; one connection thread writes it."""

    __slots__ = (
        "began",
        "complete",
        "connection",
        "ended",
        "headers",
        "method",
        "number",
        "offset",
        "path",
        "query",
        "range",
        "sent_bytes",
        "status",
    )

    def __init__(
        self,
        connection: int,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
    ) -> None:
        self.number = 0
        self.connection = connection
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.range: tuple[int, int] | None = None
        self.status = 0
        self.offset: int | None = None
        self.sent_bytes = 0
        self.began = time.monotonic()
        self.ended: float | None = None
        self.complete = False

    def snapshot(self) -> Request:
        """Give the entry as it stands."""
        return Request(**{name: getattr(self, name) for name in self.__slots__})


class RequestLog:
    """
    Every request an origin got, in order; thread-safe.

    Args:
        sink: Gets each request as a JSON line when its answer is over, so that another
            process can count; flushed line by line, closed by whoever opened it.
    """

    def __init__(self, sink: TextIO | None = None) -> None:
        self._sink = sink
        self._changed = threading.Condition()
        self._records: list[Record] = []
        self._count = 0

    def begin(self, record: Record) -> None:
        """Enter a request."""
        with self._changed:
            self._count += 1
            record.number = self._count
            self._records.append(record)
            self._changed.notify_all()

    def finish(self, record: Record, *, complete: bool) -> None:
        """
        Close the entry of a request.

        Args:
            record: One that was entered.
            complete: Whether the answer was sent to its end.
        """
        with self._changed:
            record.complete = complete
            record.ended = time.monotonic()
            if self._sink is not None:
                self._sink.write(json.dumps(asdict(record.snapshot())) + "\n")
                self._sink.flush()
            self._changed.notify_all()

    @property
    def entries(self) -> tuple[Request, ...]:
        """All requests so far, those under way included."""
        with self._changed:
            return tuple(record.snapshot() for record in self._records)

    def clear(self) -> None:
        """Forget every request, and number the next one 1."""
        with self._changed:
            self._records = []
            self._count = 0

    def wait_for(
        self,
        condition: int | Callable[[tuple[Request, ...]], bool],
        timeout: float = 10.0,
    ) -> tuple[Request, ...]:
        """
        Wait until there are that many requests, or until they satisfy a predicate.

        Args:
            condition: A number of requests, or a predicate of all entries; it is asked
                again whenever a request begins or ends.
            timeout: Seconds.

        Returns:
            The entries that satisfied it.

        Raises:
            TimeoutError: naming the requests there were.
        """
        with self._changed:
            if self._changed.wait_for(lambda: self._holds(condition), timeout):
                return self.entries
            seen = [f"{r.method} {r.path} {r.status}" for r in self._records]
        raise TimeoutError(f"not within {timeout} s; requests so far: {seen}")

    def settle(self, timeout: float = 10.0) -> tuple[Request, ...]:
        """
        Wait until no answer is under way.

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: when one still is.
        """
        return self.wait_for(
            lambda entries: all(entry.ended is not None for entry in entries), timeout
        )

    def bytes_sent(self, path: str | None = None) -> int:
        """
        Count the body bytes that were sent.

        Args:
            path: Of requests to this path only.
        """
        return sum(entry.sent_bytes for entry in self._of(path))

    def ranges(self, path: str | None = None) -> list[tuple[int, int]]:
        """
        List the ranges that were asked for, in order, half-open.

        Args:
            path: Of requests to this path only.
        """
        return [entry.range for entry in self._of(path) if entry.range is not None]

    def served(self, path: str | None = None) -> list[tuple[int, int]]:
        """
        List the runs of the representation that were sent, in order, half-open.

        Args:
            path: Of requests to this path only.
        """
        return [
            (entry.offset, entry.offset + entry.sent_bytes)
            for entry in self._of(path)
            if entry.offset is not None and entry.sent_bytes
        ]

    def served_twice(self, path: str | None = None) -> int:
        """
        Count the bytes that were sent more often than once: 3 for a byte sent 4 times.

        Args:
            path: Of requests to this path only.
        """
        paths = {entry.path for entry in self._of(path)}
        return sum(_surplus(self.served(each)) for each in paths)

    def _holds(self, condition: int | Callable[[tuple[Request, ...]], bool]) -> bool:
        if isinstance(condition, int):
            return len(self._records) >= condition
        return condition(self.entries)  # the condition's lock is re-entrant

    def _of(self, path: str | None) -> list[Request]:
        return [e for e in self.entries if path is None or e.path == path]


def _surplus(runs: list[tuple[int, int]]) -> int:
    surplus = reached = 0
    for begin, end in sorted(runs):
        surplus += max(0, min(end, reached) - begin)
        reached = max(reached, end)
    return surplus
