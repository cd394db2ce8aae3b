"""`--json`: one JSON object a line on stdout.

    engine's callback thread ──> EventWriter.write ──> stdout
    the command, at the end  ──> EventWriter.summary ──┘

Each has `event`, `time` (seconds since 1970), `task` and `url` (redacted); the last
one, `summary`, is about all tasks, and so has null for these two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from json import JSONEncoder
from typing import TYPE_CHECKING, Any

from segdl._urls import redact
from segdl.progress import TaskEvent
from segdl.task import COMPLETED, FAILED

if TYPE_CHECKING:
    from segdl.cli.console import Console
    from segdl.task import DownloadTask

__all__ = ["EventWriter"]

# ASCII, so that a reader needs no encoding; NaN is no JSON and would be a bug here.
_encode = JSONEncoder(allow_nan=False).encode


class EventWriter:
    """
    Write the events of an engine.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._ended: set[str] = set()

    def write(self, event: TaskEvent) -> None:
        """Write an event; to be registered with the engine."""
        if event.kind in (COMPLETED, FAILED):
            self._ended.add(event.task_id)
        self._line(event.to_json())

    def summary(self, tasks: Iterable[DownloadTask]) -> None:
        """
        Write the last line, once the engine was shut down.

        Args:
            tasks: All tasks; one that failed without an event gets one first.
        """
        tasks = list(tasks)
        for task in tasks:
            if task.status == FAILED and task.id not in self._ended:
                self.write(_failure(task))
        completed = [task for task in tasks if task.status == COMPLETED]
        failed = sum(task.status == FAILED for task in tasks)
        self._line(
            {
                "event": "summary",
                "time": time.time(),
                "task": None,
                "url": None,
                "completed": len(completed),
                "failed": failed,
                "unfinished": len(tasks) - len(completed) - failed,
                "bytes": sum(task.total_size for task in completed),
                "seconds": time.monotonic() - self._began,
            }
        )

    def _line(self, value: dict[str, Any]) -> None:
        self._console.result(_encode(value))


def _failure(task: DownloadTask) -> TaskEvent:
    return TaskEvent(
        kind="failed",
        task_id=task.id,
        url=redact(task.url),
        time=time.time(),
        fields={
            "code": type(task.exception(0)).__name__,
            "error": task.error,
        },
    )
