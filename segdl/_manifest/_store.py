"""A manifest that is written to."""

from __future__ import annotations

import os
import threading
import time
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from errno import EEXIST

from segdl import _fs
from segdl._manifest._load import LoadedManifest, load
from segdl._manifest._records import (
    Header,
    Piece,
    PieceTable,
    Run,
    encode,
    fitting,
    header_line,
    is_piece,
    line_of,
    piece_line,
    run_line,
)
from segdl.errors import DestinationBusy, DestinationExists, StorageError

COMPACT_FROM_BYTES = 1024 * 1024

_created = 0


def count_created() -> int:
    """Tell how many manifests this process has made, to know when there are more."""
    return _created


class _Coverage:
    """The recorded ranges in order of offset, to refuse a range twice."""

    def __init__(self, pieces: PieceTable) -> None:
        ordered = sorted(pieces.ranges())
        self._begins = array("Q", (offset for offset, _ in ordered))
        self._ends = array("Q", (offset + length for offset, length in ordered))

    def add(self, begin: int, end: int) -> bool:
        """Add a range; False, and nothing added, when it overlaps one."""
        place = bisect_right(self._begins, begin)
        if place and self._ends[place - 1] > begin:
            return False
        if place < len(self._begins) and self._begins[place] < end:
            return False
        self._begins.insert(place, begin)
        self._ends.insert(place, end)
        return True

    def remove(self, begin: int) -> None:
        """Take a range out that was added."""
        place = bisect_left(self._begins, begin)
        del self._begins[place], self._ends[place]


