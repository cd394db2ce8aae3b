"""A task made by hand: its fields, its states, and who waits for it."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from segdl import DownloadTask
from segdl.errors import Cancelled, SegdlError, UsageError

URL = "https://user:secret@example.org/model.bin?sig=SECRET"
STATES = ("pending", "downloading", "paused", "completed", "failed", "cancelled")
FINAL = ("completed", "failed", "cancelled")


def task_in(state: str) -> DownloadTask:
    """Make a task in a state, the way an engine moves it."""
    task = DownloadTask("https://example.org/x", "d")
    if state == "failed":
        task._fail(SegdlError("it broke"))
    elif state != "pending":
        task._set_status(state)
    return task


def test_new_task_has_begun_nothing() -> None:
    """Every member has the value that the contract gives to a task at rest."""
    task = DownloadTask("https://example.org/x", "downloads")
    assert task.status == "pending"
    assert task.phase == "queued"
    assert task.progress == 0.0
    assert task.speed == 0.0
    assert task.error is None
    assert task.file_path is None
    assert task.downloaded_size == 0
    assert task.resumed_size == 0
    assert task.total_size == 0
    assert task.eta is None
    assert task.connections == 0
    assert task.checksum is None


def test_task_keeps_what_it_was_given() -> None:
    """The arguments are attributes; positions are those of the contract."""
    task = DownloadTask("https://example.org/x", "d", "name", {"X-A": "b"}, -3)
    assert task.url == "https://example.org/x"
    assert (task.output_path, task.filename) == ("d", "name")
    assert (task.headers, task.priority) == ({"X-A": "b"}, -3)
    plain = DownloadTask(url="https://example.org/x", output_path="d")
    assert (plain.filename, plain.headers, plain.priority) == (None, {}, 0)


def test_headers_are_a_copy() -> None:
    """Changing the dictionary afterwards changes no task."""
    headers = {"X-A": "b"}
    task = DownloadTask("https://example.org/x", "d", headers=headers)
    headers["X-A"] = "changed"
    assert task.headers == {"X-A": "b"}


def test_ids_are_unique_and_stable() -> None:
    """No two tasks share an id, and a task's never changes."""
    tasks = [task_in("pending") for _ in range(1000)]
    ids = [task.id for task in tasks]
    assert len(set(ids)) == 1000
    for task in tasks:
        task.cancel()
    assert [task.id for task in tasks] == ids


@pytest.mark.parametrize("path", ["d", Path("d"), b"d"])
def test_directory_may_be_any_path(path: Any) -> None:
    """str, os.PathLike and bytes are paths; a task keeps a str."""
    assert DownloadTask("https://example.org/x", path).output_path == "d"


@pytest.mark.parametrize("path", [None, 3, "", "a\0b", [], object()])
def test_directory_that_is_no_path_is_refused(path: Any) -> None:
    """What can't be a directory's path is an error at once."""
    with pytest.raises(UsageError):
        DownloadTask("https://example.org/x", path)


@pytest.mark.parametrize("headers", [5, "token", b"x", object(), [1], math.nan])
def test_headers_that_are_no_mapping_are_refused(headers: Any) -> None:
    """With an error that does not repeat them: they may hold a token."""
    with pytest.raises(UsageError, match="headers") as caught:
        DownloadTask("https://example.org/x", "d", headers=headers)
    assert "token" not in str(caught.value)


@pytest.mark.parametrize("priority", ["1", 1.0, None, True, math.nan])
def test_priority_is_a_whole_number(priority: Any) -> None:
    """What does not order is refused."""
    with pytest.raises(UsageError):
        DownloadTask("https://example.org/x", "d", priority=priority)


@pytest.mark.parametrize("state", STATES)
def test_representation_holds_no_secret(state: str) -> None:
    """repr() names id and state, and neither userinfo nor query."""
    task = DownloadTask(URL, "d", headers={"Authorization": "Bearer SECRET"})
    task._set_status(state)
    assert task.id in repr(task)
    assert state in repr(task)
    assert "secret" not in repr(task).lower()


@pytest.mark.parametrize(
    "name",
    [
        "status",
        "phase",
        "progress",
        "speed",
        "error",
        "file_path",
        "downloaded_size",
        "resumed_size",
        "total_size",
        "eta",
        "connections",
        "checksum",
    ],
)
def test_what_is_measured_can_not_be_set(name: str) -> None:
    """Only the engine moves a task."""
    with pytest.raises(AttributeError):
        setattr(task_in("pending"), name, 1)


