"""The records of a manifest: values, their lines, and strict reading."""

from __future__ import annotations

import json
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any
from zlib import crc32

from segdl._headers import Validator
from segdl._names import checked_name
from segdl.errors import ManifestError, UsageError

FORMAT = 1
MAX_LENGTH = 2**63 - 1
MAX_LINE_BYTES = 4096


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


# Made once: `json.dumps` and `json.loads` make theirs anew for each record (3.4 and
# 3.5 µs on CPython 3.11, against 2.3 and 1.5).
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)

_HEX_DIGITS = frozenset("0123456789abcdef")
_HEADER_KEYS = (
    "name",
    "size",
    "piece",
    "url_sha256",
    "url",
    "digest",
    "dev",
    "ino",
    "created",
    "nonce",
)


def url_digest(url: str) -> str:
    """Give what the manifest keeps of a URL, to recognise it without its secrets."""
    return sha256(url.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """
    What is downloaded, and to which part file.

    Args:
        name: Of the destination; a shortened sidecar name does not tell it.
        size: Complete length in bytes, None while it is unknown.
        piece: Size of a whole piece in bytes.
        validator: Of the representation.
        url_sha256: Of the URL that was asked for, 64 hexadecimal digits.
        url: For display and for going on, without userinfo, query and fragment; empty
            where it would not fit.
        digest: Expected digest as "algorithm:hex", None without one.
        dev: Device of the part file.
        ino: Inode of the part file.
        created: Wall clock, seconds since 1970.
        nonce: Tells this manifest from another of the same name.
    """

    name: str
    size: int | None
    piece: int
    validator: Validator
    url_sha256: str
    url: str
    digest: str | None
    dev: int
    ino: int
    created: float = field(default_factory=time.time)
    nonce: str = field(default_factory=lambda: os.urandom(8).hex())


@dataclass(frozen=True, slots=True)
class Piece:
    """
    A part of the file that was written whole.

    Args:
        offset: Of its first byte.
        length: In bytes; less than a whole piece after an orderly stop.
        xxh3: XXH3-64 of its bytes, 16 lower-case hexadecimal digits.
        record: Its number among the piece records of the log, -1 when not in it.
    """

    offset: int
    length: int
    xxh3: str
    record: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """
    An engine that recorded pieces.

    Args:
        boot: `_fs.boot_id()` at that time, empty when unknown.
        pid: Process id.
        time: Wall clock, seconds since 1970.
        first: Number of the first piece record that is its.
    """

    boot: str
    pid: int
    time: float
    first: int


class PieceTable:
    """Pieces in the order of their records, in 24 bytes each (1.5 MiB for 65,536)."""

    __slots__ = ("_lengths", "_offsets", "_sums")

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._sums = array("Q")
        for piece in pieces:
            self.append(piece)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, record: int) -> Piece:
        return Piece(
            self._offsets[record],
            self._lengths[record],
            f"{self._sums[record]:016x}",
            record,
        )

    def __iter__(self) -> Iterator[Piece]:
        return map(self.__getitem__, range(len(self)))

    def append(self, piece: Piece) -> None:
        """Add a piece; its record is the next number."""
        self._offsets.append(piece.offset)
        self._lengths.append(piece.length)
        self._sums.append(int(piece.xxh3, 16))

    def copy(self) -> PieceTable:
        """Give a table that does not grow with this one."""
        twin = PieceTable()
        twin._offsets, twin._lengths = self._offsets[:], self._lengths[:]
        twin._sums = self._sums[:]
        return twin

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Give (offset, length) of each."""
        return zip(self._offsets, self._lengths, strict=True)

    def total_bytes(self) -> int:
        """Sum up the lengths."""
        return sum(self._lengths)

    def first_overlap(self) -> int | None:
        """Find the first record that overlaps an earlier one; O(n log n)."""
        order = sorted(range(len(self)), key=self._offsets.__getitem__)
        if not self._overlaps(order, len(self)):
            return None
        # Once a prefix overlaps, every longer one does.
        none, some = 0, len(self)
        while some - none > 1:
            middle = (none + some) // 2
            if self._overlaps(order, middle):
                some = middle
            else:
                none = middle
        return some - 1

    def _overlaps(self, order: list[int], count: int) -> bool:
        """Tell whether the first `count` records do; `order` is that of the offsets."""
        end = 0
        for record in order:
            if record >= count:
                continue
            offset = self._offsets[record]
            if offset < end:
                return True
            end = offset + self._lengths[record]
        return False


def line_of(record: dict[str, Any]) -> bytes:
    """Write a record as a line; `ManifestError` when it is too long."""
    text = _ENCODER.encode(record).encode("ascii")
    line = b"%08x %s\n" % (crc32(text), text)
    if len(line) > MAX_LINE_BYTES:
        raise ManifestError(
            f"a manifest line would have {len(line)} bytes, {MAX_LINE_BYTES} are the "
            "most (the entity tag or the name is too long)"
        )
    return line


def piece_line(piece: Piece) -> bytes:
    """Write a piece record."""
    return line_of({"t": "P", "o": piece.offset, "n": piece.length, "x": piece.xxh3})


def run_line(run: Run) -> bytes:
    """Write a run record."""
    return line_of({"t": "R", "boot": run.boot, "pid": run.pid, "time": run.time})


def header_line(header: Header) -> bytes:
    """Write a header record."""
    record: dict[str, Any] = {"t": "H", "format": FORMAT}
    for key in _HEADER_KEYS:
        record[key] = getattr(header, key)
    record["validator"] = header.validator.to_json()
    return line_of(record)


def fitting(header: Header) -> Header:
    """
    Give the header that can be stored and read again.

    Where the URL makes the line too long it is left out; its hash stays.

    Raises:
        ManifestError: A field is too long, or not what the format allows.
    """
    try:
        line = header_line(header)
    except ManifestError:
        header = replace(header, url="")
        line = header_line(header)
    record = decode(line[:-1])
    del record["t"]
    return header_from(record)


def encode(
    header: Header, pieces: PieceTable, runs: list[Run], checkpointed: int
) -> bytes:
    """Write a whole log, as short as it can be."""
    lines = [header_line(header)]
    borders = [*(run.first for run in runs), len(pieces)]
    waiting = 0
    for piece in pieces:
        while waiting < len(runs) and borders[waiting] <= piece.record:
            if borders[waiting + 1] > piece.record:  # else it has no pieces
                lines.append(run_line(runs[waiting]))
            waiting += 1
        lines.append(piece_line(piece))
    if runs and runs[-1].first == len(pieces):
        lines.append(run_line(runs[-1]))
    if checkpointed:
        lines.append(line_of({"t": "C", "n": checkpointed}))
    return b"".join(lines)


def decode(line: bytes) -> dict[str, Any]:
    """Check a line without its LF, and give its record."""
    text = line[9:]
    if line[:9] != b"%08x " % crc32(text):
        raise ManifestError("a checksum is wrong")
    try:
        record = _DECODER.decode(text.decode("ascii"))
    except (ValueError, RecursionError) as exc:
        raise ManifestError("a record is no JSON") from exc
    if not isinstance(record, dict):
        raise ManifestError("a record is no object")
    return record


def only(record: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Give the record; `ManifestError` unless it has exactly these fields."""
    if record.keys() != set(keys):
        raise ManifestError("a record has other fields than it should")
    return record