class Manifest:
    """
    A manifest that is written to; the caller holds the lock of the part file.

    Use `Manifest.create` or `Manifest.open`. One thread may call `checkpoint` while
    another calls `append_pieces`; everything else needs to be alone.

    One that is `deferred` lives in memory until `settle`: what it records is lost with
    the process.

    Attributes:
        header: The one in force.
        loaded: What `open` found, until `forget` or `restart`; None after `create`.
    """

    header: Header

    def __init__(
        self, directory: _fs.Directory, name: str, *, header: Header, sync: bool
    ) -> None:
        self._directory = directory
        self._name = name
        self._sync = sync
        self._deferred = False
        self._log: _fs.AppendLog | None = None
        self._lock = threading.Lock()
        self._reset(header)

    @classmethod
    def create(
        cls,
        directory: _fs.Directory,
        name: str,
        header: Header,
        *,
        durability: str,
        deferred: bool = False,
    ) -> Manifest:
        """
        Write a new manifest, after the part file was created and locked.

        Args:
            directory: Of the part file.
            name: Of the manifest.
            header: A URL too long for a line is left out of it.
            durability: With "none" nothing is flushed.
            deferred: Write nothing before `settle`.

        Raises:
            DestinationExists: Something has that name; it is not touched.
            ManifestError: The header does not fit into a line.
            DiskFull, StorageError: It cannot be written.
        """
        manifest = cls(directory, name, header=header, sync=durability != "none")
        manifest._deferred = True
        if not deferred:
            manifest.settle()
        elif directory.exists(name):
            raise manifest._taken()
        return manifest

    def settle(self) -> None:
        """
        Write a deferred manifest, with what it has recorded; else do nothing.

        Raises:
            DestinationExists: Something has that name; it is not touched.
            ManifestError: The header does not fit into a line.
            DiskFull, StorageError: It cannot be written.
        """
        with self._lock:
            if not self._deferred:
                return
            self._directory.check_name(self._name)
            if self._directory.exists(self._name):
                raise self._taken()
            self.header = fitting(self.header)
            if not self._runs:
                self._runs.append(_this_run(0))
            self._deferred = False
            try:
                self._rewrite()
                global _created
                _created += 1
            except BaseException:
                self._deferred = True
                # Its name may be there already, when the directory can't be flushed.
                with suppress(StorageError):
                    self._directory.unlink(self._name)
                raise

    def _taken(self) -> DestinationExists:
        path = self._directory.path_of(self._name)
        return DestinationExists(
            f"{path} is there already (resume it, or remove it)", errno=EEXIST
        )

    @classmethod
    def open(
        cls, directory: _fs.Directory, name: str, *, durability: str = "publish"
    ) -> Manifest:
        """
        Load a manifest, cut a torn tail off, and begin a new run.

        Raises:
            ManifestError: It cannot be used; it is not touched.
            DiskFull, StorageError: It cannot be read or written.
        """
        loaded = load(directory, name)
        manifest = cls(directory, name, header=loaded.header, sync=durability != "none")
        manifest.loaded = loaded
        manifest._pieces = loaded.pieces.copy()
        manifest._coverage = _Coverage(loaded.pieces)
        manifest._runs = list(loaded.runs)
        manifest._checkpointed = loaded.checkpointed
        if loaded.damaged:
            _fs.truncate_name(directory, name, loaded.bytes_valid)
        if loaded.bytes_valid > COMPACT_FROM_BYTES:
            manifest.compact()
        run = _this_run(len(loaded.pieces))
        manifest._opened_log().append(run_line(run))
        manifest._runs.append(run)
        return manifest

    def _reset(self, header: Header) -> None:
        self.header = header
        self.loaded: LoadedManifest | None = None
        self._pieces = PieceTable()
        self._coverage = _Coverage(self._pieces)
        self._runs: list[Run] = []
        self._checkpointed = 0

    @property
    def piece_count(self) -> int:
        """Number of piece records."""
        return len(self._pieces)

    def recorded_bytes(self) -> int:
        """Sum up the recorded pieces."""
        return self._pieces.total_bytes()

    def pieces(self) -> Iterator[Piece]:
        """Give the recorded pieces in the order of their records."""
        return iter(self._pieces)

    def append_pieces(self, pieces: list[Piece]) -> None:
        """
        Record pieces whose last write has returned, in one write.

        Raises:
            ValueError: One is outside of the file, or recorded already.
            DiskFull, StorageError: None of them is recorded.
        """
        with self._lock:
            added: list[int] = []
            try:
                for piece in pieces:
                    self._cover(piece)
                    added.append(piece.offset)
                if not self._deferred:
                    self._opened_log().append(b"".join(map(piece_line, pieces)))
            except BaseException:
                for offset in added:
                    self._coverage.remove(offset)
                raise
            for piece in pieces:
                self._pieces.append(piece)

    def _cover(self, piece: Piece) -> None:
        if not is_piece(piece.offset, piece.length, self.header.size):
            raise ValueError(f"{piece} is outside of the file")
        if not self._coverage.add(piece.offset, piece.offset + piece.length):
            raise ValueError(f"{piece} is recorded already")

    def checkpoint(self, covered: int) -> None:
        """
        Record that the first pieces are on the disk, and flush the record.

        Args:
            covered: `piece_count` as it was before the `PartFile.sync` that returned.

        Raises:
            DestinationBusy: The file is another download's by now: its lock is broken.
            ValueError: So many pieces are not recorded.
        """
        if not 0 <= covered <= len(self._pieces):
            raise ValueError(
                f"{covered} of {len(self._pieces)} pieces cannot be covered"
            )
        self.settle()
        with self._lock:
            log = self._opened_log()
            if not log.is_ours():
                raise DestinationBusy(
                    f"{self._directory.path_of(self._name)} was changed by another "
                    "download (locks do not work there: choose another name)"
                )
            log.append(line_of({"t": "C", "n": covered}))
        log.sync()  # without the lock: nobody's record waits for the disk
        self._checkpointed = max(self._checkpointed, covered)

    def restart(self, header: Header) -> None:
        """
        Forget all pieces, before the first byte of another representation is written.

        Raises:
            ManifestError: The header does not fit into a line.
            DiskFull, StorageError: The pieces may be forgotten already.
        """
        header, run = fitting(header), _this_run(0)
        if not self._deferred:
            log = self._opened_log()
            log.append(line_of({"t": "X"}) + header_line(header) + run_line(run))
            if self._sync:
                log.sync()  # else a power cut could leave old pieces beside new bytes
        self._reset(header)
        self._runs.append(run)

    def forget(self, pieces: Iterable[Piece]) -> None:
        """
        Drop pieces that failed their verification, before they are fetched again.

        It must be so: a second record of a range would end the trusted part of the
        log. The remaining records are numbered anew, so `loaded` is dropped as well.
        What is recorded from now on counts as written in an unknown boot, so that it is
        verified before it is trusted: where the bad bytes are on the disk already, new
        ones that are lost leave no hole (tests/matrix/replay.py, "after_damage").

        Args:
            pieces: Of `self.pieces()` or `self.loaded`.
        """
        self.loaded = None
        dropped = sorted({piece.record for piece in pieces if piece.record >= 0})
        if not dropped:
            return
        gone = set(dropped)
        self._pieces = PieceTable(p for p in self._pieces if p.record not in gone)
        self._coverage = _Coverage(self._pieces)
        self._runs = [
            replace(run, first=run.first - bisect_left(dropped, run.first))
            for run in self._runs
        ]
        self._checkpointed -= bisect_left(dropped, self._checkpointed)
        self._runs.append(replace(_this_run(len(self._pieces)), boot=""))
        self._rewrite()

    def adopt(self, url: str, url_sha256: str, digest: str | None) -> None:
        """
        Belong to another link to the same file from now on.

        Args:
            url: Without its secrets.
            url_sha256: What it is recognised by.
            digest: What is expected of the file from now on; None for the same.
        """
        header = replace(self.header, url=url, url_sha256=url_sha256)
        self.header = fitting(replace(header, digest=digest or header.digest))
        self._rewrite()

    def doubt(self) -> None:
        """
        Have the next run compare the pieces that no checkpoint covers.

        For a part that could not be flushed: the kernel marks such pages clean, so
        the next flush succeeds though they are lost ("fsyncgate").

        Raises:
            DiskFull, StorageError: It can't be written; the manifest is as it was.
        """
        with self._lock:
            # A run of an unknown boot: nothing of it is accepted unseen. No flush, as
            # the disk refuses them, and another boot has the pieces compared anyway.
            runs = self._runs or [_this_run(0)]  # a deferred one has begun none
            self._runs = [replace(run, boot="") for run in runs]
            self._rewrite(sync=False)

    def take_over(self, dev: int, ino: int) -> None:
        """
        Belong to another part file, such as a copy, whose pieces nobody has compared.

        Args:
            dev: Device of the part file.
            ino: Its inode.

        Raises:
            DiskFull, StorageError: It can't be written; the manifest is as it was.
        """
        self.header = replace(self.header, dev=dev, ino=ino)
        # But for the run that has begun, none saw this file.
        self._runs[:-1] = [replace(run, boot="") for run in self._runs[:-1]]
        self._checkpointed = 0
        self._rewrite()

    def compact(self) -> None:
        """Rewrite the log without what later records made void."""
        self._rewrite()

    def close(self) -> None:
        """Close the log; the next record opens it again."""
        if self._log is not None:
            log, self._log = self._log, None
            log.close()

    def remove(self) -> None:
        """
        Close and remove the file, after the part file was published or removed.

        After a rename the part's name is free, so another engine may have put its own
        manifest here: that one stays.
        """
        if self._deferred:
            return  # what has its name by now is another one's
        ours = self._log is None or self._log.is_named()
        with suppress(StorageError):  # the last records are no longer needed
            self.close()
        if ours:
            self._directory.unlink(_fs.temporary_name(self._name))
            self._directory.unlink(self._name)

    def _opened_log(self) -> _fs.AppendLog:
        if self._log is None:
            self._log = _fs.append_file(self._directory, self._name)
        return self._log

    def _rewrite(self, *, sync: bool = True) -> None:
        if self._deferred:
            return
        self.close()
        data = encode(self.header, self._pieces, self._runs, self._checkpointed)
        _fs.replace_atomically(
            self._directory, self._name, data, sync=sync and self._sync
        )
        self._opened_log()  # so that `remove` knows the file again


def _this_run(first: int) -> Run:
    return Run(boot=_fs.boot_id(), pid=os.getpid(), time=time.time(), first=first)
