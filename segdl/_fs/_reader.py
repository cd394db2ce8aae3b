"""Files read back for their digest."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from segdl._fs._base import SAFE_FLAGS, system_error, wrapped


class PartReader:
    """
    A file that is hashed, or compared with its checksums.

    Args:
        path: Absolute path.

    Raises:
        StorageError: It can't be opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with wrapped(f"open {path}"):
            self._fd = os.open(path, os.O_RDONLY | SAFE_FLAGS)

    def pread(self, buffer: memoryview, offset: int) -> int:
        """
        Fill a buffer from an offset.

        Returns:
            How many bytes were read, 1 or more.

        Raises:
            StorageError: It can't be read, or ends there.
        """
        with wrapped(f"read {self._path} at {offset}"):
            if hasattr(os, "preadv"):
                count = os.preadv(self._fd, [buffer], offset)
            else:
                os.lseek(self._fd, offset, os.SEEK_SET)
                data = os.read(self._fd, len(buffer))
                count = len(data)
                buffer[:count] = data
            if count == 0:
                raise system_error(errno.ENODATA)
        return count

    def forget_cached(self) -> None:
        """
        Have the system read from the disk what it has in its cache; advice only.

        After a write that the disk refused, the cache alone has the bytes.
        """
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
