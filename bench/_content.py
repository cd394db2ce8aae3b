"""Files to serve, and the comparison of what arrived with what was served.

The content is the embedded origin's: pseudo-random, and a block moved anywhere differs
from what belongs there (see `segdl.testing.content`).
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from pathlib import Path

from segdl.testing.content import BLOCK_BYTES, buffers

MIB = 1 << 20
GIB = 1 << 30
_UNITS = {"k": 1 << 10, "m": MIB, "g": GIB, "t": 1 << 40}
_CHUNK_BYTES = 4 * MIB
# Linux takes at most 1024 buffers in one writev; a block has two.
_BLOCKS_A_WRITE = 16

# In a sparse file, so far from one mark to the next, and so long is a mark.
MARK_DISTANCE_BYTES = MIB
_MARK_BYTES = 4096


def parse_size(text: str) -> int:
    """
    Read a size in bytes, such as "512M" or "4G".

    Raises:
        ValueError: It is no such number.
    """
    unit = _UNITS.get(text[-1:].lower(), 1)
    digits = text if unit == 1 else text[:-1]
    size = int(float(digits) * unit)
    if size <= 0:
        raise ValueError(f"not a size: {text}")
    return size


def show_size(size: int) -> str:
    """Write a size with the largest unit that divides it."""
    for name, unit in (("TiB", 1 << 40), ("GiB", GIB), ("MiB", MIB), ("KiB", 1 << 10)):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def make_file(path: Path, size: int, seed: int = 1) -> None:
    """
    Write a file without holes, and flush it to the disk.

    Args:
        path: It must not exist.
        size: Its length in bytes.
        seed: Which content.
    """
    step = _BLOCKS_A_WRITE * BLOCK_BYTES
    with open(path, "xb", buffering=0) as file:
        for begin in range(0, size, step):
            end = min(begin + step, size)
            written = os.writev(file.fileno(), buffers(seed, begin, end))
            if written != end - begin:
                raise OSError(f"only {written} of {end - begin} bytes were written")
        os.fsync(file.fileno())


def make_sparse_file(path: Path, size: int) -> None:
    """
    Write a file that is holes but for a mark every MiB, different each.

    Args:
        path: It must not exist.
        size: Its length in bytes.
    """
    with open(path, "xb", buffering=0) as file:
        os.truncate(file.fileno(), size)
        for offset in range(0, size, MARK_DISTANCE_BYTES):
            mark = struct.pack(">Q", offset + 1) * (_MARK_BYTES // 8)
            os.pwrite(file.fileno(), mark[: size - offset], offset)


def warm(path: Path) -> None:
    """Read a file, so that it is in the page cache as far as there is room."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(_CHUNK_BYTES)
        while file.readinto(buffer):
            pass


def same(one: Path, other: Path) -> bool:
    """Tell whether two files have the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with open(one, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
        mine, theirs = bytearray(_CHUNK_BYTES), bytearray(_CHUNK_BYTES)
        while count := left.readinto(mine):
            right.readinto(theirs)
            if mine != theirs:
                return False
            if count < len(mine):
                break
    return True


def is_blob(path: Path, seed: int, size: int) -> bool:
    """Tell whether a file is the embedded origin's blob of a seed and a size."""
    if path.stat().st_size != size:
        return False
    with open(path, "rb", buffering=0) as file:
        for begin in range(0, size, BLOCK_BYTES):
            end = min(begin + BLOCK_BYTES, size)
            expected = b"".join(buffers(seed, begin, end))
            if os.pread(file.fileno(), end - begin, begin) != expected:
                return False
    return True


def sha256(path: Path) -> str:
    """Give the digest of a file, lower-case hexadecimal."""
    hasher = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(_CHUNK_BYTES)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return hasher.hexdigest()


def filesystem(path: Path) -> str:
    """Give the type of the file system a path is on, "unknown" where none is told."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    resolved = str(path.resolve())
    for line in mounts:
        _, point, name, *_ = line.split()
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def work_directory(wanted: Path | None) -> tempfile.TemporaryDirectory[str]:
    """
    Make a directory that is removed with its files, on a disk rather than in memory.

    Args:
        wanted: Where to make it; None for the usual place of temporary files, or
            /var/tmp where that one is in memory.
    """
    parent = Path(tempfile.gettempdir()) if wanted is None else wanted
    if wanted is None and filesystem(parent) == "tmpfs":
        parent = Path("/var/tmp")
    parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix="segdl-bench-", dir=parent)
