"""Lengths: none, odd, large, and unknown (matrix rows 35, 36, 38 - 40)."""

from __future__ import annotations

import pytest
from http_checks import MIB, NAME, check_failed, check_whole, names, peak, until

from segdl._fs import PartWriter
from segdl._transfer import Transfers
from segdl.errors import IncompleteTransfer, ProtocolError, StatusError, TransferError

SIZE = 20 * MIB + 99


@pytest.mark.parametrize(
    "size",
    [
        1,
        2,
        4095,
        4097,
        MIB - 1,
        MIB,
        MIB + 1,
        2 * MIB - 1,
        4 * MIB + 1,
        16 * MIB - 1,
        16 * MIB,
        16 * MIB + 1,
        40 * MIB + 3,
    ],
)
def test_38_size(origin, fetch, size) -> None:
    """Files around the sizes of pieces, lanes and the first request are exact."""
    check_whole(fetch(origin.blob_url(1, size)), origin.blob(1, size))
    assert all(begin < end for begin, end in origin.log.ranges())
    assert all(r.status == 206 for r in origin.log.entries)


@pytest.mark.parametrize("options", [{}, {"ranges": "off"}, {"length": "off"}])
def test_38_empty_file(origin, fetch, out, options) -> None:
    """An empty file is a file: 416 with `bytes */0`, or a 200 without a body."""
    task = fetch(origin.blob_url(1, 0, **options))
    assert (task.status, task.error) == ("completed", None)
    assert names(out) == [NAME]
    assert (out / NAME).stat().st_size == 0
    assert task.progress == 1.0


def test_38_empty_file_with_a_checksum(origin, fetch) -> None:
    """The digest of nothing is checked like any other."""
    digest = origin.blob(1, 0).digest()
    task = fetch(origin.blob_url(1, 0), checksum=f"sha256:{digest}")
    assert (task.status, task.checksum) == ("completed", f"sha256:{digest}")


def test_38_range_refused_without_saying_why(origin, fetch) -> None:
    """A 416 to the first bytes without a length is an error, not an empty file."""
    task = fetch(origin.blob_url(1, 0, f="nolast416"), retry_times=1)
    check_failed(task, StatusError, "416", "outside of the file")


@pytest.mark.parametrize("size", [1, MIB, SIZE])
def test_39_unknown_length(origin, fetch, size) -> None:
    """A chunked 200 tells no length: one stream, and the size is known at its end."""
    url = origin.blob_url(1, size, ranges="off", length="off")
    check_whole(fetch(url), origin.blob(1, size))
    assert peak(origin) <= 1


def test_39_nothing_is_promised_while_the_length_is_unknown(
    origin, make_engine, out
) -> None:
    """Without a length there is no progress and no ETA, but bytes are counted."""
    origin.rate = 8 * MIB
    url = origin.blob_url(1, 8 * MIB, ranges="off", length="off")
    task = make_engine().download(url, out, NAME)
    until(lambda: task.downloaded_size > MIB)
    assert (task.total_size, task.progress, task.eta) == (0, 0.0, None)
    assert task.wait(10)
    check_whole(task, origin.blob(1, 8 * MIB))


def test_39_chunked_range(origin, fetch) -> None:
    """A 206 in chunks has its length in Content-Range."""
    url = origin.blob_url(1, SIZE, length="off")
    check_whole(fetch(url), origin.blob(1, SIZE))
    origin.log.settle()
    assert len({r.connection for r in origin.log.entries}) > 1


def test_40_no_head_request_is_made(origin, fetch) -> None:
    """What HEAD would say does not matter: it is never asked."""
    check_whole(fetch(origin.blob_url(1, SIZE)), origin.blob(1, SIZE))
    assert {r.method for r in origin.log.entries} == {"GET"}


@pytest.mark.parametrize("ranges", ["on", "off"])
def test_35_content_coding_is_refused(origin, fetch, out, ranges) -> None:
    """Content coded against our wish is no part of the file."""
    url = origin.blob_url(1, SIZE, ranges=ranges, f="gzip")
    check_failed(fetch(url, retry_times=1), ProtocolError, "gzip", "identity")
    assert names(out) == []


def test_35_content_coding_of_one_lane(origin, fetch) -> None:
    """One coded answer is asked for again."""
    url = origin.blob_url(1, SIZE, f="gzip@range3")
    check_whole(fetch(url), origin.blob(1, SIZE))


@pytest.mark.parametrize("ranges", ["on", "off"])
def test_36_content_length_and_chunked(origin, fetch, out, ranges) -> None:
    """Two framings in one answer can't both be right (RFC 9112 s6.3)."""
    url = origin.blob_url(1, SIZE, ranges=ranges, f="clte")
    task = fetch(url, retry_times=1)
    check_failed(task, ProtocolError, "Transfer-Encoding and Content-Length")
    assert names(out) == []


def test_36_content_length_and_chunked_of_one_lane(origin, fetch) -> None:
    """One such answer is asked for again."""
    url = origin.blob_url(1, SIZE, f="clte@range3")
    check_whole(fetch(url), origin.blob(1, SIZE))


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


def test_39_crash_is_not_the_end_of_a_stream(origin, fetch, monkeypatch) -> None:
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
