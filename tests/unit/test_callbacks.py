"""The callback thread: in order, one at a time, and no callback can harm it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from canary import until

from segdl._callbacks import Callbacks
from segdl._threads import start_without_signals

SECONDS = 20.0


@pytest.fixture
def callbacks() -> Iterator[Callbacks]:
    made = Callbacks()
    yield made
    made.close(SECONDS)


def drained(callbacks: Callbacks) -> None:
    """Let everything be called, and the thread end."""
    callbacks.close(SECONDS)
    assert not threads()


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "segdl-callbacks"]


def test_no_thread_before_it_is_needed(callbacks: Callbacks) -> None:
    """Registering starts nothing, and what nobody registered for is not queued."""
    callbacks.register("progress", print)
    callbacks.put("completion", 1)
    assert threads() == []


def test_calls_come_in_order_on_one_thread(callbacks: Callbacks) -> None:
    """What is put first is called first, whatever its kind."""
    got: list[tuple[str, int, int]] = []
    for kind in ("progress", "completion"):
        callbacks.register(
            kind, lambda n, kind=kind: got.append((kind, n, threading.get_ident()))
        )
    for number in range(200):
        callbacks.put(("progress", "completion")[number % 3 == 0], number)
    drained(callbacks)
    assert [number for _, number, _ in got] == list(range(200))
    assert [kind == "completion" for kind, _, _ in got] == [
        number % 3 == 0 for number in range(200)
    ]
    assert len({ident for _, _, ident in got} - {threading.get_ident()}) == 1


def test_functions_are_called_in_order_of_registration(callbacks: Callbacks) -> None:
    """All functions of a kind are called, the same one twice if registered twice."""
    got: list[str] = []
    first, second = (lambda _: got.append("first")), (lambda _: got.append("second"))
    for function in (first, second, first):
        callbacks.register("completion", function)
    callbacks.put("completion", None)
    drained(callbacks)
    assert got == ["first", "second", "first"]


def test_one_that_raises_harms_nobody(
    callbacks: Callbacks, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is logged with its traceback and the function's name; calls go on."""
    got: list[int] = []

    def broken(number: int) -> None:
        raise ValueError(f"number {number}")

    callbacks.register("completion", broken)
    callbacks.register("completion", got.append)
    callbacks.put("completion", 1)
    callbacks.put("completion", 2)
    drained(callbacks)
    assert got == [1, 2]
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert "broken" in caplog.records[0].getMessage()
    assert "number 1" in str(caplog.records[0].exc_info)


def test_callable_object_that_raises_is_named_by_its_class(
    callbacks: Callbacks, caplog: pytest.LogCaptureFixture
) -> None:
    """Not everything that can be called has a name."""

    class Broken:
        def __call__(self, _: Any) -> None:
            raise ValueError

    callbacks.register("completion", Broken())
    callbacks.put("completion", 1)
    drained(callbacks)
    assert "Broken" in caplog.records[0].getMessage()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_one_that_leaves_does_not_take_the_others_along(
    callbacks: Callbacks, error: type[BaseException]
) -> None:
    """sys.exit() in a callback ends neither the thread nor the program."""
    got: list[int] = []

    def leave(_: int) -> None:
        raise error

    callbacks.register("completion", leave)
    callbacks.register("completion", got.append)
    callbacks.put("completion", 1)
    callbacks.put("completion", 2)
    drained(callbacks)
    assert got == [1, 2]


def test_only_one_call_with_a_key_waits(callbacks: Callbacks) -> None:
    """While the thread is busy, a second report of a task is left out; a third too."""
    entered, release = threading.Event(), threading.Event()
    got: list[str] = []

    def slow(item: str) -> None:
        got.append(item)
        entered.set()
        release.wait(SECONDS)

    callbacks.register("progress", slow)
    callbacks.put("progress", "a1", once="a")
    assert entered.wait(SECONDS)
    for item in ("a2", "b1", "a3", "b2", "a4"):
        callbacks.put("progress", item, once=item[0])
    callbacks.put("progress", "always")
    callbacks.put("progress", "always")
    release.set()
    drained(callbacks)
    assert got == ["a1", "a2", "b1", "always", "always"]


def test_key_is_free_again_once_its_call_has_begun(callbacks: Callbacks) -> None:
    """Reports are left out only while one waits, not for ever."""
    got: list[int] = []
    called = threading.Semaphore(0)
    callbacks.register("progress", lambda n: (got.append(n), called.release()))
    for number in range(5):
        callbacks.put("progress", number, once="key")
        assert called.acquire(timeout=SECONDS)
    drained(callbacks)
    assert got == [0, 1, 2, 3, 4]


def test_close_calls_what_waits_and_nothing_after(callbacks: Callbacks) -> None:
    """What was put before close is called; what comes later is not."""
    got: list[int] = []
    callbacks.register("completion", got.append)
    for number in range(50):
        callbacks.put("completion", number)
    callbacks.close(None)
    callbacks.put("completion", 50)
    callbacks.close(None)
    assert got == list(range(50))
    assert threads() == []


def test_close_without_a_thread() -> None:
    """Closing what was never used does nothing."""
    unused = Callbacks()
    unused.close(None)
    unused.put("completion", 1)
    assert threads() == []


def test_close_does_not_wait_for_a_stuck_callback_for_ever() -> None:
    """With a limit close returns, and the stuck function goes on."""
    callbacks = Callbacks()
    entered, release = threading.Event(), threading.Event()

    def stuck(_: int) -> None:
        entered.set()
        release.wait(SECONDS)

    callbacks.register("completion", stuck)
    callbacks.put("completion", 1)
    assert entered.wait(SECONDS)
    callbacks.close(0.01)
    assert len(threads()) == 1
    release.set()
    drained(callbacks)


def test_close_inside_a_callback() -> None:
    """A callback that closes does not wait for itself."""
    callbacks = Callbacks()
    closed = threading.Event()

    def close(_: int) -> None:
        callbacks.close(None)
        closed.set()

    callbacks.register("completion", close)
    callbacks.put("completion", 1)
    assert closed.wait(SECONDS)
    drained(callbacks)


def test_register_inside_a_callback(callbacks: Callbacks) -> None:
    """A function registered by a callback is called from the next one on."""
    got: list[int] = []
    callbacks.register(
        "completion", lambda _: callbacks.register("completion", got.append)
    )
    callbacks.put("completion", 1)
    callbacks.put("completion", 2)
    drained(callbacks)
    assert got == [2]


@pytest.mark.parametrize("function", [None, 3, "print", []])
def test_what_can_not_be_called_is_refused(callbacks: Callbacks, function: Any) -> None:
    """A mistake shows where it is made, not later on another thread."""
    with pytest.raises(TypeError, match=type(function).__name__):
        callbacks.register("progress", function)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks")
def test_functions_run_with_the_signals_of_the_program(callbacks: Callbacks) -> None:
    """What they start can be ended by SIGTERM, though the thread itself takes none."""
    seen: list[set[int]] = []

    def look(_: object) -> None:
        seen.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, ())))

    callbacks.register("completion", look)
    start_without_signals(
        threading.Thread(target=callbacks.put, args=("completion", 1))
    )
    until(lambda: seen)
    drained(callbacks)
    assert signal.SIGTERM not in seen[0]
    assert signal.SIGINT not in seen[0]
