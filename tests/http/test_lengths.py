"""Lengths that lie, and what a crash leaves of a stream without one."""

from __future__ import annotations

import pytest
from http_checks import (
    MANIFEST,
    MIB,
    NAME,
    PART,
    check_failed,
    check_whole,
    names,
    recorded_bytes,
    until,
)
from scripted import Asked, head, page, part, stream

from segdl._fs import PartWriter
from segdl._transfer import Transfers
from segdl.errors import (
    IncompleteTransfer,
    ProtocolError,
    RangeMismatch,
    StatusError,
    TransferError,
)
from segdl.testing import Blob

SIZE = 20 * MIB + 99
SMALL = 4 * MIB
OLD, NEW = Blob(1, SMALL), Blob(2, SMALL)
V1, V2 = 'ETag: "v1"', 'ETag: "v2"'
ERROR = b'{"error": "please log in"}'


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


# --- answers in place of the file that an earlier one spoke of ------------------------


@pytest.mark.parametrize(
    "instead",
    [
        stream(ERROR),
        stream(ERROR, V1),
        stream(b""),
        stream(b"", V1),
        page(ERROR),
        head("200 OK", version="1.0"),
        head("200 OK", V1, version="1.0") + ERROR,
    ],
)
@pytest.mark.parametrize("connections", [1, 4])
def test_answer_without_ranges_in_place_of_the_first_bytes(
    script, fetch, out, instead, connections
) -> None:
    """After a 206 that brought nothing, a 200 is neither written nor asked for ever."""

    def answer(asked: Asked) -> bytes:
        if asked.number == 1:
            return part(asked, OLD.read(), V1, most=SMALL)[:-SMALL]
        return instead if asked.begin == 0 else part(asked, OLD.read(), V1)

    origin = script(answer)
    task = fetch(origin.url, connections=connections)
    assert task.status == "failed"
    assert isinstance(task.exception(0), TransferError)
    assert NAME not in names(out)
    assert len(origin.asked) < 20


def test_whole_of_another_version_in_place_of_the_first_bytes(script, fetch) -> None:
    """A stream with another tag is the new version, not the old one's beginning."""

    def answer(asked: Asked) -> bytes:
        if asked.number == 1:
            return part(asked, OLD.read(), V1, most=SMALL)[:-SMALL]
        return stream(NEW.read(), V2)

    check_whole(fetch(script(answer).url), NEW)


@pytest.mark.parametrize("field", ["identity", "", ",", "identity, identity"])
def test_cut_that_another_transfer_coding_hides(script, fetch, out, field) -> None:
    """Chunks alone show the end of a body without a length, whatever is said of it."""
    cut = OLD.read()[:MIB]
    origin = script(
        lambda _: (
            head("200 OK", "Accept-Ranges: none", f"Transfer-Encoding: {field}") + cut
        )
    )
    check_failed(fetch(origin.url), ProtocolError, "closing the connection")
    assert names(out) == []


def test_stream_that_is_shorter_than_the_file(script, fetch) -> None:
    """A stream of the very file whose length was told must have that length."""

    def answer(asked: Asked) -> bytes:
        none = "Accept-Ranges: none"
        if asked.number == 1:
            return page(OLD.read(), none, V1)[: -2 * MIB]
        return stream(OLD.read()[:MIB], none, V1)

    task = fetch(script(answer).url, retry_times=1)
    check_failed(task, IncompleteTransfer, "before the file did")


@pytest.mark.parametrize("text", [ERROR, b"<html>log in</html>"])
def test_error_page_replaces_nothing(script, fetch, out, text) -> None:
    """What came of a file stays when its place is taken by a page without a tag."""

    def answer(asked: Asked) -> bytes:
        if asked.number > 3:
            return page(text, "Content-Type: application/octet-stream")
        return part(asked, OLD.read(), V2 if asked.number == 3 else V1)

    task = fetch(script(answer).url, connections=1)
    check_failed(task, RangeMismatch, f"of {len(text)} bytes", str(SMALL))
    assert names(out) == [PART, MANIFEST]


def test_stream_that_ends_early_is_not_gone_on_with(script, fetch) -> None:
    """Where there are no ranges, what is missing at the end is not asked for alone."""
    none = "Accept-Ranges: none"

    def answer(asked: Asked) -> bytes:
        if asked.number == 1:
            return head("200 OK", f"Content-Length: {SMALL}", none, V1)
        short = MIB if asked.number == 2 else 0
        return stream(OLD.read(0, SMALL - short), none, V1)

    check_whole(fetch(script(answer).url), OLD)


def test_stream_that_the_disk_changed_is_fetched_whole(script, fetch, out) -> None:
    """Where there are no ranges, a damaged piece is not asked for alone."""

    def answer(asked: Asked):
        yield head("200 OK", f"Content-Length: {SMALL}", "Accept-Ranges: none", V1)
        yield OLD.read(0, 3 * MIB)
        if asked.number == 1:
            until(lambda: names(out) == [PART, MANIFEST])
            until(lambda: recorded_bytes(out, OLD) >= 2 * MIB)
            with (out / PART).open("r+b") as file:
                file.seek(MIB + 100)
                file.write(b"damaged")
        yield OLD.read(3 * MIB, SMALL)

    origin = script(answer)
    check_whole(fetch(origin.url, checksum=f"sha256:{OLD.digest()}"), OLD)
    assert len(origin.asked) == 2
