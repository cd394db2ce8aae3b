"""When one more worker is started: all are saturated, and a processor idles."""

from __future__ import annotations

import psutil

from segdl._saturation import LOOK_SECONDS, Saturation, idle_seconds


class Machine:
    """Processors that idle as much as the test says, and the looks at them."""

    def __init__(self, idle: float) -> None:
        self.idle = idle
        self.now = 1000.0
        self.asked = 0
        self.saturation = Saturation(self.idle_seconds)

    def idle_seconds(self) -> float:
        """Give what all processors together have idled."""
        self.asked += 1
        return self.idle * self.now

    def look(self, *busy: float, seconds: float = LOOK_SECONDS) -> bool:
        """Let time pass, and look."""
        self.now += seconds
        return self.saturation.look(busy, self.now)

    def looks(self, times: int, *busy: float) -> list[bool]:
        """Look some times."""
        return [self.look(*busy) for _ in range(times)]


def test_saturated_workers_beside_an_idle_processor() -> None:
    """After three looks in a row that are borne out, and then from the beginning."""
    machine = Machine(0.6)
    assert machine.looks(8, 0.9, 1.0) == [False, False, False, True] * 2


def test_no_processor_idles() -> None:
    """Where client and server share the machine, one more would only cost."""
    assert not any(Machine(0.4).looks(20, 1.0))


def test_one_worker_has_time() -> None:
    """It can take more lanes; nobody asks for processors then."""
    machine = Machine(2.0)
    assert not any(machine.looks(20, 1.0, 0.8))
    assert machine.asked == 0


def test_a_look_between_ends_the_row() -> None:
    """What counts is saturation that lasts."""
    machine = Machine(2.0)
    for _ in range(5):
        assert not any(machine.looks(3, 1.0))
        assert not machine.look(0.5)


def test_looks_that_follow_at_once_do_not_count() -> None:
    """However often it is asked, three looks take their time."""
    machine = Machine(2.0)
    assert not any(machine.look(1.0, seconds=LOOK_SECONDS / 4) for _ in range(12))
    assert machine.look(1.0, seconds=LOOK_SECONDS)


def test_no_worker_has_lanes() -> None:
    """Nothing is saturated."""
    assert not any(Machine(2.0).looks(20))


def test_what_the_processors_idled() -> None:
    """It is what psutil tells: idle, or waiting for the disk."""
    before, found = psutil.cpu_times(), idle_seconds()
    assert found >= before.idle + getattr(before, "iowait", 0.0)
