"""The queue's contract: order, no doubles, no removed task, no growth."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl.errors import UsageError
from segdl.queue import DownloadQueue


@dataclass
class Item:
    id: str
    priority: int = 0


Queue = DownloadQueue[Item]


def drain(queue: Queue) -> list[str]:
    served = []
    while (item := queue.get_next_task()) is not None:
        served.append(item.id)
    return served


def test_smaller_priority_is_served_first_and_equal_ones_in_order_of_adding() -> None:
    """Smaller numbers come first, negative ones too; equal ones keep their order."""
    queue = Queue()
    for item in (Item("a", 5), Item("b", -1), Item("c", 5), Item("d", 0)):
        queue.add_task(item)
    assert [item.id for item in queue.get_all_tasks()] == ["b", "d", "a", "c"]
    assert drain(queue) == ["b", "d", "a", "c"]


def test_the_object_itself_is_handed_out() -> None:
    """The queue returns the task that was added, not a copy."""
    queue, item = Queue(), Item("a")
    queue.add_task(item)
    assert queue.get_all_tasks()[0] is item
    assert queue.get_next_task() is item


def test_an_empty_queue_hands_out_none() -> None:
    """An empty queue gives None, has no length and lists nothing."""
    queue = Queue()
    assert queue.get_next_task() is None
    assert len(queue) == 0
    assert queue.get_all_tasks() == []


def test_adding_twice_keeps_one_at_its_first_place() -> None:
    """A second add of a waiting task changes neither length nor place."""
    queue, first = Queue(), Item("a")
    for item in (first, Item("b"), first, Item("a", -5)):
        queue.add_task(item)
    assert len(queue) == 2
    assert drain(queue) == ["a", "b"]


def test_a_removed_task_is_never_handed_out() -> None:
    """Removing tells whether the task was there, and takes it out for good."""
    queue = Queue()
    for name in "abc":
        queue.add_task(Item(name))
    assert queue.remove_task("b") is True
    assert queue.remove_task("b") is False
    assert queue.remove_task("unknown") is False
    assert len(queue) == 2
    assert drain(queue) == ["a", "c"]


def test_a_task_added_again_after_removal_takes_the_place_of_its_new_priority() -> None:
    """The dead entry of an earlier stay does not stand for the new one."""
    queue = Queue()
    queue.add_task(Item("a", 0))
    queue.add_task(Item("b", 1))
    queue.remove_task("a")
    queue.add_task(Item("a", 2))
    assert [item.id for item in queue.get_all_tasks()] == ["b", "a"]
    assert drain(queue) == ["b", "a"]


def test_a_served_task_can_be_added_again() -> None:
    """A task that was handed out is not in the queue any more."""
    queue, item = Queue(), Item("a")
    queue.add_task(item)
    assert queue.get_next_task() is item
    assert queue.remove_task("a") is False
    queue.add_task(item)
    assert drain(queue) == ["a"]


def test_clear_empties_and_the_queue_works_on() -> None:
    """After clear nothing old is handed out."""
    queue = Queue()
    queue.add_task(Item("a"))
    queue.clear()
    assert len(queue) == 0
    queue.add_task(Item("b"))
    assert drain(queue) == ["b"]


@pytest.mark.parametrize("call", ["get_next_task", "get_all_tasks"])
def test_a_signal_handler_may_remove_a_task_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """It comes in between, on the thread that has the lock, and takes what is next."""
    queue = Queue()
    for name in "abc":
        queue.add_task(Item(name))
    is_waiting = queue._is_waiting

    def interrupted(entry: tuple[int, int, str]) -> bool:
        answer = is_waiting(entry)
        queue.remove_task("a")
        return answer

    monkeypatch.setattr(queue, "_is_waiting", interrupted)
    served = getattr(queue, call)()
    monkeypatch.undo()
    if call == "get_next_task":
        assert served.id == "b"
        assert drain(queue) == ["c"]
    else:  # it does not look at them one by one, so nothing comes in between
        assert [item.id for item in served] == ["a", "b", "c"]


def test_the_listing_is_the_callers_own() -> None:
    """Changing the list from get_all_tasks leaves the queue alone."""
    queue = Queue()
    queue.add_task(Item("a"))
    queue.get_all_tasks().clear()
    assert len(queue) == 1


@pytest.mark.parametrize("priority", ["1", None, 1.5])
def test_a_priority_that_is_no_integer_is_refused(priority: Any) -> None:
    """A priority that cannot be ordered is refused and leaves the queue whole."""
    queue = Queue()
    queue.add_task(Item("a", 1))
    with pytest.raises(UsageError, match="priority must be an integer"):
        queue.add_task(Item("b", priority))
    assert drain(queue) == ["a"]


def test_adding_and_removing_does_not_grow_the_heap() -> None:
    """Dead entries are swept: 10,000 removals leave a heap of a small size."""
    queue = Queue()
    queue.add_task(Item("kept", 1_000_000))
    for number in range(10_000):
        queue.add_task(Item(str(number), number))
        queue.remove_task(str(number))
    assert len(queue._heap) <= 130
    assert drain(queue) == ["kept"]


def test_each_task_is_handed_out_once_to_many_threads() -> None:
    """Eight threads that add and take together get every task exactly once."""
    queue = Queue()
    served: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def work(worker: int) -> None:
        start.wait(timeout=30)
        for number in range(250):
            queue.add_task(Item(f"{worker}-{number}", number % 7))
            if (item := queue.get_next_task()) is not None:
                served[worker].append(item.id)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    taken = sorted([name for names in served for name in names] + drain(queue))
    assert taken == sorted(f"{w}-{n}" for w in range(8) for n in range(250))


Step = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 9), st.integers(-3, 3)),
    st.tuples(st.just("remove"), st.integers(0, 9), st.just(0)),
    st.tuples(st.just("take"), st.just(0), st.just(0)),
    st.tuples(st.just("clear"), st.just(0), st.just(0)),
)


@given(st.lists(Step, max_size=60))
def test_it_behaves_as_a_sorted_list_does(steps: list[tuple[str, int, int]]) -> None:
    """Any sequence of calls gives what a list kept in serving order would give."""
    queue, model, turn = Queue(), [], 0
    for action, number, priority in steps:
        name = str(number)
        if action == "add":
            queue.add_task(Item(name, priority))
            if name not in [entry[2] for entry in model]:
                model.append((priority, turn, name))
                model.sort()
                turn += 1
        elif action == "remove":
            there = [entry for entry in model if entry[2] == name]
            assert queue.remove_task(name) is bool(there)
            model = [entry for entry in model if entry[2] != name]
        elif action == "take":
            item = queue.get_next_task()
            expected = model.pop(0)[2] if model else None
            assert (item.id if item else None) == expected
        else:
            queue.clear()
            model.clear()
        assert [i.id for i in queue.get_all_tasks()] == [e[2] for e in model]
        assert len(queue) == len(model)
