"""_health: which workers have to be ended, and which only look so."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from segdl import _health
from segdl._health import Health
from segdl._processes import Worker

MIB = 1 << 20


@dataclass
class FakeWorker:
    """A worker's face, without a process."""

    pid: int | None = 7
    lanes: int = 0
    silent_seconds: float = 0.0
    ailing: str | None = None


@dataclass
class FakeProcess:
    """What psutil says of it."""

    state: str = psutil.STATUS_SLEEPING
    taken: int = 30 * MIB
    gone: bool = False

    def status(self) -> str:
        """Give its state."""
        if self.gone:
            raise psutil.NoSuchProcess(7)
        return self.state

    def memory_info(self) -> SimpleNamespace:
        """Give its memory."""
        if self.gone:
            raise psutil.NoSuchProcess(7)
        return SimpleNamespace(rss=self.taken)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    """Give the only process there is."""
    fake = FakeProcess()
    monkeypatch.setattr(psutil, "Process", lambda _: fake)
    return fake


def ended(worker: FakeWorker, seconds: float, step: float = 0.1) -> bool:
    """Look for so long; tell whether the worker had to be ended, once."""
    health = Health(0.0)
    found: list[Worker] = []
    for tick in range(1, int(seconds / step) + 1):
        found += health.look([cast("Worker", worker)], tick * step)
    assert len(found) in (0, 1)
    assert bool(found) == (worker.ailing is not None)
    return bool(found)


def test_silent_worker_is_ended(process: FakeProcess) -> None:
    """One that is not heard of for a minute hangs, whatever its state."""
    worker = FakeWorker()
    assert not ended(worker, 58)
    process.state = psutil.STATUS_STOPPED
    assert ended(worker, 4)
    assert worker.ailing == "was silent for 60 s"


def test_worker_that_waits_for_a_disk_is_left_alone(process: FakeProcess) -> None:
    """It could not be ended, and is not at fault."""
    process.state = psutil.STATUS_DISK_SLEEP
    assert not ended(FakeWorker(), 200)


@pytest.mark.usefixtures("process")
@pytest.mark.parametrize("gap", [100.0, 86_400.0])
def test_time_the_parent_slept_does_not_count(gap: float) -> None:
    """After a suspend all workers have been silent for long."""
    worker = cast("Worker", FakeWorker())
    health = Health(0.0)
    for look in range(1, 50):
        assert health.look([worker], look * gap) == []
    assert worker.silent_seconds == 49 * _health._LOOK_SECONDS


@pytest.mark.parametrize(
    ("taken", "lanes", "expected"),
    [
        (512 * MIB, 0, False),
        (513 * MIB, 0, True),
        (760 * MIB, 16, False),
        (769 * MIB, 16, True),
    ],
)
def test_worker_that_takes_much_memory_is_ended(
    process: FakeProcess, taken: int, lanes: int, expected: bool
) -> None:
    """How much is much depends on its lanes."""
    process.taken = taken
    worker = FakeWorker(lanes=lanes)
    assert ended(worker, 3) == expected
    if expected:
        assert worker.ailing == f"took {taken // MIB} MiB of memory"


def test_threads_and_the_dead_are_left_alone(process: FakeProcess) -> None:
    """A thread can't be ended; of a process that died others tell."""
    process.taken = 10**12
    assert not ended(FakeWorker(pid=None), 100)
    process.gone = True
    assert not ended(FakeWorker(), 100)