def test_misspelt_attribute_is_an_error() -> None:
    """A task takes no attribute that it does not have."""
    with pytest.raises(AttributeError):
        task_in("pending").prioritiy = 3  # type: ignore[attr-defined]


def test_tasks_compare_by_identity() -> None:
    """Two tasks of the same URL are two tasks; both can be keys."""
    one, two = task_in("pending"), task_in("pending")
    assert one != two
    assert len({one, two}) == 2


# --- progress -------------------------------------------------------------------------


@given(st.floats(0.0, 1.0))
@settings(max_examples=50)
def test_progress_can_be_set_in_its_range(value: float) -> None:
    """0.0 and 1.0 are in it."""
    task = task_in("downloading")
    task.update_progress(value)
    assert task.progress == value
    assert type(task.progress) is float


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, 0.5, -0.0])
def test_progress_at_the_borders(value: float) -> None:
    """Whole numbers are numbers too."""
    task = task_in("downloading")
    task.update_progress(value)
    assert task.progress == value


@given(st.floats().filter(lambda x: not 0.0 <= x <= 1.0))
@settings(max_examples=50)
def test_progress_out_of_range_is_refused(value: float) -> None:
    """Below, above, infinite and NaN: ValueError, and the old value stays."""
    task = task_in("downloading")
    task.update_progress(0.25)
    with pytest.raises(ValueError, match=r"0\.0"):
        task.update_progress(value)
    assert task.progress == 0.25


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -1e-300,
        math.nextafter(1.0, 2.0) if hasattr(math, "nextafter") else 1.1,
        2,
        -1,
        "0.5",
        None,
        True,
        1j,
        [0.5],
        Decimal("0.5"),
        Fraction(1, 2),
    ],
)
def test_progress_that_is_no_number_is_refused(value: Any) -> None:
    """What is no number from 0.0 to 1.0 is a ValueError, whatever it is."""
    with pytest.raises(ValueError, match="progress"):
        task_in("downloading").update_progress(value)


def test_progress_can_be_set_in_any_state() -> None:
    """update_progress sets a figure, and moves no task."""
    for state in STATES:
        task = task_in(state)
        task.update_progress(0.5)
        assert (task.progress, task.status) == (0.5, state)


# --- states ---------------------------------------------------------------------------

MOVES = {
    "pause": {"pending": "paused", "downloading": "paused"},
    "resume": {"paused": "pending", "failed": "pending"},
    "cancel": {
        "pending": "cancelled",
        "downloading": "cancelled",
        "paused": "cancelled",
    },
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("method", MOVES)
def test_methods_move_as_drawn(method: str, state: str) -> None:
    """Each method from each state: True and the next one, or False and no change."""
    task = task_in(state)
    wanted = MOVES[method].get(state)
    assert getattr(task, method)() is (wanted is not None)
    assert task.status == (wanted or state)


class TaskMachine(RuleBasedStateMachine):
    """The drawing of the states, beside a task, through any calls."""

    def __init__(self) -> None:
        super().__init__()
        self.task = task_in("pending")
        self.state = "pending"

    def _move(self, method: str) -> None:
        wanted = MOVES[method].get(self.state)
        assert getattr(self.task, method)() is (wanted is not None)
        self.state = wanted or self.state

    @rule()
    def pause(self) -> None:
        self._move("pause")

    @rule()
    def resume(self) -> None:
        self._move("resume")

    @rule()
    def cancel(self) -> None:
        self._move("cancel")

    @rule(fail=st.booleans())
    def engine_works(self, fail: bool) -> None:
        if self.state == "pending":
            self.state = "downloading"
            self.task._set_status(self.state)
        elif self.state == "downloading":
            self.state = "failed" if fail else "completed"
            if fail:
                self.task._fail(SegdlError("it broke"))
            else:
                self.task._set_status(self.state)

    @invariant()
    def agrees(self) -> None:
        assert self.task.status == self.state
        assert self.task.wait(timeout=0) is (self.state in FINAL)
        assert (self.task.error is not None) is (self.state == "failed")
        assert (self.task.phase == "done") is (self.state in FINAL)
        assert self.task.speed == 0.0
        assert self.task.eta is None
        if self.state == "completed":
            assert self.task.progress == 1.0


TaskMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=12)
test_any_sequence_of_calls_keeps_to_the_drawing = TaskMachine.TestCase


def test_resume_forgets_the_old_error() -> None:
    """A task that is tried again has not failed."""
    task = task_in("failed")
    assert task.error == "it broke"
    assert task.resume()
    assert task.error is None


