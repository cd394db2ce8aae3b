"""What the query of a URL asks of the origin, as values; pure.

    /b/7/1048576/name.bin?etag=weak&rate=1M&f=status=503:retry=2@req2,3&f=rst@byte4096
      seed  size  name    └ options ──────┘ └ fault ──┘ └ argument ┘└ where └ times

A fault is `f=KIND[=ARGUMENT][@WHERE][,TIMES]`; a URL may have several.

WHERE says which responses, and which point of them:

    connN    those on the Nth connection to this path, and on later ones
    reqN     the Nth request to this path, and later ones
    rangeN   the Nth request with a Range to this path, and later ones
    byteN    after N body bytes of the response
    atN      where offset N of the representation is reached
    header   half-way through the response head (rst, fin and stall only)

Several are joined by a dot: `rst@conn3.byte4096`. TIMES is how often the fault happens
in all: 1 unless said, `*` for ever. Without WHERE it happens always, or, as in
`status=503@,2`, that many times from the start.

KIND, at a point of the body (in brackets: the point when WHERE names none):

    rst, fin          the connection is reset, or closed (before anything is answered)
    stall             nothing more is sent, the connection stays open (byte0)
    slow=RATE         the rest of the response comes at this rate (byte0)
    corrupt           one bit of the next byte is flipped (half of the body)
    chunkbad          chunked framing breaks (half of the body)
    swap=SEED[:size=N]  the file is replaced by another one: the responses after this
                      point have other content, ETag, Last-Modified (this response)
    swapsame=SEED     the same, but nothing in the head changes: undetectable

KIND, in place of the answer:

    hang              nothing is answered, the connection stays open
    headerhang        half of the head, then nothing, the connection stays open
    garbage           bytes that are no HTTP, then the end
    http09            the body without any head, as HTTP/0.9 had it, then the end
    hdrflood[=N]      N bytes of header fields (1 GiB) before the head ends
    hdrlines[=N]      N short header fields (100,000) before the head ends
    hdrline[=N]       a header field with a value of N bytes (1 GiB)
    interim=N         N answers "103 Early Hints" before the real one
    status=N[:retry=X]  an error with this status, and Retry-After: X
    unsatisfied[=N]   416 with the complete length, or with N for it
    redirect=URL      302 to this URL
    html              200 with a login page

KIND, a wrong answer:

    short[=N]         206 with N bytes less than asked for (half of them); legal
    long[=N]          206 whose Content-Range and body go N bytes (1024) further
    longbody[=N]      206 with the right Content-Range and a body N bytes longer
    endless           a body that never ends
    wrongfirst[=N]    206 that begins N bytes (1) later than asked for
    wronglen[=N]      a complete length that is N (1) too large
    nocr, badcr=TEXT  206 or 416 without Content-Range, or with this one, where {first},
                      {last} and {complete} stand for the right numbers
    nolast416         416 without Content-Range
    multipart         206 as multipart/byteranges
    gzip              a body with Content-Encoding: gzip
    clte              Content-Length and Transfer-Encoding: chunked both
    full200           200 with the whole file, whatever was asked for
    ignoreif          the same, when there is an If-Range
    http10            HTTP/1.0, without a length, ended by closing
    close             Connection: close

Other options: `etag` (strong, weak, none, rotate: another one for each request,
per-conn: another one for each connection), `lm` and `date` (a date, or none), `ranges`
(on, off, firstN: only the first N requests with a Range get a 206), `type`,
`disposition`, `length` (on, off: chunked), `digest` (sha-256, sha-512: send
Repr-Digest), `rate` (bytes/s of each response), `latency` (seconds before each), `cap`
(requests at the same time to this path; more get 503), `over` (503, rst: what requests
get that are too many), `headers` (lines to add, separated by `|`). Unknown options are
ignored, as URLs carry signatures.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from segdl.testing.throttle import parse_rate

__all__ = [
    "KINDS",
    "OPTION_NAMES",
    "POINTED",
    "Counts",
    "Fault",
    "Options",
    "Where",
    "parse_fault",
    "parse_options",
    "split_query",
    "strip_faults",
]

#: Kinds that happen at a point of the body.
POINTED = frozenset(
    {"rst", "fin", "stall", "slow", "corrupt", "chunkbad", "swap", "swapsame"}
)

# What follows "=": "" nothing, "n" a number, "n?" one or nothing, "text", "rate", and
# for status and swap a number with one named extra.
_ARGUMENTS = {
    "rst": "",
    "fin": "",
    "stall": "",
    "slow": "rate",
    "corrupt": "",
    "chunkbad": "",
    "swap": "size",
    "swapsame": "n",
    "hang": "",
    "headerhang": "",
    "garbage": "",
    "http09": "",
    "hdrflood": "n?",
    "hdrlines": "n?",
    "hdrline": "n?",
    "interim": "n",
    "status": "retry",
    "unsatisfied": "n?",
    "redirect": "text",
    "html": "",
    "short": "n?",
    "long": "n?",
    "longbody": "n?",
    "endless": "",
    "wrongfirst": "n?",
    "wronglen": "n?",
    "nocr": "",
    "badcr": "text",
    "nolast416": "",
    "multipart": "",
    "gzip": "",
    "clte": "",
    "full200": "",
    "ignoreif": "",
    "http10": "",
    "close": "",
}

#: Every kind of fault.
KINDS = tuple(_ARGUMENTS)

_POINT = r"(?:header|(?:conn|req|range|byte|at)[0-9]{1,19})"
_SUFFIX = re.compile(
    rf"@(?P<where>{_POINT}(?:\.{_POINT})*)?(?:,(?P<times>[0-9]{{1,9}}|\*))?\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """
    Which request of its path this one is; each from 1.

    Args:
        connection: Of the connections that asked for the path.
        request: Of the requests for the path.
        range: Of those with a Range; 0 for one without.
    """

    connection: int
    request: int
    range: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """
    The responses a fault happens to, and the point of them.

    Args:
        conn: From this connection to the path on, None for any.
        req: From this request to the path on, None for any.
        range: From this request with a Range on, None for any.
        byte: Bytes of the body before the point, None where not said.
        at: Offset of the representation of the point, None where not said.
        header: Whether the point is in the response head.
    """

    conn: int | None = None
    req: int | None = None
    range: int | None = None
    byte: int | None = None
    at: int | None = None
    header: bool = False

    def admits(self, counts: Counts) -> bool:
        """
        Tell whether the fault may happen to a request.

        Args:
            counts: Which request it is.
        """
        return (
            (self.conn is None or counts.connection >= self.conn)
            and (self.req is None or counts.request >= self.req)
            and (self.range is None or counts.range >= self.range)
        )

    def position(self, begin: int, end: int, size: int) -> int | None:
        """
        Give the offset of the point in a body that is [begin, end) of the file.

        Args:
            begin: Offset of the body's first byte.
            end: Offset after its last one.
            size: Complete length of the file.

        Returns:
            None when the body does not reach the point. One after the last byte counts
            as reached by `byte`, and by `at` at the end of the file.
        """
        if self.at is not None:
            reached = begin <= self.at < end or self.at == end == size
            return self.at if reached else None
        if self.byte is not None:
            return begin + self.byte if begin + self.byte <= end else None
        return begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One thing that goes wrong.

    Args:
        kind: As the module's documentation lists them.
        where: Where it happens.
        times: How often it happens in all, None for ever.
        number: The number of its argument, None without one.
        text: The text of its argument: a URL, a Content-Range, a Retry-After.
        size: Complete length after `swap`, None to keep it.
        spec: What it was parsed from.
    """

    kind: str
    where: Where
    times: int | None
    number: int | None = None
    text: str | None = None
    size: int | None = None
    spec: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    Everything a query asks for; the module's documentation explains each.

    Args:
        first_ranges: How many requests with a Range get a 206, None for all.
        rate: Bytes per second, None for the origin's own.
        latency: Seconds, None for the origin's own.
        cap: Requests at the same time, None for any number.
    """

    etag: str = "strong"
    last_modified: str = "auto"
    date: str = "auto"
    first_ranges: int | None = None
    media_type: str = "application/octet-stream"
    disposition: str | None = None
    chunked: bool = False
    digest: str | None = None
    rate: float | None = None
    latency: float | None = None
    cap: int | None = None
    over: str = "503"
    headers: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


def parse_fault(spec: str) -> Fault:
    """
    Read one fault.

    Args:
        spec: Such as "status=503:retry=2@req5,3", percent-decoded.

    Raises:
        ValueError: saying what is wrong with it.
    """
    suffix = _SUFFIX.search(spec)
    head = spec[: suffix.start()] if suffix else spec
    kind, equals, argument = head.partition("=")
    if kind not in _ARGUMENTS:
        raise ValueError(
            f"unknown fault {kind!r} in {spec!r}; there are {', '.join(KINDS)}"
        )
    where = _parse_where((suffix and suffix["where"]) or "", spec)
    if where.header and kind not in {"rst", "fin", "stall"}:
        raise ValueError(f"@header goes with rst, fin and stall, not {spec!r}")
    located = bool(suffix and suffix["where"])
    fault = Fault(
        kind=kind,
        where=where,
        times=_parse_times(suffix["times"] if suffix else None, located=located),
        spec=spec,
        **_parse_argument(kind, argument if equals else None, spec),
    )
    if kind == "status" and not 200 <= (fault.number or 0) <= 599:
        raise ValueError(f"a status is 200 - 599, not that of {spec!r}")
    return fault


def _parse_where(text: str, spec: str) -> Where:
    points: dict[str, int] = {}
    header = False
    for point in filter(None, text.split(".")):
        name = point.rstrip("0123456789")
        if name == "header":
            header = True
        elif name in points:
            raise ValueError(f"{name} twice in {spec!r}")
        else:
            points[name] = int(point[len(name) :])
    if "byte" in points and "at" in points:
        raise ValueError(f"either byte or at, not both: {spec!r}")
    if header and ("byte" in points or "at" in points):
        raise ValueError(f"a point is in the head or in the body: {spec!r}")
    return Where(header=header, **points)


def _parse_times(text: str | None, *, located: bool) -> int | None:
    if text is None:
        return 1 if located else None
    return None if text == "*" else int(text)


def _parse_argument(kind: str, argument: str | None, spec: str) -> dict[str, Any]:
    form = _ARGUMENTS[kind]
    if argument is None:
        if form in {"", "n?"}:
            return {}
        raise ValueError(f"{kind} needs an argument, as in {kind}=...: {spec!r}")
    if form == "":
        raise ValueError(f"{kind} takes no argument: {spec!r}")
    if form == "text":
        return {"text": argument}
    if form == "rate":
        return {"number": max(1, int(parse_rate(argument)))}
    main, colon, extra = argument.partition(":")
    if colon and not extra.startswith(f"{form}="):
        raise ValueError(f"after {kind}={main}: only {form}=... can follow: {spec!r}")
    value = extra[len(form) + 1 :]
    number = _parse_number(main, spec)
    if form == "retry":
        return {"number": number, "text": value if colon else None}
    return {"number": number, "size": _parse_number(value, spec) if colon else None}


def _parse_number(text: str, spec: str) -> int:
    if not re.fullmatch("[0-9]{1,19}", text):
        raise ValueError(f"not a number: {text!r} in {spec!r}")
    return int(text)


def split_query(query: str) -> list[tuple[str, str]]:
    """
    Split a query into names and values, percent-decoded to Latin-1.

    Latin-1 keeps every byte, so a value goes into a header field as it was meant.

    Args:
        query: The part of a target after "?".
    """
    pairs = []
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        pairs.append((_unquote(name), _unquote(value)))
    return pairs


def strip_faults(query: str) -> str:
    """
    Give a query without its faults.

    Args:
        query: The part of a target after "?".
    """
    return "&".join(p for p in query.split("&") if p.partition("=")[0] != "f")


def parse_options(query: str) -> Options:
    """
    Read everything a query asks for; unknown names are ignored.

    Args:
        query: The part of a target after "?".

    Raises:
        ValueError: saying which option is wrong.
    """
    values: dict[str, Any] = {}
    faults = []
    for name, text in split_query(query):
        if name == "f":
            faults.append(parse_fault(text))
        elif name in _OPTIONS:
            field, read = _OPTIONS[name]
            try:
                values[field] = read(text)
            except ValueError as error:
                raise ValueError(f"option {name}={text!r}: {error}") from None
    return Options(faults=tuple(faults), **values)


def _unquote(text: str) -> str:
    return unquote_to_bytes(text).decode("latin-1")


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return read


def _read_ranges(text: str) -> int | None:
    if text == "on":
        return None
    if text == "off":
        return 0
    if re.fullmatch("first[0-9]{1,9}", text):
        return int(text[len("first") :])
    raise ValueError("on, off, or firstN")


def _read_latency(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise ValueError("seconds, 0 - 3600")
    return seconds


def _read_cap(text: str) -> int:
    return _parse_number(text, text)


def _read_length(text: str) -> bool:
    return _one_of("on", "off")(text) == "off"


def _read_headers(text: str) -> tuple[str, ...]:
    return tuple(text.split("|"))


_OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "etag": ("etag", _one_of("strong", "weak", "none", "rotate", "per-conn")),
    "lm": ("last_modified", str),
    "date": ("date", str),
    "ranges": ("first_ranges", _read_ranges),
    "type": ("media_type", str),
    "disposition": ("disposition", str),
    "length": ("chunked", _read_length),
    "digest": ("digest", _one_of("sha-256", "sha-512")),
    "rate": ("rate", parse_rate),
    "latency": ("latency", _read_latency),
    "cap": ("cap", _read_cap),
    "over": ("over", _one_of("503", "rst")),
    "headers": ("headers", _read_headers),
}

#: The names `Origin.blob_url` takes; a misspelt one would be ignored on the wire.
OPTION_NAMES = frozenset(_OPTIONS) | {"f"}
