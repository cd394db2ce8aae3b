"""The queue of tasks that wait for a slot.

    add_task ──> heap of (priority, turn, id) ──> get_next_task
                      │ an entry whose id is gone, or has another turn, is skipped
    remove_task ──> dict id -> (turn, task)

Removing deletes from the dict alone; the heap's entry is skipped when it comes up, or
swept out once such entries are the larger part. So every operation costs O(log n),
spread over many, and a queue that tasks pass through does not grow.
"""

from __future__ import annotations

import heapq
import threading
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from segdl.errors import UsageError

if TYPE_CHECKING:
    # Type checkers know typing_extensions without its being installed. The default
    # (PEP 696, run time from 3.13) makes a plain DownloadQueue() one of DownloadTask.
    from typing_extensions import TypeVar as TypeVarWithDefault

    from segdl.task import DownloadTask

__all__ = ["DownloadQueue", "Prioritised"]

# Fewer dead entries than this are not worth a sweep.
_SWEEP_AT_LEAST = 64


class Prioritised(Protocol):
    """What the queue needs of a task."""

    @property
    def id(self) -> str:
        """Unique, and stable for the task's life."""

    @property
    def priority(self) -> int:
        """A smaller number is served first."""


if TYPE_CHECKING:
    TaskT = TypeVarWithDefault("TaskT", bound=Prioritised, default=DownloadTask)
else:
    TaskT = TypeVar("TaskT")


class DownloadQueue(Generic[TaskT]):
    """
    Hold tasks and hand them out: smaller priority first, then in order of adding.

    A task's priority counts as it is when the task is added. Every method may be
    called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._heap: list[tuple[int, int, str]] = []
        self._waiting: dict[str, tuple[int, TaskT]] = {}
        self._next_turn = 0

    def add_task(self, task: TaskT) -> None:
        """
        Add a task; one that waits already keeps its place.

        Args:
            task: What to hand out later.

        Raises:
            UsageError: The task's priority is not an integer.
        """
        priority, task_id = task.priority, task.id
        if not isinstance(priority, int):
            raise UsageError(f"priority must be an integer, not {priority!r}")
        with self._lock:
            if task_id in self._waiting:
                return
            turn = self._next_turn
            self._next_turn += 1
            # In this order: a signal handler may come in between, and ask.
            self._waiting[task_id] = (turn, task)
            heapq.heappush(self._heap, (priority, turn, task_id))

    def get_next_task(self) -> TaskT | None:
        """
        Take the task that is next.

        Returns:
            The task, no longer in the queue; None when the queue is empty.
        """
        with self._lock:
            while self._heap:
                entry = heapq.heappop(self._heap)
                if self._is_waiting(entry):
                    # A signal handler may come in between, and take it out.
                    found = self._waiting.pop(entry[2], None)
                    if found is not None:
                        return found[1]
            return None

    def remove_task(self, id: str) -> bool:  # noqa: A002 - the contract's name
        """
        Take a task out, so that it is never handed out.

        Args:
            id: The task's id.

        Returns:
            True when the task was waiting.
        """
        with self._lock:
            if self._waiting.pop(id, None) is None:
                return False
            dead = len(self._heap) - len(self._waiting)
            if dead >= _SWEEP_AT_LEAST and dead > len(self._waiting):
                self._heap = [entry for entry in self._heap if self._is_waiting(entry)]
                heapq.heapify(self._heap)
            return True

    def get_all_tasks(self) -> list[TaskT]:
        """
        List the waiting tasks without taking them.

        Returns:
            A new list, in the order they would be served.
        """
        with self._lock:
            waiting = self._waiting.copy()
            heap = sorted(self._heap)
        return [
            waiting[task_id][1]
            for _, turn, task_id in heap
            if task_id in waiting and waiting[task_id][0] == turn
        ]

    def clear(self) -> None:
        """Take every task out."""
        with self._lock:
            self._heap.clear()
            self._waiting.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._waiting)

    def _is_waiting(self, entry: tuple[int, int, str]) -> bool:
        """Tell a live heap entry from one whose task was removed, or added anew."""
        waiting = self._waiting.get(entry[2])
        return waiting is not None and waiting[0] == entry[1]
