"""The origin's content, its rates, and how its faults are written: the pure parts."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl.testing import Blob, TokenBucket
from segdl.testing._http import parse_range, strong_match
from segdl.testing.content import BLOCK_BYTES, content
from segdl.testing.faults import (
    Counts,
    Where,
    parse_fault,
    parse_options,
    strip_faults,
)
from segdl.testing.throttle import parse_rate, slice_bytes

OFFSETS = st.one_of(
    st.integers(0, 4 * BLOCK_BYTES),
    st.integers(2**63 - 10 * BLOCK_BYTES, 2**63 - 3 * BLOCK_BYTES),
)
LENGTHS = st.one_of(st.integers(0, 64), st.integers(0, 2 * BLOCK_BYTES))


@given(st.integers(0, 2**64 - 1), OFFSETS, LENGTHS, st.data())
def test_content_read_in_two_parts_is_content_read_in_one(seed, begin, length, data):
    """A byte depends on seed and offset alone, not on how it is read."""
    cut = data.draw(st.integers(0, length))
    whole = content(seed, begin, begin + length)
    parts = content(seed, begin, begin + cut) + content(
        seed, begin + cut, begin + length
    )
    assert len(whole) == length
    assert parts == whole


@given(st.integers(0, 2**32), st.integers(1, 2**19), st.integers(0, 2**20))
def test_content_at_a_wrong_place_differs(page, shift, begin):
    """4 KiB moved by any multiple of 4 KiB below 2 GiB are not what belongs there."""
    here = page * 4096 + begin
    assert content(1, here, here + 4096) != content(
        1, here + shift * 4096, here + shift * 4096 + 4096
    )


def test_content_is_the_same_on_every_platform():
    """The bytes of a seed never change: recorded digests stay right."""
    assert Blob(1, 3_000_000).digest("sha256") == GOLDEN


GOLDEN = "b3b56807924338d400ea1e0fd4598a650304d5fa130e9927fafa73bc191ffbf9"


def test_content_of_two_seeds_differs_everywhere():
    """A swapped file cannot be taken for the first one."""
    assert content(1, 0, 4096) != content(2, 0, 4096)
    assert content(1, 5000, 5032) != content(2, 5000, 5032)


def test_blob_digest_is_that_of_its_bytes():
    """The streamed digest equals the digest of the whole content."""
    blob = Blob(7, 2 * BLOCK_BYTES + 5)
    assert blob.digest("sha256") == hashlib.sha256(blob.read()).hexdigest()
    assert blob.digest("md5") == hashlib.md5(blob.read()).hexdigest()
    assert Blob(7, 0).digest("sha256") == hashlib.sha256(b"").hexdigest()


def test_blob_read_is_cut_at_the_size():
    """Reading beyond the end gives what is there, as with a file."""
    assert Blob(1, 10).read(4, 100) == content(1, 4, 10)
    assert Blob(1, 10).read(50, 100) == b""


@pytest.mark.parametrize(("seed", "size"), [(-1, 1), (2**64, 1), (1, -1), (1, 2**63)])
def test_blob_refuses_what_cannot_be_served(seed, size):
    """A seed fits 64 bits and a size 63."""
    with pytest.raises(ValueError, match="is 0 - 2"):
        Blob(seed, size)


def test_bucket_begins_empty():
    """The first bytes wait for their time, so that a short transfer is no burst."""
    assert TokenBucket(100.0, 5.0).take(50, 5.0) == 0.5


@given(
    st.floats(1, 1e9),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 0.04)), min_size=1),
)
def test_bucket_keeps_the_rate_although_each_wait_ends_late(rate, steps):
    """Waits that end up to 40 ms late cost at most one such delay over all."""
    bucket = TokenBucket(rate, 0.0)
    now = 0.0
    for count, late in steps:
        wait = bucket.take(count, now)
        now += wait + (late if wait else 0.0)
    due = sum(count for count, _ in steps) / rate
    assert due <= now * (1 + 1e-9)
    assert now <= due * (1 + 1e-9) + 0.04


def test_bucket_lets_no_more_than_a_burst_follow_a_pause():
    """After a minute of silence 50 ms of the rate come at once, no more."""
    bucket = TokenBucket(1000.0, 0.0)
    assert bucket.take(50, 60.0) == 0.0
    assert bucket.take(100, 60.0) == pytest.approx(0.1)


def test_bucket_follows_a_change_of_rate():
    """What is reserved after the change takes its time at the new rate."""
    bucket = TokenBucket(10.0, 0.0)
    assert bucket.take(10, 0.0) == 1.0
    bucket.rate = 100.0
    assert bucket.take(100, 1.0) == 1.0


@pytest.mark.parametrize(
    ("text", "rate"), [("1", 1), ("500k", 512000), ("1.5M", 1572864), ("2G", 2 << 30)]
)
def test_rate_has_suffixes_of_1024(text, rate):
    """Rates are written as for curl."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "k", "1T", "nan", "inf", "1kk", "1e999"]
)
def test_rate_refuses_what_is_none(text):
    """A rate that is no positive number is an error, not a silent default."""
    with pytest.raises(ValueError, match="not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(("rate", "size"), [(1, 1), (1e6, 20000), (1e12, 262144)])
def test_slice_is_20_ms_of_the_rate(rate, size):
    """Slices are small enough to be smooth and large enough to be cheap."""
    assert slice_bytes(rate) == size


@pytest.mark.parametrize(
    ("spec", "kind", "where", "times", "number", "text"),
    [
        ("rst", "rst", Where(), None, None, None),
        ("rst@conn3", "rst", Where(conn=3), 1, None, None),
        ("fin@byte4096,2", "fin", Where(byte=4096), 2, None, None),
        ("stall@header", "stall", Where(header=True), 1, None, None),
        ("rst@conn2.byte10,*", "rst", Where(conn=2, byte=10), None, None, None),
        ("slow=10k@at100", "slow", Where(at=100), 1, 10240, None),
        ("status=503:retry=7@req5", "status", Where(req=5), 1, 503, "7"),
        ("status=404@,2", "status", Where(), 2, 404, None),
        (
            *("status=429:retry=Wed, 21 Oct 2015 07:28:00 GMT", "status"),
            *(Where(), None, 429, "Wed, 21 Oct 2015 07:28:00 GMT"),
        ),
        (
            *("redirect=http://u@h:1/a?b=c,2@range7", "redirect"),
            *(Where(range=7), 1, None, "http://u@h:1/a?b=c,2"),
        ),
        ("badcr=bytes 1-0/5", "badcr", Where(), None, None, "bytes 1-0/5"),
        ("swap=9@at5", "swap", Where(at=5), 1, 9, None),
    ],
)
def test_fault_is_read(spec, kind, where, times, number, text):
    """Each part of a fault's spelling ends up in its place."""
    fault = parse_fault(spec)
    assert (fault.kind, fault.where, fault.times) == (kind, where, times)
    assert (fault.number, fault.text) == (number, text)


def test_swap_may_change_the_size():
    """A replaced file can have another length."""
    assert parse_fault("swap=9:size=100@req2").size == 100


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "unknown fault"),
        ("reset", "unknown fault 'reset'"),
        ("rst@bytes5", "unknown fault"),
        ("rst=1", "takes no argument"),
        ("slow", "needs an argument"),
        ("slow=x", "not a rate"),
        ("status=abc", "not a number"),
        ("status=99", "200 - 599"),
        ("status=503:after=2", "only retry="),
        ("html@header", "goes with rst, fin and stall"),
        ("rst@byte1.at2", "not both"),
        ("rst@conn1.conn2", "conn twice"),
        ("rst@header.byte2", "in the head or in the body"),
        ("swap=1:size=x", "not a number"),
    ],
)
def test_bad_fault_says_what_is_wrong(spec, reason):
    """A misspelt fault never passes for a test without one."""
    with pytest.raises(ValueError, match=reason):
        parse_fault(spec)


