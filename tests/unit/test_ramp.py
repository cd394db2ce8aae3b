"""The ramp: few lanes where they do, all where a connection is what limits."""

from __future__ import annotations

import pytest

from segdl._plan import MIB
from segdl._ramp import FEW, FIRST_SECONDS, Ramp

MOST = 16


class Run:
    """A ramp, and a download whose rate the test sets."""

    def __init__(self, most: int = MOST) -> None:
        self.ramp = Ramp(most)
        self.now = 1000.0
        self.received = 5 * MIB
        self.ramp.begin(self.now, self.received)

    def pass_time(self, seconds: float, mib_per_second: float) -> int:
        """Let time pass, with a look every 20 ms; give the number of lanes."""
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            self.received += int(mib_per_second * 0.02 * MIB)
            self.ramp.look(self.now, self.received)
        return self.ramp.lanes

    def fast(self) -> Run:
        """Pass the first look."""
        assert self.pass_time(FIRST_SECONDS + 0.02, 1000) == FEW
        return self


def test_all_lanes_where_nothing_is_begun() -> None:
    """Until it begins, a ramp holds nothing back."""
    ramp = Ramp(MOST)
    ramp.look(1000.0, 0)
    assert ramp.lanes == MOST


def test_few_lanes_at_first() -> None:
    """It begins with few, and waits for the first report."""
    assert Run().pass_time(FIRST_SECONDS - 0.02, 0) == FEW


@pytest.mark.parametrize("mib_per_second", [0, 1, 50])
def test_all_lanes_after_a_slow_moment(mib_per_second: float) -> None:
    """On an ordinary network all lanes are opened after the first look."""
    assert Run().pass_time(FIRST_SECONDS + 0.02, mib_per_second) == MOST


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_than_allowed(most: int) -> None:
    """What is allowed holds."""
    run = Run(most)
    assert run.pass_time(3, 2000) == most
    assert run.pass_time(3, 1) == most


def test_more_lanes_that_bring_nothing_are_given_up() -> None:
    """Twice the lanes at the same rate: back, and no further trial."""
    run = Run().fast()
    assert run.pass_time(0.42, 1000) == 2 * FEW
    assert run.pass_time(0.42, 1100) == FEW
    assert run.pass_time(5, 1500) == FEW


def test_more_lanes_that_help_stay() -> None:
    """As long as twice the lanes bring more, twice as many follow."""
    run = Run().fast()
    assert run.pass_time(0.42, 600) == 4
    assert run.pass_time(0.42, 1100) == 8
    assert run.pass_time(0.42, 2000) == 16
    assert run.pass_time(2, 600) == 16


@pytest.mark.parametrize("settled", [False, True])
def test_all_lanes_when_it_gets_slow(settled: bool) -> None:
    """A burst at the beginning does not leave a throttled download with few lanes."""
    run = Run().fast()
    if settled:
        run.pass_time(1, 1000)
    assert run.pass_time(0.84, 400) == MOST


def test_another_beginning() -> None:
    """Another source is tried with few lanes again."""
    run = Run()
    assert run.pass_time(1, 1) == MOST
    run.ramp.begin(run.now, run.received)
    assert run.ramp.lanes == FEW
    assert run.pass_time(FIRST_SECONDS + 0.02, 1) == MOST
