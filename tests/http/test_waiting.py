"""Origins that are busy: all tasks of an engine wait, and share what they are given."""

from __future__ import annotations

from math import inf

import pytest
from http_checks import MIB, check_failed, check_whole, peak, until

from segdl.errors import StatusError

SIZE = 12 * MIB + 5


def test_retry_after_holds_back_every_task(origin, make_engine, out) -> None:
    """What one request was told, the others heed; each is told why it waits."""
    engine = make_engine(max_workers=3, connections=1)
    events = []
    engine.register_event_callback(events.append)
    busy = engine.download(
        origin.blob_url(1, 1000, f="status=503:retry=1@,1"), out, "busy"
    )
    until(lambda: any(event.kind == "retry" for event in events))
    others = [
        engine.download(origin.blob_url(2, 1000), out / name, name) for name in "ab"
    ]
    assert engine.wait(timeout=15)
    for task in (busy, *others):
        assert task.status == "completed"
    refusal, *later = origin.log.entries
    assert len(later) == 3
    assert refusal.ended is not None
    assert min(entry.began for entry in later) - refusal.ended >= 0.95
    told = {event.task_id: event.fields for event in events if event.kind == "retry"}
    assert told.keys() == {busy.id, *(task.id for task in others)}
    assert "busy" in told[others[0].id]["reason"]


def test_other_origins_do_not_wait(origin, other_origin, make_engine, out) -> None:
    """Another port is another origin."""
    engine = make_engine(max_workers=2)
    busy = engine.download(origin.blob_url(1, 1000, f="status=429:retry=60"), out, "a")
    until(lambda: origin.log.entries)
    other = engine.download(other_origin.blob_url(1, 1000), out / "b", "b")
    assert other.wait(10)
    check_whole(other, origin.blob(1, 1000))
    assert busy.status == "downloading"
    assert busy.cancel()


def test_retry_after_is_heeded_by_lanes(origin, fetch) -> None:
    """Before the time there are no more than those that live, which go on."""
    origin.rate = 4 * MIB
    url = origin.blob_url(1, SIZE, f="status=503:retry=1@req3,1")
    check_whole(fetch(url), origin.blob(1, SIZE))
    (refusal,) = [r for r in origin.log.entries if r.status == 503]
    assert refusal.ended is not None
    for entry in origin.log.settle():
        if refusal.ended < entry.began < refusal.ended + 0.95:
            # One that the client ended is noticed a moment later.
            live = [
                other
                for other in origin.log.entries
                if other.began < entry.began < (other.ended or inf) - 0.1
            ]
            assert len(live) < 3


def test_tasks_share_the_connections_an_origin_bears(origin, make_engine, out) -> None:
    """What one task learned holds for all, and none starves."""
    origin.rate, origin.max_connections = 2 * MIB, 4
    engine = make_engine(max_workers=3, connections=8, retry_times=2)
    first = engine.download(origin.blob_url(1, SIZE), out / "1", "a")
    until(lambda: any(r.status == 503 for r in origin.log.entries))
    until(lambda: first.downloaded_size > MIB)
    others = [
        engine.download(origin.blob_url(seed, SIZE), out / str(seed), "a")
        for seed in (2, 3)
    ]
    until(lambda: all(task.downloaded_size > 0 for task in others))
    assert first.status == "downloading"
    assert engine.wait(timeout=30)
    for seed, task in enumerate((first, *others), 1):
        check_whole(task, origin.blob(seed, SIZE))
    assert peak(origin) <= 4
    assert sum(1 for r in origin.log.entries if r.status == 503) < 16


def test_more_tasks_than_connections(origin, make_engine, out) -> None:
    """With one connection for all, one task after the other is served."""
    origin.rate, origin.max_connections = 16 * MIB, 1
    engine = make_engine(max_workers=3, connections=4, retry_times=6)
    tasks = [
        engine.download(origin.blob_url(seed, 4 * MIB), out / str(seed), "a")
        for seed in (1, 2, 3)
    ]
    assert engine.wait(timeout=30)
    for seed, task in enumerate(tasks, 1):
        check_whole(task, origin.blob(seed, 4 * MIB))


def test_what_was_learned_is_remembered(origin, make_engine, out) -> None:
    """The next task of the engine does not ask for more in vain."""
    origin.rate, origin.max_connections = 6 * MIB, 2
    engine = make_engine(connections=6)
    for seed in (1, 2):
        before = len(origin.log.settle())
        task = engine.download(origin.blob_url(seed, SIZE), out / str(seed), "a")
        assert task.wait(20)
        check_whole(task, origin.blob(seed, SIZE))
    refused = [r for r in origin.log.settle()[before:] if r.status == 503]
    assert refused == []


def test_origin_that_stays_busy(origin, make_engine, out) -> None:
    """Waiting for somebody else costs no attempt; being refused oneself does."""
    engine = make_engine(max_workers=2, retry_times=2)
    url = origin.blob_url(1, 1000, f="status=503")
    tasks = [engine.download(url, out / name, "a") for name in "ab"]
    assert engine.wait(timeout=20)
    for task in tasks:
        check_failed(task, StatusError, "503")
    assert len(origin.log.entries) == 6


def test_delay_beyond_what_the_system_can_wait(origin, make_engine, out) -> None:
    """A task that would wait for months is paused; the others go on."""
    # With nothing else to wait for, the engine's thread died of poll's OverflowError.
    engine = make_engine(retry_delay=1e7, max_workers=1)
    events = []
    engine.register_event_callback(events.append)
    slow = engine.download(origin.blob_url(1, 1000, f="status=500"), out, "slow")
    until(lambda: any(event.kind == "retry" for event in events))
    assert slow.pause()
    until(lambda: not engine._ending)
    other = engine.download(origin.blob_url(2, 1000), out / "other", "b")
    assert other.wait(10)
    check_whole(other, origin.blob(2, 1000))


def test_timeout_beyond_what_libcurl_can_count(origin, fetch) -> None:
    """For ever may be written as a large number."""
    task = fetch(origin.blob_url(1, 1000), timeout=1e300)
    check_whole(task, origin.blob(1, 1000))


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_waits_for_an_hour_while_a_mirror_is_there(
    origin, other_origin, fetch, status
) -> None:
    """An origin that asks for more than the timeout leaves it to the mirror."""
    task = fetch(
        origin.blob_url(1, SIZE, f=f"status={status}:retry=3600"),
        mirrors=[other_origin.blob_url(1, SIZE)],
    )
    check_whole(task, origin.blob(1, SIZE))
    assert len(origin.log.entries) == 1
