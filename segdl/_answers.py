"""What the head of an answer means for the range that was asked for; pure.

libcurl, told to send a Range, checks neither status nor Content-Range of the answer
(it does so for RESUME_FROM alone), so everything is checked here, before the first
byte of the body may reach the file:

    3xx                       -> follow it, when this lane may; a StatusError otherwise
    206  first position ours? complete length the known one? validator agrees, and
         is not left out? no content coding? not multipart, no HTML page instead of
         the file? one length?                              -> write, cut at our end
    200  to a range           -> no ranges here: the caller decides about one stream;
         of another length, and nothing to tell versions by? some page, not the file
    416  bytes */N            -> N = 0: an empty file; N another: the file changed
    else                      -> StatusError

RFC 9110 s14 (ranges), s15.3.7 (206), s15.5.17 (416); RFC 9112 s6.3 (lengths).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from segdl._digests import Digest, stated_digests
from segdl._headers import (
    Head,
    Validator,
    content_coding,
    is_multipart,
    media_type,
    parse_http_date,
    retry_after_seconds,
)
from segdl._ranges import ByteRange, parse_content_range, parse_length
from segdl.errors import (
    ProtocolError,
    RangeMismatch,
    RepresentationChanged,
    StatusError,
)

REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """
    What an answer has to agree with.

    Attributes:
        wanted: The byte range asked for; None when the whole was asked for.
        complete: Complete length, None while unknown.
        had: Complete length that was known before, and may be another one by now.
        validator: The validator recorded, None while unknown.
        proof: Whether an answer that leaves a strong validator out is refused.
    """

    wanted: ByteRange | None
    complete: int | None = None
    had: int | None = None
    validator: Validator | None = None
    proof: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """
    An answer whose body may be used.

    Attributes:
        first: Position of its first body byte in the representation.
        end: One past its last body byte; None when it does not say.
        complete: Complete length; None when it does not say.
        ranges: Whether it is a range (206), so that others can be asked for.
        validator: Its validator.
        disposition: Content-Disposition, None without one.
        digests: The digests the server states for the whole representation.
        accepts_ranges: False when Accept-Ranges says "none".
        framed: False when only the end of the connection ends the body, so that a
            cut can't be told from the end.
    """

    first: int
    end: int | None
    complete: int | None
    ranges: bool
    validator: Validator
    disposition: str | None
    digests: tuple[Digest, ...]
    accepts_ranges: bool
    framed: bool


def check_answer(heads: Sequence[Head], expected: Expectation) -> Answer:
    """
    Check the head of an answer that is no redirect.

    Args:
        heads: All heads of this request, redirects first; the last one is checked.
        expected: What it has to agree with.

    Returns:
        The answer; `ranges` is False for a 200, which may only be written by a lane
        that begins at byte 0 and is the only one.

    Raises:
        StatusError, RangeMismatch, RepresentationChanged, ProtocolError: see above.
    """
    head = heads[-1]
    if head.status == 416:
        return _unsatisfied(heads, expected)
    if head.status == 412:
        raise RepresentationChanged(
            "the remote file is another one than when the download began (412)"
        )
    if head.status not in (200, 206):
        raise status_error(head)
    if head.get("transfer-encoding") and head.get("content-length"):
        raise ProtocolError(
            "the origin sent both Transfer-Encoding and Content-Length; which of them "
            "is right can't be told (RFC 9112 s6.3)"
        )
    coding = content_coding(head)
    if coding is not None:
        coding = "".join(c if c.isprintable() else "?" for c in coding[:60])
        raise ProtocolError(
            f"the origin sent {coding}-coded content though identity was asked for; "
            "its byte positions mean nothing for the file itself"
        )
    if is_multipart(head):
        raise RangeMismatch("the origin answered one range with a multipart body")
    if head.status == 200:
        return _whole(heads, expected)
    return _part(heads, expected)


def _part(heads: Sequence[Head], expected: Expectation) -> Answer:
    """Check a 206."""
    head = heads[-1]
    if expected.wanted is None:
        raise RangeMismatch("the origin answered 206 though no range was asked for")
    values = head.get_all("content-range")
    if len(values) != 1:
        raise RangeMismatch(f"a 206 has one Content-Range, this one has {len(values)}")
    got = parse_content_range(values[0])
    if got.first is None or got.last is None:
        raise RangeMismatch(f"a 206 with Content-Range {values[0]!r} names no bytes")
    asked = expected.wanted
    if got.first != asked.begin:
        raise RangeMismatch(
            f"asked for bytes {asked.begin}-{asked.end - 1}, origin sent {values[0]!r}"
        )
    length = _content_length(head)
    if length is not None and length != got.last - got.first + 1:
        raise RangeMismatch(
            f"Content-Range {values[0]!r} names {got.last - got.first + 1} bytes, "
            f"Content-Length says {length}"
        )
    if got.complete is not None:
        _refuse_page(head, expected, got.complete)
    validator = Validator.from_head(head)
    _compare(expected, got.complete, validator)
    complete = got.complete if got.complete is not None else expected.complete
    if complete is None:
        raise RangeMismatch(
            f"Content-Range {values[0]!r} tells no complete length, and none is known"
        )
    return _answer(
        heads,
        first=got.first,
        end=min(got.last + 1, asked.end),
        complete=complete,
        ranges=True,
        validator=validator,
    )


def _whole(heads: Sequence[Head], expected: Expectation) -> Answer:
    """Check a 200."""
    head = heads[-1]
    length = _content_length(head)
    _refuse_page(head, expected, length)
    validator = Validator.from_head(head)
    _check_is_file(expected, length, validator)
    _compare(expected, length, validator)
    return _answer(
        heads, first=0, end=length, complete=length, ranges=False, validator=validator
    )


def _unsatisfied(heads: Sequence[Head], expected: Expectation) -> Answer:
    """Make sense of a 416: an empty file, or a file that changed."""
    head = heads[-1]
    complete = None
    value = head.get("content-range")
    if value is not None:
        complete = parse_content_range(value).complete
    if complete == 0 and expected.complete in (None, 0):
        return _answer(
            heads,
            first=0,
            end=0,
            complete=0,
            ranges=True,
            validator=Validator.from_head(head),
        )
    if complete is not None and expected.complete not in (None, complete):
        raise RepresentationChanged(
            f"the remote file has {complete} bytes now, it had {expected.complete}"
        )
    error = status_error(head)
    if expected.complete:
        error.message += (
            f"; the file had {expected.complete} bytes, and if it is another one now, "
            "remove what is there of the old one (`segdl clean`)"
        )
    raise error


def _answer(
    heads: Sequence[Head],
    *,
    first: int,
    end: int | None,
    complete: int | None,
    ranges: bool,
    validator: Validator,
) -> Answer:
    head = heads[-1]
    return Answer(
        first=first,
        end=end,
        complete=complete,
        ranges=ranges,
        validator=validator,
        disposition=head.get("content-disposition"),
        digests=tuple(stated_digests(heads)),
        accepts_ranges=(head.get("accept-ranges") or "").strip().lower() != "none",
        framed=end is not None or _is_chunked(head),
    )


def _is_chunked(head: Head) -> bool:
    """Whether chunks frame the body (RFC 9112 s6.3): nothing else shows its end."""
    codings = ",".join(head.get_all("transfer-encoding"))
    return codings.rpartition(",")[2].strip().lower() == "chunked"


def _refuse_page(head: Head, expected: Expectation, length: int | None) -> None:
    """
    Refuse a login page, a captive portal, or the page a site has for missing files.

    It is no other version of the file, whatever its validator; and where it is a file
    of the server (nginx's `try_files $uri /index.html`) it comes as a 206, too.
    """
    known = expected.had if expected.complete is None else expected.complete
    if known is not None and length != known and media_type(head) == "text/html":
        raise RangeMismatch(
            "the origin answered with an HTML page instead of the file; is a login, "
            "or a token, needed? Or is the file gone? If the page is the file now, "
            "remove what is there of the old one (`segdl clean`)"
        )


def _check_is_file(
    expected: Expectation, length: int | None, validator: Validator
) -> None:
    """Refuse what is more likely an error or a login page than a new version."""
    # Frameworks give a weak tag to every page that they make.
    told = validator.last_modified or (validator.etag and not validator.etag.weak)
    if expected.had and length != expected.had and not told:
        got = "of unknown length" if length is None else f"of {length} bytes"
        raise RangeMismatch(
            f"the origin answered with something {got}, that no validator tells apart "
            f"from a page, instead of the file of {expected.had} bytes; if that is the "
            "file now, remove what is there of the old one (`segdl clean`)"
        )


def _compare(expected: Expectation, complete: int | None, validator: Validator) -> None:
    """Raise unless length and validator are those of the representation we know."""
    if None not in (expected.complete, complete) and complete != expected.complete:
        raise RepresentationChanged(
            f"the remote file has {complete} bytes now, it had {expected.complete}"
        )
    if expected.validator is not None:
        why = expected.validator.disagreement(validator)
        if why is not None:
            raise RepresentationChanged(f"the remote file changed: {why}")
        if expected.proof and expected.validator.is_left_open_by(validator):
            # Maybe one backend's, of several: another one is asked next.
            raise RangeMismatch(
                "the origin does not tell which version of the file it sends, as it "
                "did before; give a checksum to do without that"
            )


def _content_length(head: Head) -> int | None:
    """Parse Content-Length; None without one, or where framing is chunked."""
    values = set(head.get_all("content-length"))
    if not values or head.get("transfer-encoding"):
        return None
    if len(values) > 1:
        raise ProtocolError("the origin sent Content-Length fields that disagree")
    return parse_length(values.pop().strip())


def status_error(head: Head, *, by_proxy: bool = False) -> StatusError:
    """
    Make the error of a status that is no success.

    Args:
        head: Of the answer.
        by_proxy: Whether a proxy gave it, instead of a tunnel to the origin.
    """
    by_proxy = by_proxy or head.status == 407
    hints = {407: "; the proxy wants a user name and password"}
    if not by_proxy:
        hints = {
            401: "; a token or password is needed, or the one given was refused",
            403: "; access was refused: check the token, or get a fresh link",
            404: "; check the URL",
            410: "; the file was removed",
            416: "; the origin says that the range lies outside of the file",
            429: "; the origin asks to slow down",
        }
    reason = "".join(c if c.isprintable() else "?" for c in head.reason[:60])
    return StatusError(
        f"the {'proxy' if by_proxy else 'origin'} answered {head.status} "
        f"{reason}".rstrip()
        + hints.get(head.status, ""),
        status=head.status,
        # By the origin's clock, where it tells it: ours may be a day off.
        retry_after_seconds=retry_after_seconds(
            head.get("retry-after"),
            parse_http_date(head.get("date")) or datetime.now(timezone.utc),
        ),
    )
