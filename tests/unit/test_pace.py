"""Lanes that are far slower than usual: which is replaced, and when."""

from __future__ import annotations

from segdl._pace import Pace
from segdl._plan import Segment
from segdl._sources import Lane, Source

SOURCE = Source("https://example.org/a.bin")
REST = Segment(0, 100_000, 0)


def lane(began: float, *moments: tuple[float, int]) -> Lane:
    """Give a lane that received so much by each of some moments."""
    made = Lane(0, SOURCE, SOURCE.url, False, 0, began)
    made.meter.add(began, 0)
    for moment, received in moments:
        made.received = received
        made.meter.add(moment, received)
    return made


def paced() -> Pace:
    """Give a pace that has seen a lane of 1 MB/s."""
    pace = Pace()
    pace.ended(lane(0.0, (10.0, 10_000_000)), 10.0)
    return pace


def test_lane_far_slower_than_usual() -> None:
    """It is replaced after two seconds, the next one after four."""
    pace = paced()
    slow = lane(10.0, (11.0, 1000), (11.9, 1900))
    assert pace.too_slow({1: slow}, {1: REST}, 11.9) is None
    slow.meter.add(12.1, 2100)
    assert pace.too_slow({1: slow}, {1: REST}, 12.1) == 1
    after = lane(12.1, (15.0, 1000), (16.0, 2000))
    assert pace.too_slow({2: after}, {2: REST}, 16.0) is None
    after.meter.add(16.2, 2200)
    assert pace.too_slow({2: after}, {2: REST}, 16.2) == 2


def test_lane_that_is_only_slower() -> None:
    """Half of the usual speed is no reason."""
    slow = lane(10.0, (13.0, 1_500_000))
    assert paced().too_slow({1: slow}, {1: REST}, 13.0) is None


def test_lane_that_is_done_soon() -> None:
    """A new connection would take as long."""
    slow = lane(10.0, (13.0, 30_000))
    segments = {1: Segment(0, 20_000, 0)}
    assert paced().too_slow({1: slow}, segments, 13.0) is None


def test_nothing_is_slow_while_nothing_is_usual() -> None:
    """Neither a lane that brought little, nor one that was stopped, sets a pace."""
    pace = Pace()
    pace.ended(lane(0.0, (0.1, 60_000)), 0.1)
    stopped = lane(0.0, (0.1, 10_000_000))
    stopped.stopping = True
    pace.ended(stopped, 0.1)
    slow = lane(10.0, (13.0, 10))
    assert pace.too_slow({1: slow}, {1: REST}, 13.0) is None


def test_lanes_that_are_about_to_change() -> None:
    """One that is held, stopped or split, or has no segment, is left alone."""
    pace = paced()
    for attribute in ("held", "stopping", "splitting"):
        slow = lane(10.0, (13.0, 10))
        setattr(slow, attribute, True)
        assert pace.too_slow({1: slow}, {1: REST}, 13.0) is None
    assert pace.too_slow({1: lane(10.0, (13.0, 10))}, {}, 13.0) is None
