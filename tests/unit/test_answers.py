"""Which answers to a range request may be written, and why the others may not."""

from __future__ import annotations

import base64
import hashlib

import pytest

from segdl._answers import REDIRECTS, Answer, Expectation, check_answer
from segdl._digests import Digest
from segdl._headers import EntityTag, Head, Validator
from segdl._ranges import ByteRange
from segdl.errors import (
    ProtocolError,
    RangeMismatch,
    RepresentationChanged,
    StatusError,
    TransferError,
)

LENGTH = 10_000
TAG = '"v1"'
MONDAY = "Mon, 07 Nov 1994 08:49:37 GMT"
TUESDAY = "Tue, 08 Nov 1994 08:49:37 GMT"

Fields = tuple[str, str]


def head(status: int, *fields: Fields) -> Head:
    """Make the head of an answer."""
    return Head(status, "", fields)


def part(content_range: str, *fields: Fields) -> Head:
    """Make a 206 with a Content-Range."""
    return head(206, ("content-range", content_range), *fields)


def expect(
    begin: int = 1000,
    end: int = 2000,
    complete: int | None = None,
    validator: Validator | None = None,
) -> Expectation:
    """Expect an answer to a range."""
    return Expectation(
        wanted=ByteRange(begin, end), complete=complete, validator=validator
    )


def known(etag: str | None = TAG, modified: str | None = None) -> Validator:
    """Make the validator that a download has recorded."""
    tag = None if etag is None else EntityTag.parse(etag)
    return Validator(etag=tag, last_modified=modified)


def test_right_part_may_be_written() -> None:
    """A 206 that begins where we asked tells where it ends and what it is part of."""
    answer = check_answer(
        [
            part(
                "bytes 1000-1999/10000",
                ("content-length", "1000"),
                ("etag", TAG),
                ("content-disposition", "attachment; filename=a"),
            )
        ],
        expect(),
    )
    assert answer == Answer(
        first=1000,
        end=2000,
        complete=LENGTH,
        ranges=True,
        validator=known(),
        disposition="attachment; filename=a",
        digests=(),
        accepts_ranges=True,
        framed=True,
    )


@pytest.mark.parametrize(
    ("content_range", "end"),
    [
        ("bytes 1000-1999/10000", 2000),
        ("bytes 1000-1000/10000", 1001),  # less than asked: legal, s15.3.7
        ("bytes 1000-1499/10000", 1500),
        ("bytes 1000-2000/10000", 2000),  # more than asked: cut at our end
        ("bytes 1000-9999/10000", 2000),
        ("BYTES 1000-1999/10000", 2000),
    ],
)
def test_part_ends_where_it_says_but_not_beyond_our_end(
    content_range: str, end: int
) -> None:
    """Less than asked is taken, more than asked is cut."""
    assert check_answer([part(content_range)], expect()).end == end


