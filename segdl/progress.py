"""Progress as numbers: transfer rate, time left, and the events made of them.

    bytes so far ──> RateMeter ──> bytes/s ──> eta_seconds ──> seconds left
     (cumulative)    sliding window
                                      └─────────> TaskEvent ──> one JSON object

Nothing here reads a clock or does I/O: the caller passes the time in, so a rate over
an hour is tested in a microsecond.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EVENT_KINDS", "RateMeter", "TaskEvent", "eta_seconds"]

EVENT_KINDS = frozenset(
    {"start", "progress", "retry", "resumed", "completed", "failed", "cancelled"}
)

# A window is cut into this many buckets: steps of 0.1 s at the default window, and
# never more samples in memory however often `add` is called.
_BUCKETS = 30

_OWN_KEYS = frozenset({"event", "time", "task", "url"})


class RateMeter:
    """
    Measure the rate of a growing byte counter over a sliding window.

    The first sample is where counting begins, so bytes that a resume found on disk
    never show as speed. A counter that goes backwards (a restart) counts from its new
    value on. Times come from a monotonic clock; one that goes backwards is read as
    the latest time seen.

    Args:
        window_seconds: Length of the window, above 0.

    Raises:
        ValueError: The window is not a finite number above 0.
    """

    __slots__ = ("_bucket_seconds", "_last_total", "_received", "_samples", "_window")

    def __init__(self, window_seconds: float = 3.0) -> None:
        if not 0 < window_seconds < math.inf:
            raise ValueError(f"window_seconds must be above 0, not {window_seconds!r}")
        self._window = window_seconds
        self._bucket_seconds = window_seconds / _BUCKETS
        self._samples: deque[tuple[float, int]] = deque()
        self._last_total: int | None = None
        self._received = 0

    def add(self, now: float, total_bytes: int) -> None:
        """
        Take a sample of the counter.

        Args:
            now: Monotonic time in seconds.
            total_bytes: The counter's value, resumed bytes included.
        """
        if self._last_total is not None:
            self._received += max(0, total_bytes - self._last_total)
        self._last_total = total_bytes
        samples = self._samples
        if samples:
            now = max(now, samples[-1][0])
        sample = (now, self._received)
        if len(samples) >= 2 and now - samples[-2][0] < self._bucket_seconds:
            samples[-1] = sample
        else:
            samples.append(sample)
        # One sample at or before the window's edge stays: the rate starts from it.
        while len(samples) >= 2 and samples[1][0] <= now - self._window:
            samples.popleft()

    def rate(self, now: float) -> float:
        """
        Return the rate over the window that ends at `now`.

        Until a window has passed since the first sample, the rate is over the time
        since then, but over one bucket at least: a single buffer that arrives a
        microsecond after the start is no rate.

        Args:
            now: Monotonic time in seconds.

        Returns:
            Bytes per second, 0.0 when nothing came for a whole window.
        """
        samples = self._samples
        if len(samples) < 2:
            return 0.0
        now = max(now, samples[-1][0])
        edge = now - self._window
        received = samples[-1][1] - self._received_by(edge)
        span = max(now - max(edge, samples[0][0]), self._bucket_seconds)
        return received / span

    def reset(self) -> None:
        """Forget every sample; the next one is where counting begins."""
        self._samples.clear()
        self._last_total = None
        self._received = 0

    def _received_by(self, moment: float) -> float:
        """Return the bytes received by `moment`, linear between two samples."""
        samples = self._samples
        before_time, before = samples[0]
        if moment < before_time:
            return before
        for after_time, after in samples:
            if after_time > moment:
                part = (moment - before_time) / (after_time - before_time)
                return before + (after - before) * part
            before_time, before = after_time, after
        return before


def eta_seconds(remaining_bytes: int, rate: float) -> int | None:
    """
    Return how long the rest takes.

    Args:
        remaining_bytes: What is still to come; negative when that is unknown.
        rate: Bytes per second.

    Returns:
        Whole seconds, rounded up; None when it cannot be told.
    """
    if remaining_bytes == 0:
        return 0
    if remaining_bytes < 0 or not rate > 0:
        return None
    seconds = remaining_bytes / rate
    return math.ceil(seconds) if math.isfinite(seconds) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """
    Something that happened to one task.

    Args:
        kind: One of `EVENT_KINDS`.
        task_id: The task's id.
        url: The task's URL, redacted by whoever builds the event.
        time: Seconds since the epoch, as `time.time()` gives them.
        fields: What this kind of event carries: names and JSON values.

    Raises:
        ValueError: The kind is unknown, or a field has the name of an own key.
    """

    kind: str
    task_id: str
    url: str
    time: float
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in EVENT_KINDS:
            raise ValueError(f"unknown kind of event: {self.kind!r}")
        if taken := sorted(_OWN_KEYS.intersection(self.fields)):
            raise ValueError(f"an event sets these keys itself: {', '.join(taken)}")

    def to_json(self) -> dict[str, Any]:
        """
        Return the event as the object that `--json` writes.

        Returns:
            A new dictionary: `event`, `time`, `task`, `url`, then the fields.
        """
        return {
            "event": self.kind,
            "time": self.time,
            "task": self.task_id,
            "url": self.url,
            **self.fields,
        }
