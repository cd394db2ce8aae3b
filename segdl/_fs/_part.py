"""NAME.part as the parent holds it: created, locked, looked at, published."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from weakref import WeakSet

from segdl._fs._base import (
    UNSUPPORTED,
    Directory,
    busy,
    check_own,
    check_private,
    fdatasync,
    foreign,
    has_hole,
    storage_error,
    system_error,
    wrapped,
)
from segdl._fs._mark import get_mark, remove_mark, set_mark
from segdl._fs._system import current_umask
from segdl.errors import DestinationBusy, DestinationExists, StorageError

_NO_LOCKS = UNSUPPORTED | {errno.ENOLCK}
# vfat and exfat answer EPERM to link, some Android file systems EACCES.
_NO_LINKS = UNSUPPORTED | {errno.EPERM, errno.EACCES, errno.EMLINK}
_NO_MODES = UNSUPPORTED | {errno.EPERM}


class PartFile:
    """
    NAME.part as the parent holds it: locked for as long as it is open.

    Use `PartFile.create` or `PartFile.open_existing`.

    Attributes:
        identity: (device, inode): what a worker compares before it writes.
        size: Expected length in bytes; the present one while it is unknown.
        locked: False where the file system has no locks.
        marked: Whether it has a mark.
        mark_found: The mark of an earlier run: the hash of its URL, None without one.
        shared: Others could write to it: a publish was cut short that had widened its
            mode already. What it holds has to be compared.
    """

    def __init__(self, directory: Directory, name: str, fd: int) -> None:
        self.directory = directory
        self.name = name
        self.fd = fd
        found = self._fstat()
        self.identity = (found.st_dev, found.st_ino)
        self.locked = False
        self.marked = False
        self.mark_found: str | None = None
        self.shared = False
        self._size: int | None = None
        self._failed: StorageError | None = None
        _register_at_fork()
        _open_parts.add(self)

    @classmethod
    def create(cls, directory: Directory, name: str, size: int | None) -> PartFile:
        """
        Create the sparse file; nothing is allocated yet.

        Args:
            directory: To create it in.
            name: Of the part file.
            size: Complete length in bytes, None while it is unknown.

        Raises:
            DestinationExists: A file of that name is there already.
            DestinationBusy: Another engine got the new file first.
            DiskFull, StorageError: It cannot be made, or be that large.
        """
        directory.check_name(name)
        path = directory.path_of(name)
        with wrapped(f"create {path}"):
            try:
                fd = directory.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError as exc:
                raise DestinationExists(
                    f"{path} is there already (resume it, or remove it)",
                    errno=errno.EEXIST,
                ) from exc
            part = cls(directory, name, fd)
        try:
            # Before the lock was ours, another one may have taken an empty part that
            # nobody held for a leftover, and removed it.
            if not part._lock() or not part._is_named():
                raise busy(path)
            part.truncate(size)
        except DestinationBusy:
            part.close()  # it is the other engine's now
            raise
        except BaseException:
            directory.unlink(name)
            part.close()
            raise
        return part

    @classmethod
    def open_existing(
        cls, directory: Directory, name: str, *, final_name: str | None = None
    ) -> PartFile:
        """
        Open and lock what an earlier run left.

        Args:
            directory: It is in.
            name: Of the part file.
            final_name: The destination, where a manifest, or its mark, vouches for the
                part: only then a publish that was cut short may have widened its mode,
                or given it this name as its second.

        Raises:
            DestinationBusy: Another engine has it locked.
            StorageError: It is missing (errno ENOENT), no regular file, a link, not
                the user's own, or open to others.
        """
        path = directory.path_of(name)
        for _ in range(3):
            with wrapped(f"open {path}"):
                fd = directory.open_file(name, os.O_RDWR)
                part = cls(directory, name, fd)
            try:
                if not part._lock():
                    raise busy(path)
                named = part._named()
                if named is not None:
                    part._check_ownership(named, final_name)
                    part._size = part._fstat().st_size
                    part.mark_found = get_mark(part.fd)
                    part.marked = part.mark_found is not None
                    return part
            except BaseException:
                part.close()
                raise
            part.close()  # published or replaced before the lock was ours: look again
        raise busy(path)

    @property
    def size(self) -> int:
        return self._fstat().st_size if self._size is None else self._size

    @property
    def links(self) -> int:
        """Number of names; 2 between the two steps of a publish."""
        return self._fstat().st_nlink

    @property
    def flush_failed(self) -> bool:
        """Whether `sync` has failed, so that what was written may be lost."""
        return self._failed is not None

    @property
    def path(self) -> str:
        """Absolute path."""
        return self.directory.path_of(self.name)

    def mark(self, url_sha256: str) -> bool:
        """
        Have it known for segdl's without a manifest, until it is published.

        Args:
            url_sha256: What the URL is recognised by, 64 hexadecimal digits.

        Returns:
            False where that can't be had, or no lock tells that it is in use.
        """
        self.marked = self.locked and set_mark(self.fd, url_sha256)
        return self.marked

    def unmark(self) -> None:
        """Take the mark away, if there is one."""
        if self.marked:
            remove_mark(self.fd)
            self.marked = False

    def truncate(self, size: int | None) -> None:
        """
        Set the length: lengthening adds a hole, shortening drops bytes.

        Args:
            size: In bytes; None drops all, and lets it grow from there.
        """
        length = size or 0
        with wrapped(f"set the size of {self.path} to {length} bytes"):
            try:
                os.ftruncate(self.fd, length)
            except OverflowError as exc:
                raise system_error(errno.EFBIG) from exc
        self._size = size

    def is_empty(self) -> bool:
        """Whether it was never written, for certain: False where that is not told."""
        if self._fstat().st_size == 0:
            return True
        if self.blocks() or not hasattr(os, "SEEK_DATA"):
            return False
        # Some file systems say 0 blocks whatever is in a file.
        try:
            os.lseek(self.fd, 0, os.SEEK_DATA)
        except OSError as exc:
            return exc.errno == errno.ENXIO
        return False

    def blocks(self) -> int:
        """Give the number of allocated 512-byte blocks."""
        found = self._fstat()
        # Windows does not tell: every byte counts as written.
        return int(getattr(found, "st_blocks", -(-found.st_size // 512)))

    def has_hole(self, offset: int, length: int) -> bool:
        """Tell whether bytes of a range were never written, or lost: see `has_hole`."""
        with wrapped(f"look for holes in {self.path}"):
            return has_hole(self.fd, offset, length)

    def read(self, offset: int, length: int) -> bytes:
        """Read some bytes back."""
        with wrapped(f"read {length} bytes at offset {offset} of {self.path}"):
            if hasattr(os, "pread"):
                return os.pread(self.fd, length, offset)
            os.lseek(self.fd, offset, os.SEEK_SET)
            return os.read(self.fd, length)

    def check(self) -> None:
        """Raise `StorageError` when the file was replaced, removed or resized."""
        if not self._is_named():
            raise StorageError(
                f"{self.path} was replaced or removed while it was in use "
                "(start the download again)",
                errno=errno.ESTALE,
            )
        actual = self._fstat().st_size
        if actual != self.size:
            raise StorageError(
                f"{self.path} has {actual} bytes instead of {self.size}: "
                "something else changed it (start the download again)",
                errno=errno.ESTALE,
            )

    def sync(self) -> None:
        """
        Wait until all written bytes are on the disk.

        Raises:
            StorageError: Final: every later call raises the same error again.
        """
        if self._failed is not None:
            raise self._failed
        try:
            with wrapped(f"flush {self.path}"):
                fdatasync(self.fd)
        except StorageError as exc:
            self._failed = exc
            raise

    def publish(self, name: str, *, overwrite: bool, durability: str) -> None:
        """
        Give the whole file its final name in one atomic step.

        The part's name is gone then, and the file stays locked until `close`. A
        publish that was cut short between its steps is finished by the next call.

        Args:
            name: The final name, in the same directory.
            overwrite: Replace a file of that name.
            durability: With "none" nothing is flushed.

        Raises:
            DestinationExists: The name is taken, and `overwrite` is False.
            StorageError: The part is not what it should be, or a call failed.
        """
        directory = self.directory
        directory.check_name(name)
        if durability != "none":
            self.sync()
        self.check()
        there = directory.check_replaceable(name) if overwrite else directory.stat(name)
        done = there is not None and (there.st_dev, there.st_ino) == self.identity
        if self.links != (2 if done else 1):
            raise foreign(self.path, f"has {self.links} names")
        if not done:
            self._name_finally(name, there if overwrite else None, overwrite)
        # After a rename the part's name is free, or another engine's already.
        if self._is_named():
            directory.unlink(self.name)
        self.unmark()  # not sooner: a kill would leave a part that may be anybody's
        if durability != "none":
            directory.fsync()

    def _name_finally(
        self, name: str, replaced: os.stat_result | None, overwrite: bool
    ) -> None:
        directory = self.directory
        path = directory.path_of(name)
        self._set_mode(_final_mode(replaced))
        try:
            if not overwrite and self._linked(name):
                return
            if not overwrite and directory.exists(name):
                raise _exists(path)
            directory.rename(self.name, name)
        except BaseException:
            with suppress(StorageError):  # the first error says more
                self._set_mode(0o600)
            raise

    def _linked(self, name: str) -> bool:
        """Link the part to a free name; False where the file system has no links."""
        directory = self.directory
        try:
            os.link(
                directory.at(self.name),
                directory.at(name),
                src_dir_fd=directory.fd,
                dst_dir_fd=directory.fd,
                follow_symlinks=os.link not in os.supports_follow_symlinks,
            )
        except FileExistsError as exc:
            raise _exists(directory.path_of(name)) from exc
        except OSError as exc:
            if exc.errno in _NO_LINKS:
                return False
            doing = f"publish {directory.path_of(name)}"
            raise storage_error(exc, doing) from exc
        return True

    def remove(self) -> None:
        """Remove its name, unless that is another file's by now."""
        if self._is_named():
            self.directory.unlink(self.name)

    def close(self) -> None:
        """Close and unlock; a second call does nothing."""
        _open_parts.discard(self)
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            # The last word of a file system that writes late (NFS).
            with wrapped(f"close {self.path}"):
                os.close(fd)

    def _fstat(self) -> os.stat_result:
        with wrapped(f"look at {self.path}"):
            return os.fstat(self.fd)

    def _is_named(self) -> bool:
        return self._named() is not None

    def _named(self) -> os.stat_result | None:
        """Look at it by its name; None when that is another file's, or free."""
        found = self.directory.stat(self.name)
        if found is None or (found.st_dev, found.st_ino) != self.identity:
            return None
        return found

    def _lock(self) -> bool:
        """Take the lock; False when somebody else has it."""
        try:
            import fcntl
        except ImportError:
            return True  # Windows: segdl goes without a lock there
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            # EACCES: NFS, where Linux makes a flock of byte-range locks.
            if exc.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES):
                return False
            if exc.errno in _NO_LOCKS:
                return True
            raise storage_error(exc, f"lock {self.path}") from exc
        self.locked = True
        return True

    def _check_ownership(self, found: os.stat_result, final_name: str | None) -> None:
        """
        Raise unless the part is the user's own; take a mode widened by publish back.

        Args:
            found: Seen by the part's name: one link then means that it has no other.
            final_name: The destination.
        """
        other = self.directory.stat(final_name) if final_name else None
        finished = other is not None and (other.st_dev, other.st_ino) == self.identity
        if found.st_nlink != (2 if finished else 1):
            raise foreign(self.path, f"has {found.st_nlink} names")
        if finished:
            check_own(found, self.directory, self.name)
        elif final_name and stat.S_IMODE(found.st_mode) == _final_mode(other):
            # `publish` was cut short before the name: take its mode back.
            check_own(found, self.directory, self.name)
            self.shared = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
            self._set_mode(0o600)
        else:
            check_private(found, self.directory, self.name)

    def _set_mode(self, mode: int) -> None:
        if not hasattr(os, "fchmod"):
            return
        try:
            os.fchmod(self.fd, mode)
        except OSError as exc:
            if exc.errno in _NO_MODES and not self.directory.keeps_modes():
                return
            raise storage_error(exc, f"set the mode of {self.path}") from exc


_open_parts: WeakSet[PartFile] = WeakSet()
_fork_hook_set = False


def _register_at_fork() -> None:
    """Have the child of a fork let go of the locks: they belong to open files."""
    global _fork_hook_set
    if not _fork_hook_set and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_close_in_child)
    _fork_hook_set = True


def _close_in_child() -> None:
    for part in list(_open_parts):
        part.close()


def _final_mode(replaced: os.stat_result | None) -> int:
    """Give the mode of a published file: that of the one it replaces, if any."""
    return replaced.st_mode & 0o777 if replaced else 0o666 & ~current_umask()


def _exists(path: str) -> DestinationExists:
    return DestinationExists(
        f"{path} exists (allow to overwrite it, or choose another name)",
        errno=errno.EEXIST,
    )
