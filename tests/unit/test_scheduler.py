"""The scheduler's choice of workers: when there is one more, and one that died."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from segdl import _scheduler
from segdl._messages import Message, Stop
from segdl._scheduler import Scheduler
from segdl.config import EngineConfig
from segdl.errors import SegdlError


class Helper:
    """A worker that keeps what it is told."""

    role, pid, sentinel, blocked, ailing = "transfer", 1, None, False, None

    def __init__(self, busy: float = 1.0, lanes: int = 1) -> None:
        self.busy, self.lanes = busy, lanes
        self.told: list[Message] = []
        self.command_fd = self.event_fd = 1 << 20  # nobody watches it

    def send(self, message: Message) -> None:
        self.told.append(message)

    def exitcode(self) -> int:
        return -9

    def kill(self) -> None: ...

    def close(self) -> None: ...


class Saturation:
    """What the test says of the workers; and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[float]] = []
        self.saturated = True

    def look(self, busy: Collection[float], _now: float) -> bool:
        self.asked.append(list(busy))
        return self.saturated


class Job:
    """A job whose lanes keep what they hear."""

    def __init__(self) -> None:
        self.lanes = self
        self.moved: list[int] = []
        self.lost: list[int] = []
        self.failed: list[SegdlError] = []
        self.on_loss: Any = None

    def move(self, lane: int) -> None:
        self.moved.append(lane)

    def on_lost(self, lane: int, _error: SegdlError) -> None:
        self.lost.append(lane)
        if self.on_loss is not None:
            self.on_loss(lane)

    def fail(self, error: SegdlError) -> None:
        self.failed.append(error)


@pytest.fixture
def make_scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a function that makes schedulers whose thread does nothing."""
    monkeypatch.setattr(Scheduler, "_run", lambda _: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    made: list[Scheduler] = []

    def make(processes: int | str, *workers: Helper) -> Scheduler:
        config = EngineConfig(processes=processes)
        scheduler = Scheduler(config, None, threading.RLock(), "test")  # type: ignore[arg-type]  # nobody is told
        scheduler._workers = list(workers)  # type: ignore[arg-type]  # as workers
        scheduler._saturation = Saturation()  # type: ignore[assignment]  # as one
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler._workers = []
        scheduler._close()


def with_lanes(scheduler: Scheduler, count: int) -> Job:
    """Give a job with so many lanes, on the first worker."""
    job = Job()
    worker = scheduler._workers[0]
    scheduler._lanes = dict.fromkeys(range(1, count + 1), (job, worker))  # type: ignore[misc]  # as a job
    return job


# --- growing --------------------------------------------------------------------------


def test_it_begins_with_one_worker(make_scheduler: Any) -> None:
    """Where the number is left open, however large the file; else with what is said."""
    assert make_scheduler("auto")._wanted == 1
    assert make_scheduler(3)._wanted == 3
    assert make_scheduler(0)._wanted == 1


def test_one_more_where_all_are_saturated(make_scheduler: Any) -> None:
    """Half of the lanes end, so that others go on for them on the new one."""
    scheduler = make_scheduler("auto", Helper(0.9))
    job = with_lanes(scheduler, 5)
    scheduler._grow(10.0)
    assert scheduler._saturation.asked == [[0.9]]
    assert scheduler._wanted == 2
    assert job.moved == [1, 3, 5]


def test_the_new_one_comes_first(make_scheduler: Any) -> None:
    """Before it has lanes, nothing is known of what two can do."""
    scheduler = make_scheduler("auto", Helper())
    with_lanes(scheduler, 2)
    scheduler._grow(10.0)
    scheduler._grow(11.0)
    assert scheduler._wanted == 2
    scheduler._workers.append(Helper(lanes=0))
    scheduler._grow(12.0)
    assert scheduler._wanted == 2
    scheduler._workers[1].lanes = 1
    scheduler._grow(13.0)
    assert scheduler._wanted == 3


def test_nothing_is_moved_while_one_has_time(make_scheduler: Any) -> None:
    """What saturation says is heeded."""
    scheduler = make_scheduler("auto", Helper())
    job = with_lanes(scheduler, 2)
    scheduler._saturation.saturated = False
    scheduler._grow(10.0)
    assert (scheduler._wanted, job.moved) == (1, [])


def test_no_more_than_there_are_processors(make_scheduler: Any) -> None:
    """A worker's loop uses one."""
    scheduler = make_scheduler("auto", *(Helper() for _ in range(4)))
    scheduler._wanted = 4
    job = with_lanes(scheduler, 8)
    scheduler._grow(10.0)
    assert (scheduler._wanted, job.moved) == (4, [])


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_a_number_that_is_said_holds(make_scheduler: Any, processes: int) -> None:
    """Nobody is even asked."""
    scheduler = make_scheduler(processes, Helper())
    job = with_lanes(scheduler, 8)
    scheduler._grow(10.0)
    assert scheduler._saturation.asked == []
    assert (scheduler._wanted, job.moved) == (max(1, processes), [])


@pytest.mark.parametrize(
    ("size", "count"),
    [(_scheduler.SECOND_WORKER_BYTES, 2), (_scheduler.SECOND_WORKER_BYTES - 1, 1)],
)
def test_lanes_of_a_large_file_go_to_the_new_one(
    make_scheduler: Any, monkeypatch: pytest.MonkeyPatch, size: int, count: int
) -> None:
    """It is started for the next lane that opens; a small file is not worth it."""
    first, second = Helper(lanes=8), Helper(lanes=0)
    scheduler = make_scheduler("auto", first)
    scheduler._wanted = 2
    monkeypatch.setattr(Scheduler, "_start_worker", lambda *_: second)
    assert scheduler._worker_for(size) is (second if count == 2 else first)
    assert len(scheduler._workers) == count


# --- a worker that died ---------------------------------------------------------------


def test_nothing_is_sent_to_the_lanes_of_a_worker_that_died(
    make_scheduler: Any,
) -> None:
    """What follows the end of one may concern another, such as one that doubles it."""
    worker = Helper()
    scheduler = make_scheduler("auto", worker, Helper())
    job = with_lanes(scheduler, 3)
    job.on_loss = lambda _: [scheduler.send(n, Stop(n)) for n in (1, 2, 3)]
    scheduler._lost(worker)
    assert job.lost == [1, 2, 3]
    assert (worker.told, job.failed, scheduler._lanes) == ([], [], {})
