"""What parses bytes that come from elsewhere, a function a parser, and what must hold.

    bytes ──> target ──> parser ──> value ──> invariants      all of it in one process
                            └─────> the documented error, or the target fails

Bytes of an origin reach segdl as header lines (latin-1), those of files and of the
command line as UTF-8. A target takes any bytes, never touches disk or network, and
keeps nothing from one call to the next: hypothesis and atheris drive all of them
alike. SEEDS has what each begins with; an input that once failed stays there.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

from segdl import _manifest, _messages, _redaction, _urls
from segdl._answers import Expectation, check_answer
from segdl._digests import ALGORITHMS, parse_checksum, stated_digests
from segdl._headers import (
    MAX_RETRY_AFTER_SECONDS,
    EntityTag,
    Head,
    HeadParser,
    Validator,
    content_coding,
    parse_http_date,
    retry_after_seconds,
)
from segdl._manifest._records import encode as encode_manifest
from segdl._names import MAX_NAME_BYTES, checked_name, safe_name, sidecar_names
from segdl._ranges import (
    MAX_LENGTH,
    ByteRange,
    parse_content_range,
    parse_length,
)
from segdl.cli.arguments import header_field
from segdl.cli.input_file import parse_entries
from segdl.config import EngineConfig, load_config, parse_rate
from segdl.errors import (
    ConfigError,
    ManifestError,
    ProtocolError,
    RangeMismatch,
    RedirectRefused,
    SegdlError,
    StatusError,
    UsageError,
)

__all__ = ["SEEDS", "TARGETS"]

Target = Callable[[bytes], None]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
SECRET = "canary-7d1f"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


# --- header fields --------------------------------------------------------------------


def content_range(data: bytes) -> None:
    """A Content-Range is a range inside of the file; written out it reads the same."""
    value = data.decode("latin-1")
    try:
        found = parse_content_range(value)
    except RangeMismatch:
        return
    if found.first is None or found.last is None:
        assert found.first is found.last is None
        assert found.complete is not None
        positions = "*"
    else:
        assert 0 <= found.first <= found.last < MAX_LENGTH
        assert found.complete is None or found.last < found.complete
        positions = f"{found.first}-{found.last}"
        whole = ByteRange(found.first, found.last + 1)
        assert whole.header_value() == f"bytes={positions}"
    assert found.complete is None or 0 <= found.complete <= MAX_LENGTH
    complete = "*" if found.complete is None else found.complete
    assert parse_content_range(f"bytes {positions}/{complete}") == found


def length(data: bytes) -> None:
    """A length is its decimal digits and nothing else, at most 2^63 - 1."""
    value = data.decode("latin-1")
    try:
        found = parse_length(value)
    except ProtocolError:
        plain = re.fullmatch("[0-9]+", value)
        assert plain is None or int(value[-4000:]) > MAX_LENGTH or len(value) > 19
        return
    assert 0 <= found <= MAX_LENGTH
    assert re.fullmatch("[0-9]+", value)
    assert str(found) == (value.lstrip("0") or "0")


def validators(data: bytes) -> None:
    """A validator agrees with itself, can be stored, and its If-Range is legal."""
    lines = [line.decode("latin-1").strip(" \t\r") for line in data.split(b"\n")[:3]]
    names = ("etag", "last-modified", "date")
    head = Head(206, "", tuple(zip(names, lines, strict=False)))
    found = Validator.from_head(head)
    assert found.disagreement(found) is None
    assert Validator.from_json(found.to_json()) == found
    condition = found.if_range()
    assert (condition is not None) is found.is_strong
    if found.etag is not None:
        assert EntityTag.parse(str(found.etag)) == found.etag
        assert condition is None or not condition.startswith("W/")
    if condition is not None:
        assert not re.search(r"[\x00-\x1f\x7f]", condition)
    other = Validator(etag=EntityTag("other", weak=False))
    if found.etag is not None and found.etag.opaque != "other":
        assert found.disagreement(other)
        assert other.disagreement(found)


def http_date(data: bytes) -> None:
    """A date has a time zone, and its own IMF-fixdate means the same."""
    found = parse_http_date(data.decode("latin-1"))
    if found is None:
        return
    assert found.tzinfo is timezone.utc
    if found.year >= 1000:  # strftime of some systems pads no year
        assert parse_http_date(f"{found:%a, %d %b %Y %H:%M:%S GMT}") == found


def retry_after(data: bytes) -> None:
    """Retry-After is nothing, or 0 s to 6 h."""
    found = retry_after_seconds(data.decode("latin-1"), NOW)
    assert found is None or 0.0 <= found <= MAX_RETRY_AFTER_SECONDS


_DIGEST_FIELDS = (
    "repr-digest",
    "content-digest",
    "digest",
    "x-goog-hash",
    "x-goog-stored-content-encoding",
    "x-amz-checksum-sha256",
    "x-amz-checksum-crc32c",
    "x-amz-checksum-type",
    "content-md5",
    "x-linked-etag",
    "content-range",
    "content-encoding",
)


def digest_fields(data: bytes) -> None:
    """A stated digest is one that a caller could have given; each is stated once."""
    if not data:
        return
    status = (200, 206, 302)[data[0] % 3]
    fields = [
        (_DIGEST_FIELDS[line[0] % len(_DIGEST_FIELDS)], line[1:].decode("latin-1"))
        for line in data[1:].split(b"\n")
        if line
    ]
    found = stated_digests([Head(302, "", tuple(fields)), Head(status, "", ())])
    found += stated_digests([Head(status, "", tuple(fields))])
    for digest in found:
        assert status in (200, 206)
        assert digest.algorithm in ALGORITHMS
        given = parse_checksum(str(digest))
        assert (given.algorithm, given.hex) == (digest.algorithm, digest.hex)
        assert digest.source.lower() in _DIGEST_FIELDS
        # About this message's body alone, and what RFC 9530 made obsolete.
        assert digest.source.lower() not in ("content-digest", "digest")


# --- whole answers --------------------------------------------------------------------


def _head_of(data: bytes) -> Head | None:
    """Feed a head line by line, as libcurl does; None for one that is refused."""
    parser = HeadParser()
    try:
        for line in data.splitlines(keepends=True):
            parser.feed(line)
        return parser.head
    except ProtocolError:
        return None


def response_head(data: bytes) -> None:
    """A head has no line ends within its fields; written out it reads the same."""
    head = _head_of(data)
    if head is None:
        return
    assert 100 <= head.status <= 999
    for name, value in head.fields:
        assert name
        assert name == name.lower()
        assert not re.search("[\r\n\0]", name + value)
        assert value == value.strip(" \t")
        assert head.get(name) is not None
    plain = [f"HTTP/1.1 {head.status} {head.reason}"]
    plain += [f"{name}: {value}" for name, value in head.fields]
    written = "\r\n".join([*plain, "", ""]).encode("latin-1")
    again = HeadParser()
    for line in written.split(b"\r\n")[:-1]:
        again.feed(line + b"\r\n")
    assert again.head == head


_WANTED = ByteRange(1000, 3000)
_EXPECTED = (
    Expectation(wanted=_WANTED),
    Expectation(wanted=_WANTED, complete=5000),
    Expectation(
        wanted=_WANTED,
        complete=5000,
        validator=Validator(etag=EntityTag("v1", weak=False)),
        proof=True,
    ),
    Expectation(wanted=None),
)


def answer(data: bytes) -> None:
    """An answer that is accepted is the range asked for, of the file that is known."""
    if not data:
        return
    expected = _EXPECTED[data[0] % len(_EXPECTED)]
    head = _head_of(data[1:])
    if head is None:
        return
    try:
        found = check_answer([head], expected)
    except (StatusError, ProtocolError) as error:
        # RangeMismatch and RepresentationChanged are ProtocolErrors.
        assert str(error).isprintable()
        return
    assert head.status in (200, 206, 416)
    assert found.complete is None or 0 <= found.complete <= MAX_LENGTH
    assert found.end is None or found.first <= found.end
    assert head.status == 416 or content_coding(head) is None
    if found.ranges and found.complete:
        assert expected.wanted is not None
        assert found.first == expected.wanted.begin
        assert found.end is not None
        assert found.end <= min(expected.wanted.end, found.complete)
        assert found.complete == (expected.complete or found.complete)
        if expected.validator is not None:
            assert expected.validator.disagreement(found.validator) is None
    elif not found.ranges:
        assert (found.first, found.end) == (0, found.complete)


# --- URLs -----------------------------------------------------------------------------


def url(data: bytes) -> None:
    """A URL is sent as it was checked; without its secrets it is shown and stored."""
    text = data.decode("utf-8", "surrogateescape")
    shown, stored = _urls.redact(text), _urls.strip_secrets(text)
    try:
        checked = _urls.validate_url(text)
    except UsageError as error:
        assert str(error)
        return
    assert checked.isascii()
    assert not re.search(r"[\x00-\x20\x7f]", checked)
    assert "#" not in checked
    assert _urls.validate_url(checked) == checked
    bare, user = _urls.split_userinfo(checked)
    assert _urls.validate_url(bare) == bare
    assert _urls.origin(bare) == _urls.origin(checked)
    assert user is None or not _CONTROLS.search(user)
    origin = _urls.origin(checked)
    assert origin.scheme in ("http", "https")
    assert 1 <= origin.port <= 65535
    assert origin.host == origin.host.lower()
    for visible in (shown, stored):
        assert visible.isascii()
        # What stands between the scheme and the path is a host, maybe with a port.
        assert "@" not in visible.partition("://")[2].partition("/")[0]
    assert "?" not in stored
    assert shown in (stored, f"{stored}?...")
    assert _urls.redact(shown) in (shown, f"{shown}...", f"{stored}?...")


def redirect(data: bytes) -> None:
    """A redirect leads to a valid http or https URL, and never down from https."""
    location = data.decode("latin-1")
    for base in ("https://h.example/a/b?c", "http://u:p@h.example:8080/a"):
        try:
            target = _urls.redirect_target(base, location)
        except RedirectRefused as error:
            assert "u:p" not in str(error)
            continue
        assert _urls.validate_url(target) == target
        assert _urls.redirect_target(base, target) == target
        scheme = _urls.origin(target).scheme
        assert scheme == "https" or base.startswith("http:")
        first, after = _urls.origin(base), _urls.origin(target)
        headers = {"Authorization": SECRET, "Cookie": SECRET, "Accept": "a/b"}
        sent = _urls.headers_for(headers, first, after)
        assert sent == headers if first == after else set(sent) == {"Accept"}


def messages(data: bytes) -> None:
    """No text keeps a URL's password or query, nor the value of a credential field."""
    text = data.decode("utf-8", "replace")
    assert isinstance(_redaction.redact_text(text), str)
    word = re.sub(r"[^A-Za-z0-9]", "", text)[:8]
    for line in (
        f"{word} http://me:{SECRET}@h.example/{word}?sig={SECRET} {word}",
        f"{word} Authorization: Bearer {SECRET}",
        f"{word} X-Amz-Signature={SECRET}&{word}",
    ):
        assert SECRET not in _redaction.redact_text(line)


