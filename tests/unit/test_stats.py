"""The totals' contract: what counts, in which state, and how exactly."""

from __future__ import annotations

import math
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl.errors import DiskFull
from segdl.stats import DownloadStats


def totals(stats: DownloadStats) -> tuple[float, int, int, float]:
    return (
        stats.get_overall_speed(),
        stats.get_completed_bytes(),
        stats.get_total_bytes(),
        stats.get_overall_progress(),
    )


def test_with_nothing_known_everything_is_zero() -> None:
    """A new object, and one with a task that has not reported, gives zeros."""
    stats = DownloadStats()
    assert totals(stats) == (0.0, 0, 0, 0.0)
    stats.start_task("a")
    assert totals(stats) == (0.0, 0, 0, 0.0)


def test_active_tasks_add_up() -> None:
    """Speeds, bytes and lengths of active tasks are summed."""
    stats = DownloadStats()
    stats.start_task("a")
    stats.update_task_progress("a", 250, 1000, 100.0)
    stats.update_task_progress("b", 250, 1000, 50.5)
    assert totals(stats) == (150.5, 500, 2000, 0.25)


def test_a_report_replaces_the_earlier_one() -> None:
    """Reports are absolute: nothing is counted twice, and a restart may go back."""
    stats = DownloadStats()
    stats.update_task_progress("a", 800, 1000, 100.0)
    stats.update_task_progress("a", 100, 400, 20.0)
    assert totals(stats) == (20.0, 100, 400, 0.25)


def test_starting_a_known_task_changes_nothing() -> None:
    """A second start of an active task keeps its numbers."""
    stats = DownloadStats()
    stats.update_task_progress("a", 500, 1000, 100.0)
    stats.start_task("a")
    assert totals(stats) == (100.0, 500, 1000, 0.5)


def test_a_completed_task_is_whole_and_has_no_speed() -> None:
    """Completing counts the whole length, even when the last report was behind."""
    stats = DownloadStats()
    stats.update_task_progress("a", 900, 1000, 100.0)
    stats.complete_task("a")
    assert totals(stats) == (0.0, 1000, 1000, 1.0)


def test_a_completed_task_of_unknown_length_is_as_long_as_what_came() -> None:
    """Without a stated length, the bytes that came are the length."""
    stats = DownloadStats()
    stats.update_task_progress("a", 300, 0, 10.0)
    assert totals(stats) == (10.0, 300, 0, 0.0)
    stats.complete_task("a")
    assert totals(stats) == (0.0, 300, 300, 1.0)


def test_a_failed_task_keeps_its_bytes_and_loses_its_speed() -> None:
    """A failure takes the speed away, and neither downloaded nor planned bytes."""
    stats = DownloadStats()
    stats.update_task_progress("a", 500, 1000, 100.0)
    stats.update_task_progress("b", 500, 1000, 10.0)
    stats.fail_task("a", "no route to host")
    assert totals(stats) == (10.0, 1000, 2000, 0.5)


def test_the_reason_of_a_failure_can_be_asked_for() -> None:
    """The text of the error is kept, short, until the task starts again."""
    stats = DownloadStats()
    stats.fail_task("a", DiskFull("no room: 12 bytes missing", missing_bytes=12))
    stats.fail_task("b", "x" * 10_000)
    assert stats.get_error("a") == "no room: 12 bytes missing"
    assert stats.get_error("b") == "x" * 500
    stats.start_task("a")
    stats.complete_task("b")
    assert (stats.get_error("a"), stats.get_error("b")) == (None, None)
    assert stats.get_error("unknown") is None


@pytest.mark.parametrize("end", ["complete_task", "fail_task"])
def test_a_late_report_does_not_revive_an_ended_task(end: str) -> None:
    """A report that arrives after the end changes nothing."""
    stats = DownloadStats()
    stats.update_task_progress("a", 1000, 1000, 100.0)
    stats.fail_task("a", "why") if end == "fail_task" else stats.complete_task("a")
    stats.update_task_progress("a", 400, 2000, 100.0)
    assert totals(stats) == (0.0, 1000, 1000, 1.0)


def test_a_failed_task_that_starts_again_counts_once() -> None:
    """A resume goes on from the failed task's bytes and does not add them again."""
    stats = DownloadStats()
    stats.update_task_progress("a", 500, 1000, 100.0)
    stats.fail_task("a", "why")
    stats.start_task("a")
    assert totals(stats) == (0.0, 500, 1000, 0.5)
    stats.update_task_progress("a", 600, 1000, 70.0)
    assert totals(stats) == (70.0, 600, 1000, 0.6)


