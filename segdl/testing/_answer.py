"""What to answer, decided before a byte is sent; pure.

    request ──┐
    file ─────┼──> honest answer ──> each fault that is due changes it ──> Answer
    options ──┘      (RFC 9110)          (segdl.testing.faults)

Faults that happen at a point of the body are not applied here but handed on as
events, for `segdl.testing._send` to act on when it gets there.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from segdl.testing._http import (
    REASONS,
    RequestHead,
    http_date,
    parse_range,
    strong_match,
)
from segdl.testing.faults import POINTED, Counts, Fault, Options

__all__ = [
    "Answer",
    "Event",
    "Page",
    "Representation",
    "Source",
    "login_page",
    "page",
    "plan",
    "render_head",
    "spoil",
]

_ENDLESS = 2**63 - 1
_HALFWAY = frozenset({"corrupt", "chunkbad"})
_INSTEAD = frozenset(
    {"hang", "headerhang", "garbage", "http09", "hdrflood", "hdrlines", "hdrline"}
)
_BOUNDARY = "segdl-boundary"


class Source(Protocol):
    """Where the bytes of a body come from."""

    def buffers(self, begin: int, end: int) -> list[memoryview]:
        """Give the bytes of [begin, end) to send."""
        ...


class Page:
    """
    A small body held in memory.

    Args:
        data: All of it.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)

    def buffers(self, begin: int, end: int) -> list[memoryview]:
        """Give the bytes of [begin, end), and zeros beyond the end."""
        there = self._data[begin:end]
        return [there, memoryview(bytes(end - begin - len(there)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Representation:
    """
    A file to serve, as a request selects it.

    Args:
        size: Complete length in bytes.
        etag: Entity tag as in the header field, None for none.
        last_modified: A date, None for none.
        digest: Gives the lower-case hexadecimal digest for a hashlib name.
    """

    source: Source
    size: int
    etag: str | None
    last_modified: str | None
    digest: Callable[[str], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    A fault that happens at a point of the body.

    Args:
        position: Offset in the representation.
    """

    position: int
    fault: Fault


@dataclass(slots=True, kw_only=True)
class Answer:
    """
    An answer to send.

    Args:
        fields: Header fields but for the framing and Content-Range.
        begin: Offset in the source of the body's first byte.
        end: Offset after its last one.
        size: Complete length of the representation, for Content-Range.
        partial: Whether the body is bytes of a representation, to be logged as such.
        content_length: What Content-Length says, None to leave it out.
        chunked: Whether the body is sent in chunks.
        close: Whether the connection ends after it.
        prefix: Bytes before the body, suffix those after it (multipart).
        instead: A fault that happens in place of the head or within it.
    """

    status: int
    source: Source
    begin: int = 0
    end: int = 0
    size: int = 0
    located: bool = True
    fields: list[tuple[str, str]] = field(default_factory=list)
    extra_lines: tuple[str, ...] = ()
    content_range: str | None = None
    content_length: int | None = None
    chunked: bool = False
    close: bool = False
    gzip: bool = False
    version: str = "HTTP/1.1"
    prefix: bytes = b""
    suffix: bytes = b""
    interim: int = 0
    instead: Fault | None = None
    events: list[Event] = field(default_factory=list)

    def resize(self, begin: int, end: int) -> None:
        """
        Make the body [begin, end) of the source, framed accordingly.

        Args:
            begin: Offset of its first byte.
            end: Offset after its last one.
        """
        self.begin, self.end = begin, end
        if self.content_length is not None:
            self.content_length = end - begin

    def unframe(self) -> None:
        """Send no length: the end of the connection ends the body."""
        self.content_length = None
        self.chunked = False
        self.close = True

    def state_range(self) -> None:
        """Let Content-Range say what the body is."""
        self.content_range = f"bytes {self.begin}-{self.end - 1}/{self.size}"


def page(
    status: int,
    text: str,
    *fields: tuple[str, str],
    media_type: str = "text/plain; charset=utf-8",
) -> Answer:
    """
    Make an answer that is no file.

    Args:
        status: 200 - 599.
        text: The body.
        fields: More header fields.
        media_type: Of the body.
    """
    data = text.encode()
    return Answer(
        status=status,
        source=Page(data),
        end=len(data),
        located=False,
        content_length=len(data),
        fields=[
            ("Date", http_date(time.time())),
            ("Content-Type", media_type),
            *fields,
        ],
    )


def plan(
    request: RequestHead,
    representation: Representation,
    options: Options,
    counts: Counts,
    fire: Callable[[Fault], bool],
) -> Answer:
    """
    Decide what to answer to a request for a file.

    Args:
        request: A GET or HEAD.
        representation: The file.
        options: What the URL asks for.
        counts: Which request of its path this is.
        fire: Counts a fault as happened; False when it happened often enough.
    """
    answer = _honest(request, representation, options, counts)
    return spoil(answer, request, options, counts, fire)


def _honest(
    request: RequestHead,
    representation: Representation,
    options: Options,
    counts: Counts,
) -> Answer:
    size = representation.size
    answer = Answer(
        status=200, source=representation.source, end=size, size=size, content_length=0
    )
    answer.fields = _fields(representation, options)
    answer.extra_lines = options.headers
    answer.resize(0, size)
    wanted = _wanted_range(request, representation, options, counts)
    if wanted is not None and wanted[0] == wanted[1]:
        return _refuse_range(size)
    if wanted is not None:
        answer.status = 206
        answer.resize(*wanted)
        answer.state_range()
    if options.chunked:
        answer.content_length = None
        answer.chunked = True
    return answer


def _refuse_range(size: int) -> Answer:
    refusal = page(416, "no such range\n")
    refusal.size = size
    refusal.content_range = f"bytes */{size}"
    return refusal


def _wanted_range(
    request: RequestHead,
    representation: Representation,
    options: Options,
    counts: Counts,
) -> tuple[int, int] | None:
    # RFC 9110 section 14.2: a Range is for GET alone.
    if request.method != "GET":
        return None
    if options.first_ranges is not None and counts.range > options.first_ranges:
        return None
    if_range = request.headers.get("if-range")
    if if_range is not None and not strong_match(
        if_range, representation.etag, representation.last_modified
    ):
        return None
    return parse_range(request.headers.get("range"), representation.size)


def _fields(representation: Representation, options: Options) -> list[tuple[str, str]]:
    date = http_date(time.time()) if options.date == "auto" else options.date
    fields: list[tuple[str, str | None]] = [
        ("Date", None if date == "none" else date),
        ("Content-Type", options.media_type),
        ("ETag", representation.etag),
        ("Last-Modified", representation.last_modified),
        ("Accept-Ranges", None if options.first_ranges == 0 else "bytes"),
        ("Content-Disposition", options.disposition),
        ("Repr-Digest", _repr_digest(representation, options.digest)),
    ]
    return [(name, value) for name, value in fields if value is not None]


def _repr_digest(representation: Representation, algorithm: str | None) -> str | None:
    if algorithm is None or representation.digest is None:
        return None
    raw = bytes.fromhex(representation.digest(algorithm.replace("-", "")))
    return f"{algorithm}=:{base64.b64encode(raw).decode()}:"  # RFC 9530 section 3


def spoil(
    answer: Answer,
    request: RequestHead,
    options: Options,
    counts: Counts,
    fire: Callable[[Fault], bool],
) -> Answer:
    """
    Apply the faults that are due.

    Args:
        answer: The honest one.
        request: What it answers.
        options: What the URL asks for.
        counts: Which request of its path this is.
        fire: Counts a fault as happened; False when it happened often enough.
    """
    for fault in options.faults:
        if not fault.where.admits(counts):
            continue
        if fault.kind in POINTED:
            _add_event(answer, fault, fire)
        elif _reaches(answer, fault) and _fits(answer, request, fault) and fire(fault):
            answer = _spoil_one(answer, fault)
    answer.events = [e for e in answer.events if e.position <= answer.end]
    answer.events.sort(key=lambda event: event.position)
    return answer


def _add_event(answer: Answer, fault: Fault, fire: Callable[[Fault], bool]) -> None:
    where = fault.where
    unplaced = where.byte is None and where.at is None
    if fault.kind in {"swap", "swapsame"} and unplaced:
        return  # done when the file was chosen
    if where.header or (fault.kind in {"rst", "fin"} and unplaced):
        if answer.instead is None and fire(fault):
            answer.instead = fault
        return
    if fault.kind == "chunkbad":
        answer.content_length, answer.chunked = None, True
    position = where.position(answer.begin, answer.end, answer.size)
    if unplaced and fault.kind in _HALFWAY:
        position = (answer.begin + answer.end) // 2
    if position is not None:
        answer.events.append(Event(position=position, fault=fault))


def _reaches(answer: Answer, fault: Fault) -> bool:
    where = fault.where
    return where.position(answer.begin, answer.end, answer.size) is not None


def _fits(answer: Answer, request: RequestHead, fault: Fault) -> bool:
    """Tell whether the answer is one the fault can happen to, so that it counts."""
    if fault.kind in {"short", "wrongfirst", "multipart", "full200"}:
        return answer.status == 206
    if fault.kind == "ignoreif":
        return answer.status == 206 and "if-range" in request.headers
    if fault.kind in {"nocr", "badcr"}:
        return answer.content_range is not None
    if fault.kind == "nolast416":
        return answer.status == 416
    if fault.kind in {"long", "longbody", "endless", "wronglen"}:
        return answer.status in {200, 206}
    return True


def _spoil_one(answer: Answer, fault: Fault) -> Answer:
    if fault.kind in _INSTEAD:
        answer.instead = fault
        return answer
    if fault.kind == "unsatisfied":
        return _refuse_range(_number(fault, answer.size))
    replacement = _REPLACING.get(fault.kind)
    if replacement is not None:
        page_instead = replacement(fault)
        page_instead.instead = answer.instead
        return page_instead
    _CHANGING[fault.kind](answer, fault)
    return answer


def _status(fault: Fault) -> Answer:
    status = fault.number or 500
    retry = () if fault.text is None else (("Retry-After", fault.text),)
    return page(status, f"{REASONS.get(status, 'Status')}\n", *retry)


def _redirect(fault: Fault) -> Answer:
    return page(302, "elsewhere\n", ("Location", fault.text or ""))


def login_page() -> Answer:
    """Make what a captive portal answers to everything: 200 and a form."""
    text = (
        "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>"
        "<form method=post><input name=user><input name=password></form>"
        "</body></html>\n"
    )
    return page(200, text, media_type="text/html; charset=utf-8")


def _html(_: Fault) -> Answer:
    return login_page()


def _short(answer: Answer, fault: Fault) -> None:
    length = answer.end - answer.begin
    less = length // 2 if fault.number is None else fault.number
    answer.resize(answer.begin, max(answer.begin + 1, answer.end - less))
    answer.state_range()


def _long(answer: Answer, fault: Fault) -> None:
    answer.resize(answer.begin, answer.end + _number(fault, 1024))
    if answer.content_range is not None:
        answer.state_range()


def _longbody(answer: Answer, fault: Fault) -> None:
    answer.resize(answer.begin, answer.end + _number(fault, 1024))


def _wrongfirst(answer: Answer, fault: Fault) -> None:
    by = _number(fault, 1)
    later = answer.begin + by
    begin = later if later < answer.end else max(0, answer.begin - by)
    answer.resize(begin, answer.end)
    answer.state_range()


def _wronglen(answer: Answer, fault: Fault) -> None:
    answer.size += _number(fault, 1)
    if answer.content_range is not None:
        answer.state_range()
    elif answer.content_length is not None:
        # Too few bytes follow, so only the end of the connection can end them.
        answer.content_length = answer.size
        answer.close = True


def _nocr(answer: Answer, _: Fault) -> None:
    answer.content_range = None


def _badcr(answer: Answer, fault: Fault) -> None:
    text = fault.text or ""
    for name, value in (
        ("{first}", answer.begin),
        ("{last}", answer.end - 1),
        ("{complete}", answer.size),
    ):
        text = text.replace(name, str(value))
    answer.content_range = text


def _multipart(answer: Answer, _: Fault) -> None:
    answer.prefix = (
        f"--{_BOUNDARY}\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Range: {answer.content_range}\r\n\r\n"
    ).encode("latin-1")
    answer.suffix = f"\r\n--{_BOUNDARY}--\r\n".encode("latin-1")
    answer.content_range = None
    if answer.content_length is not None:
        answer.content_length += len(answer.prefix) + len(answer.suffix)
    media_type = f"multipart/byteranges; boundary={_BOUNDARY}"
    answer.fields = [
        (name, media_type if name == "Content-Type" else value)
        for name, value in answer.fields
    ]


def _gzip(answer: Answer, _: Fault) -> None:
    answer.gzip = True
    answer.located = False
    answer.content_length, answer.chunked = None, True
    answer.fields.append(("Content-Encoding", "gzip"))


def _clte(answer: Answer, _: Fault) -> None:
    answer.content_length, answer.chunked = answer.end - answer.begin, True


def _full200(answer: Answer, _: Fault) -> None:
    answer.status = 200
    answer.content_range = None
    answer.resize(0, answer.size)


def _endless(answer: Answer, _: Fault) -> None:
    answer.end = _ENDLESS
    answer.unframe()


def _http10(answer: Answer, _: Fault) -> None:
    answer.version = "HTTP/1.0"
    answer.unframe()


def _close(answer: Answer, _: Fault) -> None:
    answer.close = True


def _interim(answer: Answer, fault: Fault) -> None:
    answer.interim = _number(fault, 1)


def _number(fault: Fault, default: int) -> int:
    return default if fault.number is None else fault.number


_REPLACING: dict[str, Callable[[Fault], Answer]] = {
    "status": _status,
    "redirect": _redirect,
    "html": _html,
}
_CHANGING: dict[str, Callable[[Answer, Fault], None]] = {
    "short": _short,
    "long": _long,
    "longbody": _longbody,
    "endless": _endless,
    "wrongfirst": _wrongfirst,
    "wronglen": _wronglen,
    "nocr": _nocr,
    "nolast416": _nocr,
    "badcr": _badcr,
    "multipart": _multipart,
    "gzip": _gzip,
    "clte": _clte,
    "full200": _full200,
    "ignoreif": _full200,
    "http10": _http10,
    "close": _close,
    "interim": _interim,
}


def render_head(answer: Answer) -> bytes:
    """
    Write the head of an answer, the empty line included.

    Args:
        answer: As it is to be sent.
    """
    reason = REASONS.get(answer.status, "Status")
    lines = [f"{answer.version} {answer.status} {reason}"]
    lines += [f"{name}: {value}" for name, value in answer.fields]
    if answer.content_range is not None:
        lines.append(f"Content-Range: {answer.content_range}")
    if answer.content_length is not None:
        lines.append(f"Content-Length: {answer.content_length}")
    if answer.chunked:
        lines.append("Transfer-Encoding: chunked")
    if answer.close:
        lines.append("Connection: close")
    lines += answer.extra_lines
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
