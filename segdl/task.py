"""One download as its user sees it.

    pending ──> downloading ──> completed
       │ ^          │  │ └────> failed ──resume()──> pending    (keeps what is on disk)
       │ └─resume()─┤  └──────> cancelled                       (partial files removed)
       └──pause()──>paused

A task made by `DownloadEngine.download` belongs to that engine, which moves it
through these states. One made by hand can be queued and moved by its own methods.
"""

from __future__ import annotations

import math
import os
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Protocol

from segdl import _urls
from segdl._threads import SLICE_SECONDS
from segdl.errors import Cancelled, SegdlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DownloadTask"]

PENDING = "pending"
DOWNLOADING = "downloading"
PAUSED = "paused"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"

FINAL = frozenset({COMPLETED, FAILED, CANCELLED})

_numbers = count(1)
_prefix = os.urandom(4).hex()

# One for all tasks: a condition each would cost more memory than the rest of a task.
_changed = threading.Condition()


class Controller(Protocol):
    """What a task needs of the engine it belongs to."""

    @property
    def closed(self) -> bool:
        """Whether no task of it will change any more."""

    def cancel_task(self, task_id: str) -> bool: ...
    def pause_task(self, task_id: str) -> bool: ...
    def resume_task(self, task_id: str) -> bool: ...


