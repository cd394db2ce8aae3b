"""The only file calls of segdl; nothing else meets a raw OSError.

    parent                                        worker
    Directory ── holds the directory open,        PartWriter ── opens NAME.part itself,
      │          names are relative to it           │           compares (dev, ino)
      ├─ PartFile    NAME.part: lock, publish       ├─ buffered descriptor
      └─ AppendLog   NAME.segdl: one write a        └─ direct descriptor (O_DIRECT),
                     batch of records                  where the file system has it

`_base` has directories and small files, `_append` the manifest's log, `_part` the part
file as the parent holds it, `_mark` what tells that one without a manifest is ours,
`_writer` the part as a worker writes it, `_reader` files read back, `_system` the
boot's id and the umask, `_streams` what keeps clear of a program's own.

An error of the system is wrapped once, here, into `StorageError` or one of its kinds:
the message says what failed, at which path, with which numbers, and what to do.
Nothing is retried: a disk that fails once is not asked again. In particular an error
from `fdatasync` is final, because the kernel marks the lost pages clean and the next
call would succeed (Linux errseq_t, "fsyncgate"). EINTR needs no care: Python repeats
the call (PEP 475). Nor does SIGXFSZ, which CPython ignores: the call fails with EFBIG.

The lock is a `flock` on the part file, not on the manifest, which compaction replaces.
Where a call does not exist (dir_fd, O_NOFOLLOW, flock, SEEK_HOLE, O_DIRECT, fadvise)
its seam does without: paths, no lock, "no hole", buffered writes.
"""

from __future__ import annotations

from segdl._fs._append import AppendLog, append_file
from segdl._fs._base import (
    Directory,
    check_space,
    read_capped,
    replace_atomically,
    storage_error,
    temporary_name,
    truncate_name,
)
from segdl._fs._mark import get_mark
from segdl._fs._part import PartFile
from segdl._fs._reader import PartReader
from segdl._fs._streams import above_streams, occupy_streams, release_streams
from segdl._fs._system import boot_id, current_umask
from segdl._fs._writer import (
    ALIGNMENT,
    PartWriter,
    aligned_buffer,
    choose_direct,
    file_system_of,
    preferred_io,
)

__all__ = [
    "ALIGNMENT",
    "AppendLog",
    "Directory",
    "PartFile",
    "PartReader",
    "PartWriter",
    "above_streams",
    "aligned_buffer",
    "append_file",
    "boot_id",
    "check_space",
    "choose_direct",
    "current_umask",
    "file_system_of",
    "get_mark",
    "occupy_streams",
    "preferred_io",
    "read_capped",
    "release_streams",
    "replace_atomically",
    "storage_error",
    "temporary_name",
    "truncate_name",
]