@pytest.mark.parametrize("state", [s for s in STATES if s != "downloading"])
def test_speed_and_eta_are_of_a_running_download_only(state: str) -> None:
    """Whatever was measured last, a task that does not run has no speed."""
    task = task_in("downloading")
    task._speed, task._eta, task._connections = 1e6, 7, 4
    assert (task.speed, task.eta, task.connections) == (1e6, 7, 4)
    task._set_status(state)
    assert (task.speed, task.eta, task.connections) == (0.0, None, 0)


# --- waiting --------------------------------------------------------------------------


@pytest.mark.parametrize("state", FINAL)
def test_wait_for_what_has_ended(state: str) -> None:
    """No time passes for a task that is over."""
    assert task_in(state).wait()
    assert task_in(state).wait(timeout=0)


@pytest.mark.parametrize("state", [s for s in STATES if s not in FINAL])
def test_wait_gives_up_at_its_timeout(state: str) -> None:
    """A task that is not over: False, and TimeoutError of result and exception."""
    task = task_in(state)
    assert not task.wait(timeout=0)
    assert not task.wait(timeout=0.01)
    with pytest.raises(TimeoutError, match=state):
        task.result(timeout=0)
    with pytest.raises(TimeoutError, match=state):
        task.exception(timeout=0)


def test_result_of_each_ending() -> None:
    """The path, the error, or Cancelled."""
    completed = task_in("completed")
    completed._file_path = "/d/x"
    assert completed.result() == "/d/x"
    assert completed.exception() is None
    failed = task_in("failed")
    with pytest.raises(SegdlError, match="it broke"):
        failed.result()
    assert str(failed.exception()) == failed.error == "it broke"
    cancelled = task_in("cancelled")
    with pytest.raises(Cancelled):
        cancelled.result()
    assert isinstance(cancelled.exception(), Cancelled)
    assert cancelled.error is None


@pytest.mark.parametrize(
    "end",
    [
        lambda task: task.cancel(),
        lambda task: task._set_status("completed"),
        lambda task: task._fail(SegdlError("it broke")),
    ],
    ids=FINAL[::-1],
)
def test_every_waiting_thread_is_woken(end: Callable[[DownloadTask], Any]) -> None:
    """However a task ends, all who wait for it go on; those of others do not."""
    task, other = task_in("downloading"), task_in("downloading")
    woken: list[bool] = []
    ready = threading.Barrier(4)

    def wait() -> None:
        ready.wait(10)
        woken.append(task.wait(timeout=30))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    end(task)
    for thread in threads:
        thread.join(10)
    assert woken == [True] * 3
    assert not other.wait(timeout=0)


class Engine:
    """What a task asks of its engine, recorded."""

    def __init__(self) -> None:
        self.closed = False
        self.asked: list[tuple[str, str]] = []

    def _answer(self, what: str, task_id: str) -> bool:
        self.asked.append((what, task_id))
        return True

    def cancel_task(self, task_id: str) -> bool:
        return self._answer("cancel", task_id)

    def pause_task(self, task_id: str) -> bool:
        return self._answer("pause", task_id)

    def resume_task(self, task_id: str) -> bool:
        return self._answer("resume", task_id)


def test_task_of_an_engine_is_moved_by_it() -> None:
    """The methods of a submitted task ask its engine, and move nothing themselves."""
    engine, task = Engine(), task_in("pending")
    task._attach(engine)
    assert task.pause()
    assert task.resume()
    assert task.cancel()
    assert engine.asked == [(w, task.id) for w in ("pause", "resume", "cancel")]
    assert task.status == "pending"


def test_wait_ends_with_the_engine() -> None:
    """Nobody waits for a task that will never change again."""
    engine, task = Engine(), task_in("downloading")
    engine.closed = True
    task._attach(engine)
    assert not task.wait()
    with pytest.raises(TimeoutError):
        task.result()


FORKED = """
import os, signal, threading
from segdl import DownloadTask, task
held, go = threading.Event(), threading.Event()
def poll():
    with task._changed:
        held.set()
        go.wait()
thread = threading.Thread(target=poll)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)    # ends one that waits for a thread it does not have
    waited = DownloadTask("http://127.0.0.1/", "d").wait(0)
    os._exit(0 if waited is False else 9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
go.set()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_can_wait_while_its_parent_polls() -> None:
    """A thread of the parent that looks at its tasks does not lock the child's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["0"]
