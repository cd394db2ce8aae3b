"""The threads that wait for the disk."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from segdl import _helpers
from segdl._helpers import Helpers

SECONDS = 30.0


@pytest.fixture
def helpers() -> Iterator[Helpers]:
    """Give threads that end with the test."""
    made = Helpers("helper")
    yield made
    made.close(SECONDS)


def threads() -> list[threading.Thread]:
    """List those that are there."""
    return [each for each in threading.enumerate() if each.name == "helper"]


def done(helpers: Helpers, work: Callable[[], None] = lambda: None) -> int | None:
    """Have something done, and wait for it; give the thread it was done on."""
    ended = threading.Event()
    seen: list[int] = []

    def run() -> None:
        work()
        seen.append(threading.get_ident())
        ended.set()

    helpers.run(run)
    return seen[0] if ended.wait(SECONDS) else None


def until_idle(helpers: Helpers, count: int) -> None:
    """Wait until so many have nothing to do."""
    moment = threading.Event()
    for _ in range(3000):
        with helpers._lock:
            if len(helpers._idle) - helpers._promised == count:
                return
        moment.wait(0.01)
    raise AssertionError(f"{len(helpers._idle)} are idle, not {count}")


def test_one_thread_does_one_after_the_other(helpers: Helpers) -> None:
    """No thread is started while one is idle."""
    first = done(helpers)
    assert first is not None
    for _ in range(20):
        until_idle(helpers, 1)
        assert done(helpers) == first


def test_work_that_hangs_holds_nothing_up(helpers: Helpers) -> None:
    """What comes while others hang, as with a dead disk, is done at once."""
    goes_on = threading.Event()
    begun = threading.Semaphore(0)

    def hang() -> None:
        begun.release()
        goes_on.wait(SECONDS)

    for _ in range(5):
        helpers.run(hang)
    for _ in range(5):
        assert begun.acquire(timeout=SECONDS)
    try:
        assert done(helpers) is not None
        until_idle(helpers, 1)
        helpers.run(hang)  # the idle one hangs, too
        assert begun.acquire(timeout=SECONDS)
        assert done(helpers) is not None
    finally:
        goes_on.set()
    until_idle(helpers, 7)


def test_close_ends_the_idle_and_does_not_wait_for_the_others() -> None:
    """One that hangs ends after its work; none is left."""
    helpers = Helpers("helper")
    goes_on, begun = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        goes_on.wait(SECONDS)

    helpers.run(hang)
    assert begun.wait(SECONDS)
    assert done(helpers) is not None
    until_idle(helpers, 1)
    helpers.close(SECONDS)
    (hanging,) = threads()
    assert hanging.daemon
    goes_on.set()
    hanging.join(SECONDS)
    assert threads() == []


def test_not_all_are_kept(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    """After many at a time, few wait for more."""
    monkeypatch.setattr(_helpers, "_MOST_IDLE", 2)
    together = threading.Barrier(6)
    for _ in range(5):
        helpers.run(lambda: together.wait(SECONDS) and None)
    together.wait(SECONDS)
    until_idle(helpers, 2)


@pytest.mark.skipif(
    not hasattr(signal, "pthread_sigmask"), reason="signals can't be blocked"
)
def test_they_take_no_signals(helpers: Helpers) -> None:
    """A Ctrl-C is the program's own."""
    blocked: set[int] = set()
    done(helpers, lambda: blocked.update(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    assert {signal.SIGINT, signal.SIGTERM} <= blocked


def test_without_a_thread(helpers: Helpers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks is told that none can be started, as long as none is idle."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    assert done(helpers) is not None
    until_idle(helpers, 1)
    monkeypatch.setattr(_helpers, "start_without_signals", refuse)
    assert done(helpers) is not None
    goes_on = threading.Event()
    until_idle(helpers, 1)
    helpers.run(lambda: goes_on.wait(SECONDS) and None)
    try:
        with pytest.raises(RuntimeError):
            helpers.run(lambda: None)
    finally:
        goes_on.set()
