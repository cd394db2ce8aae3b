"""NAME.part as a worker writes it: at offsets, buffered or direct.

Which of the two is `preferred_io`'s choice. Direct writes spare the copy into the page
cache and the turns that ext4 makes buffered writers of one file take: 4 GiB over
loopback cost 2.4 - 3.5 s of CPU against 4.3 - 5.2 s. Their price is that a reader
afterwards, such as the verification, finds nothing in the cache.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from segdl._fs._base import (
    SAFE_FLAGS,
    UNSUPPORTED,
    Directory,
    pwrite,
    read_system_file,
    storage_error,
    system_error,
    wrapped,
)
from segdl._fs._streams import above_streams
from segdl.errors import StorageError

# What direct I/O asks of memory, offset and length. Disks with 512-byte blocks take
# less; larger blocks than this refuse with EINVAL, and PartWriter goes on buffered.
ALIGNMENT = 4096
DIRECT_FROM_BYTES = 256 * 1024 * 1024

# Local file systems whose O_DIRECT goes to the disk. btrfs is left out since it copies
# through the page cache again for files with checksums (Linux 6.15), as zfs, overlay
# and network file systems may; tmpfs has no disk.
_DIRECT_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs"})


class PartWriter:
    """
    Writes to a part file that the parent has created.

    Args:
        path: Absolute path of the part file.
        identity: Its (device, inode) as the parent sees it.
        direct: Write past the page cache where alignment and file system allow.

    Attributes:
        direct: False also once the file system has refused.

    Raises:
        StorageError: It cannot be opened, or is another file now.
    """

    def __init__(self, path: str, identity: tuple[int, int], direct: bool) -> None:
        self.path = path
        self._identity = identity
        self._direct_fd = -1
        self._fd = self._open(0)
        if direct and hasattr(os, "O_DIRECT"):
            try:
                self._direct_fd = self._open(os.O_DIRECT)
            except StorageError as exc:
                if exc.errno not in UNSUPPORTED:
                    self.close()
                    raise

    @property
    def direct(self) -> bool:
        return self._direct_fd >= 0

    def _open(self, flags: int) -> int:
        with wrapped(f"open {self.path}"):
            fd = above_streams(os.open(self.path, os.O_WRONLY | SAFE_FLAGS | flags))
            found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != self._identity:
            os.close(fd)
            raise StorageError(
                f"{self.path} was replaced while it was in use "
                "(start the download again)",
                errno=errno.ESTALE,
            )
        return fd

    def pwrite(self, view: memoryview, offset: int) -> None:
        """
        Write all of `view` at `offset`.

        Args:
            view: The bytes. For direct writing it begins at a multiple of `ALIGNMENT`
                in an `aligned_buffer`; its unaligned tail goes the buffered way.
            offset: In bytes from the beginning of the file.

        Raises:
            DiskFull, StorageError: A part of it may have been written.
        """
        try:
            while view:
                written = self._pwrite_some(view, offset)
                view = view[written:]
                offset += written
        except OSError as exc:
            doing = f"write {len(view)} bytes at offset {offset} of {self.path}"
            raise storage_error(exc, doing) from exc

    def _pwrite_some(self, view: memoryview, offset: int) -> int:
        aligned = len(view) & -ALIGNMENT
        if self._direct_fd >= 0 and aligned and offset % ALIGNMENT == 0:
            try:
                return _pwrite(self._direct_fd, view[:aligned], offset)
            except OSError as exc:
                if exc.errno not in UNSUPPORTED:
                    raise
                # Some file systems take the flag and refuse the write.
                self._close_direct()
        return _pwrite(self._fd, view, offset)

    def start_writeback(self, offset: int, length: int) -> None:
        """Have the kernel begin to write a range out, without waiting; advice only."""
        # Linux starts write-back of dirty pages for DONTNEED and drops clean ones only
        # (mm/fadvise.c), so it does what sync_file_range does, without ctypes.
        if not self.direct and hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)

    def _close_direct(self) -> None:
        if self._direct_fd >= 0:
            fd, self._direct_fd = self._direct_fd, -1
            _close(fd, self.path)

    def close(self) -> None:
        """
        Close it; a second call does nothing.

        Raises:
            DiskFull, StorageError: The file system writes late (NFS), and could not.
        """
        try:
            self._close_direct()
        finally:
            if self._fd >= 0:
                fd, self._fd = self._fd, -1
                _close(fd, self.path)


def _close(fd: int, path: str) -> None:
    with wrapped(f"close {path}"):
        os.close(fd)


def _pwrite(fd: int, view: memoryview, offset: int) -> int:
    written = pwrite(fd, view, offset)
    if written == 0:
        raise system_error(errno.EIO)
    return written


def aligned_buffer(size: int) -> memoryview:
    """
    Give `size` zeroed writable bytes that begin at a page border.

    Raises:
        StorageError: There is no memory for them.
    """
    import mmap

    with wrapped(f"get {size} bytes of memory to write from"):
        # The default is shared memory, slower to fault in.
        if hasattr(mmap, "MAP_PRIVATE"):
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
            return memoryview(mmap.mmap(-1, size, flags=flags))
        return memoryview(mmap.mmap(-1, size))


def preferred_io(
    directory: Directory, size: int, *, requested: str, will_verify: bool
) -> bool:
    """
    Choose how to write a part file; True means direct.

    Args:
        directory: Where it will be.
        size: Complete length in bytes, 0 while unknown.
        requested: "buffered", "direct" or "auto".
        will_verify: The whole file will be read again to verify it.
    """
    if requested != "auto" or size < DIRECT_FROM_BYTES:
        return requested == "direct"
    mounts = read_system_file("/proc/self/mountinfo")
    return choose_direct(
        size,
        will_verify=will_verify,
        file_system=file_system_of(os.path.realpath(directory.path), mounts),
        available_bytes=_available_bytes(read_system_file("/proc/meminfo")),
    )


def choose_direct(
    size: int, *, will_verify: bool, file_system: str, available_bytes: int
) -> bool:
    """
    Decide for "auto": direct pays for large files that no one reads from the cache.

    Args:
        size: Complete length in bytes.
        will_verify: The file will be read again.
        file_system: Its type, as Linux names it.
        available_bytes: Memory the system can give away; 0 when unknown.
    """
    if size < DIRECT_FROM_BYTES or file_system not in _DIRECT_FILE_SYSTEMS:
        return False
    # A quarter of the memory: less is still in the cache when it is verified.
    return not will_verify or 0 < available_bytes // 4 < size


def file_system_of(path: str, mountinfo: str) -> str:
    """
    Find the type of the file system that holds a path.

    Args:
        path: Absolute, without symbolic links.
        mountinfo: The text of /proc/self/mountinfo (proc(5)).

    Returns:
        Such as "ext4"; empty when unknown.
    """
    best, found = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        point = _unescape(fields[4]).rstrip("/")
        # A later mount on the same place covers the earlier one.
        if (path == point or path.startswith(point + "/")) and len(point) >= best:
            best, found = len(point), right.split(" ")[0]
    return found


def _unescape(field: str) -> str:
    for code, char in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        field = field.replace("\\" + code, char)
    return field


def _available_bytes(meminfo: str) -> int:
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
