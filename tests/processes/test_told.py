"""What an engine tells while it works: the callbacks of progress and completion."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canary import until

from segdl import DownloadEngine, DownloadTask
from segdl.testing import Origin

MIB = 1 << 20
SIZE = 12 * MIB + 5
SMALL = 100_000

MakeEngine = Callable[..., DownloadEngine]


class Heard:
    """Registers for everything, and keeps what it heard, in order."""

    def __init__(self, engine: DownloadEngine) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.threads: set[int] = set()
        self.nested = 0
        self._inside = threading.Lock()
        engine.register_progress_callback(lambda task: self._hear("progress", task))
        engine.register_completion_callback(lambda task: self._hear("completion", task))

    def _hear(self, kind: str, task: DownloadTask) -> None:
        if not self._inside.acquire(blocking=False):
            self.nested += 1
            return
        self.threads.add(threading.get_ident())
        self.calls.append((kind, task.id, task.status))
        self._inside.release()

    def of(self, task: DownloadTask) -> list[str]:
        return [kind for kind, task_id, _ in self.calls if task_id == task.id]

    def endings(self, task: DownloadTask) -> list[str]:
        return [
            status
            for kind, task_id, status in self.calls
            if (kind, task_id) == ("completion", task.id)
        ]


def test_progress_comes_first_and_completion_once_and_last(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """In order per task, on one thread, never two at once, nothing after the end."""
    engine = make_engine(progress_interval=0.02, max_workers=3)
    heard = Heard(engine)
    tasks = [
        engine.download(origin.blob_url(seed, 3 * MIB), tmp_path, f"file{seed}")
        for seed in range(5)
    ]
    engine.shutdown(wait=True)
    for task in tasks:
        *before, last = heard.of(task)
        assert last == "completion"
        assert set(before) <= {"progress"}
    assert Counter(kind for kind, _, _ in heard.calls)["progress"] >= 2
    assert heard.nested == 0
    assert len(heard.threads) == 1
    assert threading.get_ident() not in heard.threads


def test_each_ending_is_told_once(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Completed, failed and cancelled are told exactly once; a pause is not."""
    engine = make_engine(retry_times=0, max_workers=1)
    heard = Heard(engine)
    held = engine.download(origin.blob_url(9, SIZE, f="hang"), tmp_path, "held")
    done = engine.download(origin.blob_url(1, SMALL), tmp_path, "done")
    failed = engine.download(f"{origin.url}/status/404", tmp_path, "failed")
    waiting = engine.download(origin.blob_url(2, SMALL), tmp_path, "waiting")
    paused = engine.download(origin.blob_url(3, SMALL), tmp_path, "paused")
    assert paused.pause()
    assert waiting.cancel()
    assert not waiting.cancel()
    assert held.cancel()
    assert engine.wait([done, failed], timeout=60)
    engine.shutdown(wait=True)
    assert heard.endings(done) == ["completed"]
    assert heard.endings(failed) == ["failed"]
    assert heard.endings(waiting) == ["cancelled"]
    assert heard.endings(held) == ["cancelled"]
    assert heard.endings(paused) == []


