"""A connection that goes silent near the end is not waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_checks import MIB, NAME, check_whole, refetched, until
from scripted import Asked, page, part, refusal, stream

from segdl.errors import StallError
from segdl.testing import Blob, Origin, Request

SIZE = 8 * MIB + 5
# From here on the connection that gets there first brings nothing more.
AT = 7 * MIB + 300_000


def overlapping(origin: Origin) -> list[tuple[Request, Request]]:
    """Give pairs of requests: the second asks for what the first does not bring."""
    entries = [e for e in origin.log.entries if e.range is not None]
    return [
        (one, other)
        for one in entries
        for other in entries
        if other.number > one.number
        and one.range is not None
        and other.range is not None
        and one.range[0] <= other.range[0] < one.range[1]
        and one.ended is not None
        and not one.complete
        and other.began < one.ended
    ]


def faults_of_a_tail(kind: str) -> str:
    """Give a fault that one connection meets shortly before the end of the file."""
    return f"{kind}@at{AT},1"


@pytest.mark.parametrize("kind", ["stall", "slow=2000"])
def test_one_connection_is_silent_near_the_end(origin, make_engine, out, kind) -> None:
    """Its rest comes over another one, exactly, and no time-out is waited for."""
    origin.rate = 4 * MIB
    engine = make_engine(timeout=30, retry_times=0)
    events = []
    engine.register_event_callback(events.append)
    url = origin.blob_url(1, SIZE, f=faults_of_a_tail(kind))
    task = engine.download(url, out, NAME)
    assert task.wait(60)
    check_whole(task, origin.blob(1, SIZE))
    # The client hung up, long before a stall or that rate would have ended the first.
    assert any(
        second.complete
        and slow.range
        and slow.sent_bytes < slow.range[1] - slow.range[0]
        for slow, second in overlapping(origin)
    )
    assert [event for event in events if event.kind == "retry"] == []
    assert len(origin.log.settle()) < 20
    # A rest of at most 2 MiB, and what the sockets of both held.
    assert refetched(origin.log.entries, 0, SIZE) <= SIZE + 3 * MIB


def test_the_second_connection_is_silent_too(origin, make_engine, out) -> None:
    """Nothing is asked a third time: then the time-out decides, and all is whole."""
    origin.rate = 4 * MIB
    engine = make_engine(timeout=2, retry_times=1)
    url = origin.blob_url(1, SIZE, f=f"stall@at{AT},2")
    task = engine.download(url, out, NAME)
    assert task.wait(60)
    check_whole(task, origin.blob(1, SIZE))


CONTENT = Blob(1, 3 * MIB + 5).read()
# One answer stops here until the second one has come.
STOP = 3 * MIB - 100_000
TAG = 'ETag: "v1"'
ANSWERS = {
    "busy": lambda _: refusal("503 Busy"),
    "busy-for-long": lambda _: refusal("503 Busy", "Retry-After: 60"),
    "forbidden": lambda _: refusal("403 Forbidden"),
    "gone": lambda _: refusal("404 Not Found"),
    "whole": lambda _: page(CONTENT, TAG),
    "whole-without-a-length": lambda _: stream(CONTENT, TAG),
    "page": lambda _: page(b"<p>Log in", "Content-Type: text/html"),
    "short": lambda asked: part(asked, CONTENT, TAG, most=10_000),
    "cut": lambda asked: part(asked, CONTENT, TAG, most=1 << 30)[:20_000],
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_second_connection_gets_something_else(
    script, make_engine, out, kind
) -> None:
    """Whatever it gets costs no attempt, and no byte of it is written."""
    answered = threading.Event()
    asked_for = []

    def answer(asked: Asked) -> Iterator[bytes]:
        data = part(asked, CONTENT, TAG, most=len(CONTENT))
        if not 0 < asked.begin <= STOP < asked.end:
            yield data
            return
        asked_for.append(asked)
        if len(asked_for) > 1:
            yield ANSWERS[kind](asked)
            answered.wait(0.3)  # so that it could win, were it not refused
            answered.set()
            return
        yield data[: len(data) - (min(asked.end, len(CONTENT)) - STOP)]
        answered.wait(30)
        yield data[len(data) - (min(asked.end, len(CONTENT)) - STOP) :]

    engine = make_engine(timeout=60, retry_times=0)
    events = []
    engine.register_event_callback(events.append)
    task = engine.download(script(answer).url, out, NAME)
    assert task.wait(60)
    assert task.error is None
    assert Path(task.result(0)).read_bytes() == CONTENT
    assert len(asked_for) == 2
    assert [event for event in events if event.kind == "retry"] == []


def test_a_pause_while_a_rest_is_asked_for_twice(origin, make_engine, out) -> None:
    """It ends both, and goes on with exact bytes."""
    origin.rate = MIB
    engine = make_engine(timeout=30)
    url = origin.blob_url(1, SIZE, f=faults_of_a_tail("stall"))
    task = engine.download(url, out, NAME)

    def doubled() -> bool:
        entries = [e for e in origin.log.entries if e.range is not None]
        return any(
            one.range[0] <= other.range[0] < one.range[1] and one.ended is None
            for one in entries
            for other in entries
            if other.number > one.number and one.sent_bytes and one.range[1] > AT
            if other.range[1] == one.range[1]
        )

    until(doubled, 30)
    assert task.pause()
    until(lambda: task.connections == 0)
    assert task.resume()
    assert task.wait(60)
    check_whole(task, origin.blob(1, SIZE))


def test_a_rate_limit_holds_the_second_back_too(origin, make_engine, out) -> None:
    """It goes on when the limit lets it, as others do."""
    engine = make_engine(timeout=30, retry_times=0, limit_rate=2 * MIB)
    url = origin.blob_url(1, 2 * MIB + 5, f=f"stall@at{MIB + 800_000},1")
    task = engine.download(url, out, NAME)
    assert task.wait(60)
    check_whole(task, origin.blob(1, 2 * MIB + 5))
    assert len(origin.log.settle()) < 20


def test_all_connections_are_silent_at_the_end(origin, make_engine, out) -> None:
    """An origin that never sends its last bytes is a stall, told as one."""
    origin.rate = 4 * MIB
    engine = make_engine(timeout=1, retry_times=0)
    url = origin.blob_url(1, SIZE, f=f"stall@at{AT},*")
    task = engine.download(url, out, NAME)
    assert task.wait(60)
    assert isinstance(task.exception(0), StallError)