def test_ending_an_unknown_task_counts_nothing() -> None:
    """Ends of tasks that never reported leave the totals at zero."""
    stats = DownloadStats()
    stats.complete_task("a")
    stats.fail_task("b", "why")
    assert totals(stats) == (0.0, 0, 0, 0.0)


def test_progress_never_exceeds_one() -> None:
    """More bytes than planned, or of unknown length, do not push it above 1.0."""
    stats = DownloadStats()
    stats.update_task_progress("a", 1500, 1000, 1.0)
    stats.update_task_progress("b", 9000, 0, 1.0)
    assert stats.get_overall_progress() == 1.0
    assert stats.get_completed_bytes() == 10_500


def test_one_task_beyond_its_length_does_not_hide_another_that_lags() -> None:
    """Each task counts up to its own length in the overall progress."""
    stats = DownloadStats()
    stats.update_task_progress("a", 2000, 1000, 1.0)
    stats.update_task_progress("b", 0, 1000, 1.0)
    assert stats.get_overall_progress() == 0.5


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("bytes_downloaded", (-1, 10, 1.0)),
        ("total_bytes", (1, -10, 1.0)),
        ("speed", (1, 10, -0.5)),
        ("speed", (1, 10, math.nan)),
        ("speed", (1, 10, math.inf)),
        ("bytes_downloaded", (math.nan, 10, 1.0)),
    ],
)
def test_impossible_numbers_are_refused(name: str, numbers: Any) -> None:
    """A negative or infinite number raises, names itself and changes nothing."""
    stats = DownloadStats()
    with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
        stats.update_task_progress("a", *numbers)
    assert totals(stats) == (0.0, 0, 0, 0.0)


def test_a_record_does_not_grow_with_reports() -> None:
    """Ten thousand reports of one task keep one record of one size."""
    stats = DownloadStats()
    stats.update_task_progress("a", 0, 10_000, 1.0)
    before = sys.getsizeof(stats._records) + sys.getsizeof(stats._records["a"])
    for number in range(10_000):
        stats.update_task_progress("a", number, 10_000, number / 7)
    after = sys.getsizeof(stats._records) + sys.getsizeof(stats._records["a"])
    assert (len(stats._records), after) == (1, before)
    assert not hasattr(stats._records["a"], "__dict__")


def test_reports_from_many_threads_all_count() -> None:
    """Eight threads that report at once leave exact totals."""
    stats = DownloadStats()
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        start.wait(timeout=30)
        for number in range(1, 501):
            stats.update_task_progress(f"{worker}-{number % 5}", number, 1000, 0.1)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    expected = 8 * sum(range(496, 501))
    assert totals(stats) == (
        pytest.approx(4.0),
        expected,
        40_000,
        expected / 40_000,
    )


Report = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["update", "start", "complete", "fail"]),
    st.integers(0, 2**60),
    st.integers(0, 2**60),
    st.floats(0, 1e12),
)


@given(st.lists(Report, max_size=40))
def test_running_totals_equal_a_sum_over_all_tasks(steps: list[Any]) -> None:
    """After any calls the totals are what adding up every task from scratch gives."""
    stats = DownloadStats()
    model: dict[str, list[Any]] = {}
    for number, action, done, length, speed in steps:
        name = str(number)
        entry = model.setdefault(name, [True, 0, 0, 0.0])
        if action == "update":
            stats.update_task_progress(name, done, length, speed)
            if entry[0]:
                entry[1:] = [done, length, speed]
        elif action == "start":
            stats.start_task(name)
            entry[0] = True
        elif action == "complete":
            stats.complete_task(name)
            whole = max(entry[1], entry[2])
            entry[:] = [False, whole, whole, 0.0]
        else:
            stats.fail_task(name, "why")
            entry[0], entry[3] = False, 0.0
    planned = sum(entry[2] for entry in model.values())
    counted = sum(min(entry[1], entry[2]) for entry in model.values())
    assert totals(stats) == (
        # fsum rounds once, as the exact running sum does: the two are equal.
        math.fsum(entry[3] for entry in model.values()),
        sum(entry[1] for entry in model.values()),
        planned,
        counted / planned if planned else 0.0,
    )
