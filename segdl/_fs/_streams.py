"""A program's three standard streams, which it may have closed and still write to."""

from __future__ import annotations

import os
from contextlib import suppress

_LAST_STREAM = 2  # stderr


def above_streams(fd: int) -> int:
    """
    Give a descriptor that is none of a program's three standard streams.

    A program that closed those, such as a daemon, may still write to them: into what
    has their numbers by then.

    Args:
        fd: Closed when another one is given, or none can be.
    """
    if fd > _LAST_STREAM:
        return fd
    try:
        import fcntl
    except ImportError:
        return fd  # Windows
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_STREAM + 1)
    finally:
        os.close(fd)


def occupy_streams() -> list[int]:
    """
    Open the null device in place of standard streams that a program has closed.

    For descriptors that others make, such as libcurl's sockets: `above_streams` can't
    move those.

    Returns:
        What was opened; `release_streams` closes it.
    """
    opened: list[int] = []
    for fd in range(_LAST_STREAM + 1):
        try:
            os.fstat(fd)
        except OSError:
            with suppress(OSError):
                opened.append(
                    os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
                )
    return opened


def release_streams(fds: list[int]) -> None:
    """Close what `occupy_streams` opened, unless the program has put another there."""
    for fd in fds:
        with suppress(OSError):
            if os.fstat(fd).st_rdev == os.stat(os.devnull).st_rdev:
                os.close(fd)