def request_headers(data: bytes) -> None:
    """A header that is taken is a token and a value on one line, in latin-1."""
    lines = data.decode("utf-8", "replace").split("\n")
    fields: dict[str, str] = {}
    for line in lines:
        with suppress(UsageError):
            name, value = header_field(line, "place")
            assert name.strip()
            fields[name] = value
    try:
        _urls.validate_headers({name: f"{SECRET}{fields[name]}" for name in fields})
    except UsageError as error:
        assert SECRET not in str(error)
    try:
        checked = _urls.validate_headers(fields)
    except UsageError:
        return
    for name, value in checked.items():
        assert re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value)
        value.encode("latin-1")
    assert _urls.validate_headers(checked) == checked


# --- names ----------------------------------------------------------------------------


def file_name(data: bytes) -> None:
    """A server's name is one component, harmless everywhere, and stays as it is."""
    first, _, rest = data.partition(b"\n")
    disposition = rest.decode("latin-1") if rest else None
    name = safe_name(first.decode("utf-8", "surrogateescape"), disposition)
    assert name not in ("", ".", "..")
    assert not re.search(r'[/\\:<>"|?*]', name)
    assert not _CONTROLS.search(name)
    assert name[0] not in ".-~ "
    assert name[-1] not in ". "
    assert len(name.encode()) <= MAX_NAME_BYTES
    assert checked_name(name) == name
    assert safe_name(f"http://h.example/{quote(name)}", None) == name
    assert safe_name("", f"attachment; filename*=UTF-8''{quote(name)}") == name
    sidecars = sidecar_names(name)
    assert len({name, *sidecars}) == 3
    for each in sidecars:
        assert len(each.encode()) <= MAX_NAME_BYTES
        assert "/" not in each


