"""NAME.segdl as it is written to: a log that only grows."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from segdl._fs._base import Directory, check_private, fdatasync, wrapped, write_all
from segdl.errors import StorageError

if TYPE_CHECKING:
    from typing import TypeGuard


class AppendLog:
    """
    A file that only grows, by one write a batch; use `append_file`.

    After a failed append the file ends where it ended before, so that the next line
    never continues a torn one.

    Attributes:
        size: Its length in bytes.
    """

    def __init__(self, directory: Directory, name: str, fd: int) -> None:
        found = os.fstat(fd)
        self.path = directory.path_of(name)
        self.size = found.st_size
        self._identity = (found.st_dev, found.st_ino)
        self._directory = directory
        self._name = name
        self._fd = fd
        self._torn = False

    def append(self, data: bytes) -> None:
        """
        Add `data` to the end, whole or not at all.

        Raises:
            DiskFull: No room.
            StorageError: The write failed.
        """
        if self._torn:
            self._cut()
        try:
            with wrapped(f"append {len(data)} bytes to {self.path}"):
                write_all(self._fd, data)
        except BaseException:
            self._torn = True
            with suppress(StorageError):  # the append's error says more
                self._cut()
            raise
        self.size += len(data)

    def is_ours(self) -> bool:
        """Tell whether its name is still this file, as long as we made it."""
        found = self._directory.stat(self._name)
        return self._is(found) and found.st_size == self.size

    def is_named(self) -> bool:
        """Tell whether its name is still this file, however long."""
        return self._is(self._directory.stat(self._name))

    def _is(self, found: os.stat_result | None) -> TypeGuard[os.stat_result]:
        return found is not None and (found.st_dev, found.st_ino) == self._identity

    def _cut(self) -> None:
        with wrapped(f"cut {self.path} back to {self.size} bytes"):
            os.ftruncate(self._fd, self.size)
        self._torn = False

    def sync(self) -> None:
        """Wait until what was appended is on the disk; an error is final."""
        with wrapped(f"flush {self.path}"):
            fdatasync(self._fd)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with wrapped(f"close {self.path}"):
                os.close(fd)


def append_file(directory: Directory, name: str) -> AppendLog:
    """
    Open an existing private file for appending.

    Raises:
        StorageError: It is missing, a link, or could be somebody else's.
    """
    path = directory.path_of(name)
    with wrapped(f"open {path}"):
        fd = directory.open_file(name, os.O_WRONLY | os.O_APPEND)
        try:
            check_private(os.fstat(fd), directory, name)
            return AppendLog(directory, name, fd)
        except BaseException:
            os.close(fd)
            raise
