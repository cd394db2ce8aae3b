"""Reading a log: as far as it can be trusted, and what has to be verified."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from stat import S_IMODE, S_ISREG
from typing import Any

from segdl import _fs
from segdl._manifest._records import (
    MAX_LINE_BYTES,
    Header,
    Piece,
    PieceTable,
    Run,
    decode,
    header_from,
    only,
    piece_from,
    run_from,
    whole,
)
from segdl.errors import ManifestError, SegdlError

SUFFIX = ".segdl"
MAX_FILE_BYTES = 64 * 1024 * 1024  # ten times what 65,536 pieces take


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedManifest:
    """
    What a log says up to its first bad line.

    Args:
        header: The last one.
        pieces: Inside of the header's size, without overlaps.
        runs: In order, those without pieces left out but for the last.
        checkpointed: So many first pieces were on the disk for certain.
        bytes_valid: Where the log has to be cut before anything is appended.
        damaged: Something follows that is no record.
    """

    header: Header
    pieces: PieceTable
    runs: tuple[Run, ...]
    checkpointed: int
    bytes_valid: int
    damaged: bool


def needs_verification(
    piece: Piece,
    loaded: LoadedManifest,
    has_hole: Callable[[int, int], bool],
    boot_id: str,
) -> bool:
    """
    Tell whether a piece's bytes have to be read and compared with its checksum.

    Args:
        piece: One of `loaded.pieces`.
        loaded: The manifest as it was found.
        has_hole: `PartFile.has_hole` of the part file.
        boot_id: Of the system as it runs now; empty when unknown.
    """
    if has_hole(piece.offset, piece.length):
        return True
    if 0 <= piece.record < loaded.checkpointed:
        return False
    end = piece.offset + piece.length
    if piece.offset % _fs.ALIGNMENT or (
        end % _fs.ALIGNMENT and end != loaded.header.size
    ):
        # Its neighbour wrote a part of the same block: one whose second writing the
        # disk lost, in an unplugging say, is no hole.
        return True
    place = bisect_right(loaded.runs, piece.record, key=lambda run: run.first)
    return not (place and boot_id and loaded.runs[place - 1].boot == boot_id)


def parse(data: bytes) -> LoadedManifest:
    """
    Read a log.

    Args:
        data: The file, or the first `MAX_FILE_BYTES` of it.

    Raises:
        ManifestError: The header is missing, bad, or of a later format.
    """
    reader = _Reader(data, len(data))
    if reader.overlap_at is not None:
        # Whatever wrote that cannot be trusted from there on: read up to it again.
        reader = _Reader(data, reader.overlap_at)
    if reader.header is None:
        raise ManifestError("the manifest is empty")
    return LoadedManifest(
        header=reader.header,
        pieces=reader.pieces,
        runs=tuple(reader.runs),
        checkpointed=reader.checkpointed,
        bytes_valid=reader.bytes_valid,
        damaged=reader.bytes_valid < len(data),
    )


def load(directory: _fs.Directory, name: str) -> LoadedManifest:
    """
    Read a manifest and change nothing.

    Raises:
        ManifestError: It cannot be used; the message says why.
        StorageError: It cannot be read, or could be somebody else's.
    """
    data = _fs.read_capped(directory, name, MAX_FILE_BYTES)
    try:
        return parse(data)
    except ManifestError as exc:
        path = directory.path_of(name)
        raise ManifestError(f"{path} cannot be used: {exc}") from exc


def is_manifest(directory: _fs.Directory, name: str) -> bool:
    """Tell whether a file is a manifest that can be used; False also without one."""
    try:
        load(directory, name)
    except SegdlError:
        return False
    return True


def is_blank(directory: _fs.Directory, name: str) -> bool:
    """
    Tell whether a file that has a manifest's name and mode is empty, or only zeros.

    A power cut leaves that of a manifest which was not flushed.

    Raises:
        StorageError: It cannot be read, or could be somebody else's.
    """
    found = directory.stat(name)
    if (
        found is None
        or (S_IMODE(found.st_mode), found.st_nlink) != (0o600, 1)
        or found.st_size > MAX_FILE_BYTES
    ):
        return False
    return not _fs.read_capped(directory, name, MAX_FILE_BYTES).strip(b"\0")


def find_manifests(directory: Path) -> list[str]:
    """
    List the names in a directory that may be manifests, sorted.

    Raises:
        StorageError: It is no directory, or cannot be read.
    """
    with _fs.Directory.open(directory, create=False) as opened:
        names = [name for name in opened.names() if name.endswith(SUFFIX)]
        found = [(name, opened.stat(name)) for name in names]
    return [name for name, status in found if status and S_ISREG(status.st_mode)]


class _Reader:
    """One pass over a log; stops before the first line that is no good record."""

    def __init__(self, data: bytes, limit: int) -> None:
        self.header: Header | None = None
        self.pieces = PieceTable()
        self.runs: list[Run] = []
        self.checkpointed = 0
        self.bytes_valid = 0
        self.overlap_at: int | None = None
        self._starts = array("Q")  # of the piece records' lines
        self._restarting = False
        self._read(data, limit)

    def _read(self, data: bytes, limit: int) -> None:
        start = 0
        while start < limit and self.overlap_at is None:
            stop = data.find(b"\n", start, min(limit, start + MAX_LINE_BYTES))
            try:
                if stop < 0:
                    raise ManifestError("a line has no end")
                self._take(decode(data[start:stop]), start)
            except ManifestError:
                if self.header is None:
                    raise
                break
            start = stop + 1
            # A restart counts from its header on: torn before, it did not happen.
            if not self._restarting:
                self.bytes_valid = start
        self._find_overlap()

    def _take(self, record: dict[str, Any], start: int) -> None:
        kind = record.pop("t", None)
        if self.header is None or self._restarting:
            if kind != "H":
                raise ManifestError("it does not begin with a header")
            self._take_header(header_from(record))
        elif kind == "P":
            self.pieces.append(piece_from(record, self.header.size))
            self._starts.append(start)
        elif kind == "R":
            run = run_from(record, len(self.pieces))
            if self.runs and self.runs[-1].first == run.first:
                self.runs.pop()  # it recorded nothing
            self.runs.append(run)
        elif kind == "C":
            covered = whole(only(record, "n")["n"], 0, len(self.pieces))
            self.checkpointed = max(self.checkpointed, covered)
        elif kind == "X":
            only(record)
            self._restarting = True
        else:
            raise ManifestError("a record is of an unknown kind")

    def _take_header(self, header: Header) -> None:
        self._find_overlap()
        if self.overlap_at is not None:
            return
        self.header = header
        self.pieces, self._starts = PieceTable(), array("Q")
        self.runs, self.checkpointed = [], 0
        self._restarting = False

    def _find_overlap(self) -> None:
        record = self.pieces.first_overlap()
        if record is not None and self.overlap_at is None:
            self.overlap_at = self._starts[record]
