"""The callbacks of one engine in the stress run."""

from __future__ import annotations

from collections import Counter

from segdl import DownloadEngine, DownloadTask
from segdl.progress import TaskEvent


class Watcher:
    """
    Counts endings, knows what must not come after them, and why tasks were retried.

    Args:
        engine: To listen to.

    Attributes:
        endings: How often each task ended, by its id.
        late: Ids of tasks that moved after their end.
    """

    def __init__(self, engine: DownloadEngine) -> None:
        self.endings: Counter[str] = Counter()
        self.late: list[str] = []
        self._retries: dict[str, list[str]] = {}
        engine.register_completion_callback(self._ended)
        engine.register_progress_callback(self._progressed)
        engine.register_event_callback(self._happened)

    def retries_of(self, task: DownloadTask) -> str:
        """Tell what a task was retried for, and when."""
        return ", ".join(self._retries.get(task.id, ()))

    def _ended(self, task: DownloadTask) -> None:
        self.endings[task.id] += 1

    def _progressed(self, task: DownloadTask) -> None:
        # Nothing resumes a failed task here, so an ending is the last thing.
        if self.endings[task.id]:
            self.late.append(task.id)

    def _happened(self, event: TaskEvent) -> None:
        if event.kind == "retry":
            reason = f"{event.time:.2f} {event.fields['reason']}"
            self._retries.setdefault(event.task_id, []).append(reason)
