"""What the system tells of itself and of this process."""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from segdl._fs._base import read_system_file


def boot_id() -> str:
    """Give what tells this run of the system from the next; empty when unknown."""
    return read_system_file("/proc/sys/kernel/random/boot_id").strip()


_UMASK = b"\nUmask:"
_umask_lock = threading.Lock()


def current_umask() -> int:
    """Give the umask of the process without a moment in which it is another one."""
    # Linux 4.7 and later tell it; elsewhere it can only be read by setting it.
    with suppress(OSError, ValueError):
        fd = os.open("/proc/self/status", os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.read(fd, 4096)  # it is in the second line
        finally:
            os.close(fd)
        begin = status.index(_UMASK) + len(_UMASK)
        return int(status[begin : status.index(b"\n", begin)], 8)
    with _umask_lock:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask
