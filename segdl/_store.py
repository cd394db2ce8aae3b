"""The files of one download: the directory, NAME.part, NAME.segdl, and NAME at last.

    look(name) ─┬─ nothing ───────────────────> create() ──┐
                ├─ what an earlier run left ──> take up ───┤──> record()* ──> publish()
                └─ a publish cut short ───────> finish it  └──> discard(), set_aside()

Every method may wait for the disk, so the engine calls all but `record` on a helper
thread. The part file is locked from `look` or `create` on until `close`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from errno import ENOENT, ESTALE
from pathlib import Path
from stat import S_IFREG

from segdl import _fs
from segdl._left_names import candidates, free_name, is_free
from segdl._manifest import (
    Header,
    LoadedManifest,
    Manifest,
    Piece,
    is_blank,
    is_manifest,
    load,
    needs_verification,
)
from segdl._names import (
    SafeName,
    checked_name,
    sidecar_names,
)
from segdl._plan import Plan
from segdl._ranges import ByteRange
from segdl.errors import (
    DestinationBusy,
    DestinationExists,
    ManifestError,
    SegdlError,
    StorageError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    What an earlier run left.

    Attributes:
        header: Of its manifest.
        accepted: Pieces that can be trusted.
        doubtful: Pieces whose bytes have to be compared with their checksum first.
    """

    header: Header
    accepted: list[Piece]
    doubtful: list[Piece]

    def plan(self, *, hoping: bool = False) -> Plan:
        """
        Make the plan of what is missing; the size has to be known.

        Args:
            hoping: Take doubtful pieces for right ones.
        """
        size = self.header.size
        assert size is not None
        pieces = self.accepted + (self.doubtful if hoping else [])
        done = [ByteRange(p.offset, p.offset + p.length) for p in pieces]
        return Plan(size, self.header.piece, done)