def test_second_ending_of_a_task_is_told_too(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A failed task that is resumed and completes has two endings, each told."""
    engine = make_engine(retry_times=0)
    heard = Heard(engine)
    url = origin.blob_url(1, SMALL, f="status=503@,1")
    task = engine.download(url, tmp_path, "file")
    assert task.exception(timeout=60) is not None
    until(lambda: heard.endings(task) == ["failed"])
    assert task.resume()
    task.result(timeout=60)
    engine.shutdown()
    assert heard.endings(task) == ["failed", "completed"]


def test_completion_is_told_after_the_file_is_there(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Inside the completion callback the file is whole, and the task says so."""
    seen: list[Any] = []

    def look(task: DownloadTask) -> None:
        assert task.file_path is not None
        seen.append((task.status, task.progress, task.result(timeout=0)))
        seen.append(Path(task.file_path).read_bytes())

    engine = make_engine()
    engine.register_completion_callback(look)
    engine.download(origin.blob_url(1, SMALL), tmp_path, "file")
    engine.shutdown()
    path = str(tmp_path / "file")
    assert seen == [("completed", 1.0, path), origin.blob(1, SMALL).read()]


def test_callback_may_call_every_method(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """No method of engine or task hangs or raises inside a callback."""
    engine = make_engine(progress_interval=0.02, max_workers=2)
    other = engine.download(origin.blob_url(9, SIZE, f="hang"), tmp_path, "other")
    errors: list[BaseException] = []
    called = threading.Event()
    more: list[DownloadTask] = []

    def use(task: DownloadTask) -> None:
        if called.is_set():
            return
        called.set()
        try:
            call_everything(engine, task, other)
            more.append(engine.download(origin.blob_url(2, SMALL), tmp_path, "more"))
        except BaseException as error:
            errors.append(error)

    engine.register_progress_callback(use)
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    assert Path(task.result(timeout=60)).read_bytes() == origin.blob(1, SIZE).read()
    assert called.is_set()
    assert errors == []
    assert more[0].result(timeout=60)
    assert other.status == "cancelled"


def call_everything(
    engine: DownloadEngine, task: DownloadTask, other: DownloadTask
) -> None:
    """Call each method once, so that afterwards `task` goes on and `other` is gone."""
    assert engine.get_task(task.id) is task
    assert engine.get_all_tasks()
    engine.get_active_tasks()
    engine.register_completion_callback(lambda _: None)
    engine.register_progress_callback(lambda _: None)
    engine.limit_rate = 100 * MIB
    assert engine.limit_rate == 100 * MIB
    engine.limit_rate = None
    assert engine.stats.get_total_bytes() >= 0
    assert not engine.wait([other], timeout=0.01)
    assert not other.wait(timeout=0.01)
    with pytest.raises(TimeoutError):
        other.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        other.exception(timeout=0.01)
    if task.pause():
        assert task.resume()
    engine.pause_task(task.id)
    engine.resume_task(task.id)
    assert other.pause()
    assert other.resume()
    assert engine.cancel_task(other.id)
    assert not other.cancel()
    repr(task)


@pytest.mark.parametrize("wait", [True, False])
def test_callback_may_shut_the_engine_down(
    wait: bool, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """shutdown() inside a completion callback ends, and the engine with it."""
    engine = make_engine()
    returned = threading.Event()

    def stop(_: DownloadTask) -> None:
        engine.shutdown(wait=wait)
        returned.set()

    engine.register_completion_callback(stop)
    task = engine.download(origin.blob_url(1, SMALL), tmp_path, "file")
    task.result(timeout=60)
    assert returned.wait(20), "shutdown() inside a callback hangs"
    assert engine.closed
    engine.shutdown()


def test_callback_may_submit_the_next_download(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A chain: each completion begins the next, and wait() sees the end of it."""
    engine = make_engine(max_workers=1)
    finished = threading.Event()

    def follow(_: DownloadTask) -> None:
        number = len(engine.get_all_tasks())
        if number == 4:
            finished.set()
        else:
            engine.download(origin.blob_url(number, SMALL), tmp_path, f"file{number}")

    engine.register_completion_callback(follow)
    engine.download(origin.blob_url(0, SMALL), tmp_path, "file0")
    assert finished.wait(60)
    assert engine.wait(timeout=60)
    assert [task.status for task in engine.get_all_tasks()] == ["completed"] * 4


def test_progress_is_told_at_the_interval(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A long interval means few calls: none for a download that is shorter."""
    engine = make_engine(progress_interval=3600)
    heard = Heard(engine)
    task = engine.download(origin.blob_url(1, 4 * MIB), tmp_path, "file")
    task.result(timeout=60)
    engine.shutdown()
    assert heard.of(task) == ["completion"]


def test_figures_only_grow_and_stay_in_their_range(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Progress and bytes never go backwards, and never beyond the whole."""
    engine = make_engine(progress_interval=0.01, connections=4)
    rows: list[tuple[float, int, int, float, int | None]] = []
    engine.register_progress_callback(
        lambda t: rows.append(
            (t.progress, t.downloaded_size, t.total_size, t.speed, t.eta)
        )
    )
    engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    engine.shutdown()
    assert len(rows) >= 3
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    for progress, downloaded, total, speed, eta in rows:
        assert 0.0 <= progress <= 1.0
        assert 0 <= downloaded <= SIZE
        assert total in (0, SIZE)
        assert speed >= 0.0
        assert eta is None or eta >= 0
    assert any(row[3] > 0 for row in rows)


def test_bytes_found_by_a_resume_are_no_speed(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Resumed bytes count as downloaded, never as received."""
    origin.total_rate = 6 * MIB
    first = make_engine(connections=1)
    task = first.download(origin.blob_url(1, SIZE), tmp_path, "file")
    until(lambda: task.downloaded_size >= 8 * MIB)
    first.shutdown(wait=False)
    # The rest comes at 1 MiB/s; the 8 MiB found in a window of a second would show.
    origin.total_rate = 1 * MIB
    second = make_engine(connections=1, progress_interval=0.05)
    speeds: list[float] = []
    second.register_progress_callback(lambda t: speeds.append(t.speed))
    again = second.download(origin.blob_url(1, SIZE), tmp_path, "file")
    until(lambda: again.resumed_size > 0)
    told = len(speeds)
    until(lambda: len(speeds) >= told + 6)
    assert again.resumed_size >= 7 * MIB
    assert again.downloaded_size >= again.resumed_size
    assert again.progress > 0.5
    second.shutdown(wait=False)
    assert max(speeds) < 6 * MIB


@pytest.mark.parametrize("callback", [None, 7, "print"])
def test_callback_must_be_callable(callback: Any, make_engine: MakeEngine) -> None:
    """What can't be called is refused when it is registered."""
    engine = make_engine()
    with pytest.raises(TypeError):
        engine.register_progress_callback(callback)
    with pytest.raises(TypeError):
        engine.register_completion_callback(callback)
