"""Rate, time left and events, on a clock that the test holds."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl.progress import EVENT_KINDS, RateMeter, TaskEvent, eta_seconds


def test_a_meter_without_samples_shows_no_rate() -> None:
    """No sample, and a first sample alone, give 0.0."""
    meter = RateMeter()
    assert meter.rate(100.0) == 0.0
    meter.add(100.0, 0)
    assert meter.rate(101.0) == 0.0


def test_a_steady_stream_shows_its_rate() -> None:
    """100 bytes every 0.1 s are 1000 bytes/s, within and beyond the first window."""
    meter = RateMeter(3.0)
    meter.add(50.0, 0)
    for step in range(1, 101):
        now = 50.0 + step * 0.1
        meter.add(now, step * 100)
        assert meter.rate(now) == pytest.approx(1000.0)


def test_resumed_bytes_never_count() -> None:
    """The first sample's value is where counting begins."""
    meter = RateMeter()
    meter.add(0.0, 5_000_000_000)
    meter.add(1.0, 5_000_001_000)
    assert meter.rate(1.0) == 1000.0


def test_the_rate_falls_while_nothing_comes_and_is_zero_after_a_window() -> None:
    """A stall shows at once as a falling rate, and as 0.0 after one window."""
    meter = RateMeter(3.0)
    meter.add(0.0, 0)
    meter.add(1.0, 300)
    rates = [meter.rate(now) for now in (1.0, 2.0, 3.0, 3.5, 4.0, 1000.0)]
    assert rates == [300.0, 150.0, 100.0, 50.0, 0.0, 0.0]


def test_reports_without_new_bytes_do_not_keep_the_rate_up() -> None:
    """Samples of a counter that stands still count as nothing coming."""
    meter = RateMeter(3.0)
    meter.add(0.0, 0)
    for step in range(1, 41):
        meter.add(step * 0.1, 300)
    assert meter.rate(4.0) == 0.0


def test_the_window_forgets_what_is_older() -> None:
    """A fast first second does not show in the rate ten seconds later."""
    meter = RateMeter(3.0)
    meter.add(0.0, 0)
    meter.add(1.0, 1_000_000)
    for step in range(2, 11):
        meter.add(float(step), 1_000_000 + (step - 1) * 10)
    assert meter.rate(10.0) == pytest.approx(10.0)


def test_a_counter_that_goes_backwards_counts_on_from_there() -> None:
    """A restart adds nothing for the fall, then counts what comes."""
    meter = RateMeter(10.0)
    meter.add(0.0, 0)
    meter.add(1.0, 1000)
    meter.add(2.0, 0)
    assert meter.rate(2.0) == 500.0
    meter.add(4.0, 200)
    assert meter.rate(4.0) == 300.0


def test_samples_at_one_moment_add_up() -> None:
    """A sample at the time of the last one counts, and divides by nothing."""
    meter = RateMeter(3.0)
    for total in (0, 100, 200, 300):
        meter.add(5.0, total)
    assert meter.rate(5.0) == pytest.approx(3000.0)
    assert meter.rate(6.0) == 300.0


def test_a_clock_that_goes_backwards_is_read_as_standing_still() -> None:
    """An earlier time than the last is taken as the last; nothing is negative."""
    meter = RateMeter(3.0)
    meter.add(5.0, 0)
    meter.add(6.0, 100)
    meter.add(4.0, 200)
    assert meter.rate(1.0) == 200.0
    assert meter.rate(6.0) == 200.0


def test_a_first_burst_is_spread_over_one_bucket() -> None:
    """A buffer a microsecond after the start is no rate of terabytes a second."""
    meter = RateMeter(3.0)
    meter.add(0.0, 0)
    meter.add(1e-6, 1000)
    assert meter.rate(1e-6) == pytest.approx(10_000.0)


def test_memory_is_bounded_however_often_it_is_fed() -> None:
    """A hundred thousand samples in one window keep a few dozen."""
    meter = RateMeter(3.0)
    for number in range(100_000):
        meter.add(number * 0.0001, number)
    assert len(meter._samples) <= 64
    assert meter.rate(9.9999) == pytest.approx(10_000.0)