def own_name(data: bytes) -> None:
    """A name that was given is taken as it is, or refused; it has its sidecars."""
    name = data.decode("utf-8", "surrogateescape")
    try:
        checked = checked_name(name)
    except UsageError:
        return
    assert checked == name
    assert not re.search(r"[/\\\x00-\x1f]", name)
    assert name not in ("", ".", "..")
    for each in sidecar_names(checked):
        assert len(each.encode()) <= MAX_NAME_BYTES


# --- files ----------------------------------------------------------------------------


def manifest(data: bytes) -> None:
    """Pieces of any manifest lie in the file, and apart; rewritten it says the same."""
    try:
        found = _manifest.parse(data)
    except ManifestError:
        return
    header = found.header
    end = 0
    for piece in sorted(found.pieces, key=lambda p: p.offset):
        assert piece.offset >= end
        assert piece.length > 0
        end = piece.offset + piece.length
    assert end <= (MAX_LENGTH if header.size is None else header.size)
    assert 0 <= found.checkpointed <= len(found.pieces)
    assert 0 < found.bytes_valid <= len(data)
    assert found.damaged is (found.bytes_valid < len(data))
    assert checked_name(header.name) == header.name
    assert _said(_manifest.parse(data[: found.bytes_valid])) == _said(found)
    runs = list(found.runs)
    try:
        log = encode_manifest(header, found.pieces, runs, found.checkpointed)
    except ManifestError:
        return  # escaped, the header's line has become too long
    assert _said(_manifest.parse(log)) == _said(found)


