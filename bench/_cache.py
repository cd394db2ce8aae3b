"""What the page cache holds of a file, and how much of it waits to be written."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WINDOW_BYTES = 1 << 30
_SAMPLE_SECONDS = 0.05
_FAILED = ctypes.c_void_p(-1).value
_PROT_READ, _MAP_SHARED = 1, 1


def cached_bytes(path: Path) -> int:
    """
    Count the bytes of a file that are in the page cache (mincore).

    Raises:
        OSError: It can't be told.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_long),
    ]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    found = 0
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for begin in range(0, size, _WINDOW_BYTES):
            found += _resident(
                libc, file.fileno(), begin, min(_WINDOW_BYTES, size - begin)
            )
    return found


def _resident(libc: ctypes.CDLL, fd: int, begin: int, length: int) -> int:
    pages = -(-length // mmap.PAGESIZE)
    states = ctypes.create_string_buffer(pages)
    address = libc.mmap(None, length, _PROT_READ, _MAP_SHARED, fd, begin)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), "mmap")
    try:
        if libc.mincore(address, length, states):
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        libc.munmap(address, length)
    # Only the lowest bit of each is defined.
    return sum(state & 1 for state in states.raw) * mmap.PAGESIZE


def unwritten_bytes() -> int:
    """Give what the whole system has in memory and not on a disk yet."""
    fields = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text().splitlines()
    )
    names = ("Dirty", "Writeback")
    return sum(int(fields[name].split()[0]) * 1024 for name in names)


class Unwritten:
    """The most that was unwritten at one moment."""

    def __init__(self) -> None:
        self.most_bytes = 0


@contextmanager
def watching_unwritten() -> Iterator[Unwritten]:
    """Look at it for the time of a with block, on a thread."""
    seen, over = Unwritten(), threading.Event()

    def look() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            seen.most_bytes = max(seen.most_bytes, unwritten_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
