"""Lanes that are far slower than their neighbours: which is replaced, and when."""

from __future__ import annotations

import pytest

from segdl._pace import Pace
from segdl._plan import Segment
from segdl._sources import Lane, Source

SOURCE = Source("https://example.org/a.bin")
REST = Segment(0, 100_000_000, 0)


def lane(began: float, *moments: tuple[float, int]) -> Lane:
    """Give a lane that received so much by each of some moments."""
    made = Lane(0, SOURCE, SOURCE.url, False, 0, began)
    made.meter.add(began, 0)
    for moment, received in moments:
        made.received = received
        made.meter.add(moment, received)
    return made


def steady(now: float, bytes_per_second: int) -> Lane:
    """Give a lane that has brought as much in each of its last two seconds."""
    return lane(
        now - 2.0,
        *((now - 2.0 + i / 10, bytes_per_second * i // 10) for i in range(1, 21)),
    )


def three(now: float, slow: int) -> dict[int, Lane]:
    """Give two lanes of 1 MB/s, and one of another speed."""
    return {1: steady(now, 1_000_000), 2: steady(now, 1_000_000), 3: steady(now, slow)}


ALL = dict.fromkeys((1, 2, 3, 4), REST)


def test_a_lane_below_a_quarter_of_the_median() -> None:
    """It is replaced."""
    assert Pace().too_slow(three(10.0, 240_000), ALL, 10.0) == 3


def test_a_lane_that_is_only_slower() -> None:
    """A quarter of the median is no reason."""
    assert Pace().too_slow(three(10.0, 260_000), ALL, 10.0) is None


def test_two_lanes_say_nothing() -> None:
    """A median of fewer than three is none."""
    lanes = three(10.0, 10)
    del lanes[1]
    assert Pace().too_slow(lanes, ALL, 10.0) is None


def test_each_pause_is_twice_as_long() -> None:
    """The next connection may be as slow: after each, twice as long is waited."""
    pace, now, pauses = Pace(), 10.0, []
    assert pace.too_slow(three(now, 10), ALL, now) == 3
    for _ in range(10):
        begun = now
        while pace.too_slow(three(now, 10), ALL, now) is None:
            now += 0.125
        pauses.append(now - begun)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0]


def test_the_slowest_goes_first() -> None:
    """Of two that are slow, the slower one."""
    lanes = three(10.0, 100_000) | {4: steady(10.0, 10_000)}
    assert Pace().too_slow(lanes, ALL, 10.0) == 4


def test_a_lane_that_is_done_soon() -> None:
    """A new connection would take as long."""
    segments = ALL | {3: Segment(0, 200_000, 0)}
    assert Pace().too_slow(three(10.0, 100_000), segments, 10.0) is None


def test_a_lane_that_has_only_just_begun() -> None:
    """What comes in the first second and a half says little."""
    lanes = three(10.0, 10)
    lanes[3].began = 8.6
    assert Pace().too_slow(lanes, ALL, 10.0) is None


@pytest.mark.parametrize("attribute", ["held", "stopping", "splitting"])
def test_lanes_that_are_about_to_change(attribute: str) -> None:
    """One that is held, stopped or split is left alone."""
    lanes = three(10.0, 10)
    setattr(lanes[3], attribute, True)
    assert Pace().too_slow(lanes, ALL, 10.0) is None


def test_a_lane_without_a_segment() -> None:
    """One that has nothing of its own to bring is left alone."""
    segments = {1: REST, 2: REST}
    assert Pace().too_slow(three(10.0, 10), segments, 10.0) is None


# --- what is usual --------------------------------------------------------------------


def test_the_usual_speed() -> None:
    """It is that of the lanes that ended, the last one as much as all before it."""
    pace = Pace()
    assert pace.usual == 0.0
    pace.ended(lane(0.0, (10.0, 10_000_000)), 10.0)
    assert pace.usual == 1_000_000
    pace.ended(lane(0.0, (10.0, 30_000_000)), 10.0)
    assert pace.usual == 2_000_000


def test_lanes_that_tell_nothing_of_speeds() -> None:
    """Neither one that brought little, nor one that was stopped, sets a pace."""
    pace = Pace()
    pace.ended(lane(0.0, (0.1, 60_000)), 0.1)
    stopped = lane(0.0, (0.1, 10_000_000))
    stopped.stopping = True
    pace.ended(stopped, 0.1)
    assert pace.usual == 0.0