def test_options_are_read_and_strangers_ignored():
    """Values are percent-decoded; a signature in the query harms nothing."""
    options = parse_options(
        "etag=weak&ranges=first3&length=off&rate=1k&cap=2&latency=0.5"
        "&headers=A:%201|B:%202&X-Amz-Signature=abc&type=text/plain&lm=none"
    )
    assert (options.etag, options.first_ranges, options.chunked) == ("weak", 3, True)
    assert (options.rate, options.cap, options.latency) == (1024, 2, 0.5)
    assert options.headers == ("A: 1", "B: 2")
    assert (options.media_type, options.last_modified) == ("text/plain", "none")


@pytest.mark.parametrize(
    "query", ["etag=x", "ranges=firstx", "rate=0", "cap=-1", "latency=-1", "digest=md4"]
)
def test_bad_option_names_itself(query):
    """An option with a bad value is refused by name."""
    with pytest.raises(ValueError, match=f"option {query.partition('=')[0]}="):
        parse_options(query)


def test_faults_are_stripped_from_a_query():
    """What the log shows is what a real server would have seen."""
    assert strip_faults("a=1&f=rst@byte5&b=2&f=fin") == "a=1&b=2"


def test_where_admits_from_its_number_on():
    """conn, req and range mean that one and later ones, all of them at once."""
    where = Where(conn=2, req=3, range=1)
    assert where.admits(Counts(connection=2, request=3, range=1))
    assert where.admits(Counts(connection=5, request=9, range=4))
    assert not where.admits(Counts(connection=1, request=3, range=1))
    assert not where.admits(Counts(connection=2, request=2, range=1))
    assert not where.admits(Counts(connection=2, request=3, range=0))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(byte=0), 100),
        (Where(byte=99), 199),
        (Where(byte=100), 200),
        (Where(byte=101), None),
        (Where(at=100), 100),
        (Where(at=99), None),
        (Where(at=200), None),
    ],
)
def test_where_finds_its_point_in_a_body(where, expected):
    """byte counts from the body's begin, at from the file's; ends are half-open."""
    assert where.position(100, 200, 1000) == expected


