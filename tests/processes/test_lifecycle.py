"""Tasks and engines from beginning to end: slots, order, pause, cancel, shutdown."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canary import children, until

from segdl import DownloadEngine, DownloadTask
from segdl._store import Store
from segdl.errors import Cancelled, UsageError
from segdl.testing import Origin

MIB = 1 << 20
SIZE = 12 * MIB + 5
SMALL = 100_000

MakeEngine = Callable[..., DownloadEngine]

# Where there is a difference to expect: worker processes, and a thread instead.
both_modes = pytest.mark.parametrize("processes", ["auto", 0])


def middle(task: DownloadTask) -> None:
    until(lambda: task.downloaded_size >= 2 * MIB or task.status != "downloading")
    assert task.status == "downloading", task.error


def hold(engine: DownloadEngine, origin: Origin, directory: Path) -> DownloadTask:
    """Take a slot with a download that gets no answer."""
    task = engine.download(origin.blob_url(99, SIZE, f="hang"), directory, "held")
    origin.log.wait_for(lambda entries: any("/b/99/" in e.path for e in entries))
    return task


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def paths_in_order(origin: Origin) -> list[str]:
    """The paths that were asked for, in order of their first request."""
    return list(dict.fromkeys(entry.path for entry in origin.log.entries))


# --- the main paths, in both modes ----------------------------------------------------


@both_modes
def test_download_ends_completed_with_everything_known(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A finished task says where the file is, how large, and that it is done."""
    engine = make_engine(processes=processes)
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    assert task.status == "downloading"
    path = task.result(timeout=60)
    assert path == task.file_path == str(tmp_path / "file")
    assert Path(path).read_bytes() == origin.blob(1, SIZE).read()
    assert (task.status, task.phase, task.error) == ("completed", "done", None)
    assert (task.progress, task.total_size) == (1.0, SIZE)
    assert (task.downloaded_size, task.resumed_size) == (SIZE, 0)
    assert (task.speed, task.eta, task.connections) == (0.0, None, 0)
    assert task.exception() is None
    assert names(tmp_path) == ["file"]
    assert bool(children()) == (processes == "auto")


