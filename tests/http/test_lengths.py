"""Lengths that lie, and what a crash leaves of a stream without one."""

from __future__ import annotations

import pytest
from http_checks import MIB, NAME, check_failed, check_whole, names

from segdl._fs import PartWriter
from segdl._transfer import Transfers
from segdl.errors import IncompleteTransfer, StatusError, TransferError

SIZE = 20 * MIB + 99


def test_range_refused_without_saying_why(origin, fetch) -> None:
    """A 416 to the first bytes without a length is an error, not an empty file."""
    task = fetch(origin.blob_url(1, 0, f="nolast416"), retry_times=1)
    check_failed(task, StatusError, "416", "outside of the file")


def test_content_length_too_large(origin, fetch, out) -> None:
    """A 200 that promises a byte more than there is never becomes a file."""
    url = origin.blob_url(1, MIB, ranges="off", f="wronglen")
    check_failed(fetch(url, retry_times=1), IncompleteTransfer)
    assert NAME not in names(out)


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: -1",
        "Content-Length: 18446744073709551616",
        "Content-Length: 12abc",
        "Content-Length: 5",
    ],
)
def test_lying_content_length(origin, fetch, out, lines) -> None:
    """A second, contradicting Content-Length spoils the answer."""
    task = fetch(origin.blob_url(1, MIB, headers=lines), retry_times=0)
    assert task.status == "failed"
    assert isinstance(task.exception(0), TransferError)
    assert NAME not in names(out)


def test_crash_is_not_the_end_of_a_stream(origin, fetch, monkeypatch) -> None:
    """A worker that crashes has not brought a stream without a length to its end."""
    send_progress, received = Transfers._send_progress, []

    def crash_once(self: Transfers, now: float) -> None:
        count = sum(lane.received for lane in self._lanes.values())
        if count and not received:
            received.append(count)
            raise ValueError("a bug")
        send_progress(self, now)

    monkeypatch.setattr(Transfers, "_send_progress", crash_once)
    origin.rate = 40 * MIB
    url = origin.blob_url(1, SIZE, ranges="off", length="off")
    check_whole(fetch(url), origin.blob(1, SIZE))
    assert 0 < received[0] < SIZE


def test_bug_of_the_writer_crashes_its_worker(origin, fetch, monkeypatch) -> None:
    """What goes wrong on the writing thread is not lost there."""
    pwrite, calls = PartWriter.pwrite, []

    def crash_once(self: PartWriter, view: memoryview, offset: int) -> None:
        calls.append(offset)
        if len(calls) == 4:
            raise ValueError("a bug")
        pwrite(self, view, offset)

    monkeypatch.setattr(PartWriter, "pwrite", crash_once)
    check_whole(fetch(origin.blob_url(1, SIZE)), origin.blob(1, SIZE))
    assert len(calls) > 4
