"""The head of a response, and the validators that tell one file from another.

    libcurl HEADERFUNCTION, a line a call
        HTTP/1.1 100 …            an informational answer, a proxy's CONNECT answer:
        (blank)                   each new status line starts over
        HTTP/1.1 206 …  ┐
        ETag: "v1"      ├─ HeadParser ──> Head ──> Validator ──> disagreement()
        (blank)         ┘                  │            └──────> if_range()
        body …                             └──> content_coding, is_multipart, …
        trailer lines             read past: they are not part of the head

Ranges may be put together only when they come from the same representation (RFC 9110
s15.3.7.3). `Validator.disagreement` is the one place that decides it, for lanes of one
run and for a resume alike; If-Range only saves bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from segdl._ranges import parse_length, shown
from segdl.errors import ManifestError, ProtocolError

# libcurl's own ceiling for one response's header is 300 KiB too (CVE-2023-38039).
MAX_HEAD_BYTES = 300 * 1024
MAX_HEAD_LINES = 1000
# urllib3's cap: a server that asks for more wants us gone, not patient.
MAX_RETRY_AFTER_SECONDS = 6 * 3600.0

# RFC 9110 s8.8.2.2 asks for one second between Last-Modified and Date; RFC 7232 asked
# for 60. The older figure leaves room for several backends whose clocks differ.
_STRONG_DATE_AGE = timedelta(seconds=60)
# Real tags have a few dozen characters; a manifest's line must stay below 4 KiB.
_MAX_TAG_CHARACTERS = 512

_STATUS_LINE = re.compile(r"HTTP/(?:1\.[0-9]|[23](?:\.0)?) +([1-9][0-9]{2})(?: (.*))?")
_ENTITY_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_BARE_TAG = re.compile(r"[\x21\x23-\x7e\x80-\xff]+")

_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_TIME = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
# RFC 9110 s5.6.7: IMF-fixdate, and the two older forms a recipient must accept.
_DATES = tuple(
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        rf"[a-z]{{3}}, (?P<day>\d\d?) (?P<month>[a-z]{{3}}) (?P<year>\d{{4}}) {_TIME}"
        r" (?:GMT|UTC)",
        rf"[a-z]{{6,9}}, (?P<day>\d\d)-(?P<month>[a-z]{{3}})-(?P<year>\d\d) {_TIME}"
        r" GMT",
        rf"[a-z]{{3}} (?P<month>[a-z]{{3}}) (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


@dataclass(frozen=True, slots=True)
class Head:
    """
    Status and header fields of one response.

    Args:
        status: 100 - 999.
        reason: The reason phrase; empty on HTTP/2 and often elsewhere.
        fields: Lower-case name and value of each field line, in order of arrival.
    """

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str | None:
        """Return the first value of a field, None when it is not there."""
        name = name.lower()
        for field, value in self.fields:
            if field == name:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Return the value of each line of a field, in order of arrival."""
        name = name.lower()
        return [value for field, value in self.fields if field == name]


class HeadParser:
    """
    Put a response head together from libcurl's header lines.

    One parser serves one request, so that its limits also stop an origin that sends
    informational answers for ever. Bytes read as latin-1, which loses none.
    """

    __slots__ = ("_bytes", "_fields", "_lines", "_reason", "_status", "complete")

    def __init__(self) -> None:
        self.complete = False
        self._status = 0
        self._reason = ""
        self._fields: list[tuple[str, str]] = []
        self._bytes = 0
        self._lines = 0

    def feed(self, line: bytes) -> None:
        """
        Take one line of the head.

        Args:
            line: As libcurl's HEADERFUNCTION gives it, its line end included.

        Raises:
            ProtocolError: The line breaks HTTP/1.1, or the head is too large.
        """
        self._bytes += len(line)
        self._lines += 1
        if self._bytes > MAX_HEAD_BYTES:
            raise ProtocolError(
                f"the response head is larger than {MAX_HEAD_BYTES} bytes"
            )
        if self._lines > MAX_HEAD_LINES:
            raise ProtocolError(
                f"the response head has more than {MAX_HEAD_LINES} lines"
            )
        text = _decoded(line)
        if text.startswith("HTTP/"):
            self._start(text)
        elif self.complete:
            return
        elif not self._status:
            raise ProtocolError(f"the answer is not HTTP: it begins {shown(text)}")
        elif not text:
            self.complete = True
        elif text[0] in " \t":
            self._unfold(text)
        else:
            self._add(text)

    @property
    def head(self) -> Head:
        """Return the head; ProtocolError until its blank line has come."""
        if not self.complete:
            raise ProtocolError("the response ended before its head did")
        return Head(self._status, self._reason, tuple(self._fields))

    def _start(self, line: str) -> None:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(f"{shown(line)} is no HTTP status line")
        self.complete = False
        self._status = int(match[1])
        self._reason = (match[2] or "").strip()
        self._fields = []

    def _add(self, line: str) -> None:
        name, colon, value = line.partition(":")
        # Space before the colon is removed, as RFC 9112 s5.1 tells a proxy to do:
        # skipping such a field could hide a content coding.
        name = name.rstrip(" \t").lower()
        if not colon or not name:
            raise ProtocolError(f"{shown(line)} is no header field")
        self._fields.append((name, value.strip(" \t")))

    def _unfold(self, line: str) -> None:
        # obs-fold: RFC 9112 s5.2 lets a user agent replace it with a space.
        if not self._fields:
            raise ProtocolError("space before the first header field")
        name, value = self._fields[-1]
        self._fields[-1] = (name, " ".join((value, line.strip(" \t"))).strip())


