"""What is told of tasks: their own figures, the statistics, events and callbacks.

    Job ── take_over ──> DownloadTask                  on every tick, and at the end
    engine ── started, progressed, completed, ... ──┬─> DownloadStats
                                                    └─> Callbacks ──> the user

Everything is called with the engine's lock held.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from segdl import _urls
from segdl._callbacks import Callbacks
from segdl.errors import UsageError, WorkerError
from segdl.progress import EVENT_KINDS, TaskEvent, eta_seconds
from segdl.stats import DownloadStats
from segdl.task import COMPLETED

if TYPE_CHECKING:
    from collections.abc import Callable

    from segdl._job import Job
    from segdl.errors import SegdlError
    from segdl.task import DownloadTask


class Reports:
    """
    All that an engine tells.

    Args:
        interval_seconds: Between progress callbacks of one task.

    Attributes:
        stats: Totals over all tasks.
        callbacks: The user's functions.
    """

    def __init__(self, interval_seconds: float) -> None:
        self.stats = DownloadStats()
        self.callbacks = Callbacks()
        self._interval = interval_seconds
        self._reported: dict[str, float] = {}

    def register_event_callback(
        self, callback: Callable[[TaskEvent], object], kind: str | None
    ) -> None:
        """
        Have a function called with events: what `--json` is made of.

        Args:
            callback: The function.
            kind: Of `EVENT_KINDS`; None for all.

        Raises:
            UsageError: There is no such kind.
        """
        if kind is not None and kind not in EVENT_KINDS:
            raise UsageError(f"an event is one of {', '.join(EVENT_KINDS)}, not {kind}")
        key = "event" if kind is None else f"event {kind}"
        self.callbacks.register(key, callback)

    def take_over(self, task: DownloadTask, job: Job) -> None:
        """Copy a job's figures to its task."""
        task._phase = job.phase
        task._file_path = job.path or task._file_path
        task._connections = len(job.lanes)
        if job.request.new_url is not None:
            task.url = job.request.urls[0]
        if job.phase == "probing" and task._total:
            return  # gone on with: what was known stays until it is known again
        total, done = job.total_bytes or 0, job.downloaded_bytes
        same = total == task._total
        task._downloaded, task._resumed, task._total = done, job.resumed_bytes, total
        task._streamed = job.lanes.whole
        if total:
            # A lost worker takes what it had not recorded; a bar does not jump back.
            floor = task._progress if same else 0.0
            task._progress = max(floor, min(1.0, done / total))

    def started(self, task: DownloadTask) -> None:
        """Tell that a task has a slot."""
        self.stats.start_task(task.id)
        self.event(task, "start", {})

    def progressed(self, task: DownloadTask, job: Job, now: float) -> None:
        """Bring a task up to date; tell it, when that was not done lately."""
        self.take_over(task, job)
        rate = job.lanes.meter.rate(now)
        task._speed = rate
        if job.total_bytes is not None:
            rest = job.total_bytes - job.downloaded_bytes
            task._eta = eta_seconds(rest, rate)
        self._count(task, rate)
        if now - self._reported.setdefault(task.id, now) >= self._interval:
            self._reported[task.id] = now
            self.callbacks.put("progress", task, once=f"p{task.id}")
            fields = {
                "downloaded": task.downloaded_size,
                "total": task.total_size,
                "speed": task.speed,
                "eta": task.eta,
                "connections": task.connections,
            }
            self.event(task, "progress", fields, once=True)

    def stopped(self, task: DownloadTask) -> None:
        """Count what a task has that is not going on."""
        self._count(task, 0.0)

    def ended(self, task: DownloadTask) -> None:
        """Forget when its progress was told last."""
        self._reported.pop(task.id, None)

    def completed(
        self, task: DownloadTask, seconds: float, checksum: str | None
    ) -> None:
        """Complete a task, and tell it."""
        task._checksum = checksum
        task._downloaded = task._total
        task._set_status(COMPLETED)
        self._count(task, 0.0)
        self.stats.complete_task(task.id)
        fields = {
            "path": task.file_path,
            "bytes": task.total_size,
            "seconds": seconds,
            "checksum": task.checksum,
        }
        self.event(task, "completed", fields)
        self.callbacks.put("completion", task)

    def failed(self, task: DownloadTask, error: SegdlError) -> None:
        """Fail a task, and tell it."""
        task._fail(error)
        text = task.error or ""
        self.stats.fail_task(task.id, text)
        self.event(task, "failed", {"code": type(error).__name__, "error": text})
        self.callbacks.put("completion", task)

    def broke_off(self, task: DownloadTask, cause: BaseException) -> None:
        """Fail a task whose job was not begun: a signal handler raised, say."""
        name = type(cause).__name__  # its text may hold what must not be shown
        self.failed(task, WorkerError(f"it could not be started: {name}"))

    def cancelled(self, task: DownloadTask) -> None:
        """Tell that a task was cancelled."""
        self.stats.fail_task(task.id, "cancelled")
        self.event(task, "cancelled", {})
        self.callbacks.put("completion", task)

    def event(
        self,
        task: DownloadTask,
        kind: str,
        fields: dict[str, Any],
        *,
        once: bool = False,
    ) -> None:
        """
        Tell what happened.

        Args:
            task: To which task.
            kind: Of `EVENT_KINDS`.
            fields: As `TaskEvent` has them.
            once: Whether an earlier one that waits is enough.
        """
        keys = [key for key in ("event", f"event {kind}") if self.callbacks.wanted(key)]
        if not keys:
            return
        event = TaskEvent(
            kind=kind,
            task_id=task.id,
            url=_urls.redact(task.url),
            time=time.time(),
            fields=fields,
        )
        for key in keys:
            self.callbacks.put(key, event, once=f"{key} {task.id}" if once else None)

    def _count(self, task: DownloadTask, rate: float) -> None:
        done, total = task.downloaded_size, task.total_size
        self.stats.update_task_progress(task.id, done, total, rate)