class DownloadTask:
    """
    A file to download.

    Args:
        url: What to fetch, http or https; or a function that gives it, for a link
            that is signed for a while: it is called when the download begins, and
            again when the link has expired.
        output_path: The directory to save in; created when missing.
        filename: Name to save as; None takes it from the response or the URL, made
            safe.
        headers: Request headers for this task; they are sent to the URL's origin only.
        priority: A smaller number is served first; equal ones in order of submission.

    Attributes:
        id: Unique, and stable for the task's life.

    Raises:
        UsageError: An argument has the wrong type, or can't work.
    """

    __slots__ = (
        "__weakref__",
        "_checksum",
        "_connections",
        "_controller",
        "_downloaded",
        "_error",
        "_eta",
        "_file_path",
        "_new_url",
        "_phase",
        "_progress",
        "_resumed",
        "_speed",
        "_status",
        "_streamed",
        "_total",
        "filename",
        "headers",
        "id",
        "output_path",
        "priority",
        "url",
    )

    def __init__(
        self,
        url: str | Callable[[], str],
        output_path: str | os.PathLike[str],
        filename: str | None = None,
        headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> None:
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise UsageError(f"priority is a whole number, not {priority!r}")
        self.id = f"{_prefix}-{next(_numbers)}"
        self.url = url if isinstance(url, str) else ""
        self._new_url = None if isinstance(url, str) else url
        self.output_path = _directory(output_path)
        self.filename = filename
        try:
            self.headers = dict(headers or {})
        except (TypeError, ValueError):
            # What was given is not shown: it may be a token.
            raise UsageError(
                "headers is a dictionary of names and values, not "
                f"{type(headers).__name__}"
            ) from None
        self.priority = priority
        self._controller: Controller | None = None
        self._status = PENDING
        self._phase = "queued"
        self._progress = 0.0
        self._speed = 0.0
        self._eta: int | None = None
        self._downloaded = 0
        self._resumed = 0
        self._streamed = False  # the origin has no ranges, to go on with
        self._total = 0
        self._connections = 0
        self._file_path: str | None = None
        self._checksum: str | None = None
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return (
            f"<DownloadTask {self.id} {self._status} {self.progress:.1%} "
            f"{_urls.redact(self.url)}>"
        )

    @property
    def status(self) -> str:
        """pending, downloading, paused, completed, failed or cancelled."""
        return self._status

    @property
    def phase(self) -> str:
        """queued, probing, transferring, verifying, publishing or done."""
        return self._phase

    @property
    def progress(self) -> float:
        """0.0 - 1.0; 1.0 once completed, 0.0 while the size is unknown."""
        return self._progress

    @property
    def speed(self) -> float:
        """Bytes received a second, over the last seconds; 0.0 unless downloading."""
        return self._speed if self._status == DOWNLOADING else 0.0

    @property
    def error(self) -> str | None:
        """Why it failed, None unless it did; no secret in it."""
        return None if self._error is None else str(self._error)

    @property
    def file_path(self) -> str | None:
        """Full path of the finished file, known as soon as the name is."""
        return self._file_path

    @property
    def downloaded_size(self) -> int:
        """Bytes safely in the file so far, those found by a resume included."""
        return self._downloaded

    @property
    def resumed_size(self) -> int:
        """Bytes that an earlier run left and this one did not fetch again."""
        return self._resumed

    @property
    def total_size(self) -> int:
        """Complete length in bytes; 0 while unknown."""
        return self._total

    @property
    def eta(self) -> int | None:
        """Seconds left; None while that can't be told."""
        return self._eta if self._status == DOWNLOADING else None

    @property
    def connections(self) -> int:
        """Connections open right now."""
        return self._connections

    @property
    def checksum(self) -> str | None:
        """The digest that was verified, as "algorithm:hex"; None without one."""
        return self._checksum

    def update_progress(self, progress: float) -> None:
        """
        Set the progress.

        Raises:
            ValueError: It is below 0.0, above 1.0, or no number.
        """
        if (
            isinstance(progress, bool)
            or not isinstance(progress, (int, float))
            or math.isnan(progress)
            or not 0.0 <= progress <= 1.0
        ):
            raise ValueError(f"progress is a number from 0.0 to 1.0, not {progress!r}")
        self._progress = float(progress)

    def cancel(self) -> bool:
        """Give up, and remove the partial files; True when that changed something."""
        if self._controller is not None:
            return self._controller.cancel_task(self.id)
        if self._status in FINAL:
            return False
        self._set_status(CANCELLED)
        return True

    def pause(self) -> bool:
        """Stop and keep what is there; True when that changed something."""
        if self._controller is not None:
            return self._controller.pause_task(self.id)
        if self._status not in (PENDING, DOWNLOADING):
            return False
        self._set_status(PAUSED)
        return True

    def resume(self) -> bool:
        """Go on after a pause or a failure; True when that changed something."""
        if self._controller is not None:
            return self._controller.resume_task(self.id)
        if self._status not in (PAUSED, FAILED):
            return False
        self._set_status(PENDING)
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """
        Wait until the task is completed, failed or cancelled.

        Args:
            timeout: The longest wait in seconds; None for no limit.

        Returns:
            True when it is; False after the timeout, or when the engine was shut down
            before.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with _changed:
            while self._status not in FINAL:
                if self._controller is not None and self._controller.closed:
                    return False
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                _changed.wait(
                    SLICE_SECONDS if left is None else min(left, SLICE_SECONDS)
                )
        return True

    def result(self, timeout: float | None = None) -> str:
        """
        Wait for the end and give the path of the finished file.

        Raises:
            TimeoutError: It has not ended.
            SegdlError: Why it failed; Cancelled when it was cancelled.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        assert self._file_path is not None
        return self._file_path

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """
        Wait for the end and give the error, None when the task completed.

        Raises:
            TimeoutError: It has not ended.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"the download is {self._status}, not finished")
        if self._status == CANCELLED:
            return Cancelled("the download was cancelled")
        return self._error

    # --- for the engine ---------------------------------------------------------------

    def _attach(self, controller: Controller) -> None:
        self._controller = controller

    def _set_status(self, status: str) -> None:
        """Enter a state and wake those who wait."""
        self._status = status
        if status != DOWNLOADING:
            self._speed, self._eta, self._connections = 0.0, None, 0
        if status == COMPLETED:
            self._progress, self._phase = 1.0, "done"
        elif status in FINAL:
            self._phase = "done"
        elif status in (PENDING, PAUSED):
            self._phase = "queued"
            self._error = None
        if status in FINAL:
            wake_waiters()

    def _fail(self, error: SegdlError) -> None:
        self._error = error
        self._set_status(FAILED)


def _renew_in_child() -> None:
    """Let the child of a fork not wait for a thread of its parent to let go."""
    global _changed
    _changed = threading.Condition()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)


def wake_waiters() -> None:
    """Let every `DownloadTask.wait` look again."""
    with _changed:
        _changed.notify_all()


def _directory(path: str | os.PathLike[str]) -> str:
    """Check `output_path` and give it as a string."""
    try:
        text = os.fspath(path)
    except TypeError:
        raise UsageError(
            f"output_path is a directory's path, not {type(path).__name__}"
        ) from None
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if not text or "\0" in text:
        raise UsageError(f"output_path is no path of a directory: {text!r}")
    return text
