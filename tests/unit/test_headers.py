"""How response heads are read, and which answers belong to one file."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdl._headers import (
    MAX_HEAD_BYTES,
    MAX_HEAD_LINES,
    EntityTag,
    Head,
    HeadParser,
    Validator,
    content_coding,
    is_multipart,
    media_type,
    parse_http_date,
    retry_after_seconds,
)
from segdl.errors import ManifestError, ProtocolError

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
MINUTE_LATER = "Sun, 06 Nov 1994 08:50:37 GMT"
MOMENT = datetime(1994, 11, 6, 8, 49, 37, tzinfo=timezone.utc)


def parsed(raw: bytes) -> HeadParser:
    """Feed a head line by line, as libcurl does."""
    parser = HeadParser()
    for line in raw.splitlines(keepends=True):
        parser.feed(line)
    return parser


def head(*fields: tuple[str, str], status: int = 206) -> Head:
    """Make a head with these fields."""
    return Head(status, "", tuple(fields))


def validator(etag: str | None = None, modified: str | None = None) -> Validator:
    """Make a validator of field values."""
    tag = EntityTag.parse(etag) if etag else None
    return Validator(etag=tag, last_modified=modified)


def test_head_is_read_line_by_line() -> None:
    """Status, reason and fields come out, names in lower case, values trimmed."""
    parser = HeadParser()
    lines = [b"HTTP/1.1 206 Partial Content\r\n", b'ETag: "a:b" \r\n', b"X:\t1\r\n"]
    for line in lines:
        parser.feed(line)
        assert not parser.complete
    parser.feed(b"\r\n")
    assert parser.complete
    assert parser.head == Head(206, "Partial Content", (("etag", '"a:b"'), ("x", "1")))


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.0 200 OK", 200, "OK"),
        (b"HTTP/1.1 200", 200, ""),
        (b"HTTP/1.1 200 ", 200, ""),
        (b"HTTP/2 206 ", 206, ""),
        (b"HTTP/3 200", 200, ""),
        (b"HTTP/1.1 999 Request Denied", 999, "Request Denied"),
    ],
)
def test_status_lines_of_all_versions(line: bytes, status: int, reason: str) -> None:
    """The reason is optional, and HTTP/2 and 3 read as libcurl shows them."""
    got = parsed(line + b"\r\n\r\n").head
    assert (got.status, got.reason) == (status, reason)


def test_repeated_field_is_kept_in_order() -> None:
    """`get` gives the first of several lines, `get_all` all, names in any case."""
    got = parsed(b"HTTP/1.1 200 OK\r\nA: 1\r\nb: x\r\na: 2\r\n\r\n").head
    assert got.get("A") == "1"
    assert got.get_all("a") == ["1", "2"]
    assert got.get("c") is None
    assert got.get_all("c") == []


def test_informational_answers_are_replaced_by_the_next_status() -> None:
    """Fields of a 100, or of a proxy's CONNECT answer, do not leak into the head."""
    got = parsed(
        b"HTTP/1.1 200 Connection established\r\nETag: x\r\n\r\n"
        b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n"
        b"HTTP/1.1 206 OK\r\nY: 2\r\n\r\n"
    ).head
    assert got == Head(206, "OK", (("y", "2"),))


def test_new_status_line_takes_completeness_back() -> None:
    """Between two heads nobody can take the first for the answer."""
    parser = parsed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 OK\r\n")
    assert not parser.complete


def test_trailers_are_not_part_of_the_head() -> None:
    """A field after the body changes nothing."""
    parser = parsed(b'HTTP/1.1 200 OK\r\nETag: "1"\r\n\r\nETag: "2"\r\nX: y\r\n\r\n')
    assert parser.head == Head(200, "OK", (("etag", '"1"'),))


def test_folded_field_is_joined_with_a_space() -> None:
    """obs-fold reads as one value (RFC 9112 s5.2)."""
    got = parsed(b"HTTP/1.1 200 OK\r\nA: 1\r\n  2\r\n\t3 \r\nB:\r\n x\r\n\r\n").head
    assert got.fields == (("a", "1 2 3"), ("b", "x"))


def test_space_before_the_colon_does_not_hide_a_field() -> None:
    """`Content-Encoding : gzip` is still seen."""
    got = parsed(b"HTTP/1.1 200 OK\r\nContent-Encoding : gzip\r\n\r\n").head
    assert content_coding(got) == "gzip"