def _said(found: _manifest.LoadedManifest) -> tuple[Any, ...]:
    return found.header, list(found.pieces), found.checkpointed


def manifest_record(data: bytes) -> None:
    """The same, of records with the right checksums behind a good header."""
    from zlib import crc32

    lines = [b"%08x %s\n" % (crc32(line), line) for line in data.split(b"\n")]
    manifest(_HEADER_LINE + b"".join(lines))


def message(data: bytes) -> None:
    """A line of the pipe is a message that is written the same, or a ValueError."""
    line = data.partition(b"\n")[0]
    try:
        found = _messages.decode(line)
    except ValueError:
        return
    written = _messages.encode(found)
    assert written.count(b"\n") == 1
    assert _messages.encode(_messages.decode(written)) == written
    row = getattr(found, "failure", None)
    if isinstance(row, dict):
        assert isinstance(_messages.failure_from_json(row), SegdlError)


def input_file(data: bytes) -> None:
    """Each entry of a list has a URL and a place; a wrong line is named."""
    lines = data.decode("utf-8", "replace").split("\n")
    try:
        entries = parse_entries(lines, "list")
    except UsageError as error:
        assert re.match(r"list:[0-9]+: ", str(error))
        return
    starts = [line for line in lines if line.strip() and line[0] not in " \t#"]
    starts = [line for line in starts if not line.strip().startswith("#")]
    assert len(entries) == len(starts)
    for entry in entries:
        assert entry.url.strip() == entry.url != ""
        assert all(url.strip() for url in entry.mirrors)
        assert re.fullmatch(r"list:[0-9]+", entry.place)
        for value in (entry.name, entry.directory, entry.checksum):
            assert value is None or value.strip() == value != ""
        names = [name.lower() for name, _ in entry.headers]
        assert len(set(names)) == len(names)
        if entry.checksum is not None:
            checksum(entry.checksum.encode("utf-8", "replace"))
        with suppress(UsageError):
            _urls.validate_url(entry.url)
            _urls.validate_headers(dict(entry.headers))


