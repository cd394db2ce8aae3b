"""Totals over many tasks, kept up to date by each report.

    start_task ─────────────┐
    update_task_progress ───┼──> record per task ──> difference ──> running totals
    complete_task, fail_task┘    (fixed size)                          │
                                                         getters, O(1) ┘

What counts:

    state      speed   bytes downloaded        bytes planned
    active     yes     as last reported        as last reported; 0 while unknown
    completed  no      its whole length        its whole length
    failed     no      as last reported        as last reported

A failed task keeps its bytes in both totals: they were downloaded, a resume goes on
from them, and a bar over the totals does not jump.
"""

from __future__ import annotations

import math
import threading

__all__ = ["DownloadStats"]

# Longer error texts are cut, so that a record stays small whatever an origin sends.
_ERROR_CHARACTERS = 500

# Every finite float is a multiple of 2**-1074 (IEEE 754, the smallest subnormal).
_SPEED_BITS = 1074


class _Record:
    """What is known about one task."""

    __slots__ = ("active", "downloaded", "error", "speed", "total")

    def __init__(self) -> None:
        self.active = True
        self.downloaded = 0
        self.total = 0
        self.speed = 0.0
        self.error: str | None = None


class DownloadStats:
    """
    Add up speed and bytes over all tasks.

    Works on its own: whoever downloads reports, whoever displays asks. Every method
    may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._records: dict[str, _Record] = {}
        self._downloaded = 0
        self._total = 0
        self._downloaded_of_total = 0
        self._speed_units = 0

    def start_task(self, id: str) -> None:  # noqa: A002 - the contract's name
        """
        Count a task as active.

        One that failed or completed before becomes active again and keeps its bytes
        until its next report.

        Args:
            id: The task's id.
        """
        with self._lock:
            record = self._record(id)
            record.active = True
            record.error = None

    def update_task_progress(
        self,
        id: str,  # noqa: A002 - the contract's name
        bytes_downloaded: int,
        total_bytes: int,
        speed: float,
    ) -> None:
        """
        Take a task's newest numbers; they replace the earlier ones.

        An unknown task is started. A report that comes after the task completed or
        failed changes nothing: it was under way when the task ended.

        Args:
            id: The task's id.
            bytes_downloaded: Bytes in the file so far, resumed ones included.
            total_bytes: Complete length; 0 while unknown.
            speed: Bytes per second.

        Raises:
            ValueError: A number is negative or not finite.
        """
        for name, value in (
            ("bytes_downloaded", bytes_downloaded),
            ("total_bytes", total_bytes),
            ("speed", speed),
        ):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {value!r}")
        with self._lock:
            record = self._record(id)
            if record.active:
                self._set(record, bytes_downloaded, total_bytes, speed)

    def complete_task(self, id: str) -> None:  # noqa: A002 - the contract's name
        """
        Count a task as whole, whatever its last report said.

        Args:
            id: The task's id.
        """
        with self._lock:
            record = self._record(id)
            length = max(record.downloaded, record.total)
            self._set(record, length, length, 0.0)
            record.active = False
            record.error = None

    def fail_task(self, id: str, error: object) -> None:  # noqa: A002 - the contract's name
        """
        Count a task as failed: no speed any more, its bytes stay.

        Args:
            id: The task's id.
            error: Why; its text is kept, see `get_error`.
        """
        text = str(error)[:_ERROR_CHARACTERS]
        with self._lock:
            record = self._record(id)
            self._set(record, record.downloaded, record.total, 0.0)
            record.active = False
            record.error = text

    def get_error(self, id: str) -> str | None:  # noqa: A002 - as above
        """
        Return why a task failed.

        Args:
            id: The task's id.

        Returns:
            The text given to `fail_task`, cut at 500 characters; None for a task that
            is unknown or has not failed.
        """
        with self._lock:
            record = self._records.get(id)
            return None if record is None else record.error

    def get_overall_speed(self) -> float:
        """
        Return the speed of all active tasks together.

        Returns:
            Bytes per second.
        """
        with self._lock:
            return self._speed_units / (1 << _SPEED_BITS)

    def get_completed_bytes(self) -> int:
        """
        Return the bytes downloaded over all tasks, those of failed ones too.

        Returns:
            Bytes.
        """
        with self._lock:
            return self._downloaded

    def get_total_bytes(self) -> int:
        """
        Return the planned bytes: the complete lengths known so far.

        Returns:
            Bytes.
        """
        with self._lock:
            return self._total

    def get_overall_progress(self) -> float:
        """
        Return the part of the planned bytes that is downloaded.

        Tasks of unknown length do not take part.

        Returns:
            0.0 - 1.0; 0.0 with nothing known.
        """
        with self._lock:
            if not self._total:
                return 0.0
            return self._downloaded_of_total / self._total

    def _record(self, task_id: str) -> _Record:
        record = self._records.get(task_id)
        if record is None:
            record = self._records[task_id] = _Record()
        return record

    def _set(self, record: _Record, downloaded: int, total: int, speed: float) -> None:
        """Replace a record's numbers and move the totals by the difference."""
        self._downloaded += downloaded - record.downloaded
        self._total += total - record.total
        self._downloaded_of_total += min(downloaded, total) - min(
            record.downloaded, record.total
        )
        if speed != record.speed:
            self._speed_units += _speed_units(speed) - _speed_units(record.speed)
        record.downloaded, record.total, record.speed = downloaded, total, speed


def _speed_units(speed: float) -> int:
    """
    Return a speed as an exact integer.

    A running sum of floats drifts: 0.1 + 0.2 - 0.1 - 0.2 is 2.8e-17, and a display
    would show a speed with no task left. Integers do not.
    """
    numerator, denominator = float(speed).as_integer_ratio()
    return numerator << (_SPEED_BITS + 1 - denominator.bit_length())