def test_bytes_are_read_as_latin1() -> None:
    """No byte is lost, so raw UTF-8 can be repaired later."""
    got = parsed(b"HTTP/1.1 200 OK\nX: \xc3\xa4\xff\n\n").head
    assert got.get("x") == "\xc3\xa4\xff"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\r\n", "not HTTP"),
        (b"<html>\n", "not HTTP"),
        (b"ETag: x\r\n", "not HTTP"),
        (b"ICY 200 OK\r\n", "not HTTP"),
        (b"HTTP/0.9 200\r\n", "status line"),
        (b"HTTP/1.1 20 OK\r\n", "status line"),
        (b"HTTP/1.1 2000 OK\r\n", "status line"),
        (b"HTTP/1.1 099 OK\r\n", "status line"),
        (b"HTTP/1.1 -20 OK\r\n", "status line"),
        (b"HTTP/1.1\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n", "no header field"),
        (b"HTTP/1.1 200 OK\r\n: x\r\n", "no header field"),
        (b"HTTP/1.1 200 OK\r\n folded\r\n", "space before"),
    ],
)
def test_what_is_not_http_is_refused(raw: bytes, reason: str) -> None:
    """HTTP/0.9 and garbage end in an error that shows the line."""
    with pytest.raises(ProtocolError, match=reason):
        parsed(raw)


@pytest.mark.parametrize(
    ("line", "name"),
    [(b"A: b\0c\r\n", "NUL"), (b"A: b\rC: d\r\n", "CR"), (b"A: b\nC: d\r\n", "LF")],
)
def test_control_characters_in_a_line_are_refused(line: bytes, name: str) -> None:
    """A line that some reader would see as two fields is not used."""
    parser = HeadParser()
    parser.feed(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(ProtocolError, match=name):
        parser.feed(line)


def test_head_is_not_to_be_had_before_its_blank_line() -> None:
    """A connection that ends within the head gives an error, not half a head."""
    parser = parsed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n")
    with pytest.raises(ProtocolError, match="ended before"):
        parser.head  # noqa: B018 (the property raises)


def test_head_of_many_bytes_is_refused() -> None:
    """An endless header costs at most 300 KiB."""
    parser = parsed(b"HTTP/1.1 200 OK\r\n")
    line = b"X: " + b"a" * 16000 + b"\r\n"
    fed = 0
    with pytest.raises(ProtocolError, match="larger than"):  # noqa: PT012 (the loop is the flood)
        while fed <= 2 * MAX_HEAD_BYTES:
            parser.feed(line)
            fed += len(line)
    assert MAX_HEAD_BYTES - len(line) < fed <= MAX_HEAD_BYTES == 300 * 1024


@pytest.mark.parametrize(
    "line", [b"X: a\r\n", b" \r\n", b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
)
def test_flood_of_lines_is_refused(line: bytes) -> None:
    """Fields, folds, informational answers and trailers all count to one limit."""
    parser = parsed(b"HTTP/1.1 200 OK\r\nA: b\r\n")
    with pytest.raises(ProtocolError, match="lines"):  # noqa: PT012 (the loop is the flood)
        for _ in range(2 * MAX_HEAD_LINES):
            parser.feed(line)


@given(st.lists(st.binary(max_size=30), max_size=12))
def test_any_bytes_give_a_head_or_a_protocol_error(lines: list[bytes]) -> None:
    """No line an origin can send raises anything else."""
    parser = HeadParser()
    try:
        for line in [b"HTTP/1.1 200 OK\r\n", *lines, b"\r\n"]:
            parser.feed(line)
    except ProtocolError:
        return
    assert all(name == name.lower() for name, _ in parser.head.fields)


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ('"abc"', EntityTag("abc", False)),
        ('W/"abc"', EntityTag("abc", True)),
        (' "abc"\t', EntityTag("abc", False)),
        ('"a,b\\c"', EntityTag("a,b\\c", False)),
        ('"\xe4"', EntityTag("\xe4", False)),
        ("abc", EntityTag("abc", True)),
        ("W/abc", EntityTag("W/abc", True)),
        ("", None),
        ('""', None),
        ('W/""', None),
        ('"abc', None),
        ('abc"', None),
        ('"a"b"', None),
        ('"a b"', None),
        ("a b", None),
        ('"a\x01"', None),
        ('"€"', None),
        ('"' + "a" * 510 + '"', EntityTag("a" * 510, False)),
        ('"' + "a" * 511 + '"', None),
    ],
)
def test_entity_tag_is_read(value: str, tag: EntityTag | None) -> None:
    """Only a tag that keeps the grammar is strong; nonsense is no tag."""
    assert EntityTag.parse(value) == tag


@given(st.text(max_size=20))
def test_entity_tag_prints_as_it_is_sent(value: str) -> None:
    """What is printed reads back as the same tag, so If-Range sends the same."""
    tag = EntityTag.parse(value)
    if tag is not None:
        assert EntityTag.parse(str(tag)) == tag


