"""Ranges that an origin does not answer as asked (matrix rows 21 - 28 and 46).

The smallest lane is 2 MiB and the first request asks for 16 MiB, so files of 20 MiB are
fetched over several lanes.
"""

from __future__ import annotations

import pytest
from http_checks import MIB, check_failed, check_whole, names, peak, refetched

from segdl.errors import ProtocolError, RangeMismatch

SIZE = 20 * MIB + 12_345


@pytest.mark.parametrize("processes", [0, 2])
def test_file_is_fetched_over_several_connections(origin, fetch, processes) -> None:
    """An honest origin's file comes over as many connections as wanted, no more."""
    origin.rate = 16 * MIB
    task = fetch(origin.blob_url(1, SIZE), processes=processes)
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) in (3, 4)
    assert all(request.status == 206 for request in origin.log.entries)
    # A lane is cut short where another one took over; all else is sent once.
    assert origin.log.served_twice() <= 4 * MIB


def test_first_request_is_a_range_from_byte_0(origin, fetch) -> None:
    """No HEAD and no range-less GET: the first request is useful by itself."""
    fetch(origin.blob_url(1, 1000))
    (request,) = origin.log.settle()
    assert request.headers["range"] == f"bytes=0-{16 * MIB - 1}"
    assert "if-range" not in request.headers
    assert request.sent_bytes == 1000


@pytest.mark.parametrize(
    ("headers", "requests"), [("X-A: b", 3), ("Accept-Ranges: none", 1)]
)
def test_21_origin_without_ranges(origin, fetch, headers, requests) -> None:
    """A 200 to every range ends in one stream over one connection."""
    origin.rate = 40 * MIB
    task = fetch(origin.blob_url(1, SIZE, ranges="off", headers=headers))
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) == 1
    assert [r.status for r in origin.log.settle()] == [200] * requests


def test_21_origin_that_gives_a_range_when_asked_again(origin, fetch) -> None:
    """A cache that answers 200 on a miss gets the same range a second time."""
    task = fetch(origin.blob_url(1, SIZE, f="full200@req1,2"))
    check_whole(task, origin.blob(1, SIZE))
    statuses = [r.status for r in origin.log.settle()]
    assert statuses[:3] == [200, 200, 206]
    assert set(statuses[2:]) == {206}


@pytest.mark.parametrize("fault", ["full200@conn3", "full200@range3,2"])
def test_22_whole_file_on_one_connection_only(origin, fetch, fault) -> None:
    """A 200 to a later range never reaches the file at that range's offset."""
    task = fetch(origin.blob_url(1, SIZE, f=fault))
    check_whole(task, origin.blob(1, SIZE))


def test_22_only_the_first_ranges_are_answered(origin, fetch) -> None:
    """An origin that stops to give ranges half-way ends in an error or right bytes."""
    task = fetch(origin.blob_url(1, SIZE, ranges="first2"))
    if task.status == "completed":
        check_whole(task, origin.blob(1, SIZE))
    else:
        check_failed(task, RangeMismatch, "the whole file (200)")


@pytest.mark.parametrize("by", [1, 4096, MIB])
def test_23_range_that_begins_elsewhere(origin, fetch, by) -> None:
    """A 206 with another first position is dropped before its first byte."""
    task = fetch(origin.blob_url(1, SIZE, f=f"wrongfirst={by}@range2,2"))
    check_whole(task, origin.blob(1, SIZE))


def test_23_range_that_always_begins_elsewhere(origin, fetch, out) -> None:
    """An origin that is always one byte off is given up, with both ranges named."""
    task = fetch(origin.blob_url(1, SIZE, f="wrongfirst"), retry_times=2)
    check_failed(task, RangeMismatch, f"asked for bytes 0-{16 * MIB - 1}", "'bytes 1-")
    assert names(out) == []
    assert len(origin.log.settle()) == 3


@pytest.mark.parametrize("times", [1, 3])
def test_24_content_range_longer_than_asked(origin, fetch, times) -> None:
    """What comes beyond the end of our range is cut off."""
    task = fetch(origin.blob_url(1, SIZE, f=f"long=100000@range2,{times}"))
    check_whole(task, origin.blob(1, SIZE))


def test_24_body_longer_than_its_content_range(origin, fetch) -> None:
    """A body that contradicts its Content-Range is asked for again."""
    task = fetch(origin.blob_url(1, SIZE, f="longbody@range2,2"))
    check_whole(task, origin.blob(1, SIZE))


def test_24_body_always_longer_than_its_content_range(origin, fetch) -> None:
    """A length that never fits is an error that names both."""
    task = fetch(origin.blob_url(1, SIZE, f="longbody=7"), retry_times=1)
    check_failed(task, RangeMismatch, f"names {16 * MIB} bytes", f"{16 * MIB + 7}")


