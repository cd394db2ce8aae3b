"""`DownloadEngine`: the public face. It admits tasks, and keeps them in step.

    download() ──> DownloadQueue ──admit──> Job ──on──> Scheduler's thread
        │              (pending)   (slots)    │
    DownloadTask <────── tick(), job_ended() ─┴──> Callbacks' thread ──> the user

The methods run on any thread; they hold the engine's lock, and wait for nothing but
`wait` and `shutdown`. A task is `downloading` from the moment it has a slot, although
its job starts a moment later on the scheduler's thread.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakSet

from segdl._job import Job
from segdl._names import SafeName
from segdl._reports import Reports
from segdl._request import Request, checked_request
from segdl._scheduler import Scheduler
from segdl._threads import SLICE_SECONDS
from segdl._unfinished import discard_unfinished, unfinished
from segdl._version import __version__
from segdl.config import EngineConfig
from segdl.errors import SegdlError, UsageError, WorkerError
from segdl.queue import DownloadQueue
from segdl.task import (
    CANCELLED,
    DOWNLOADING,
    FAILED,
    FINAL,
    PAUSED,
    PENDING,
    DownloadTask,
    wake_waiters,
)

if TYPE_CHECKING:
    from types import TracebackType

    from segdl.config import AllowAddresses, Durability, IoMode, OnExists
    from segdl.progress import TaskEvent

__all__ = ["DownloadEngine"]

# `shutdown(wait=False)` has two seconds: lanes end within one, workers in half of one.
_STOP_SECONDS = 1.0
_CLOSE_SECONDS = 0.2
_JOIN_SECONDS = 0.6
_CALLBACK_SECONDS = 0.2

_SHUT_DOWN = "the engine was shut down; make a new DownloadEngine"
_engines: WeakSet[DownloadEngine] = WeakSet()


class DownloadEngine:
    """
    Download files, several at a time, each over several connections.

    Use it as a context manager, or call `shutdown`; one that is left alone ends with
    the interpreter, and what it was doing stays resumable.

    Args:
        max_workers: Tasks downloading at the same time.
        chunk_size: Smallest receive buffer in bytes.
        retry_times: Attempts after the first that make no progress before a task
            fails; progress refills the budget.
        retry_delay: Seconds before the first retry; grows exponentially, with jitter.
            A server's Retry-After wins.
        timeout: Seconds to connect; and for so long a connection may deliver next to
            nothing before it is replaced.
        progress_interval: Seconds between progress callbacks of one task.
        verify_hash: Verify every file against each digest that is known.
        connections: Connections a task: "auto", or a number.
        processes: Worker processes: "auto", a number, or 0 for a thread instead.
        limit_rate: Bytes a second over the whole engine; None for no limit.
        on_exists: When the destination exists: "reuse", "overwrite", "rename" or
            "error".
        durability: "none", "publish" or "checkpoint".
        io: "auto", "buffered" or "direct".
        ca_file: File of trusted certificates; None for the system's.
        proxy: URL of a proxy; None for what the environment says.
        user_agent: User-Agent of all requests; None for segdl's own.
        allow_addresses: "all", or "public" to never connect to a private address.
        max_bytes: Size a file may have; one that is larger fails. None for any.
        config: Settings from `segdl.config.load_config`, instead of all the above.

    Raises:
        UsageError: An argument has a wrong type or value.
    """

    def __init__(
        self,
        max_workers: int = 3,
        chunk_size: int = 8192,
        retry_times: int = 3,
        retry_delay: float = 5,
        *,
        timeout: float = 30,
        progress_interval: float = 0.5,
        verify_hash: bool = True,
        connections: int | Literal["auto"] = "auto",
        processes: int | Literal["auto"] = "auto",
        limit_rate: float | None = None,
        on_exists: OnExists = "reuse",
        durability: Durability = "publish",
        io: IoMode = "auto",
        ca_file: str | None = None,
        proxy: str | None = None,
        user_agent: str | None = None,
        allow_addresses: AllowAddresses = "all",
        max_bytes: int | None = None,
        config: EngineConfig | None = None,
    ) -> None:
        self._config = config or EngineConfig(
            max_workers=max_workers,
            chunk_size=chunk_size,
            retry_times=retry_times,
            retry_delay=retry_delay,
            timeout=timeout,
            progress_interval=progress_interval,
            verify_hash=verify_hash,
            connections=connections,
            processes=processes,
            limit_rate=limit_rate,
            on_exists=on_exists,
            durability=durability,
            io=io,
            ca_file=ca_file,
            proxy=proxy,
            user_agent=user_agent,
            allow_addresses=allow_addresses,
            max_bytes=max_bytes,
        )
        self._reports = Reports(self._config.progress_interval)
        self.stats = self._reports.stats
        self._limit_rate = self._config.limit_rate
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._pid = os.getpid()
        self._tasks: dict[str, DownloadTask] = {}
        self._requests: dict[str, Request] = {}
        self._queue = DownloadQueue()
        self._running: dict[str, Job | None] = {}
        self._jobs: dict[int, DownloadTask] = {}
        self._ending: dict[str, Job] = {}
        self._numbers = count(1)
        self._scheduler: Scheduler | None = None
        self._shut = False
        self._closed = False
        _engines.add(self)

    def __enter__(self) -> DownloadEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.shutdown(wait=kind is None)

    # --- tasks ------------------------------------------------------------------------

    def download(
        self,
        url: str | Callable[[], str],
        output_path: str | os.PathLike[str],
        filename: str | None = None,
        headers: Mapping[str, str] | None = None,
        priority: int = 0,
        *,
        checksum: str | None = None,
        mirrors: Iterable[str] = (),
        on_exists: OnExists | None = None,
        connections: int | Literal["auto"] | None = None,
        max_bytes: int | None = None,
        new_link: bool = False,
    ) -> DownloadTask:
        """
        Start to download a file, or queue it when all slots are taken.

        Args:
            url: What to fetch, http or https; or a function that gives it, for a link
                that is signed for a while. It is called on a thread of its own, when
                the download begins, and again when the link has expired. One with
                another path has to prove, by a digest or the same strong validator,
                that it leads to the same file, which is begun anew otherwise.
            output_path: The directory to save in; created when missing.
            filename: Name to save as; None takes it from the response or the URL.
            headers: Request headers; sent to the URL's origin only.
            priority: A smaller number is served first.
            checksum: Expected digest, "algorithm:hex".
            mirrors: Other URLs of the same file. Those that have it for certain (a
                digest is known, or the strong validator is the same) share the work;
                the others are turned to when the URL fails.
            on_exists: For this task, instead of the engine's.
            connections: For this task, instead of the engine's.
            max_bytes: For this task, instead of the engine's.
            new_link: The URL is a new link to the file that another URL began to
                download under this name, if length and strong validator are the same.
                Without it a digest has to prove that, or the URLs may differ in their
                queries only.

        Returns:
            The task: `downloading` when a slot is free, `pending` otherwise.

        Raises:
            UsageError: An argument can't work.
            RuntimeError: The engine was shut down.
        """
        task = DownloadTask(url, output_path, filename, headers, priority)
        request = checked_request(
            task,
            self._config,
            checksum,
            mirrors,
            on_exists,
            connections,
            task._new_url,
            max_bytes,
            new_link,
        )
        self._check_process()  # first: a fork may have left the lock taken
        with self._lock:
            if self._shut:
                raise RuntimeError(_SHUT_DOWN)
            task._attach(self)
            self._tasks[task.id] = task
            self._requests[task.id] = request
            self._queue.add_task(task)
            self._admit()
        return task

    def cancel_task(self, task_id: str) -> bool:
        """Give a task up and remove its partial files; True when that changed it."""
        self._check_process()  # first: a fork may have left the lock taken
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None or task.status in FINAL:
                return False
            job = self._running.get(task_id) or self._ending.get(task_id)
            if job is not None and not job.hold():
                return False  # the file is getting its name
            self._queue.remove_task(task_id)
            self._running.pop(task_id, None)
            if job is not None:
                self._ending[task_id] = job
                self._schedule(job.discard)
            else:
                self._discard_files(task)
            task._set_status(CANCELLED)
            self._reports.cancelled(task)
            self._admit()
        return True

    def pause_task(self, task_id: str) -> bool:
        """Stop a task and keep what is there; True when that changed it."""
        self._check_process()  # first: a fork may have left the lock taken
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None or task.status not in (PENDING, DOWNLOADING):
                return False
            job = self._running.get(task_id)
            if job is not None and not job.hold():
                return False  # the file is getting its name
            self._queue.remove_task(task_id)
            self._halt(task)
            self._admit()
        return True

    def resume_task(self, task_id: str) -> bool:
        """Let a paused or failed task go on; True when that changed it."""
        self._check_process()  # first: a fork may have left the lock taken
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None or task.status not in (PAUSED, FAILED) or self._shut:
                return False
            if task_id not in self._requests:
                return False  # it can't be asked for: see `resume_unfinished`
            task._set_status(PENDING)
            self._queue.add_task(task)
            self._admit()
        return True

    def get_task(self, task_id: str) -> DownloadTask | None:
        """Find a task by its id."""
        return self._tasks.get(task_id)

    def get_all_tasks(self) -> list[DownloadTask]:
        """Give all tasks, in order of submission."""
        with self._lock:
            return list(self._tasks.values())

    def get_active_tasks(self) -> list[DownloadTask]:
        """Give the tasks that are downloading, in order of submission."""
        with self._lock:
            active = [self._tasks[task_id] for task_id in self._running]
        return sorted(active, key=lambda task: int(task.id.rpartition("-")[2]))

    def resume_unfinished(
        self, directory: str | os.PathLike[str]
    ) -> list[DownloadTask]:
        """
        Go on with what earlier runs, killed ones too, left in a directory.

        A manifest keeps no URL query, since that may be a secret: a download whose URL
        had one comes back as a failed task that says so. Submit such a URL again with
        `download`, and it goes on from what is there. One whose manifest is damaged, or
        whose digest can't be computed here, comes back as a failed task too.

        Returns:
            The tasks, in order of their names.

        Raises:
            StorageError: The directory can't be read.
        """
        tasks = []
        for left in unfinished(Path(directory)):
            try:
                header = left.usable()
                task = self.download(
                    header.url, directory, left.name, checksum=header.digest
                )
            except SegdlError as error:
                task = self._failed_task(left.url, directory, left.name, error)
            tasks.append(task)
        return tasks

    # --- callbacks --------------------------------------------------------------------

    def register_progress_callback(
        self, callback: Callable[[DownloadTask], object]
    ) -> None:
        """Have a function called with a task, every `progress_interval` seconds."""
        self._reports.callbacks.register("progress", callback)

    def register_completion_callback(
        self, callback: Callable[[DownloadTask], object]
    ) -> None:
        """Have a function called with each task that completed, failed or cancelled."""
        self._reports.callbacks.register("completion", callback)

    def register_event_callback(
        self, callback: Callable[[TaskEvent], object], kind: str | None = None
    ) -> None:
        """Have a function called with each `TaskEvent`, or each of one kind."""
        self._reports.register_event_callback(callback, kind)

    # --- the engine -------------------------------------------------------------------

    @property
    def config(self) -> EngineConfig:
        """The settings in force."""
        return self._config

    @property
    def closed(self) -> bool:
        """Whether the engine is shut down, so that no task of it changes any more."""
        return self._closed

    @property
    def limit_rate(self) -> float | None:
        """Bytes a second over the whole engine, None for no limit; can be set."""
        return self._limit_rate

    @limit_rate.setter
    def limit_rate(self, bytes_per_second: float | None) -> None:
        replace(self._config, limit_rate=bytes_per_second)  # checks the value
        with self._lock:
            self._limit_rate = bytes_per_second
            if self._scheduler is not None:
                self._scheduler.set_limit(bytes_per_second)

    def wait(
        self,
        tasks: Iterable[DownloadTask] | None = None,
        timeout: float | None = None,
    ) -> bool:
        """
        Wait until tasks are completed, failed or cancelled.

        Args:
            tasks: Which ones; None for all.
            timeout: The longest wait in seconds; None for no limit.

        Returns:
            True when all are.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for task in list(self.get_all_tasks() if tasks is None else tasks):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not task.wait(left):
                return False
        return True

    def shutdown(self, wait: bool = True) -> None:
        """
        End the engine; a second call does nothing more.

        Args:
            wait: Finish what is pending and downloading first. False stops within two
                seconds and leaves everything resumable.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            self._shut = True
            if wait:
                self._wait_idle(lambda: not self._running and not len(self._queue))
            self._halt_all()
            self._wait_idle(lambda: not self._ending, _STOP_SECONDS)
            for job in self._ending.values():
                self._schedule(job.lanes.give_up)
            self._wait_idle(lambda: not self._ending, _CLOSE_SECONDS)
            scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            scheduler.stop(_JOIN_SECONDS)
        self._reports.callbacks.close(None if wait else _CALLBACK_SECONDS)
        self._closed = True
        wake_waiters()

    # --- what the scheduler calls, with the lock held ---------------------------------

    def job_event(self, job: Job, kind: str, fields: dict[str, Any]) -> None:
        """Pass on what a job tells."""
        task = self._jobs.get(job.number)
        if task is not None:
            self._reports.event(task, kind, fields)

    def job_ended(self, job: Job) -> None:
        """Move the task on, and start what waited for the job to end."""
        task = self._jobs.pop(job.number)
        self._requests[task.id] = job.request
        self._reports.ended(task)
        if self._ending.get(task.id) is job:
            del self._ending[task.id]
            assert job.outcome is not None
            if task.status == CANCELLED and job.outcome.kind != "discarded":
                # It had stopped before it heard of that.
                task._file_path = job.path or task._file_path
                self._discard_files(task)
            elif task.status not in FINAL and job.outcome.kind == "completed":
                # It was to pause, when it had its name already.
                self._queue.remove_task(task.id)
                self._running[task.id] = job
            elif task.id in self._running:
                self._start(task)
        if self._running.get(task.id) is job:
            del self._running[task.id]
            self._reports.take_over(task, job)
            self._finish(task, job)
            self._admit()
        self._idle.notify_all()

    def tick(self, now: float) -> None:
        """Bring the tasks up to date, and have progress callbacks called."""
        for task_id, job in self._running.items():
            if job is not None:
                self._reports.progressed(self._tasks[task_id], job, now)

    # --- the rest ---------------------------------------------------------------------

    def _finish(self, task: DownloadTask, job: Job) -> None:
        """Give a task its ending."""
        outcome = job.outcome
        assert outcome is not None
        if outcome.kind == "completed":
            seconds = time.monotonic() - job.began
            self._reports.completed(task, seconds, outcome.checksum)
        else:
            error = outcome.error or SegdlError("the download was stopped")
            self._reports.failed(task, error)

    def _admit(self) -> None:
        """Give free slots to the first tasks of the queue."""
        while len(self._running) < self._config.max_workers and not self._closed:
            task = self._queue.get_next_task()
            if task is None:
                return
            task._set_status(DOWNLOADING)
            task._phase = "probing"
            self._running[task.id] = None
            try:
                self._reports.started(task)
                if task.id not in self._ending:
                    self._start(task)
            except BaseException as error:  # a signal handler's, such as Ctrl-C's
                if task.id in self._running and self._running[task.id] is None:
                    del self._running[task.id]
                    self._reports.broke_off(task, error)
                raise

    def _start(self, task: DownloadTask) -> None:
        """Start the job of an admitted task."""
        try:
            scheduler = self._running_scheduler()
        except WorkerError as error:
            del self._running[task.id]
            self._reports.failed(task, error)
            return
        number = next(self._numbers)
        job = Job(number, self._requests[task.id], self._config, scheduler)
        self._jobs[number] = task
        self._running[task.id] = job
        scheduler.start(job)

    def _running_scheduler(self) -> Scheduler:
        if self._scheduler is None:
            self._scheduler = Scheduler(
                replace(self._config, limit_rate=self._limit_rate),
                self,
                self._lock,
                f"segdl/{__version__}",
            )
        return self._scheduler

    def _halt(self, task: DownloadTask) -> None:
        """Stop a task's job, if it has one, and pause it."""
        job = self._running.pop(task.id, None)
        if job is not None:
            self._reports.take_over(task, job)
            self._ending[task.id] = job
            self._schedule(job.stop)
        task._set_status(PAUSED)
        self._reports.stopped(task)

    def _halt_all(self) -> None:
        """Pause everything that is pending or downloading."""
        while (task := self._queue.get_next_task()) is not None:
            self._halt(task)
        for task_id in list(self._running):
            self._halt(self._tasks[task_id])

    def _schedule(self, call: Callable[[], None]) -> None:
        if self._scheduler is not None:
            self._scheduler.post(call)

    def _discard_files(self, task: DownloadTask) -> None:
        """
        Remove what earlier jobs of a task left, when it has none now.

        What an earlier run of its URL left is removed too, as far as the name is known:
        the task would have gone on with it.
        """
        request = self._requests[task.id]
        name = request.filename
        if task.file_path is not None:
            name = SafeName(os.path.basename(task.file_path))
        if name is not None:
            # Somebody else may be at it, or it may be gone: nothing of ours is left.
            with contextlib.suppress(SegdlError):
                discard_unfinished(request.directory, name, request.identity)

    def _failed_task(
        self, url: str, directory: str | os.PathLike[str], name: str, error: SegdlError
    ) -> DownloadTask:
        """Make the task of a download that can't even be asked for."""
        task = DownloadTask(url, directory, name)
        task._attach(self)
        with self._lock:
            self._tasks[task.id] = task
            self._reports.failed(task, error)
        return task

    def _wait_idle(
        self, idle: Callable[[], bool], timeout: float | None = None
    ) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not idle():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self._idle.wait(SLICE_SECONDS if left is None else min(left, SLICE_SECONDS))

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise UsageError(
                "this DownloadEngine belongs to the process that made it; make a new "
                "one after os.fork()"
            )


@atexit.register
def _shut_down_all() -> None:
    """End engines nobody shut down, with the interpreter: no hang, no orphan."""
    for engine in list(_engines):
        engine.shutdown(wait=False)
