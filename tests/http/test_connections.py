"""How many connections there are: few at first where that is left open, and a limit."""

from __future__ import annotations

import pytest
from http_checks import MIB, NAME, check_whole, peak, until

from segdl._ramp import FEW
from segdl.errors import StallError

SIZE = 24 * MIB + 5


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of the tests' sizes begin with few connections too."""
    monkeypatch.setattr("segdl._lanes.FROM_BYTES", MIB)


def test_slow_connections_are_joined_by_all_others(origin, make_engine, out) -> None:
    """Where each connection is throttled, a moment later all are open."""
    origin.rate = MIB
    engine = make_engine(connections="auto")
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    until(lambda: task.connections > FEW or task.status != "downloading")
    assert task.wait(30)
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) > FEW


def test_connections_that_do_not_help_are_closed(
    origin, make_engine, out, monkeypatch
) -> None:
    """Two more are tried, stopped in the middle, and nothing is lost by that."""
    monkeypatch.setattr("segdl._ramp._FIRST_BYTES", 0)
    monkeypatch.setattr("segdl._ramp._FAST_BYTES_PER_SECOND", 0)
    monkeypatch.setattr("segdl._ramp._GAIN", 1000.0)
    origin.rate = 3 * MIB
    engine = make_engine(connections="auto")
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    seen = set()

    def back_to_few() -> bool:
        seen.add(task.connections)
        return 2 * FEW in seen and task.connections == FEW

    until(back_to_few)
    assert task.wait(30)
    check_whole(task, origin.blob(1, SIZE))
    assert max(seen) == peak(origin) == 2 * FEW


@pytest.mark.parametrize("connections", [1, 2, 7])
def test_never_more_connections_than_said(origin, fetch, connections) -> None:
    """The number of connections is a limit."""
    origin.rate = 12 * MIB
    task = fetch(origin.blob_url(1, SIZE), connections=connections)
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) <= connections


def test_connection_close(origin, fetch) -> None:
    """An origin that closes after each answer is no failure."""
    url = origin.blob_url(1, SIZE, f="close")
    check_whole(fetch(url, retry_times=0), origin.blob(1, SIZE))


def test_stall_on_a_connection_that_is_used_again(origin, make_engine, out) -> None:
    """It is told as a stall, not as a connection that could not be made."""
    engine = make_engine(timeout=1, retry_times=0)
    engine.download(origin.blob_url(1, 1000), out, "first").result(timeout=15)
    task = engine.download(origin.blob_url(2, 1000, f="hang"), out, "second")
    assert task.wait(15)
    assert type(task.exception(0)) is StallError
    first, second = origin.log.settle()
    assert first.connection == second.connection