def _decoded(line: bytes) -> str:
    text = line.decode("latin-1")
    text = text[:-1] if text.endswith("\n") else text
    text = text[:-1] if text.endswith("\r") else text
    # A bare CR or LF makes two fields of one for some readers (RFC 9112 s2.2).
    for character, name in (("\0", "NUL"), ("\r", "CR"), ("\n", "LF")):
        if character in text:
            raise ProtocolError(f"{name} within a line of the response head")
    return text


@dataclass(frozen=True, slots=True)
class EntityTag:
    """
    An entity tag (RFC 9110 s8.8.3).

    Args:
        opaque: What stands between the quotes.
        weak: Whether it only promises a like, not an equal representation.
    """

    opaque: str
    weak: bool

    @classmethod
    def parse(cls, value: str) -> EntityTag | None:
        """
        Read an ETag field value.

        An unquoted value is taken as a weak tag: it still tells files apart, but an
        origin that breaks the grammar is not trusted to mean "byte for byte". An
        empty tag says nothing, so it counts as malformed.

        Args:
            value: The field's value.

        Returns:
            The tag, None when it is malformed, empty or longer than 512 characters.
        """
        value = value.strip(" \t")
        if len(value) > _MAX_TAG_CHARACTERS:
            return None
        match = _ENTITY_TAG.fullmatch(value)
        if match:
            return cls(match[2], bool(match[1])) if match[2] else None
        return cls(value, True) if _BARE_TAG.fullmatch(value) else None

    def __str__(self) -> str:
        return f'{"W/" if self.weak else ""}"{self.opaque}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """
    What a response says about which version of the file it is.

    | the origin sent                             | is_strong | if_range()    |
    |---------------------------------------------|-----------|---------------|
    | ETag: "v1"                                  | yes       | "v1"          |
    | ETag: W/"v1", whatever Last-Modified is     | no        | None          |
    | Last-Modified, Date 60 s later or more      | yes       | Last-Modified |
    | Last-Modified, Date closer, or no Date      | no        | None          |
    | neither                                     | no        | None          |

    Args:
        etag: The entity tag, None without a usable one.
        last_modified: The Last-Modified field as sent, None when it is no HTTP date.
        last_modified_strong: Whether that date is strong (RFC 9110 s8.8.2.2).
    """

    etag: EntityTag | None = None
    last_modified: str | None = None
    last_modified_strong: bool = False

    @classmethod
    def from_head(cls, head: Head) -> Validator:
        """Read ETag, Last-Modified and Date of a response."""
        etag = head.get("etag")
        last_modified = head.get("last-modified")
        modified = parse_http_date(last_modified)
        sent = parse_http_date(head.get("date"))
        return cls(
            etag=EntityTag.parse(etag) if etag else None,
            last_modified=last_modified if modified else None,
            last_modified_strong=bool(
                modified and sent and sent - modified >= _STRONG_DATE_AGE
            ),
        )

    @property
    def is_strong(self) -> bool:
        """Return whether it promises equal bytes, also across runs."""
        return self.if_range() is not None

    def if_range(self) -> str | None:
        """
        Return the If-Range value to send with a range, None for no If-Range.

        A weak tag must not be sent, nor a date beside any tag (RFC 9110 s13.1.5).
        """
        if self.etag is not None:
            return None if self.etag.weak else str(self.etag)
        return self.last_modified if self.last_modified_strong else None

    def vouches_for(self, other: Validator) -> bool:
        """
        Tell whether another origin's answer is for certain about the same file.

        Both must state the same strong validator: the same entity tag, or, where
        neither has one, the same date.

        Args:
            other: The validator of that answer.
        """
        return (
            self.is_strong
            and other.is_strong
            and (self.etag is None) == (other.etag is None)
            and self.disagreement(other) is None
        )

    def disagreement(self, other: Validator) -> str | None:
        """
        Say why two answers cannot be about the same representation.

        A field that only one side has proves nothing: a 206 to If-Range may leave
        Last-Modified out (RFC 9110 s15.3.7), and a cache may lose the tag.

        Args:
            other: The validator of a later answer.

        Returns:
            A sentence, None when they agree as far as they say anything.
        """
        if self.etag is not None and other.etag is not None:
            if self.etag.opaque != other.etag.opaque:
                return (
                    f"the entity tag was {shown(str(self.etag))} "
                    f"and is now {shown(str(other.etag))}"
                )
            if not self.etag.weak and not other.etag.weak:
                return None
        # Compared as times, since two backends may write one date in two forms.
        mine = parse_http_date(self.last_modified)
        theirs = parse_http_date(other.last_modified)
        if mine is not None and theirs is not None and mine != theirs:
            return (
                f"Last-Modified was {self.last_modified} "
                f"and is now {other.last_modified}"
            )
        return None

    def is_left_open_by(self, other: Validator) -> bool:
        """
        Tell whether an answer says nothing that this strong validator could refute.

        Args:
            other: The validator of a later answer.
        """
        tags = self.etag is not None and other.etag is not None
        dates = self.last_modified is not None and other.last_modified is not None
        return self.is_strong and not (tags or dates)

    def merged(self, other: Validator) -> Validator:
        """Add what another answer of the same file tells beyond this one."""
        if self.last_modified is not None:
            other = replace(
                other,
                last_modified=self.last_modified,
                last_modified_strong=self.last_modified_strong,
            )
        return other if self.etag is None else replace(other, etag=self.etag)

    def to_json(self) -> dict[str, Any]:
        """Return the form a manifest stores."""
        return {
            "etag": None if self.etag is None else str(self.etag),
            "last_modified": self.last_modified,
            "last_modified_strong": self.last_modified_strong,
        }

    @classmethod
    def from_json(cls, obj: object) -> Validator:
        """
        Read what `to_json` wrote; anything else is refused.

        Args:
            obj: Decoded JSON from a file that anyone may have changed.

        Raises:
            ManifestError: Another shape, or values `from_head` cannot yield.
        """
        keys = {"etag", "last_modified", "last_modified_strong"}
        if not isinstance(obj, dict) or obj.keys() != keys:
            raise ManifestError("the manifest's validator has not the expected keys")
        etag = _stored_tag(obj["etag"])
        last_modified = obj["last_modified"]
        strong = obj["last_modified_strong"]
        if last_modified is not None and (
            not isinstance(last_modified, str) or parse_http_date(last_modified) is None
        ):
            raise ManifestError("the manifest's last_modified is no HTTP date")
        if not isinstance(strong, bool) or (strong and last_modified is None):
            raise ManifestError("the manifest's last_modified_strong is not usable")
        return cls(etag=etag, last_modified=last_modified, last_modified_strong=strong)


def _stored_tag(value: object) -> EntityTag | None:
    if value is None:
        return None
    tag = EntityTag.parse(value) if isinstance(value, str) else None
    if tag is None or str(tag) != value:
        raise ManifestError("the manifest's etag is no entity tag")
    return tag


def parse_http_date(value: str | None) -> datetime | None:
    """
    Read an HTTP date in any of the three forms of RFC 9110 s5.6.7.

    `email.utils` would do, but costs 6.5 ms to import and accepts far more.

    Args:
        value: A field's value, None when the field is absent.

    Returns:
        The time in UTC, None when the value is no HTTP date.
    """
    if value is None or len(value) > 40:
        return None
    for pattern in _DATES:
        match = pattern.fullmatch(value.strip(" \t"))
        if match:
            return _datetime(match)
    return None


def _datetime(match: re.Match[str]) -> datetime | None:
    year = int(match["year"])
    if len(match["year"]) == 2:
        # POSIX's window for the two-digit years of the RFC 850 form.
        year += 2000 if year < 69 else 1900
    try:
        return datetime(
            year,
            _MONTHS.split().index(match["month"].lower()) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            # HTTP allows the leap second :60, datetime does not.
            min(int(match["second"]), 59) if match["second"] <= "60" else -1,
            tzinfo=timezone.utc,
        )
    except ValueError:
        return None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """
    Read Retry-After, either form (RFC 9110 s10.2.3).

    Args:
        value: The field's value, None when the field is absent.
        now: The present time, with a time zone.

    Returns:
        Seconds to wait, 0.0 - 21600.0 (six hours); 0.0 for a date that is past; None
        when there is nothing usable: negative, fractional, over-long, garbage.
    """
    if value is None:
        return None
    value = value.strip(" \t")
    moment = parse_http_date(value)
    if moment is not None:
        seconds = (moment - now).total_seconds()
    else:
        try:
            seconds = float(parse_length(value))
        except ProtocolError:
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def content_coding(head: Head) -> str | None:
    """
    Return the content codings of a response, None for none (RFC 9110 s8.4).

    A range applies to the coded bytes, so a coded answer is of no use to segdl.
    """
    codings = [
        coding
        for line in head.get_all("content-encoding")
        for coding in (part.strip(" \t").lower() for part in line.split(","))
        if coding not in ("", "identity")
    ]
    return ", ".join(codings) or None


def is_multipart(head: Head) -> bool:
    """Return whether the body is several ranges in one (RFC 9110 s14.6)."""
    # Apache httpd sends the x- form to user agents it takes for old ones.
    return media_type(head) in ("multipart/byteranges", "multipart/x-byteranges")


def media_type(head: Head) -> str:
    """Return type and subtype in lower case without parameters, "" when unknown."""
    return (head.get("content-type") or "").partition(";")[0].strip(" \t").lower()