def test_unknown_complete_length_is_taken_from_what_is_known() -> None:
    """A `*` for the complete length will do once the length is known."""
    answer = check_answer([part("bytes 1000-1999/*")], expect(complete=LENGTH))
    assert answer.complete == LENGTH


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (part("bytes 1001-1999/10000"), "asked for bytes 1000-1999"),
        (part("bytes 999-1999/10000"), "asked for bytes 1000-1999"),
        (part("bytes 0-999/10000"), "asked for bytes 1000-1999"),
        (part("bytes 1000-1999/*"), "no complete length"),
        (part("bytes */10000"), "names no bytes"),
        (part("bytes */*"), "neither a range nor a complete length"),
        (part("bytes 1999-1000/10000"), "before the first"),
        (part("bytes 1000-1999/1999"), "not inside the complete length"),
        (part("bytes 1000-1999/1000"), "not inside the complete length"),
        (part("bytes -1000-1999/10000"), "decimal digits"),
        (part("bytes +1000-1999/10000"), "decimal digits"),
        (part("bytes 0x3e8-0x7cf/10000"), "decimal digits"),
        (part("bytes 1000-1999/1e4"), "decimal digits"),
        (part("bytes 1000-1999/"), "decimal digits"),
        (part("bytes 1000-/10000"), "decimal digits"),
        (part("bytes 1000-1999/18446744073709551616"), "larger than"),
        (part("bytes 1000-18446744073709551616/*"), "larger than"),
        (part("bytes: 1000-1999/10000"), "unknown range unit"),
        (part("items 1000-1999/10000"), "unknown range unit"),
        (part("bytes=1000-1999/10000"), "no space"),
        (part("bytes 1000-1999"), "no '/'"),
        (part("bytes 1000/10000"), "no '-'"),
        (part("bytes 1000-1499/10000, bytes 1500-1999/10000"), "decimal digits"),
        (part(""), "no space"),
        (head(206), "this one has 0"),
        (
            part("bytes 1000-1999/10000", ("content-range", "bytes 1000-1999/10000")),
            "this one has 2",
        ),
        (
            part("bytes 1000-1999/10000", ("content-length", "999")),
            "names 1000 bytes, Content-Length says 999",
        ),
        (
            part("bytes 1000-1999/10000", ("content-length", "1001")),
            "names 1000 bytes, Content-Length says 1001",
        ),
        (
            head(206, ("content-type", "multipart/byteranges; boundary=x")),
            "multipart",
        ),
        (
            part(
                "bytes 1000-1999/10000",
                ("content-type", "multipart/x-byteranges; boundary=x"),
            ),
            "multipart",
        ),
    ],
    ids=lambda value: str(value.fields) if isinstance(value, Head) else None,
)
def test_part_that_is_not_the_one_asked_for_is_refused(answer: Head, why: str) -> None:
    """A 206 that is not plainly our range is refused, and the message says why."""
    with pytest.raises(RangeMismatch) as caught:
        check_answer([answer], expect())
    assert why in str(caught.value)


def test_part_is_refused_when_no_range_was_asked_for() -> None:
    """A 206 to a request without a range is no answer to it."""
    with pytest.raises(RangeMismatch, match="no range was asked for"):
        check_answer([part("bytes 0-9999/10000")], Expectation(wanted=None))


@pytest.mark.parametrize(
    "fields",
    [
        (("content-length", "-1"),),
        (("content-length", "+1000"),),
        (("content-length", "1000, 1000"),),
        (("content-length", "18446744073709551616"),),
        (("content-length", "1000"), ("content-length", "1001")),
    ],
)
def test_lying_content_length_is_refused(fields: tuple[Fields, ...]) -> None:
    """A Content-Length is one number, 0 to 2^63 - 1."""
    with pytest.raises(ProtocolError):
        check_answer([part("bytes 1000-1999/10000", *fields)], expect())


def test_equal_content_lengths_count_as_one() -> None:
    """A repeated field with the same value contradicts nothing (RFC 9112 s6.3)."""
    twice = [("content-length", "1000")] * 2
    assert check_answer([part("bytes 1000-1999/10000", *twice)], expect()).end == 2000


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((("content-encoding", "gzip"),), "gzip-coded"),
        ((("content-encoding", "identity, br"),), "br-coded"),
        ((("content-encoding", ""), ("content-encoding", "GZIP")), "gzip-coded"),
        (
            (("content-length", "1000"), ("transfer-encoding", "chunked")),
            "both Transfer-Encoding and Content-Length",
        ),
    ],
)
def test_coded_or_doubly_framed_content_is_refused(
    status: int, fields: tuple[Fields, ...], why: str
) -> None:
    """Positions in coded content are none in the file; two lengths can't both count."""
    answer = head(status, ("content-range", "bytes 1000-1999/10000"), *fields)
    with pytest.raises(ProtocolError) as caught:
        check_answer([answer], expect())
    assert why in str(caught.value)


def test_identity_is_no_coding() -> None:
    """Content-Encoding: identity says that there is none."""
    answer = part("bytes 1000-1999/10000", ("content-encoding", "identity"))
    assert check_answer([answer], expect()).ranges