@pytest.mark.parametrize(
    ("fields", "strong", "if_range"),
    [
        ([("etag", '"1"')], True, '"1"'),
        ([("etag", '"1"'), ("last-modified", DATE)], True, '"1"'),
        ([("etag", 'W/"1"')], False, None),
        (
            [("etag", 'W/"1"'), ("last-modified", DATE), ("date", MINUTE_LATER)],
            False,
            None,
        ),
        ([("etag", "bare"), ("last-modified", DATE)], False, None),
        ([("last-modified", DATE), ("date", MINUTE_LATER)], True, DATE),
        (
            [("last-modified", DATE), ("date", "Sun, 06 Nov 1994 08:50:36 GMT")],
            False,
            None,
        ),
        ([("last-modified", MINUTE_LATER), ("date", DATE)], False, None),
        ([("last-modified", DATE)], False, None),
        ([("last-modified", DATE), ("date", "yesterday")], False, None),
        ([("last-modified", "0"), ("date", DATE)], False, None),
        ([], False, None),
    ],
)
def test_if_range_follows_rfc_9110(
    fields: list[tuple[str, str]], strong: bool, if_range: str | None
) -> None:
    """A strong tag, or without any tag a date a minute old; never a weak one."""
    got = Validator.from_head(head(*fields))
    assert (got.is_strong, got.if_range()) == (strong, if_range)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (validator('"1"'), validator('"1"')),
        (validator('"1"', DATE), validator('"1"', MINUTE_LATER)),
        (validator('"1"'), validator()),
        (validator('"1"', DATE), validator(None, DATE)),
        (validator('W/"1"', DATE), validator('W/"1"', DATE)),
        (validator('"1"', DATE), validator('W/"1"', DATE)),
        (validator(None, DATE), validator(None, "Sunday, 06-Nov-94 08:49:37 GMT")),
        (validator(), validator()),
    ],
)
def test_answers_that_agree(one: Validator, other: Validator) -> None:
    """Equal strong tags settle it; a field one side leaves out proves nothing."""
    assert one.disagreement(other) is None
    assert other.disagreement(one) is None


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (validator('"1"'), validator('"2"'), "entity tag"),
        (validator('"1"', DATE), validator('"2"', DATE), "entity tag"),
        (validator('W/"1"'), validator('W/"2"'), "entity tag"),
        (validator('"1"'), validator('W/"2"'), "entity tag"),
        (validator(None, DATE), validator(None, MINUTE_LATER), "Last-Modified"),
        (validator('W/"1"', DATE), validator('W/"1"', MINUTE_LATER), "Last-Modified"),
        (validator('"1"', DATE), validator('W/"1"', MINUTE_LATER), "Last-Modified"),
        (validator('"1"', DATE), validator(None, MINUTE_LATER), "Last-Modified"),
    ],
)
def test_answers_that_cannot_be_one_file(
    one: Validator, other: Validator, reason: str
) -> None:
    """Another tag, or another date without two strong tags, is another version."""
    for got in (one.disagreement(other), other.disagreement(one)):
        assert got is not None
        assert reason in got


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (validator(), validator('"1"', DATE), validator('"1"', DATE)),
        (validator('"1"'), validator(), validator('"1"')),
        (validator('"1"'), validator(None, DATE), validator('"1"', DATE)),
        (validator(None, DATE), validator('"1"'), validator('"1"', DATE)),
        (
            validator('"1"', DATE),
            validator('W/"1"', MINUTE_LATER),
            validator('"1"', DATE),
        ),
    ],
)
def test_what_answers_tell_adds_up(
    one: Validator, other: Validator, both: Validator
) -> None:
    """A later answer adds what the earlier one left out, and replaces nothing."""
    assert one.merged(other) == both


@pytest.mark.parametrize(
    "fields",
    [
        [("etag", '"1"'), ("last-modified", DATE), ("date", MINUTE_LATER)],
        [("etag", 'W/"\xe4"')],
        [("last-modified", DATE)],
        [],
    ],
)
def test_validator_survives_the_manifest(fields: list[tuple[str, str]]) -> None:
    """What is stored comes back equal, with the types JSON has."""
    import json

    first = Validator.from_head(head(*fields))
    assert Validator.from_json(json.loads(json.dumps(first.to_json()))) == first


@pytest.mark.parametrize(
    "change",
    [
        {"etag": 1},
        {"etag": "bare"},
        {"etag": '"a b"'},
        {"etag": ""},
        {"last_modified": 1},
        {"last_modified": "0"},
        {"last_modified": None},
        {"last_modified_strong": 1},
        {"last_modified_strong": None},
        {"more": 1},
    ],
)
def test_stored_validator_is_checked(change: dict[str, object]) -> None:
    """A manifest anyone may have edited yields a validator or ManifestError."""
    stored = {"etag": '"1"', "last_modified": DATE, "last_modified_strong": True}
    assert Validator.from_json(stored).to_json() == stored
    with pytest.raises(ManifestError):
        Validator.from_json({**stored, **change})