@both_modes
def test_pause_keeps_and_resume_goes_on(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A paused task asks for nothing; resumed, it fetches what is missing, exactly."""
    engine = make_engine(processes=processes, connections=4)
    task = engine.download(origin.blob_url(2, SIZE), tmp_path, "file")
    middle(task)
    assert task.pause()
    assert (task.status, task.speed, task.connections) == ("paused", 0.0, 0)
    origin.log.settle()
    requests = len(origin.log.entries)
    assert names(tmp_path) == ["file.part", "file.segdl"]
    before = task.downloaded_size
    assert task.resume()
    assert task.status == "downloading"
    assert Path(task.result(timeout=60)).read_bytes() == origin.blob(2, SIZE).read()
    assert task.resumed_size >= before >= 2 * MIB
    assert len(origin.log.entries) > requests
    assert origin.log.served_twice() <= 4 * 2 * MIB


@both_modes
def test_pause_and_resume_many_times(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Quick changes of mind, between any two steps of a download, end in the file."""
    # A limit of each connection: a shared one feeds those that were left, too.
    origin.total_rate, origin.rate = None, 4 * MIB
    engine = make_engine(processes=processes)
    task = engine.download(origin.blob_url(3, SIZE), tmp_path, "file")
    moments = threading.Event()
    for number in range(20):
        assert task.pause()
        moments.wait(0.002 * (number % 5))
        assert task.resume()
        moments.wait(0.003 * (number % 7))
        if task.status != "downloading":
            break
    assert Path(task.result(timeout=60)).read_bytes() == origin.blob(3, SIZE).read()
    assert names(tmp_path) == ["file"]


@both_modes
def test_cancel_removes_what_is_there(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A cancelled task leaves no partial file, and its result raises Cancelled."""
    engine = make_engine(processes=processes)
    task = engine.download(origin.blob_url(4, SIZE), tmp_path, "file")
    middle(task)
    assert task.cancel()
    assert task.status == "cancelled"
    with pytest.raises(Cancelled):
        task.result(timeout=10)
    until(lambda: names(tmp_path) == [])
    assert not task.cancel()
    assert not task.resume()


@both_modes
def test_shutdown_without_waiting_leaves_everything_resumable(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """What was running is paused; another engine goes on from there."""
    engine = make_engine(processes=processes)
    task = engine.download(origin.blob_url(5, SIZE), tmp_path, "file")
    middle(task)
    engine.shutdown(wait=False)
    assert task.status == "paused"
    assert not task.wait(timeout=0)
    assert children() == []
    assert names(tmp_path) == ["file.part", "file.segdl"]

    (again,) = make_engine(processes=processes).resume_unfinished(tmp_path)
    assert Path(again.result(timeout=60)).read_bytes() == origin.blob(5, SIZE).read()
    assert again.resumed_size >= 2 * MIB


@both_modes
def test_shutdown_that_waits_finishes_what_is_pending(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """shutdown(wait=True) ends when every task has, those in the queue too."""
    engine = make_engine(processes=processes, max_workers=1)
    tasks = [
        engine.download(origin.blob_url(seed, SMALL), tmp_path, f"file{seed}")
        for seed in range(4)
    ]
    assert [task.status for task in tasks] == ["downloading", *["pending"] * 3]
    engine.shutdown(wait=True)
    assert [task.status for task in tasks] == ["completed"] * 4
    assert names(tmp_path) == [f"file{seed}" for seed in range(4)]


# --- slots and order ------------------------------------------------------------------


def test_smaller_priority_is_served_first(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """With one slot the queue is served by priority, equal ones in order of asking."""
    engine = make_engine(max_workers=1)
    held = hold(engine, origin, tmp_path)
    priorities = [5, 1, 5, -1, 1]
    tasks = [
        engine.download(
            origin.blob_url(seed, SMALL), tmp_path, f"file{seed}", priority=priority
        )
        for seed, priority in enumerate(priorities)
    ]
    assert {task.status for task in tasks} == {"pending"}
    held.cancel()
    assert engine.wait(tasks, timeout=60)
    served = [int(path.split("/")[2]) for path in paths_in_order(origin)]
    assert served == [99, 3, 1, 4, 0, 2]


def test_never_more_tasks_at_a_time_than_max_workers(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Two slots: two of five are active at every moment that anyone looks."""
    engine = make_engine(max_workers=2)
    tasks = [
        engine.download(origin.blob_url(seed, MIB), tmp_path, f"file{seed}")
        for seed in range(5)
    ]
    while not engine.wait(tasks, timeout=0.002):
        active = engine.get_active_tasks()
        assert len(active) <= 2
        assert {task.status for task in active} <= {"downloading", "completed"}
    assert engine.get_active_tasks() == []
    assert engine.get_all_tasks() == tasks


def test_pause_gives_the_slot_to_the_next(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A paused task makes room at once; resumed, it waits for its turn."""
    engine = make_engine(max_workers=1)
    first = hold(engine, origin, tmp_path)
    second = engine.download(origin.blob_url(2, SIZE), tmp_path, "second")
    assert (first.status, second.status) == ("downloading", "pending")
    assert engine.pause_task(first.id)
    assert (first.status, second.status) == ("paused", "downloading")
    assert engine.resume_task(first.id)
    assert (first.status, second.status) == ("pending", "downloading")
    assert second.result(timeout=60)
    until(lambda: first.status != "pending")
    assert first.status == "downloading"


def test_pending_task_is_paused_and_cancelled_without_a_request(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A task that had no slot yet never reaches the origin once it is taken out."""
    engine = make_engine(max_workers=1)
    held = hold(engine, origin, tmp_path)
    paused = engine.download(origin.blob_url(1, SMALL), tmp_path, "paused")
    cancelled = engine.download(origin.blob_url(2, SMALL), tmp_path, "cancelled")
    last = engine.download(origin.blob_url(3, SMALL), tmp_path, "last")
    assert paused.pause()
    assert not paused.pause()
    assert cancelled.cancel()
    held.cancel()
    assert last.result(timeout=60)
    assert paths_in_order(origin) == [f"/b/99/{SIZE}", f"/b/3/{SMALL}"]
    assert paused.resume()
    assert paused.result(timeout=60)
    assert names(tmp_path) == ["last", "paused"]


@pytest.mark.parametrize("moment", ["probing", "middle", "paused"])
def test_cancel_removes_partial_files_at_any_moment(
    moment: str, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Before an answer, in the middle, or while paused: nothing is left of it."""
    engine = make_engine(max_workers=1)
    if moment == "probing":
        task = hold(engine, origin, tmp_path)
    else:
        task = engine.download(origin.blob_url(4, SIZE), tmp_path, "file")
        middle(task)
    if moment == "paused":
        assert task.pause()
        until(lambda: names(tmp_path) == ["file.part", "file.segdl"])
    assert engine.cancel_task(task.id)
    until(lambda: names(tmp_path) == [])
    other = engine.download(origin.blob_url(5, SMALL), tmp_path, "file")
    assert Path(other.result(timeout=60)).read_bytes() == origin.blob(5, SMALL).read()


def test_failed_task_goes_on_after_resume(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A failure keeps what is on disk, and resume() tries the rest again."""
    engine = make_engine(retry_times=0, connections=1)
    url = origin.blob_url(6, SIZE, f=[f"fin@byte{4 * MIB}", "status=503@req2,1"])
    task = engine.download(url, tmp_path, "file")
    assert task.exception(timeout=60) is not None
    assert task.status == "failed"
    assert "503" in str(task.error)
    assert task.downloaded_size >= 3 * MIB
    assert task.resume()
    assert (task.status, task.error) == ("downloading", None)
    assert Path(task.result(timeout=60)).read_bytes() == origin.blob(6, SIZE).read()
    assert task.resumed_size >= 3 * MIB


def test_finished_task_does_not_change(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """pause, resume and cancel of a completed task are False and do nothing."""
    engine = make_engine()
    task = engine.download(origin.blob_url(7, SMALL), tmp_path, "file")
    task.result(timeout=60)
    assert not task.pause()
    assert not task.resume()
    assert not task.cancel()
    assert not engine.cancel_task(task.id)
    assert task.status == "completed"
    assert names(tmp_path) == ["file"]


def test_running_task_can_not_be_resumed(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """resume() of a running or a waiting task is False."""
    engine = make_engine(max_workers=1)
    running = hold(engine, origin, tmp_path)
    waiting = engine.download(origin.blob_url(1, SMALL), tmp_path, "waiting")
    assert not running.resume()
    assert not waiting.resume()
    assert (running.status, waiting.status) == ("downloading", "pending")


def test_unknown_ids(make_engine: MakeEngine) -> None:
    """An id that the engine never gave is unknown to all its methods."""
    engine = make_engine()
    assert not engine.cancel_task("none")
    assert not engine.pause_task("none")
    assert not engine.resume_task("none")
    assert engine.get_task("none") is None


def test_task_is_found_by_its_id(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """get_task gives the very task, before and after its end."""
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SMALL), tmp_path)
    assert engine.get_task(task.id) is task
    task.result(timeout=60)
    assert engine.get_task(task.id) is task


def test_ten_thousand_tasks_are_queued_and_cancelled(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A large queue is nothing special, in either direction."""
    engine = make_engine(max_workers=1)
    hold(engine, origin, tmp_path)
    url = origin.blob_url(1, SMALL)
    tasks = [engine.download(url, tmp_path, f"file{n}") for n in range(10_000)]
    assert len({task.id for task in tasks}) == 10_000
    assert all(engine.cancel_task(task.id) for task in reversed(tasks))
    assert {task.status for task in tasks} == {"cancelled"}
    assert paths_in_order(origin) == [f"/b/99/{SIZE}"]
    engine.shutdown(wait=False)
    assert names(tmp_path) == []


# --- shutdown -------------------------------------------------------------------------


def test_shutdown_is_idempotent(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Any further shutdown, with either argument, does nothing."""
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SMALL), tmp_path, "file")
    for wait in (True, True, False, True):
        engine.shutdown(wait=wait)
    assert engine.closed
    assert task.status == "completed"


def test_unused_engine_shuts_down(make_engine: MakeEngine) -> None:
    """An engine that never downloaded has nothing to stop."""
    engine = make_engine()
    engine.shutdown()
    assert engine.closed


def test_two_threads_shut_down_at_once(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Two shutdowns that meet both end, and the download too."""
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    threads = [threading.Thread(target=engine.shutdown) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert task.status == "completed"


def test_shutdown_without_waiting_ends_one_that_waits(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Who no longer wants to wait says so from another thread."""
    engine = make_engine()
    task = hold(engine, origin, tmp_path)
    waiting = threading.Thread(target=engine.shutdown)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    engine.shutdown(wait=False)
    waiting.join(10)
    assert not waiting.is_alive()
    assert task.status == "paused"


def test_download_after_shutdown_is_refused(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """An engine that was shut down raises RuntimeError, and resumes nothing."""
    engine = make_engine(max_workers=1)
    running = hold(engine, origin, tmp_path)
    waiting = engine.download(origin.blob_url(1, SMALL), tmp_path, "waiting")
    engine.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="shut down"):
        engine.download(origin.blob_url(2, SMALL), tmp_path, "file")
    for task in (running, waiting):
        assert task.status == "paused"
        assert not task.resume()
        with pytest.raises(TimeoutError):
            task.result(timeout=10)
    assert len(engine.get_all_tasks()) == 2


@both_modes
def test_waiting_for_a_task_ends_with_the_engine(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A thread in task.wait() is let go when the engine stops."""
    engine = make_engine(processes=processes)
    task = hold(engine, origin, tmp_path)
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(task.wait()))
    waiting.start()
    engine.shutdown(wait=False)
    waiting.join(10)
    assert answers == [False]


def test_paused_task_does_not_hold_a_waiting_shutdown_up(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """shutdown(wait=True) finishes what runs and waits; what is paused stays paused."""
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    middle(task)
    assert task.pause()
    engine.shutdown(wait=True)
    assert task.status == "paused"
    assert names(tmp_path) == ["file.part", "file.segdl"]


def test_with_block_waits_and_stops_on_an_exception(
    origin: Origin, tmp_path: Path
) -> None:
    """Leaving the block in order finishes the downloads; an exception stops them."""
    with DownloadEngine() as engine:
        done = engine.download(origin.blob_url(1, SMALL), tmp_path, "done")
    assert (done.status, engine.closed) == ("completed", True)
    with pytest.raises(KeyError), DownloadEngine() as engine:  # noqa: PT012 - the block is what is tested
        stopped = hold(engine, origin, tmp_path)
        raise KeyError
    assert (stopped.status, engine.closed) == ("paused", True)


def test_engine_begun_on_a_thread_that_ends(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """The download outlives the thread that asked for it."""
    engine = make_engine()
    tasks: list[DownloadTask] = []

    def ask() -> None:
        tasks.append(engine.download(origin.blob_url(1, SIZE), tmp_path, "file"))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    (task,) = tasks
    assert Path(task.result(timeout=60)).read_bytes() == origin.blob(1, SIZE).read()


def test_two_engines_side_by_side(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Engines share nothing: one that stops leaves the other alone."""
    one, two = make_engine(), make_engine()
    first = one.download(origin.blob_url(1, SIZE), tmp_path, "one")
    second = two.download(origin.blob_url(2, SIZE), tmp_path, "two")
    middle(first)
    one.shutdown(wait=False)
    assert Path(second.result(timeout=60)).read_bytes() == origin.blob(2, SIZE).read()
    assert first.status == "paused"


def test_bad_arguments_raise_before_anything_starts(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    """What can't work raises in download(), which then has made no task."""
    engine = make_engine()
    for arguments in (
        {"url": "ftp://127.0.0.1/x"},
        {"url": "http://"},
        {"url": "http://127.0.0.1/", "headers": {"X": "a\r\nb"}},
        {"url": "http://127.0.0.1/", "filename": "../up"},
        {"url": "http://127.0.0.1/", "checksum": "sha256:xyz"},
        {"url": "http://127.0.0.1/", "priority": "high"},
        {"url": "http://127.0.0.1/", "on_exists": "never"},
        {"url": "http://127.0.0.1/", "mirrors": ["file:///etc/passwd"]},
        {"url": "http://127.0.0.1/", "connections": 0},
    ):
        with pytest.raises(UsageError):
            engine.download(output_path=tmp_path, **arguments)
    assert engine.get_all_tasks() == []
    assert children() == []


# --- the rate limit -------------------------------------------------------------------


@both_modes
def test_limit_rate_holds_over_tasks_and_connections(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """The limit is over the whole engine, however many lanes and tasks there are."""
    origin.total_rate = None
    limit, size = 4 * MIB, 4 * MIB
    engine = make_engine(processes=processes, limit_rate=limit, connections=4)
    tasks = [
        engine.download(origin.blob_url(seed, size), tmp_path, f"file{seed}")
        for seed in (1, 2)
    ]
    assert engine.wait(tasks, timeout=60)
    # The origin's own end times tell less: the sockets take some MiB of each answer.
    # A slow machine only makes this longer.
    seconds = time.monotonic() - min(entry.began for entry in origin.log.entries)
    assert 2 * size / seconds <= 1.5 * limit


@both_modes
def test_limit_rate_holds_over_small_files_in_turn(
    processes: Any, origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """What a file took in advance is not forgotten where it was the only one."""
    limit, size, count = 40_000, 16_000, 6
    engine = make_engine(processes=processes, limit_rate=limit, max_workers=1)
    tasks = [
        engine.download(origin.blob_url(seed, size), tmp_path, f"file{seed}")
        for seed in range(count)
    ]
    assert engine.wait(tasks, timeout=60)
    seconds = time.monotonic() - min(entry.began for entry in origin.log.entries)
    # The last one's bytes come at once, those of the others were waited for.
    assert (count - 1) * size / seconds <= 1.5 * limit


def test_limit_rate_changes_while_running(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A limit set in the middle slows down, and taken away lets the rest come."""
    origin.total_rate = None
    engine = make_engine(limit_rate=1 * MIB)
    assert engine.limit_rate == 1 * MIB
    size = 64 * MIB
    task = engine.download(origin.blob_url(1, size), tmp_path, "file")
    until(lambda: task.downloaded_size >= MIB)
    engine.limit_rate = 2 * MIB
    assert engine.limit_rate == 2 * MIB
    assert task.status == "downloading"
    # At 2 MiB/s the rest would take 30 s, far more than the deadline.
    engine.limit_rate = None
    assert task.wait(timeout=15)
    assert Path(task.result()).stat().st_size == size


@pytest.mark.parametrize("limit", [0, -1, float("nan"), "fast", True])
def test_limit_rate_must_be_a_number_above_zero(
    limit: Any, make_engine: MakeEngine
) -> None:
    """A limit that is none is refused, and the old one stays."""
    engine = make_engine(limit_rate=5000)
    with pytest.raises(UsageError):
        engine.limit_rate = limit
    assert engine.limit_rate == 5000


def test_cancel_leaves_what_another_download_has_there(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """A task that is cancelled before its answer removes nobody else's part."""
    engine = make_engine()
    first = engine.download(origin.blob_url(4, SIZE), tmp_path, "file")
    middle(first)
    assert first.pause()
    until(lambda: not engine._ending)  # until its lock is gone, too
    second = engine.download(origin.blob_url(99, SIZE, f="hang"), tmp_path, "file")
    origin.log.wait_for(lambda entries: any("/b/99/" in e.path for e in entries))
    assert second.cancel()
    until(lambda: not engine._ending)
    assert first.resume()
    assert Path(first.result(timeout=60)).read_bytes() == origin.blob(4, SIZE).read()
    assert first.resumed_size > 0


def test_shutdown_while_the_disk_is_slow(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checkpoint that outlasts the engine lets go of the part when it is done."""
    begun, goes_on = threading.Event(), threading.Event()
    checkpoint = Store.checkpoint

    def slow(store: Store, covered: int) -> None:
        begun.set()
        assert goes_on.wait(60)
        checkpoint(store, covered)

    monkeypatch.setattr("segdl._job._CHECKPOINT_SECONDS", 0.1)
    monkeypatch.setattr(Store, "checkpoint", slow)
    origin.total_rate = 4 * MIB
    engine = make_engine(durability="checkpoint")
    engine.download(origin.blob_url(1, SIZE), tmp_path, "file")
    assert begun.wait(60)
    engine.shutdown(wait=False)
    goes_on.set()
    until(lambda: not any(t.name == "segdl-disk" for t in threading.enumerate()))
    origin.total_rate = None
    again = make_engine().download(origin.blob_url(1, SIZE), tmp_path, "file")
    again.result(timeout=60)


def test_signal_handlers_may_call_the_engine(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """They run in the middle of whatever the main thread does, its locks held."""
    origin.total_rate = 8 * MIB
    engine = make_engine(max_workers=1)
    tasks = [
        engine.download(origin.blob_url(n, SIZE), tmp_path, str(n)) for n in range(4)
    ]
    calls = 0

    def handler(_signal: int, _frame: object) -> None:
        nonlocal calls
        task = tasks[calls % 4]
        calls += 1
        task.resume() if task.status == "paused" else task.pause()
        engine.stats.get_overall_progress()

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        while calls < 300:
            for task in tasks:
                task.pause()
                task.resume()
                engine.stats.get_overall_speed()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(task.cancel() for task in tasks)


def test_interrupt_while_the_engine_starts(
    origin: Origin,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C in the first `download`: no thread without descriptors, no stuck slot."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "segdl-engine":
            signal.raise_signal(signal.SIGINT)  # blocked just now

    engine = make_engine(max_workers=1)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.download(origin.blob_url(1, SMALL), tmp_path, "first")
    monkeypatch.undo()
    assert [task.status for task in engine.get_all_tasks()] == ["failed"]
    until(lambda: not any(t.name == "segdl-engine" for t in threading.enumerate()))
    engine.download(origin.blob_url(1, SMALL), tmp_path, "next").result(timeout=30)
    engine.shutdown()