@pytest.mark.parametrize(
    ("recorded", "fields"),
    [
        (known(), (("etag", TAG),)),
        (known('W/"v1"'), (("etag", 'W/"v1"'),)),
        (known('W/"v1"'), (("etag", TAG),)),
        (known(), ()),  # a 206 to If-Range may leave it out in bad servers
        (known(None), (("etag", TAG),)),
        (known(None, MONDAY), (("last-modified", MONDAY),)),
        (known(None, MONDAY), (("last-modified", "Monday, 07-Nov-94 08:49:37 GMT"),)),
        (known(TAG, MONDAY), (("etag", TAG), ("last-modified", TUESDAY))),
    ],
)
def test_part_of_the_same_representation_is_accepted(
    recorded: Validator, fields: tuple[Fields, ...]
) -> None:
    """Validators that agree, or say nothing, let a part through."""
    answer = part("bytes 1000-1999/10000", *fields)
    assert check_answer([answer], expect(complete=LENGTH, validator=recorded)).ranges


@pytest.mark.parametrize("status", [200, 206])
@pytest.mark.parametrize(
    ("recorded", "fields", "why"),
    [
        (known(), (("etag", '"v2"'),), '"v1"'),
        (known(), (("etag", 'W/"v2"'),), '"v1"'),
        (known('W/"v1"'), (("etag", 'W/"v2"'),), '"v1"'),
        (
            known('W/"v1"', MONDAY),
            (("etag", 'W/"v1"'), ("last-modified", TUESDAY)),
            "Last-Modified",
        ),
        (known(None, MONDAY), (("last-modified", TUESDAY),), "Last-Modified"),
    ],
)
def test_answer_of_another_representation_is_refused(
    status: int, recorded: Validator, fields: tuple[Fields, ...], why: str
) -> None:
    """Bytes of two versions are never combined: the validators must agree."""
    length = "1000" if status == 206 else str(LENGTH)
    answer = head(
        status,
        ("content-range", "bytes 1000-1999/10000"),
        ("content-length", length),
        *fields,
    )
    with pytest.raises(RepresentationChanged) as caught:
        check_answer([answer], expect(complete=LENGTH, validator=recorded))
    assert "changed" in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        part("bytes 1000-1999/10001"),
        part("bytes 1000-1999/2000"),
        head(200, ("content-length", "10001")),
        head(416, ("content-range", "bytes */999")),
        head(416, ("content-range", "bytes */0")),
    ],
    ids=lambda answer: f"{answer.status} {answer.fields[0][1]}",
)
def test_another_complete_length_means_another_file(answer: Head) -> None:
    """The complete length never changes within one representation."""
    with pytest.raises(RepresentationChanged, match="it had 10000"):
        check_answer([answer], expect(complete=LENGTH))


def test_failed_precondition_means_another_file() -> None:
    """A 412 says that the representation asked for is gone."""
    with pytest.raises(RepresentationChanged, match="412"):
        check_answer([head(412)], expect(complete=LENGTH))


@pytest.mark.parametrize(
    ("fields", "end", "framed"),
    [
        ((("content-length", "10000"),), LENGTH, True),
        ((("transfer-encoding", "chunked"),), None, True),
        ((("transfer-encoding", "gzip"), ("transfer-encoding", "Chunked")), None, True),
        ((("transfer-encoding", "identity"),), None, False),
        ((("transfer-encoding", "chunked, identity"),), None, False),
        ((("transfer-encoding", ""),), None, False),
        ((("transfer-encoding", ","),), None, False),
        ((), None, False),
    ],
)
def test_whole_answer_begins_at_byte_0(
    fields: tuple[Fields, ...], end: int | None, framed: bool
) -> None:
    """A 200 is the whole file; without a length, only chunks show where it ends."""
    answer = check_answer([head(200, *fields)], expect())
    assert (answer.first, answer.end, answer.complete) == (0, end, end)
    assert (answer.ranges, answer.framed) == (False, framed)


