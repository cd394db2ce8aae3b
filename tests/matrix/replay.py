"""A download's file operations, and what a power cut after each of them can leave.

    download ── segdl._fs ── Tape (stands for `os` there) ──> the operations, in order
                                                                │ every prefix
                                 what a disk may make of it <───┘ after a power cut
                                   │
       written into a directory ──> Store.look: every piece that is trusted is compared
                                └─> the same download again, to its end

The model is that of SQLite's crash tests (src/test6.c): a write that was not flushed is
there, or not, or replaced by garbage; here in units of 512 bytes or 4 KiB, so torn too.
Lengths go the same way. Names are flushed by fsync of the directory (LevelDB's
fault_injection_test.cc); without it the later ones are lost (a journal keeps the
order), or any of them.

What survives depends on whether the system came up again. With another boot id,
everything said above may happen. With the same one only the disk was away (pulled, shut
down, forcibly unmounted), and blocks of 4 KiB are there or are holes: of a local
journalling file system segdl takes that without reading (see segdl/_manifest).
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from segdl._manifest import Header
from segdl._names import checked_name
from segdl._store import Store

BLOCK = 4096
SECTOR = 512
_FIRST_NUMBER = 10**9  # no inode of the real directory is so large


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """
    An operation that changed something.

    Args:
        kind: "create", "write", "size", "sync", "link", "rename", "unlink", "syncdir".
        file: Its number, 0 for operations on the directory.
        name: That is made or removed.
        old: That `rename` takes away.
        offset: Of `write`, in bytes.
        data: Of `write`.
        size: Of `size`, in bytes.
    """

    kind: str
    file: int = 0
    name: str = ""
    old: str = ""
    offset: int = 0
    data: bytes = b""
    size: int = 0


@dataclass(slots=True)
class Image:
    """
    What a file holds.

    Attributes:
        content: All bytes; zeros in holes.
        blocks: Numbers of the blocks of 4 KiB that are no holes.
    """

    content: bytearray = field(default_factory=bytearray)
    blocks: set[int] = field(default_factory=set)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at an offset."""
        end = offset + len(data)
        if end > len(self.content):
            self.resize(end)
        self.content[offset:end] = data
        self.blocks.update(range(offset // BLOCK, -(-end // BLOCK)))

    def resize(self, size: int) -> None:
        """Cut, or add a hole."""
        if size < len(self.content):
            del self.content[size:]
            self.blocks = {number for number in self.blocks if number * BLOCK < size}
        else:
            self.content.extend(bytes(size - len(self.content)))

    def copy(self) -> Image:
        """Give one that does not change with this."""
        return Image(bytearray(self.content), set(self.blocks))


@dataclass(slots=True)
class Disk:
    """
    What is on a disk.

    Attributes:
        names: The directory: a file's number for each name.
        files: By number.
    """

    names: dict[str, int] = field(default_factory=dict)
    files: dict[int, Image] = field(default_factory=dict)

    def copy(self) -> Disk:
        """Give one that does not change with this."""
        return Disk(
            dict(self.names), {number: f.copy() for number, f in self.files.items()}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """
    What a power cut makes of what was not flushed.

    Args:
        name: For messages.
        same_boot: Only the disk was away.
        data: "kept", "dropped", "garbage", or "drawn": any of these for each unit.
        names: "kept", "dropped", "ordered": the first ones are kept, or "any".
    """

    name: str
    same_boot: bool
    data: str
    names: str


#: Those without anything random; each comes after every prefix.
CERTAIN = (
    Cut(name="all kept", same_boot=True, data="kept", names="kept"),
    Cut(name="all kept, new boot", same_boot=False, data="kept", names="kept"),
    Cut(name="data dropped", same_boot=True, data="dropped", names="kept"),
    Cut(name="data garbage", same_boot=False, data="garbage", names="kept"),
    Cut(name="all dropped", same_boot=False, data="dropped", names="dropped"),
    Cut(name="names dropped", same_boot=True, data="kept", names="dropped"),
)

#: Those that are drawn.
DRAWN = (
    Cut(name="drawn", same_boot=False, data="drawn", names="ordered"),
    Cut(name="drawn, any names", same_boot=False, data="drawn", names="any"),
    Cut(name="drawn, same boot", same_boot=True, data="drawn", names="ordered"),
)


def crash(disk: Disk, ops: Sequence[Op], cut: Cut, draw: random.Random) -> Disk:
    """
    Give what is on the disk when the power was cut after some operations.

    Args:
        disk: What was on it for certain before them.
        ops: The operations.
        cut: What becomes of what was not flushed.
        draw: Decides what `cut` leaves open.
    """
    flushed: dict[int, int] = {}
    names_flushed = 0
    for index, op in enumerate(ops):
        if op.kind == "sync":
            flushed[op.file] = index
        elif op.kind == "syncdir":
            names_flushed = index
    found = disk.copy()
    kept_names = _names_kept(ops, names_flushed, cut, draw)
    for index, op in enumerate(ops):
        if op.kind in ("write", "size", "create"):
            file = found.files.setdefault(op.file, Image())
            if index < flushed.get(op.file, 0):
                _apply(file, op)
            else:
                _apply_unflushed(file, op, cut, draw)
        if index in kept_names:
            _rename(found, op)
    return found


def _names_kept(
    ops: Sequence[Op], flushed: int, cut: Cut, draw: random.Random
) -> set[int]:
    """Choose the operations on the directory that survive."""
    kinds = ("create", "link", "rename", "unlink")
    indexes = [index for index, op in enumerate(ops) if op.kind in kinds]
    kept = {index for index in indexes if index < flushed}
    open_ones = [index for index in indexes if index >= flushed]
    if cut.names == "kept":
        kept.update(open_ones)
    elif cut.names == "ordered":
        kept.update(open_ones[: draw.randint(0, len(open_ones))])
    elif cut.names == "any":
        kept.update(index for index in open_ones if draw.random() < 0.5)
    return kept


def _rename(disk: Disk, op: Op) -> None:
    if op.kind == "unlink":
        disk.names.pop(op.name, None)
        return
    if op.kind == "rename":
        disk.names.pop(op.old, None)
    disk.names[op.name] = op.file


def _apply(file: Image, op: Op) -> None:
    if op.kind == "write":
        file.write(op.offset, op.data)
    elif op.kind == "size":
        file.resize(op.size)


def _apply_unflushed(file: Image, op: Op, cut: Cut, draw: random.Random) -> None:
    if op.kind == "size":
        if cut.data in ("kept", "garbage") or (
            cut.data == "drawn" and draw.random() < 0.5
        ):
            file.resize(op.size)
    elif op.kind == "write" and cut.data != "drawn":
        if cut.data == "kept":
            file.write(op.offset, op.data)
        elif cut.data == "garbage":
            file.write(op.offset, draw.randbytes(len(op.data)))
    elif op.kind == "write":
        _apply_torn(file, op, cut, draw)


def _apply_torn(file: Image, op: Op, cut: Cut, draw: random.Random) -> None:
    """Write some units of a write: nothing of it at times, all of it at times."""
    unit = BLOCK if cut.same_boot else draw.choice((BLOCK, SECTOR))
    fates = ["kept", "dropped"] if cut.same_boot else ["kept", "dropped", "garbage"]
    whole = draw.choice([*fates, "torn"])
    begin, end = op.offset, op.offset + len(op.data)
    while begin < end:
        stop = min(end, (begin // unit + 1) * unit)
        fate = draw.choice(fates) if whole == "torn" else whole
        data = op.data[begin - op.offset : stop - op.offset]
        if fate == "garbage":
            data = draw.randbytes(len(data))
        if fate != "dropped":
            file.write(begin, data)
        begin = stop
    if end > len(file.content) and draw.random() < 0.5:
        file.resize(end)  # the length may come without the bytes


class Tape:
    """
    Stands for `os` in segdl._fs: notes what changes files, and numbers them.

    Numbers take the place of inodes, so that files written by `put` are the ones that
    were recorded. Nothing is really flushed: what that means is the model's.

    Attributes:
        ops: What was noted.
        recording: Whether anything is.
    """

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.recording = False
        self._numbers: dict[int, int] = {}
        self._next = _FIRST_NUMBER
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    @property
    def supports_follow_symlinks(self) -> set[Any]:
        """As that of `os`, whose `link` is replaced here."""
        return set(os.supports_follow_symlinks) | {self.link}

    def put(self, disk: Disk, directory: Path) -> None:
        """Write what is on a disk into an empty directory."""
        directory.mkdir(parents=True)
        paths: dict[int, Path] = {}
        for name, number in disk.names.items():
            path = directory / name
            if number in paths:
                os.link(paths[number], path)
                continue
            paths[number] = path
            file = disk.files[number]
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.ftruncate(fd, len(file.content))
                for block in sorted(file.blocks):
                    data = file.content[block * BLOCK : (block + 1) * BLOCK]
                    os.pwrite(fd, data, block * BLOCK)
                with self._lock:
                    self._numbers[os.fstat(fd).st_ino] = number
            finally:
                os.close(fd)

    # --- calls that change something --------------------------------------------------

    def open(
        self, path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None
    ) -> int:
        """Open; a file that is created gets a number."""
        with self._lock:
            fd = os.open(path, flags, mode, dir_fd=dir_fd)
            if flags & os.O_CREAT:
                self._next += 1
                self._numbers[os.fstat(fd).st_ino] = self._next
                self._note(kind="create", file=self._next, name=path)
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        """Write at the position, or at the end of a log."""
        with self._lock:
            written = os.write(fd, data)
            # With O_APPEND the position is at the end afterwards, too.
            offset = os.lseek(fd, 0, os.SEEK_CUR) - written
            self._note_write(fd, data[:written], offset)
        return written

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        """Write at an offset."""
        with self._lock:
            written = os.pwrite(fd, data, offset)
            self._note_write(fd, data[:written], offset)
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        """Set a length."""
        with self._lock:
            os.ftruncate(fd, size)
            self._note(kind="size", file=self._number(fd), size=size)

    def fdatasync(self, fd: int) -> None:
        """Flush a file, by the model."""
        with self._lock:
            self._note(kind="sync", file=self._number(fd))

    def fsync(self, _: int) -> None:
        """Flush the directory, by the model."""
        with self._lock:
            self._note(kind="syncdir")

    def link(self, source: str, target: str, **options: Any) -> None:
        """Give a file another name."""
        with self._lock:
            os.link(source, target, **options)
            number = self._number_at(target, options["dst_dir_fd"])
            self._note(kind="link", file=number, name=target)

    def replace(self, source: str, target: str, **options: Any) -> None:
        """Rename."""
        with self._lock:
            os.replace(source, target, **options)
            number = self._number_at(target, options["dst_dir_fd"])
            self._note(kind="rename", file=number, name=target, old=source)

    def unlink(self, path: str, *, dir_fd: int | None = None) -> None:
        """Remove a name."""
        with self._lock:
            os.unlink(path, dir_fd=dir_fd)
            self._note(kind="unlink", name=path)

    # --- calls that tell inodes -------------------------------------------------------

    def fstat(self, fd: int) -> Any:
        """Look at a file; its number is its inode."""
        return self._numbered(os.fstat(fd))

    def stat(self, path: Any, **options: Any) -> Any:
        """Look at a name; the file's number is its inode."""
        return self._numbered(os.stat(path, **options))

    def _numbered(self, found: os.stat_result) -> Any:
        return _Status(found, self._numbers.get(found.st_ino, found.st_ino))

    def _number(self, fd: int) -> int:
        return self._numbers[os.fstat(fd).st_ino]

    def _number_at(self, path: str, dir_fd: int) -> int:
        return self._numbers[os.stat(path, dir_fd=dir_fd).st_ino]

    def _note_write(self, fd: int, data: memoryview, offset: int) -> None:
        self._note(kind="write", file=self._number(fd), offset=offset, data=bytes(data))

    def _note(self, **fields: Any) -> None:
        if self.recording:
            self.ops.append(Op(**fields))


class _Status:
    """An `os.stat_result` with another inode, and another device."""

    st_dev = 7

    def __init__(self, real: os.stat_result, number: int) -> None:
        self._real = real
        self.st_ino = number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def look(
    directory: Path, name: str, durability: str, content_of: Callable[[Header], bytes]
) -> int:
    """
    Take up what is in a directory, and compare what would be trusted.

    Args:
        directory: As the power cut left it.
        name: The final one.
        durability: Of the download.
        content_of: Gives the bytes that belong to a manifest's header.

    Returns:
        How many bytes would be trusted.

    Raises:
        AssertionError: One of them is wrong.
        SegdlError: It can't be taken up.
    """
    with contextlib.closing(Store(str(directory), durability)) as store:
        found = store.look(checked_name(name))
        if found is None or not found.accepted + found.doubtful:
            return 0
        content = content_of(found.header)
        part = Path(store.directory.path_of(store.part_name)).read_bytes()
        trusted = 0
        for piece in (*found.accepted, *found.doubtful):
            end = piece.offset + piece.length
            data = part[piece.offset : end]
            if (
                piece not in found.doubtful
                or xxhash.xxh3_64_hexdigest(data) == piece.xxh3
            ):
                assert data == content[piece.offset : end], f"{piece} would be trusted"
                trusted += piece.length
        return trusted


def prefixes(ops: Sequence[Op]) -> Iterator[Sequence[Op]]:
    """Give the operations up to each instant, the one before all included."""
    for count in range(len(ops) + 1):
        yield ops[:count]
