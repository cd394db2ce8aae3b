"""Real files below a directory, sent by the system itself where it can."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

__all__ = ["RealFile", "find_file"]


class RealFile:
    """
    An open file to serve.

    Args:
        path: A regular file; `close` closes it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        stat = os.fstat(self._file.fileno())
        self.size = stat.st_size
        self.modified = stat.st_mtime
        #: As nginx makes it, but with nanoseconds: time and size.
        self.etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'

    def buffers(self, begin: int, end: int) -> list[memoryview]:
        """Give the bytes of [begin, end), and zeros beyond the end."""
        self._file.seek(begin)
        there = self._file.read(end - begin)
        return [memoryview(there), memoryview(bytes(end - begin - len(there)))]

    def send_to(self, fileno: int, begin: int, count: int) -> int:
        """
        Send bytes to a socket, without a copy through this process.

        Args:
            fileno: The blocking socket's.
            begin: Offset of the first byte.
            count: How many, at least 1.

        Returns:
            How many were sent, at least 1.

        Raises:
            OSError: when the peer is gone, or the file became shorter.
        """
        sent = os.sendfile(fileno, self._file.fileno(), begin, count)
        if sent == 0:
            raise OSError(f"the file is shorter than {begin + count} bytes by now")
        return sent

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def find_file(root: Path, name: str) -> Path | None:
    """
    Find a regular file below a directory.

    Args:
        root: The directory.
        name: A relative path as in a URL, percent-encoded.

    Returns:
        None when there is none, or it is elsewhere.
    """
    top = root.resolve()
    path = (top / unquote(name)).resolve()
    return path if path.is_relative_to(top) and path.is_file() else None
