"""The mark of a part file that has no manifest: an extended attribute of its inode.

A part that a killed run left without a manifest beside it may be anybody's (browsers
name theirs like that), so it is refused. One that is marked is segdl's for certain, and
is begun anew. It costs one call and no name, where a manifest costs a file, two renames
and two flushes. ext4 has room for it in the inode itself.

The mark is what the URL is recognised by (SHA-256), so that a part of another download
is told from one's own.
"""

from __future__ import annotations

import os
from contextlib import suppress

_NAME = "user.segdl"
_MARK_BYTES = 32


def set_mark(fd: int, url_sha256: str) -> bool:
    """
    Mark a file as the part of a download.

    Args:
        fd: Of the file.
        url_sha256: 64 hexadecimal digits.

    Returns:
        False where file system or platform have no such attributes.
    """
    if not hasattr(os, "setxattr"):
        return False
    try:
        os.setxattr(fd, _NAME, bytes.fromhex(url_sha256))
    except OSError:
        return False  # whatever the reason: a manifest does as well
    return True


def get_mark(file: int | str) -> str | None:
    """
    Give the URL's hash a file is marked with, None for none.

    Args:
        file: A descriptor, or a path, of which a link is not followed.
    """
    if not hasattr(os, "getxattr"):
        return None
    try:
        mark = os.getxattr(file, _NAME, follow_symlinks=isinstance(file, int))
    except OSError:
        return None
    return mark.hex() if len(mark) == _MARK_BYTES else None


def remove_mark(fd: int) -> None:
    """Take a mark away, if there is one; it harms nobody where that fails."""
    if hasattr(os, "removexattr"):
        with suppress(OSError):
            os.removexattr(fd, _NAME)