@pytest.mark.parametrize("value", [head(), EntityTag("1", False), Validator()])
def test_values_cannot_be_changed(value: object) -> None:
    """What was read from an answer stays what the origin said."""
    name = next(iter(value.__slots__))  # type: ignore[attr-defined]
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, None)


@pytest.mark.parametrize("obj", [None, [], "x", {}, {"etag": None}, 1])
def test_stored_validator_of_another_shape_is_refused(obj: object) -> None:
    """Only an object with exactly the three keys is one."""
    with pytest.raises(ManifestError, match="keys"):
        Validator.from_json(obj)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (DATE, MOMENT),
        ("Sunday, 06-Nov-94 08:49:37 GMT", MOMENT),
        ("Sun Nov  6 08:49:37 1994", MOMENT),
        ("Sun, 6 Nov 1994 08:49:37 GMT", MOMENT),
        ("sun, 06 nov 1994 08:49:37 UTC", MOMENT),
        (
            "Sat, 31 Dec 2016 23:59:60 GMT",
            datetime(2016, 12, 31, 23, 59, 59, tzinfo=timezone.utc),
        ),
        (
            "Friday, 01-Jan-38 00:00:00 GMT",
            datetime(2038, 1, 1, tzinfo=timezone.utc),
        ),
        (
            "Wednesday, 01-Jan-69 00:00:00 GMT",
            datetime(1969, 1, 1, tzinfo=timezone.utc),
        ),
        ("Sun, 06 Nov 1994 08:49:37 +0200", None),
        ("Sun, 06 Nov 1994 08:49:61 GMT", None),
        ("Sun, 31 Feb 1994 08:49:37 GMT", None),
        ("Sun, 06 Foo 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 0000 08:49:37 GMT", None),
        ("1994-11-06T08:49:37Z", None),
        ("0", None),
        ("", None),
        (None, None),
        ("Sun, ٠٦ Nov 1994 08:49:37 GMT", None),
        (DATE + " " * 100, None),
    ],
)
def test_http_date_is_read_in_three_forms(
    value: str | None, moment: datetime | None
) -> None:
    """RFC 9110 s5.6.7's forms are read as UTC, everything else is no date."""
    assert parse_http_date(value) == moment


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("36000", 21600.0),
        ("9" * 18, 21600.0),
        ("9" * 5000, None),
        (MINUTE_LATER, 60.0),
        (DATE, 0.0),
        ("Sat, 05 Nov 1994 08:49:37 GMT", 0.0),
        ("Sun, 06 Nov 2094 08:49:37 GMT", 21600.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    """Seconds or a date, capped at six hours; nonsense asks for nothing."""
    assert retry_after_seconds(value, MOMENT) == seconds


def test_retry_after_respects_the_time_zone_of_now() -> None:
    """A clock in another zone waits as long."""
    now = MOMENT.astimezone(timezone(timedelta(hours=5)))
    assert retry_after_seconds(MINUTE_LATER, now) == 60.0


@pytest.mark.parametrize(
    ("values", "coding"),
    [
        ([], None),
        (["identity"], None),
        ([""], None),
        (["gzip"], "gzip"),
        (["GZip"], "gzip"),
        (["identity, br"], "br"),
        (["identity", "gzip , zstd"], "gzip, zstd"),
    ],
)
def test_content_coding_is_found(values: list[str], coding: str | None) -> None:
    """Any coding but identity is seen, on whichever line it stands."""
    fields = [("content-encoding", value) for value in values]
    assert content_coding(head(*fields)) == coding


@pytest.mark.parametrize(
    ("value", "kind", "multipart"),
    [
        ("multipart/byteranges; boundary=x", "multipart/byteranges", True),
        ("Multipart/ByteRanges", "multipart/byteranges", True),
        ("multipart/x-byteranges; boundary=x", "multipart/x-byteranges", True),
        ("multipart/mixed", "multipart/mixed", False),
        (" Text/HTML ;charset=utf-8", "text/html", False),
        ("", "", False),
    ],
)
def test_media_type_is_read(value: str, kind: str, multipart: bool) -> None:
    """Parameters and case do not matter, and several ranges in one are seen."""
    got = head(("content-type", value))
    assert (media_type(got), is_multipart(got)) == (kind, multipart)


def test_media_type_may_be_absent() -> None:
    """Without Content-Type there is none to guess."""
    assert media_type(head()) == ""