class _File(type(Path())):  # type: ignore[misc]  # the class of this system's paths
    """A file that is not on the disk."""

    data = b""

    def open(self, *_: object, **__: object) -> io.BytesIO:  # type: ignore[override]
        return io.BytesIO(self.data)


def config_file(data: bytes) -> None:
    """A configuration is one that could have been given by arguments, or names why."""
    file = _File("/segdl.toml")
    file.data = data
    try:
        found = load_config(file, environ={})
    except ConfigError as error:
        assert str(error).startswith("/segdl.toml")
        return
    values = {name: getattr(found, name) for name in EngineConfig.__slots__}
    assert EngineConfig(**values) == found


def environment(data: bytes) -> None:
    """The same, of variables."""
    names = [f"SEGDL_{name.upper()}" for name in EngineConfig.__slots__]
    variables = {}
    for line in data.split(b"\n"):
        if line:
            value = line[1:].decode("utf-8", "surrogateescape")
            variables[names[line[0] % len(names)]] = value
    try:
        load_config(_File("/segdl.toml"), environ=variables)
    except ConfigError as error:
        assert "SEGDL_" in str(error)


def checksum(data: bytes) -> None:
    """A checksum that is taken is written back as it reads."""
    try:
        found = parse_checksum(data.decode("utf-8", "replace"))
    except UsageError:
        return
    assert found.algorithm in ALGORITHMS
    assert re.fullmatch("[0-9a-f]+", found.hex)
    assert parse_checksum(str(found)) == found


def rate(data: bytes) -> None:
    """A rate is a finite number above 0."""
    with suppress(UsageError):
        found = parse_rate(data.decode("utf-8", "replace"))
        assert 0 < found < float("inf")


_HEADER_LINE = (
    b'ffffffff {"t":"H","format":1,"name":"a.bin","size":1000,"piece":100,'
    b'"url_sha256":"' + b"ab" * 32 + b'","url":"https://example.org/a.bin",'
    b'"digest":null,"dev":1,"ino":2,"created":1700000000.5,"nonce":"00ff",'
    b'"validator":{"etag":"\\"v1\\"","last_modified":null,'
    b'"last_modified_strong":false}}\n'
)


def _framed(line: bytes) -> bytes:
    from zlib import crc32

    return b"%08x %s\n" % (crc32(line), line)


_HEADER_LINE = _framed(_HEADER_LINE[9:-1])
_RUN = b'{"t":"R","boot":"b1","pid":7,"time":1.5}'
_PIECES = (
    b'{"t":"P","o":0,"n":100,"x":"0123456789abcdef"}',
    b'{"t":"P","o":900,"n":50,"x":"0123456789abcdef"}',
)
_RECORDS = (_RUN, *_PIECES, b'{"t":"C","n":1}', b'{"t":"X"}')
_DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
_SHA256 = b"n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg="
_HEX = b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_ANSWER = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1000-2999/5000\r\n"
    b'Content-Length: 2000\r\nETag: "v1"\r\nDate: ' + _DATE + b"\r\n\r\n"
)