def test_whole_answer_to_no_range() -> None:
    """Asked without a range, a 200 is what should come."""
    answer = check_answer(
        [head(200, ("content-length", "5"))], Expectation(wanted=None)
    )
    assert (answer.first, answer.end, answer.ranges) == (0, 5, False)


def test_ignored_if_range_with_the_same_validator_is_no_change() -> None:
    """A 200 with our entity tag and length is a server without If-Range, not news."""
    answer = check_answer(
        [head(200, ("content-length", str(LENGTH)), ("etag", TAG))],
        Expectation(
            wanted=ByteRange(1000, 2000),
            complete=LENGTH,
            validator=known(),
            proof=True,
        ),
    )
    assert not answer.ranges


@pytest.mark.parametrize("fields", [(), (("content-length", "612"),)])
def test_login_page_is_not_taken_for_a_new_version(fields: tuple[Fields, ...]) -> None:
    """HTML in place of a known file is a portal or a login, and the message says so."""
    page = head(200, ("content-type", "text/html; charset=utf-8"), *fields)
    with pytest.raises(RangeMismatch, match="HTML page instead of the file"):
        check_answer([page], expect(complete=LENGTH))


@pytest.mark.parametrize("known", [{"complete": LENGTH}, {"had": LENGTH}])
@pytest.mark.parametrize("status", [200, 206])
def test_page_for_missing_files_is_not_taken_for_a_new_version(
    known: dict[str, int], status: int
) -> None:
    """A server that has it as a file gives a validator, and ranges of it."""
    fields = [("content-type", "text/html"), ("content-length", "22"), ("etag", '"v2"')]
    if status == 206:
        fields.append(("content-range", "bytes 0-21/22"))
    with pytest.raises(RangeMismatch, match="HTML page instead of the file"):
        check_answer(
            [head(status, *fields)], Expectation(wanted=ByteRange(0, 2000), **known)
        )


LENGTHS: list[tuple[Fields, ...]] = [
    (),
    (("content-length", "612"),),
    (("transfer-encoding", "chunked"),),
]


@pytest.mark.parametrize("fields", LENGTHS)
def test_error_page_is_not_taken_for_a_new_version(fields: tuple[Fields, ...]) -> None:
    """Something of another length, with nothing to tell versions by, is refused."""
    page = head(200, ("content-type", "application/json"), *fields)
    with pytest.raises(RangeMismatch, match="instead of the file of 10000 bytes"):
        check_answer([page], Expectation(wanted=None, had=LENGTH))


@pytest.mark.parametrize(
    "fields",
    [
        (("content-length", "612"), ("etag", '"v2"')),
        (("content-length", "612"), ("last-modified", MONDAY)),
        (("content-length", str(LENGTH)),),
    ],
)
def test_new_version_has_a_validator_or_the_length(fields: tuple[Fields, ...]) -> None:
    """What says which version it is, or is as long as the file was, may be the file."""
    assert check_answer([head(200, *fields)], Expectation(wanted=None, had=LENGTH))


def test_stream_of_another_representation_is_refused() -> None:
    """An answer without a length is compared by its validator all the same."""
    stream = head(200, ("transfer-encoding", "chunked"), ("etag", '"v2"'))
    with pytest.raises(RepresentationChanged, match="v1"):
        check_answer([stream], expect(0, 2000, complete=LENGTH, validator=known()))


def test_html_file_can_be_downloaded() -> None:
    """Nothing is wrong with HTML when that is the file."""
    page = head(200, ("content-type", "text/html"), ("content-length", "612"))
    assert check_answer([page], expect(0, 100)).complete == 612
    assert check_answer([page], expect(0, 100, complete=612)).complete == 612


@pytest.mark.parametrize(
    ("value", "accepts"), [("bytes", True), ("none", False), (" None ", False)]
)
def test_accept_ranges_none_is_believed(value: str, accepts: bool) -> None:
    """Accept-Ranges: none tells that asking again for a range is of no use."""
    answer = check_answer([head(200, ("accept-ranges", value))], expect())
    assert answer.accepts_ranges is accepts


