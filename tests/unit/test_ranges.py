"""What byte ranges and Content-Range fields segdl writes and accepts."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._ranges import (
    MAX_LENGTH,
    ByteRange,
    ContentRange,
    parse_content_range,
    parse_length,
    shown,
)
from segdl.errors import ProtocolError, RangeMismatch


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("0010", 10),
        ("4294967297", 2**32 + 1),
        ("9223372036854775807", MAX_LENGTH),
        ("0" * 5000 + "7", 7),
    ],
)
def test_length_is_read_from_decimal_digits(text: str, length: int) -> None:
    """A length is decimal digits up to 2^63 - 1, leading zeros allowed."""
    assert parse_length(text) == length


@pytest.mark.parametrize(
    "text",
    ["", " 5", "5 ", "+5", "-5", "0x10", "1_0", "1.0", "1e3", "٣", "²", "5\n", "nan"],
)
def test_length_refuses_all_but_digits(text: str) -> None:
    """What Python's int() would also take is no length."""
    with pytest.raises(ProtocolError, match="decimal digits"):
        parse_length(text)


@pytest.mark.parametrize("text", [str(2**63), str(2**64), "9" * 5000])
def test_length_beyond_a_file_offset_is_refused(text: str) -> None:
    """A length no file offset can hold is an error of the origin, whatever its size."""
    with pytest.raises(ProtocolError, match="larger than") as caught:
        parse_length(text)
    assert len(str(caught.value)) < 120


def test_range_is_half_open_inside_and_inclusive_in_the_header() -> None:
    """The first ten bytes are ByteRange(0, 10) and bytes=0-9."""
    assert ByteRange(0, 10).length == 10
    assert ByteRange(0, 10).header_value() == "bytes=0-9"
    assert ByteRange(7, 8).header_value() == "bytes=7-7"


@pytest.mark.parametrize("value", [ByteRange(0, 1), ContentRange(0, 0, 1)])
def test_ranges_cannot_be_changed(value: object) -> None:
    """A checked range stays checked."""
    for name in value.__slots__:  # type: ignore[attr-defined]
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


@pytest.mark.parametrize(("begin", "end"), [(0, 0), (5, 5), (5, 4), (-1, 4), (-2, -1)])
def test_range_cannot_be_empty_or_negative(begin: int, end: int) -> None:
    """An empty range has no Range header, so it cannot be made."""
    with pytest.raises(ValueError, match="no byte range"):
        ByteRange(begin, end)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("bytes 0-9/100", ContentRange(0, 9, 100)),
        ("BYTES 0-9/100", ContentRange(0, 9, 100)),
        (" bytes 0-9/100\t", ContentRange(0, 9, 100)),
        ("bytes 99-99/100", ContentRange(99, 99, 100)),
        ("bytes 0-9/*", ContentRange(0, 9, None)),
        ("bytes */100", ContentRange(None, None, 100)),
        ("bytes */0", ContentRange(None, None, 0)),
        (
            f"bytes 0-{MAX_LENGTH - 1}/{MAX_LENGTH}",
            ContentRange(0, MAX_LENGTH - 1, MAX_LENGTH),
        ),
    ],
)
def test_content_range_is_read(value: str, expected: ContentRange) -> None:
    """Each form of RFC 9110 s14.4 is understood, the unit in any case."""
    assert parse_content_range(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "no space"),
        ("bytes", "no space"),
        ("bytes=0-1/2", "no space"),
        ("bytes: 0-1/2", "unknown range unit 'bytes:'"),
        ("items 0-1/2", "unknown range unit 'items'"),
        ("bytes  0-1/2", "' 0' is not a length"),
        ("bytes\t0-1/2", "no space"),
        ("bytes 0-1", "no '/'"),
        ("bytes 5/10", "no '-'"),
        ("bytes */*", "neither"),
        ("bytes *-1/2", r"'\*' is not a length"),
        ("bytes 0 - 1/2", "'0 ' is not a length"),
        ("bytes 5-4/10", "before the first"),
        ("bytes 0-10/10", "not inside the complete length"),
        ("bytes 0-0/0", "not inside the complete length"),
        ("bytes +5-9/10", r"'\+5' is not a length"),
        ("bytes -5-9/10", "'' is not a length"),
        ("bytes 0-0x9/10", "'0x9' is not a length"),
        ("bytes 0-9/-1", "'-1' is not a length"),
        ("bytes 0-9/18446744073709551616", "larger than"),
        (f"bytes 0-{MAX_LENGTH}/*", "beyond"),
        ("bytes 0-1/2, bytes 0-1/2", "is not a length"),
        ("bytes 0-1/2;x", "'2;x' is not a length"),
    ],
)
def test_content_range_is_refused_with_the_reason(value: str, reason: str) -> None:
    """A field that is only nearly right is refused, and the error says why."""
    with pytest.raises(RangeMismatch, match=reason):
        parse_content_range(value)


@given(st.integers(0, MAX_LENGTH - 1), st.integers(1, 2**40), st.integers(0, 2**40))
def test_content_range_of_any_real_range_is_read(
    begin: int, length: int, rest: int
) -> None:
    """Whatever a correct origin sends for a range, the same positions come out."""
    last = min(begin + length, MAX_LENGTH) - 1
    complete = min(last + 1 + rest, MAX_LENGTH)
    value = f"bytes {begin}-{last}/{complete}"
    assert parse_content_range(value) == ContentRange(begin, last, complete)


@given(st.text(alphabet="bytes 0129-/*+,\t٣", max_size=24))
def test_content_range_accepts_nothing_that_contradicts_itself(value: str) -> None:
    """Whatever is accepted has first <= last < complete; the rest is RangeMismatch."""
    try:
        sent = parse_content_range(value)
    except RangeMismatch:
        return
    if sent.first is None or sent.last is None:
        assert (sent.first, sent.last) == (None, None)
        assert sent.complete is not None
    else:
        assert 0 <= sent.first <= sent.last
        assert sent.complete is None or sent.last < sent.complete


def test_foreign_text_is_shown_escaped_and_cut() -> None:
    """A long or hostile value cannot flood or forge a message."""
    assert shown("a\nb") == r"'a\nb'"
    assert shown("xxxxx", 5) == "'xxxxx'"
    assert shown("x" * 1000, 5) == "'xxxxx'… (1000 characters)"