def test_where_reaches_the_end_of_the_file():
    """A fault at the complete length happens after the last byte."""
    assert Where(at=200).position(100, 200, 200) == 200


@pytest.mark.parametrize(
    ("value", "size", "expected"),
    [
        ("bytes=0-9", 100, (0, 10)),
        ("BYTES=5-5", 100, (5, 6)),
        ("bytes=90-", 100, (90, 100)),
        ("bytes=90-1000", 100, (90, 100)),
        ("bytes=-5", 100, (95, 100)),
        ("bytes=-500", 100, (0, 100)),
        ("bytes=100-", 100, (100, 100)),
        ("bytes=-0", 100, (100, 100)),
        ("bytes=0-", 0, (0, 0)),
        ("bytes=-5", 0, None),
        ("bytes=9-5", 100, None),
        ("bytes=-", 100, None),
        ("bytes=0-1,5-6", 100, None),
        ("items=0-1", 100, None),
        ("bytes=+0-1", 100, None),
        (None, 100, None),
    ],
)
def test_range_is_read_as_rfc_9110_says(value, size, expected):
    """Section 14.2: cut at the size; empty when unsatisfiable; None to be ignored."""
    assert parse_range(value, size) == expected


@pytest.mark.parametrize(
    ("if_range", "holds"),
    [
        ('"a"', True),
        ('"b"', False),
        ('W/"a"', False),
        ("Mon, 01 Jan 2024 00:00:01 GMT", True),
        ("Mon, 01 Jan 2024 00:00:02 GMT", False),
    ],
)
def test_if_range_is_compared_strongly(if_range, holds):
    """Section 13.1.5: a weak tag never holds, a date to the second."""
    assert strong_match(if_range, '"a"', "Mon, 01 Jan 2024 00:00:01 GMT") is holds


def test_weak_tag_of_the_file_never_matches():
    """An If-Range that repeats a weak tag gets the whole file."""
    assert not strong_match('W/"a"', 'W/"a"', None)