def test_reset_forgets() -> None:
    """After a reset the next sample is a first one again."""
    meter = RateMeter()
    meter.add(0.0, 0)
    meter.add(1.0, 1000)
    meter.reset()
    assert meter.rate(1.0) == 0.0
    meter.add(2.0, 9000)
    meter.add(3.0, 9500)
    assert meter.rate(3.0) == 500.0


@pytest.mark.parametrize("window", [0.0, -1.0, math.nan, math.inf])
def test_a_window_must_be_above_zero(window: float) -> None:
    """A window that cannot be divided by is refused."""
    with pytest.raises(ValueError, match="window_seconds must be above 0"):
        RateMeter(window)


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.integers(-(2**40), 2**40)),
        min_size=1,
        max_size=60,
    )
)
def test_the_rate_is_within_what_came(steps: list[tuple[float, int]]) -> None:
    """Whatever comes, the rate is finite, not negative, and explained by the bytes."""
    meter, now, total, received = RateMeter(3.0), 1000.0, 2**45, 0
    meter.add(now, total)
    for wait, change in steps:
        now, total = now + wait, total + change
        received += max(0, change)
        meter.add(now, total)
        assert 0.0 <= meter.rate(now) <= received / 0.1 * (1 + 1e-9)
    # Not 3.0: (now + 3.0) - 3.0 may round to just below now.
    assert meter.rate(now + 3.000001) == 0.0


@pytest.mark.parametrize(
    ("remaining_bytes", "rate", "expected"),
    [
        (1000, 100.0, 10),
        (1001, 100.0, 11),
        (1, 1e9, 1),
        (0, 0.0, 0),
        (0, 100.0, 0),
        (1000, 0.0, None),
        (1000, -1.0, None),
        (1000, math.nan, None),
        (-1, 100.0, None),
        (2**63, 5e-324, None),
    ],
)
def test_time_left(remaining_bytes: int, rate: float, expected: int | None) -> None:
    """Whole seconds rounded up, None where it cannot be told."""
    assert eta_seconds(remaining_bytes, rate) == expected


def event(**changes: Any) -> TaskEvent:
    given_fields: dict[str, Any] = {
        "kind": "retry",
        "task_id": "t1",
        "url": "https://example.org/f?...",
        "time": 1700000000.25,
        "fields": {"reason": "reset", "attempt": 2, "delay": 5.0},
    }
    return TaskEvent(**{**given_fields, **changes})


def test_an_event_is_one_flat_json_object() -> None:
    """The own keys come first, then the fields; the object survives JSON."""
    made = event().to_json()
    assert list(made) == ["event", "time", "task", "url", "reason", "attempt", "delay"]
    assert json.loads(json.dumps(made)) == {
        "event": "retry",
        "time": 1700000000.25,
        "task": "t1",
        "url": "https://example.org/f?...",
        "reason": "reset",
        "attempt": 2,
        "delay": 5.0,
    }


def test_an_event_without_fields_has_its_own_keys_alone() -> None:
    """Fields may be left out."""
    made = TaskEvent(kind="start", task_id="t1", url="u", time=1.0).to_json()
    assert made == {"event": "start", "time": 1.0, "task": "t1", "url": "u"}


def test_events_survive_pickling() -> None:
    """An event is plain data."""
    assert pickle.loads(pickle.dumps(event())) == event()


def test_the_kinds_are_those_of_the_contract() -> None:
    """Programs that read the JSON lines rely on these names."""
    assert sorted(EVENT_KINDS) == [
        "cancelled",
        "completed",
        "failed",
        "progress",
        "resumed",
        "retry",
        "start",
    ]


def test_an_unknown_kind_is_refused() -> None:
    """A kind that no reader knows is a mistake of the program."""
    with pytest.raises(ValueError, match="unknown kind of event: 'finished'"):
        event(kind="finished")


@pytest.mark.parametrize("key", ["event", "time", "task", "url"])
def test_a_field_cannot_take_the_place_of_an_own_key(key: str) -> None:
    """A field named as an own key would hide it."""
    with pytest.raises(ValueError, match=f"sets these keys itself: {key}"):
        event(fields={key: "x"})