def whole(value: object, least: int, most: int) -> int:
    """Give an integer; `ManifestError` unless it is one between the two."""
    # JSON's true and false are int to Python.
    if type(value) is not int or not least <= value <= most:
        raise ManifestError("a number is outside of its range")
    return value


def _text(value: object, most: int) -> str:
    # Not printable includes what would move a terminal's cursor.
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ManifestError("a text is not usable")
    return value


def _hex(value: object, least: int, most: int) -> str:
    text = _text(value, most)
    if len(text) < least or not _HEX_DIGITS.issuperset(text):
        raise ManifestError("a text is not lower-case hexadecimal")
    return text


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ManifestError("a time is no number")
    if not 0 <= value < MAX_LENGTH:
        raise ManifestError("a time is outside of its range")
    return float(value)


def piece_from(record: dict[str, Any], size: int | None) -> Piece:
    """Read a piece record of a file of `size` bytes."""
    only(record, "o", "n", "x")
    offset, length = record["o"], record["n"]
    if not is_piece(offset, length, size):
        raise ManifestError("a piece is outside of the file")
    return Piece(offset, length, _hex(record["x"], 16, 16))


def is_piece(offset: object, length: object, size: int | None) -> bool:
    """Tell whether a range is a part of a file of `size` bytes, None for unknown."""
    limit = MAX_LENGTH if size is None else size
    return (
        type(offset) is int
        and type(length) is int
        and 0 <= offset < limit
        and 0 < length <= limit - offset
    )


def run_from(record: dict[str, Any], first: int) -> Run:
    """Read a run record that comes before piece record `first`."""
    only(record, "boot", "pid", "time")
    return Run(
        boot=_text(record["boot"], 64),
        pid=whole(record["pid"], 0, MAX_LENGTH),
        time=_seconds(record["time"]),
        first=first,
    )


def header_from(record: dict[str, Any]) -> Header:
    """Read a header record; the errors say what is wrong with it."""
    form = whole(record.pop("format", None), 1, MAX_LENGTH)
    if form != FORMAT:
        raise ManifestError(
            f"it has format {form}, this segdl knows {FORMAT} (use a later segdl)"
        )
    only(record, *_HEADER_KEYS, "validator")
    size = record["size"]
    try:
        name = checked_name(record["name"])
    except UsageError as exc:
        raise ManifestError(str(exc)) from exc
    return Header(
        name=name,
        size=None if size is None else whole(size, 0, MAX_LENGTH),
        piece=whole(record["piece"], 1, MAX_LENGTH),
        validator=Validator.from_json(record["validator"]),
        url_sha256=_hex(record["url_sha256"], 64, 64),
        url=_text(record["url"], MAX_LINE_BYTES),
        digest=_digest(record["digest"]),
        dev=whole(record["dev"], 0, 2**64 - 1),
        ino=whole(record["ino"], 0, 2**128 - 1),  # 128 bits on ReFS
        created=_seconds(record["created"]),
        nonce=_hex(record["nonce"], 1, 64),
    )


def _digest(value: object) -> str | None:
    if value is None:
        return None
    algorithm, _, digits = _text(value, 256).partition(":")
    if not (algorithm.isascii() and algorithm.isalnum()):
        raise ManifestError("the digest has no algorithm")
    return f"{algorithm}:{_hex(digits, 1, 256)}"
