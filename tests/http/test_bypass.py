"""A fast lane without TLS reads its socket itself, past libcurl."""

from __future__ import annotations

import pytest
from http_checks import MIB, NAME, check_whole, until

from segdl._exchange import Exchange
from segdl.errors import IncompleteTransfer, StallError

SIZE = 24 * MIB + 5


@pytest.fixture(autouse=True)
def bypassing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have every lane do so from its first report on; give what each read so."""
    monkeypatch.setattr("segdl._exchange._BYPASS_FROM_BYTES", 0)
    monkeypatch.setattr("segdl._bypass._FROM_BYTES_PER_SECOND", 0)
    counts: list[int] = []
    receive = Exchange.receive

    def counted(lane: Exchange) -> bool:
        before = lane.received
        try:
            return receive(lane)
        finally:
            counts.append(lane.received - before)

    monkeypatch.setattr(Exchange, "receive", counted)
    return counts


def test_most_of_a_file_comes_so(origin, fetch, bypassing) -> None:
    """Every byte is in its place, and most were read without libcurl."""
    origin.rate = 12 * MIB
    check_whole(fetch(origin.blob_url(1, SIZE)), origin.blob(1, SIZE))
    assert sum(bypassing) > SIZE // 2


def test_tls_stays_with_libcurl(tls_origin, make_engine, out, bypassing) -> None:
    """What is encrypted can't be read from the socket."""
    tls_origin.rate = 24 * MIB
    engine = make_engine(ca_file=tls_origin.ca_file)
    task = engine.download(tls_origin.blob_url(1, SIZE), out, NAME)
    assert task.wait(30)
    check_whole(task, tls_origin.blob(1, SIZE))
    assert not bypassing


def test_an_answer_without_a_length_stays_with_libcurl(
    origin, fetch, bypassing
) -> None:
    """Chunks have a framing that only libcurl takes away."""
    origin.rate = 12 * MIB
    check_whole(fetch(origin.blob_url(1, SIZE, length="off")), origin.blob(1, SIZE))
    assert not bypassing


@pytest.mark.parametrize("fault", ["rst", "fin"])
def test_a_connection_that_breaks_is_gone_on_with(
    origin, fetch, bypassing, fault
) -> None:
    """What came before a reset or an early end counts; the rest is asked for again."""
    origin.rate = 12 * MIB
    url = origin.blob_url(1, SIZE, f=f"{fault}@byte{11 * MIB + 7},1")
    check_whole(fetch(url), origin.blob(1, SIZE))
    assert sum(bypassing) > SIZE // 2


def test_a_connection_that_always_ends_early_fails(origin, make_engine, out) -> None:
    """What was read by then is kept, and told as missing no more."""
    origin.rate = 12 * MIB
    engine = make_engine(retry_times=0, connections=1)
    url = origin.blob_url(1, SIZE, f=f"fin@at{20 * MIB + 7},*")
    task = engine.download(url, out, NAME)
    assert task.wait(30)
    assert isinstance(task.exception(0), IncompleteTransfer)
    assert task.downloaded_size == 20 * MIB + 7


def test_a_connection_that_goes_silent_is_a_stall(origin, make_engine, out) -> None:
    """The stall limit holds without libcurl's."""
    origin.rate = 12 * MIB
    engine = make_engine(timeout=1, retry_times=0, connections=1)
    url = origin.blob_url(1, SIZE, f=f"stall@at{20 * MIB},*")
    task = engine.download(url, out, NAME)
    assert task.wait(30)
    assert isinstance(task.exception(0), StallError)


def test_a_pause_keeps_what_was_read(origin, make_engine, out, bypassing) -> None:
    """A paused task goes on at the next byte of each lane."""
    origin.rate = 4 * MIB
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: sum(bypassing) > 4 * MIB)
    assert task.pause()
    until(lambda: task.connections == 0)
    origin.rate = None
    assert task.resume()
    assert task.wait(30)
    check_whole(task, origin.blob(1, SIZE))


def test_a_rate_limit_that_is_set_meanwhile_holds_it_back(
    origin, make_engine, out, bypassing
) -> None:
    """Lanes wait for the limit, and go on once it is lifted."""
    origin.rate = 4 * MIB
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: sum(bypassing) > 2 * MIB)
    engine.limit_rate = 1000
    until(lambda: bypassing[-1:] == [0])
    engine.limit_rate = None
    assert task.wait(30)
    check_whole(task, origin.blob(1, SIZE))