class Store:
    """
    The files of one download.

    Args:
        path: The directory; created when missing.
        durability: "none", "publish" or "checkpoint".

    Raises:
        StorageError: The directory can't be made or used.

    Attributes:
        dropped: Why `look` removed what an earlier run left.
    """

    def __init__(self, path: str, durability: str) -> None:
        self.directory = _fs.Directory.open(path)
        self.durability = durability
        self.name = SafeName("")
        self.part: _fs.PartFile | None = None
        self.manifest: Manifest | None = None
        self.published = False
        self.published_url_sha256: str | None = None
        self.dropped: str | None = None
        self._aside: SafeName | None = None

    @property
    def path(self) -> str:
        """Full path of the destination."""
        return self.directory.path_of(self.name)

    @property
    def part_name(self) -> str:
        return sidecar_names(self.name)[0]

    @property
    def manifest_name(self) -> str:
        return sidecar_names(self.name)[1]

    def look_free(self, name: SafeName, url_sha256: str) -> Found | None:
        """
        Turn to a name that is not taken, as `look` does.

        Args:
            name: The one that is wanted.
            url_sha256: An unfinished download of this URL, which nobody is at, does
                not count as taken.
        """
        for candidate in candidates(name):
            if is_free(self.directory, candidate, url_sha256):
                with suppress(DestinationBusy, DestinationExists):
                    return self.look(candidate)
        raise AssertionError("candidates end with an error")

    def look(self, name: SafeName) -> Found | None:
        """
        Turn to a name, and take up what an earlier run left there.

        Returns:
            What was left; None when there is nothing to go on with, or when the
            earlier run had only to finish its publish: `published_url_sha256` is set
            then.

        Raises:
            DestinationBusy: Another engine is at it.
            DestinationExists: A part file without a manifest that can be used holds
                somebody's bytes.
            StorageError: A file is not what it should be.
        """
        self.release()
        self.directory.check_name(name)
        self.name = name
        self.published_url_sha256 = None
        if not self.directory.exists(self.part_name):
            self._drop_lone_manifest()
            return None
        private = self._part_is_private()
        known = (
            private
            or is_manifest(self.directory, self.manifest_name)
            or self._mark_of(self.part_name) is not None
        )
        try:
            self.part = _fs.PartFile.open_existing(
                self.directory, self.part_name, final_name=name if known else None
            )
        except StorageError as exc:
            if exc.errno != ENOENT:
                raise
            self._drop_lone_manifest()  # another engine published it just now
            return None
        if not self.directory.exists(self.manifest_name):
            self._take_lone_part(private)
            return None
        if self.part.links > 1:
            self._finish_publish()
            return None
        try:
            self.manifest = Manifest.open(
                self.directory, self.manifest_name, durability=self.durability
            )
        except ManifestError as exc:
            path = self.part.path
            if private and is_blank(self.directory, self.manifest_name):
                self._drop_blank()
                return None
            self.release()
            raise DestinationExists(
                f"{exc}, so what is in {path} can't be trusted (remove both, or save "
                "under another name)"
            ) from exc
        assert self.manifest.loaded is not None
        if self._note_published(self.manifest.loaded):
            self.discard()  # dropping the manifest was cut short
            return None
        return self._found()

    def check_space(self, size: int) -> None:
        """
        Refuse a file that will not fit.

        Raises:
            DiskFull: What the part lacks of `size` bytes is more than there is room.
        """
        there = 0 if self.part is None else self.part.blocks() * 512
        _fs.check_space(self.directory, max(0, size - there))

    def create(self, header: Header) -> None:
        """
        Make a new part file and its manifest.

        A file of one piece gets none before `settle`: nothing of it can be gone on with
        that is worth the two names, the renames and the flushes.

        Args:
            header: Its `dev` and `ino` are filled in.

        Raises:
            DiskFull: There is less room.
            StorageError: A file can't be made.
        """
        self.check_space(header.size or 0)
        self.part = _fs.PartFile.create(self.directory, self.part_name, header.size)
        try:
            self.manifest = Manifest.create(
                self.directory,
                self.manifest_name,
                self._with_identity(header),
                durability=self.durability,
                deferred=_is_one_piece(header) and self.part.mark(header.url_sha256),
            )
        except BaseException:
            self.discard()
            raise

    def settle(self) -> None:
        """
        Have the manifest on the disk, if there is one.

        Raises:
            ManifestError, StorageError: It can't be written.
        """
        if self.manifest is not None and self.part is not None:
            self.manifest.settle()
            self.part.unmark()  # now the manifest says what it is

    def restart(self, header: Header) -> None:
        """Begin another representation in the same files."""
        assert self.part is not None
        assert self.manifest is not None
        self.manifest.restart(self._with_identity(header))
        if not _is_one_piece(header):
            self.settle()
        self.part.truncate(0)
        if self.durability != "none":
            # Else the disk could keep the old bytes where new ones were lost: no hole.
            self.part.sync()
        self.check_space(header.size or 0)
        self.part.truncate(header.size)

    def adopt(self, header: Header) -> None:
        """Go on with an earlier run's pieces under a new header's link and digest."""
        assert self.manifest is not None
        self.manifest.adopt(header.url, header.url_sha256, header.digest)

    def record(self, pieces: list[Piece]) -> None:
        """
        Record pieces that are written.

        Raises:
            StorageError: The manifest can't be written.
        """
        if self.manifest is not None:
            self.manifest.append_pieces(pieces)

    @property
    def recorded(self) -> int:
        """How many pieces are recorded."""
        return 0 if self.manifest is None else self.manifest.piece_count

    def pieces(self) -> list[Piece]:
        """Give the pieces that are recorded."""
        return [] if self.manifest is None else list(self.manifest.pieces())

    def checkpoint(self, covered: int) -> None:
        """
        Put recorded pieces onto the disk, for certain.

        Args:
            covered: `recorded`, as it was before.

        Raises:
            DestinationBusy: Another download has the manifest by now.
            StorageError: The part was replaced, or can't be flushed.
        """
        if self.part is not None and self.manifest is not None:
            self.settle()
            with self._doubting():
                self.part.sync()
            self.part.check()
            self.manifest.checkpoint(covered)

    def size_of_existing(self) -> int:
        """Give the size of the file that has the final name, in bytes."""
        found = self.directory.stat(self.name)
        return 0 if found is None else found.st_size

    def forget(self, bad: list[tuple[int, int]]) -> list[Piece]:
        """Drop the records of pieces that proved wrong; give them."""
        assert self.manifest is not None
        ranges = set(map(tuple, bad))
        pieces = [p for p in self.manifest.pieces() if (p.offset, p.length) in ranges]
        self.manifest.forget(pieces)
        return pieces

    def publish(self, size: int, *, overwrite: bool) -> str:
        """
        Give the whole file its name, and remove the manifest.

        Args:
            size: Complete length in bytes.
            overwrite: Replace a file of that name.

        Returns:
            The full path.

        Raises:
            DestinationExists: The name was taken meanwhile; the part is kept.
            StorageError: The part is not what it should be, has lost something, can't
                be published, or is no longer where it was.
        """
        assert self.part is not None
        self.directory.check_place()
        if self.part.size != size:
            self.part.truncate(size)
        self._check_kept(size)
        with self._doubting():
            self.part.publish(
                self.name, overwrite=overwrite, durability=self.durability
            )
        if self.manifest is not None:
            self.manifest.remove()
        self.published = True
        self.close()
        return self.path

    def _check_kept(self, size: int) -> None:
        """Compare pieces where there are holes, though all was written."""
        assert self.part is not None
        if not self.part.has_hole(0, size):
            return
        from xxhash import xxh3_64  # nobody else in this process needs it

        for piece in self.pieces():
            if not self.part.has_hole(piece.offset, piece.length):
                continue  # and some file systems (ZFS) make holes of zeros
            if (
                xxh3_64(self.part.read(piece.offset, piece.length)).hexdigest()
                != piece.xxh3
            ):
                raise StorageError(
                    f"{self.part.path} has lost what was written at {piece.offset}: "
                    "something else changed it (start the download again)",
                    errno=ESTALE,
                )

    def set_aside(self) -> str:
        """Keep a part whose digest is wrong out of the way; give its path."""
        assert self.part is not None
        aside = free_name(
            self.directory, checked_name(f"{Path(self.part_name).stem}.corrupt")
        )
        self.directory.rename(self.part_name, aside)
        self._aside = aside
        self.part.unmark()
        if self.manifest is not None:
            self.manifest.remove()
        self.release()
        return self.directory.path_of(aside)

    def discard(self) -> None:
        """
        Remove part and manifest, as far as they are ours: open, and locked.

        Also a part that was set aside a moment ago.
        """
        # The part goes first: a lone part is never mistaken for progress.
        if self.part is not None:
            self.part.remove()
        if self.manifest is not None:
            self.manifest.remove()
        if self._aside is not None:
            self.directory.unlink(self._aside)
        self.release()

    def release(self) -> None:
        """
        Close and unlock part and manifest.

        Raises:
            StorageError: The file system had something to say at last (NFS); both are
                closed nevertheless.
        """
        part, manifest = self.part, self.manifest
        self.part = self.manifest = None
        try:
            if manifest is not None:
                manifest.close()
        finally:
            if part is not None:
                part.close()

    def end(self, *, discard: bool) -> None:
        """
        Close everything, and keep what can be gone on with.

        Args:
            discard: Remove part and manifest instead.

        Raises:
            StorageError: They can't be removed; all is closed nevertheless.
        """
        try:
            if discard:
                self.discard()
            elif not self.published:
                with suppress(SegdlError):  # without it, it is begun anew
                    self.settle()
        finally:
            self.close()

    def close(self) -> None:
        """Close everything, as `release` does; a second call does nothing."""
        try:
            self.release()
        finally:
            self.directory.close()

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """Have the pieces compared by the next run, when they could not be flushed."""
        try:
            yield
        except StorageError:
            if self.part is not None and self.part.flush_failed and self.manifest:
                with suppress(StorageError):  # the first error says more
                    self.manifest.doubt()
            raise

    def _with_identity(self, header: Header) -> Header:
        assert self.part is not None
        device, inode = self.part.identity
        return replace(header, dev=device, ino=inode)

    def _finish_publish(self) -> None:
        """Go on where a publish was cut short between its two names."""
        assert self.part is not None
        loaded = load(self.directory, self.manifest_name)
        try:
            self._check_published(loaded)
        except BaseException:
            self.release()
            raise
        self.part.publish(self.name, overwrite=False, durability=self.durability)
        self.directory.unlink(self.manifest_name)
        self.release()
        self.published_url_sha256 = loaded.header.url_sha256

    def _take_lone_part(self, private: bool) -> None:
        """Drop or publish a part without a manifest that is ours; refuse another."""
        assert self.part is not None
        mark = self.part.mark_found
        if mark is None:
            self._refuse_lone_part(private)
        elif self.part.links > 1:
            try:
                self._check_named_whole()
                self.part.publish(
                    self.name, overwrite=False, durability=self.durability
                )
            finally:
                self.release()
            self.published_url_sha256 = mark
        else:
            self.discard()

    def _mark_of(self, name: str) -> str | None:
        return _fs.get_mark(self.directory.path_of(name))

    def _drop_lone_manifest(self) -> None:
        """Remove a manifest whose part was published or removed; nothing else."""
        if not self.directory.exists(self.manifest_name):
            return
        # The part is the lock: another engine may be about to begin here.
        part = _fs.PartFile.create(self.directory, self.part_name, 0)
        try:
            self._note_published(load(self.directory, self.manifest_name))
            self.directory.unlink(self.manifest_name)
        except ManifestError:
            if is_blank(self.directory, self.manifest_name):
                self.directory.unlink(self.manifest_name)
            # Else somebody else's file: `create` will refuse to replace it.
        except StorageError as exc:
            if exc.errno != ENOENT:
                raise
            # The engine that published just now has removed it itself.
        finally:
            try:
                part.remove()
            finally:
                part.close()

    def _note_published(self, loaded: LoadedManifest) -> bool:
        """Tell whether what has the final name is the file of a manifest."""
        header, there = loaded.header, self.directory.stat(self.name)
        # The size too: ext4 gives inode numbers out again.
        if there is None or (there.st_dev, there.st_ino, there.st_size) != (
            header.dev,
            header.ino,
            header.size,
        ):
            return False
        self._check_published(loaded)
        self.published_url_sha256 = header.url_sha256
        return True

    def _check_published(self, loaded: LoadedManifest) -> None:
        """
        Refuse an unfinished part that somebody gave the final name.

        It has its full length from the beginning. All is recorded before a publish;
        but a power cut may take records, and keep the name and what was flushed.
        """
        if loaded.pieces.total_bytes() != loaded.header.size:
            self._check_named_whole()

    def _check_named_whole(self) -> None:
        if self.directory.has_hole(self.name):
            raise DestinationExists(
                f"{self.path} is the part of a download that is not finished: it was "
                f"renamed or linked (only {self.part_name} may be its name, to go on)"
            )

    def _part_is_private(self) -> bool:
        """Whether the part has the mode and the one name that segdl gave it."""
        found = self.directory.stat(self.part_name)
        return found is not None and (
            (found.st_mode, found.st_nlink) == (S_IFREG | 0o600, 1)
        )

    def _drop_blank(self) -> None:
        """Remove a part whose manifest a power cut took: no record is lost by that."""
        assert self.part is not None
        self.dropped = (
            f"{self.directory.path_of(self.manifest_name)} holds nothing, as after a "
            f"power cut, so what is in {self.part.path} can't be trusted; starting over"
        )
        self.discard()
        self.directory.unlink(self.manifest_name)

    def _refuse_lone_part(self, private: bool) -> None:
        """Drop a part that was never written; refuse one that was, or is not ours."""
        assert self.part is not None
        if not private or not self.part.is_empty():
            path = self.part.path
            self.release()
            raise DestinationExists(
                f"{path} has no manifest beside it, so what is in it can't be trusted "
                "(remove it, or save under another name)"
            )
        self.discard()

    def _found(self) -> Found | None:
        assert self.part is not None
        assert self.manifest is not None
        loaded = self.manifest.loaded
        assert loaded is not None
        header = loaded.header
        if header.size is None or header.size != self.part.size:
            return Found(header=header, accepted=[], doubtful=[])
        moved = (header.dev, header.ino) != self.part.identity or self.part.shared
        if moved:
            # Else the next run would not doubt them, nor know, by the inode, what a
            # publish that is cut short has published.
            self.manifest.take_over(*self.part.identity)
        boot = _fs.boot_id()
        accepted: list[Piece] = []
        doubtful: list[Piece] = []
        for piece in loaded.pieces:
            doubt = moved or needs_verification(piece, loaded, self.part.has_hole, boot)
            (doubtful if doubt else accepted).append(piece)
        return Found(header=header, accepted=accepted, doubtful=doubtful)


def _is_one_piece(header: Header) -> bool:
    return header.size is not None and header.size <= header.piece