@pytest.mark.parametrize("by", ["", "=1", "=3000000"])
def test_25_range_shorter_than_asked(origin, fetch, by) -> None:
    """A part of our range is taken, and the rest is asked for."""
    origin.rate = 40 * MIB
    times = "*" if by == "" else "5"
    task = fetch(origin.blob_url(1, SIZE, f=f"short{by}@,{times}"))
    check_whole(task, origin.blob(1, SIZE))
    assert origin.log.served_twice() <= 4 * MIB


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("bytes {last}-{first}/{complete}", "before the first"),
        ("bytes {first}-{last}/{last}", "not inside the complete length"),
        ("bytes -{first}-{last}/{complete}", "decimal digits"),
        ("bytes +{first}-{last}/{complete}", "decimal digits"),
        ("bytes 0x0-0xff/{complete}", "decimal digits"),
        ("bytes {first}-{last}/18446744073709551616", "larger than"),
        ("bytes: {first}-{last}/{complete}", "unknown range unit"),
        ("lines {first}-{last}/{complete}", "unknown range unit"),
        ("bytes {first}-{last}/*", "no complete length"),
        ("bytes */{complete}", "names no bytes"),
        ("bytes {first}-{last}", "no '/'"),
        ("{first}-{last}/{complete}", "no space"),
    ],
)
def test_26_content_range_out_of_grammar(origin, fetch, out, text, why) -> None:
    """Content-Range is read by the letter; the exact reason is told."""
    task = fetch(origin.blob_url(1, SIZE, f=f"badcr={text}"), retry_times=0)
    check_failed(task, RangeMismatch, why)
    assert names(out) == []


@pytest.mark.parametrize(
    "text",
    [
        "bytes {last}-{first}/{complete}",
        "bytes {first}-{last}/{last}",
        "bytes */{complete}",
        "bytes 0-1/{complete}",
        "",
    ],
)
def test_26_bad_content_range_of_one_lane(origin, fetch, text) -> None:
    """One lane's bad Content-Range costs that answer only."""
    task = fetch(origin.blob_url(1, SIZE, f=f"badcr={text}@range3"))
    check_whole(task, origin.blob(1, SIZE))


def test_26_star_as_complete_length_of_a_later_range(origin, fetch) -> None:
    """Once the length is known, a 206 need not repeat it."""
    fault = "badcr=bytes {first}-{last}/*@range2,*"
    task = fetch(origin.blob_url(1, SIZE, f=fault))
    check_whole(task, origin.blob(1, SIZE))


def test_26_two_content_ranges(origin, fetch) -> None:
    """Two Content-Range fields can't both be right."""
    url = origin.blob_url(1, SIZE, headers=f"Content-Range: bytes 0-99/{SIZE}")
    check_failed(fetch(url, retry_times=0), RangeMismatch, "this one has 2")


@pytest.mark.parametrize(
    ("fault", "why"), [("nocr", "this one has 0"), ("multipart", "multipart")]
)
def test_27_28_part_without_its_range(origin, fetch, out, fault, why) -> None:
    """A 206 without Content-Range, or in several parts, is refused."""
    task = fetch(origin.blob_url(1, SIZE, f=fault), retry_times=1)
    check_failed(task, RangeMismatch, why)
    assert names(out) == []
    assert len(origin.log.entries) == 2


@pytest.mark.parametrize("fault", ["nocr@range3,2", "multipart@range2,2"])
def test_27_28_part_without_its_range_once(origin, fetch, fault) -> None:
    """Such an answer on one lane is asked for again."""
    task = fetch(origin.blob_url(1, SIZE, f=fault))
    check_whole(task, origin.blob(1, SIZE))


@pytest.mark.parametrize("size", [1000, MIB, SIZE])
def test_46_endless_body(origin, fetch, size) -> None:
    """A body that goes on for ever is cut where our range ends."""
    task = fetch(origin.blob_url(1, size, f="endless"))
    check_whole(task, origin.blob(1, size))
    # What was on its way when the connection was cut, a few socket buffers a lane.
    assert origin.log.bytes_sent() < size + 80 * MIB


def test_46_endless_body_without_ranges(origin, fetch, out) -> None:
    """A stream without end and without length is refused before its first byte."""
    task = fetch(origin.blob_url(1, SIZE, ranges="off", f="endless"))
    check_failed(task, ProtocolError, "closing the connection", "checksum")
    assert names(out) == []


def test_bytes_beyond_the_range_are_not_written(origin, fetch) -> None:
    """A lane that gets more than its range leaves its neighbours' bytes alone."""
    url = origin.blob_url(1, SIZE, f=["long=3000000@range2,*", "corrupt@range2.byte1"])
    task = fetch(url, checksum=f"sha256:{origin.blob(1, SIZE).digest()}", retry_times=0)
    # The flipped bit is in the second lane's own range: found, and nothing else is.
    assert task.status == "failed"
    second = origin.log.entries[1].range
    assert second is not None
    assert refetched(origin.log.entries[:2], *second) > 0