#: What each target begins with.
SEEDS: dict[str, tuple[bytes, ...]] = {
    "content_range": (
        *(b"bytes 0-9/10", b"bytes 0-9/*", b"bytes */10", b"Bytes 5-5/6 "),
        b"bytes 9223372036854775806-9223372036854775806/9223372036854775807",
    ),
    "length": (b"0", b"0007", b"9223372036854775807", b"9223372036854775808"),
    "validators": (
        b'"v1"\n' + _DATE + b"\nSun, 06 Nov 1994 08:51:37 GMT",
        *(b'W/"v1"', b"bare", b'"\xe9\\"', b'""', b"\n" + _DATE),
    ),
    "http_date": (
        *(_DATE, b"Sunday, 06-Nov-94 08:49:37 GMT", b"Sun Nov  6 08:49:37 1994"),
        b"Sun, 31 Feb 2021 23:59:60 UTC",
    ),
    "retry_after": (b"120", b"-1", b"36000", _DATE, b"Fri, 02 Jan 2026 04:00:00 GMT"),
    "digest_fields": (
        b"\x00\x00sha-256=:" + _SHA256 + b":, md5=:AAAA:",
        b"\x01\x03crc32c=AAAAAA==,md5=XrY7u+Ae7tCTyyK7j1rNww==\n\x04gzip",
        *(b"\x00\x05" + _SHA256, b"\x00\x08XrY7u+Ae7tCTyyK7j1rNww=="),
        b'\x01\x09"' + _HEX + b'"\n\x0abytes 0-9/10',
    ),
    "response_head": (
        _ANSWER,
        b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/2 200\r\nA : b\r\n c\r\n\r\n",
    ),
    "answer": (
        *(bytes([each]) + _ANSWER for each in range(4)),
        b"\x01HTTP/1.1 416 No\r\nContent-Range: bytes */5000\r\n\r\n",
        b"\x00HTTP/1.1 416 No\r\nContent-Range: bytes */0\r\n\r\n",
        b"\x00HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: gzip\r\n\r\n",
        b"\x02HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        # Printed, it would have gone to the terminal.
        b"\x00HTTP/1.1 200 OK\r\nContent-Encoding: g\x1b[2J\r\n\r\n",
    ),
    "url": (
        b"https://user:p%40ss@h.example:8443/a/b?X-Amz-Signature=1#f",
        *(
            b"http://[::1%25eth0]:80/",
            b"http://\xc3\xbc.example/\xc3\xbc",
            b"file:///a",
        ),
        b"http://a@b@c/d",
    ),
    "redirect": (
        *(
            b"https://cdn.example/x?sig=1",
            b"//h.example/../x",
            b"../../y",
            b"?q",
            b"#f",
        ),
        *(b"file:///etc/passwd", b"http://h.example/", b"https://h.example:443/a b"),
    ),
    "messages": (b"could not get https://u:p@h/x?sig=1 (token=abc)",),
    "request_headers": (b"Authorization: Bearer x\nAccept: */*", b"X-A:\nx-a: 1"),
    "file_name": (
        b'http://h.example/a%20b.bin?x\nattachment; filename="../b.bin"',
        b"http://h/\nattachment; filename*=UTF-8''%E2%82%AC.bin; filename=c",
        b"http://h/CON.txt\ninline; filename==?UTF-8?B?YS5iaW4=?=",
    ),
    "own_name": (b"a.bin", b"..", b".hidden", b"NUL.txt", "größe".encode() * 40),
    "manifest": (
        _HEADER_LINE + b"".join(map(_framed, _RECORDS[:4])),
        _HEADER_LINE + b"".join(map(_framed, _RECORDS)) + _HEADER_LINE,
    ),
    "manifest_record": (b"\n".join(_RECORDS[:4]), b"\n".join(_PIECES)),
    "message": (
        b'["Ended",1,5,5,{"kind":"StatusError","message":"x","status":503}]',
        b'["Accept",1,["/p",1,2,false,3],null]',
        # A TypeError and a RecursionError, once.
        *(b'["Accept",1,["/p",1],null]', b'["Accept",1,3,null]', b"[" * 3000),
        b'["Pieces",[[1,0,5,"00"]]]',
    ),
    "input_file": (
        b"https://h/a\thttps://m/a\n  out=a\n  checksum=sha-256=" + _HEX + b"\n",
        b"# comment\r\nhttp://h/b\r\n\theader=A: b\r\n  dir=x\n",
    ),
    "config_file": (
        b'[downloader]\nmax_workers = 3\nlimit_rate = "20M"\nproxy = "http://h"\n',
        b"downloader = {timeout = 1.5, io = 'direct'}\n",
        b"a = " + b"[" * 3000,  # a RecursionError, once
    ),
    "environment": (b"\x009\n\x0920k", b"\x06yes\n\x07auto"),
    "checksum": (b"sha256:" + _HEX, b" SHA-256=" + _HEX.upper(), b"md5:0"),
    "rate": (b"1.5M", b"800k", b"0", b"1e5"),
}

_ALL = (
    *(content_range, length, validators, http_date, retry_after, digest_fields),
    *(response_head, answer, url, redirect, messages, request_headers),
    *(file_name, own_name, manifest, manifest_record, message, input_file),
    *(config_file, environment, checksum, rate),
)

#: Every target by its name.
TARGETS: dict[str, Target] = {target.__name__: target for target in _ALL}
