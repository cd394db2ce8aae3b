"""The ramp: few lanes where they do, more only as long as they help."""

from __future__ import annotations

import pytest

from segdl._plan import MIB
from segdl._ramp import (
    AUTO_CONNECTIONS,
    FEW,
    FIRST_SECONDS,
    START,
    Ramp,
    most_lanes,
)

MOST = AUTO_CONNECTIONS
# Longer than servers take to throttle a connection, and a look.
CLIMB_SECONDS = 1.04


class Run:
    """A ramp, and a download whose rate the test sets; all lanes are answered."""

    def __init__(self, most: int = MOST, *, few: bool = True) -> None:
        self.ramp = Ramp(most)
        self.now = 1000.0
        self.received = 5 * MIB
        self.unanswered = 0
        self.ramp.begin(self.now, self.received, few=few)

    def pass_time(self, seconds: float, mib_per_second: float) -> int:
        """Let time pass, with a look every 20 ms; give the number of lanes."""
        for _ in range(round(seconds / 0.02)):
            self.now += 0.02
            self.received += int(mib_per_second * 0.02 * MIB)
            answered = self.ramp.lanes - self.unanswered
            self.ramp.look(self.now, self.received, answered)
        return self.ramp.lanes

    def fast(self) -> Run:
        """Pass the first look."""
        assert self.pass_time(FIRST_SECONDS + 0.02, 1000) == FEW
        return self


def test_what_is_allowed() -> None:
    """A number that the user gives is the most; else it is ours."""
    assert (most_lanes(5), most_lanes("auto")) == (5, AUTO_CONNECTIONS)


def test_all_lanes_where_nothing_is_begun() -> None:
    """Until it begins, a ramp holds nothing back."""
    ramp = Ramp(MOST)
    for second in range(9):
        ramp.look(1000.0 + second, second, MOST)
    assert ramp.lanes == MOST


# --- few, to see whether the machine is what limits -----------------------------------


def test_few_lanes_at_first() -> None:
    """It begins with few, and waits for the first report."""
    assert Run().pass_time(FIRST_SECONDS - 0.02, 0) == FEW


@pytest.mark.parametrize("mib_per_second", [0, 1, 50])
def test_start_after_a_slow_moment(mib_per_second: float) -> None:
    """On an ordinary network it begins to climb after the first look."""
    assert Run().pass_time(FIRST_SECONDS + 0.02, mib_per_second) == START


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("few", [False, True])
def test_no_more_than_allowed(most: int, few: bool) -> None:
    """What is allowed holds."""
    run = Run(most, few=few)
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
    assert run.pass_time(0.42, 3000) == 32
    assert run.pass_time(0.42, 4000) == 32
    assert run.pass_time(2, 1000) == 32


@pytest.mark.parametrize("settled", [False, True])
def test_climb_when_it_gets_slow(settled: bool) -> None:
    """A burst at the beginning does not leave a throttled download with few lanes."""
    run = Run().fast()
    if settled:
        run.pass_time(1, 1000)
    assert run.pass_time(0.84, 400) == START
    assert run.pass_time(CLIMB_SECONDS, 400) == MOST, "it climbs from there"


def test_lanes_that_helped_stay_when_it_gets_slow() -> None:
    """More than it would begin to climb with are not given up for that."""
    run = Run().fast()
    for mib_per_second in (600, 1100, 2000, 3000):
        run.pass_time(0.42, mib_per_second)
    assert run.pass_time(5, 100) == MOST


# --- climbing -------------------------------------------------------------------------


def test_a_small_file_begins_with_start() -> None:
    """Where nothing can be learned of the machine, it climbs from the beginning."""
    assert Run(few=False).ramp.lanes == START
    assert Run(8, few=False).ramp.lanes == 8


def test_twice_the_lanes_after_a_second() -> None:
    """The first second says what START lanes bring; then twice as many are tried."""
    run = Run(few=False)
    assert run.pass_time(0.98, 10) == START
    assert run.pass_time(0.06, 10) == 2 * START


def test_lanes_beyond_start_that_help_stay() -> None:
    """They bring 15 % more: they are kept, and it goes on up to what is allowed."""
    run = Run(4 * START, few=False)
    assert run.pass_time(CLIMB_SECONDS, 10) == 2 * START
    assert run.pass_time(CLIMB_SECONDS, 12) == 4 * START
    assert run.pass_time(CLIMB_SECONDS, 14) == 4 * START
    assert run.pass_time(5, 1) == 4 * START, "for good"


def test_lanes_beyond_start_that_do_not_help_are_given_up() -> None:
    """Less than 15 % more: as before, for good."""
    run = Run(few=False)
    assert run.pass_time(CLIMB_SECONDS, 10) == 2 * START
    assert run.pass_time(CLIMB_SECONDS, 11) == START
    assert run.pass_time(9, 100) == START


def test_lanes_that_have_no_answer_yet_say_nothing() -> None:
    """The second begins when all that were opened have their answer."""
    run = Run(few=False)
    run.unanswered = 1
    assert run.pass_time(1.9, 10) == START
    run.unanswered = 0
    assert run.pass_time(0.9, 10) == START
    assert run.pass_time(0.2, 10) == 2 * START


def test_lanes_that_never_answer_are_not_waited_for() -> None:
    """After two seconds those count that live: the origin bears no more, say."""
    run = Run(few=False)
    run.unanswered = 5
    assert run.pass_time(1.98 + 0.98, 10) == START
    assert run.pass_time(0.1, 10) == 2 * START


def test_another_beginning() -> None:
    """Another source is tried with few lanes again."""
    run = Run()
    assert run.pass_time(1, 1) == START
    run.ramp.begin(run.now, run.received, few=True)
    assert run.ramp.lanes == FEW
    assert run.pass_time(FIRST_SECONDS + 0.02, 1) == START