@pytest.mark.parametrize("complete", [None, 0])
def test_unsatisfied_range_of_an_empty_file(complete: int | None) -> None:
    """A 416 with `bytes */0` is the answer of an empty file."""
    answer = check_answer(
        [head(416, ("content-range", "bytes */0"), ("etag", TAG))],
        expect(0, 1000, complete=complete),
    )
    assert (answer.first, answer.end, answer.complete) == (0, 0, 0)
    assert answer.validator == known()


@pytest.mark.parametrize(
    ("fields", "complete"),
    [
        ((("content-range", "bytes */10000"),), LENGTH),
        ((("content-range", "bytes */10000"),), None),
        ((("content-range", "bytes */*"),), None),
        ((), LENGTH),
        ((), None),
    ],
)
def test_unsatisfied_range_that_explains_nothing(
    fields: tuple[Fields, ...], complete: int | None
) -> None:
    """A 416 without a length, or with the one we know, is an error of its own."""
    with pytest.raises(TransferError) as caught:
        check_answer([head(416, *fields)], expect(complete=complete))
    assert isinstance(caught.value, StatusError | RangeMismatch)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (204, "204"),
        (300, "300"),
        (304, "304"),
        (400, "400"),
        (401, "token or password"),
        (403, "access was refused"),
        (404, "check the URL"),
        (407, "the proxy wants"),
        (410, "was removed"),
        (429, "slow down"),
        (500, "500"),
        (503, "503"),
        (599, "599"),
    ],
)
def test_other_status_is_an_error_with_a_hint(status: int, hint: str) -> None:
    """A status that is no success becomes a StatusError that says what to do."""
    with pytest.raises(StatusError) as caught:
        check_answer([head(status)], expect())
    assert caught.value.status == status
    who = "proxy" if status == 407 else "origin"
    assert f"the {who} answered {status}" in str(caught.value)
    assert hint in str(caught.value)


@pytest.mark.parametrize("status", sorted(REDIRECTS))
def test_redirect_without_a_target_is_an_error(status: int) -> None:
    """A redirect that leads nowhere is a status like others."""
    with pytest.raises(StatusError, match=f"answered {status}"):
        check_answer([head(status)], expect())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("36000", 21600.0), ("-5", None), ("soon", None)],
)
def test_retry_after_is_passed_on(value: str, seconds: float | None) -> None:
    """What the origin asks for is in the error, capped at six hours."""
    with pytest.raises(StatusError) as caught:
        check_answer([head(503, ("retry-after", value))], expect())
    assert caught.value.retry_after_seconds == seconds


def test_reason_is_cut_and_made_printable() -> None:
    """What the origin says of an error cannot garble a terminal or fill it."""
    answer = Head(404, "\x1b[31mgone\x07" + "x" * 500, ())
    with pytest.raises(StatusError) as caught:
        check_answer([answer], expect())
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 150


def test_the_last_head_counts_and_redirects_may_state_digests() -> None:
    """Of the heads of a redirect chain, only the last one is the answer."""
    raw = hashlib.sha256(b"x").digest()
    heads = [
        head(302, ("x-linked-etag", f'"{raw.hex()}"'), ("etag", '"other"')),
        part("bytes 1000-1999/10000", ("etag", TAG)),
    ]
    answer = check_answer(heads, expect(validator=known()))
    assert answer.digests == (Digest("sha256", raw.hex(), "X-Linked-Etag"),)
    assert answer.validator == known()


def test_digest_stated_with_the_part_is_passed_on() -> None:
    """Repr-Digest is the whole file's on every range (RFC 9530 s3)."""
    raw = hashlib.sha256(b"x").digest()
    field = f"sha-256=:{base64.b64encode(raw).decode()}:"
    answer = check_answer(
        [part("bytes 1000-1999/10000", ("repr-digest", field))], expect()
    )
    assert [str(digest) for digest in answer.digests] == [f"sha256:{raw.hex()}"]
