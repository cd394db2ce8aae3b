"""Statuses that are no success, and when they are asked again (rows 41, 42)."""

from __future__ import annotations

import pytest
from http_checks import (
    MIB,
    NAME,
    check_failed,
    check_whole,
    names,
    recorded_bytes,
    until,
)

from segdl.errors import StatusError

SIZE = 20 * MIB + 5
RATE = 24 * MIB


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524])
def test_42_status_that_passes(origin, fetch, status) -> None:
    """What passes by itself is asked again, within the budget."""
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}@req1,3"))
    check_whole(task, origin.blob(1, SIZE))


def test_42_status_that_does_not_pass_in_time(origin, fetch, out) -> None:
    """One failure more than the budget ends the task."""
    task = fetch(origin.blob_url(1, SIZE, f="status=500@req1,4"), retry_times=3)
    error = check_failed(task, StatusError, "500")
    assert error.status == 500
    assert len(origin.log.entries) == 4
    assert names(out) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 410, 451, 501, 505])
def test_42_status_that_is_final(origin, fetch, out, status) -> None:
    """A refusal is asked once."""
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}"))
    error = check_failed(task, StatusError, str(status))
    assert error.status == status
    assert len(origin.log.entries) == 1
    assert names(out) == []


@pytest.mark.parametrize("status", [204, 205, 304, 299])
def test_success_that_is_no_answer(origin, fetch, status) -> None:
    """Other successes than 200 and 206 bring no file."""
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}"), retry_times=0)
    check_failed(task, StatusError, str(status))


@pytest.mark.parametrize("status", [404, 410, 403])
def test_42_gone_half_way(origin, fetch, out, status) -> None:
    """A file that vanishes on the way fails the task; what came stays resumable."""
    origin.rate = RATE
    task = fetch(origin.blob_url(1, SIZE, f=f"status={status}@range4,*"))
    check_failed(task, StatusError, str(status))
    assert recorded_bytes(out, origin.blob(1, SIZE)) >= 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_42_failures_between_successes(origin, fetch, status) -> None:
    """Lanes that fail now and then cost time, not the task: progress refills."""
    origin.rate = RATE
    faults = [
        "rst@byte1048576,*",
        *(f"status={status}@req{n}" for n in range(4, 24, 4)),
    ]
    task = fetch(origin.blob_url(1, SIZE, f=faults), retry_times=2)
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize("status", [429, 503])
def test_41_retry_after_is_waited_for(origin, fetch, status) -> None:
    """What the origin asks for is waited, whatever retry_delay says."""
    url = origin.blob_url(1, 1000, f=f"status={status}:retry=1@req1")
    check_whole(fetch(url, retry_delay=0), origin.blob(1, 1000))
    first, second = origin.log.entries
    assert second.began - first.began >= 1.0


@pytest.mark.parametrize(
    "value", ["0", "Wed, 21 Oct 2015 07:28:00 GMT", "-7", "soon", "1.5", ""]
)
def test_41_retry_after_that_asks_for_nothing(origin, fetch, value) -> None:
    """A date that is past, and what is no Retry-After, delay nothing more."""
    url = origin.blob_url(1, 1000, f=f"status=503:retry={value}@req1")
    check_whole(fetch(url), origin.blob(1, 1000))


def test_41_long_retry_after_can_be_cancelled(origin, make_engine, out) -> None:
    """A wait of hours is told, and ends with the task."""
    engine = make_engine()
    delays: list[float] = []
    engine.register_event_callback(
        lambda event: (
            delays.append(event.fields["delay"]) if event.kind == "retry" else None
        )
    )
    url = origin.blob_url(1, 1000, f="status=503:retry=36000@req1")
    task = engine.download(url, out, NAME)
    until(lambda: delays)
    # Six hours at most, and up to a tenth more.
    assert 21_600 <= delays[0] <= 23_760
    assert task.cancel()
    assert task.wait(5)
    assert task.status == "cancelled"


def test_41_too_many_requests_cost_no_lane_that_lives(origin, fetch) -> None:
    """A 429 to the lanes that are too many leaves the others to bring the file."""
    origin.rate = RATE
    url = origin.blob_url(1, SIZE, f="status=429@req2,6")
    check_whole(fetch(url, retry_times=3), origin.blob(1, SIZE))
    assert origin.log.served_twice() < 4 * MIB


def test_42_message_of_a_refusal_says_what_to_do(origin, fetch) -> None:
    """401 speaks of a token, and holds none."""
    task = fetch(
        origin.blob_url(1, SIZE, f="status=401") + "&sig=canary",
        headers={"Authorization": "Bearer canary"},
    )
    error = check_failed(task, StatusError, "token or password")
    assert "canary" not in str(error)
