"""Directories and small files; errors are wrapped here."""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from segdl._fs._streams import above_streams
from segdl.errors import DestinationBusy, DiskFull, StorageError

if TYPE_CHECKING:
    from types import TracebackType

# Flags that one platform or another does not have count as 0: they only harden.
SAFE_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # never wait for a FIFO planted under our name
    | getattr(os, "O_BINARY", 0)
)
_CLOSE_IN_PROGRAMS = getattr(os, "O_CLOEXEC", 0)
_HAS_DIR_FD = {os.open, os.stat, os.unlink, os.rename, os.link} <= os.supports_dir_fd

_DIRECTORY_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | _CLOSE_IN_PROGRAMS

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

_ADVICE = {
    errno.ENOSPC: "free some space or choose another directory, then resume",
    errno.EDQUOT: "the quota is used up: free some space, then resume",
    errno.EACCES: "check the permissions, or choose another directory",
    errno.EPERM: "check the permissions, or choose another directory",
    errno.EROFS: "the file system is read-only: choose another directory",
    errno.EFBIG: "too large for the file system, or for the limit of `ulimit -f`",
    errno.EIO: "the disk reports an error: see the system log",
    errno.EMFILE: "too many open files: raise `ulimit -n`, or lower max_workers",
    errno.ELOOP: "a symbolic link stands there: remove it",
    errno.ENAMETOOLONG: "choose a shorter name or directory",
    errno.EILSEQ: "the name can't be written in this locale: choose another one, or a "
    "locale of UTF-8, such as LC_ALL=C.UTF-8",
    errno.ENOTDIR: "a part of the path is a file: choose another directory",
    errno.EISDIR: "a directory stands there: choose another name",
}


def storage_error(error: OSError, doing: str) -> StorageError:
    """
    Translate a system error.

    Args:
        error: What the system said.
        doing: What was tried, with path and numbers, as in "write 10 bytes to /a/b".
    """
    if isinstance(error, StorageError):
        return error
    code = error.errno
    advice = _ADVICE.get(code or 0)
    message = f"cannot {doing}: {error.strerror or error}"
    message += f" ({advice})" if advice else ""
    kind = DiskFull if code in (errno.ENOSPC, errno.EDQUOT) else StorageError
    return kind(message, errno=code)


class wrapped:  # noqa: N801 (it is used as a function, and a generator costs 1 us)
    """
    Translate the system's errors in a with block.

    Args:
        doing: As `storage_error` has it.
    """

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, UnicodeEncodeError):
            raise storage_error(system_error(errno.EILSEQ), self._doing) from error
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(error, self._doing) from error


class Directory:
    """
    A directory held open, so that what happens to its path later does not matter.

    Use `Directory.open`; it is a context manager.

    Args:
        path: Its absolute path, for messages and for worker processes.
        fd: Its descriptor, None where the platform cannot open directories.
    """

    def __init__(self, path: str, fd: int | None) -> None:
        self.path = path
        self.fd = fd
        self._beginning = os.path.join(path, "")
        self._keeps_modes: bool | None = None
        self._most_name_bytes: int | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], create: bool = True) -> Directory:
        """
        Open a directory; a symbolic link to one is followed, since the user named it.

        Args:
            path: Of the directory.
            create: Make it and its parents when missing, and require write access.

        Raises:
            StorageError: It is a file, cannot be made, or cannot be written.
        """
        where = os.path.abspath(path)
        fd = None
        if _HAS_DIR_FD:
            with suppress(OSError, UnicodeEncodeError):  # told below
                fd = os.open(where, _DIRECTORY_FLAGS)
        if fd is None:
            fd = cls._opened(where, create)
        directory = cls(where, fd)
        if create and not os.access(where, os.W_OK | os.X_OK):
            code = errno.EROFS if directory.is_read_only() else errno.EACCES
            directory.close()
            raise storage_error(system_error(code), f"write to {where}")
        return directory

    @staticmethod
    def _opened(where: str, create: bool) -> int | None:
        with wrapped(f"open the directory {where}"):
            if create:
                try:
                    os.makedirs(where, exist_ok=True)
                except FileExistsError as exc:
                    raise not_a_directory(where) from exc
            if not stat.S_ISDIR(os.stat(where).st_mode):
                raise not_a_directory(where)
            return os.open(where, _DIRECTORY_FLAGS) if _HAS_DIR_FD else None

    def __enter__(self) -> Directory:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd is not None:
            fd, self.fd = self.fd, None
            os.close(fd)

    def at(self, name: str) -> str:
        """Give `name` as the os functions need it beside `dir_fd=self.fd`."""
        return self.path_of(name) if self.fd is None else name

    def path_of(self, name: str) -> str:
        """Give the absolute path of `name`."""
        return self._beginning + name

    def open_file(self, name: str, flags: int) -> int:
        """Open without following a link, private when created; give the descriptor."""
        return above_streams(
            os.open(self.at(name), flags | SAFE_FLAGS, 0o600, dir_fd=self.fd)
        )

    def fsync(self) -> None:
        """Make creations, renames and removals in it survive a power cut."""
        if self.fd is not None:
            with wrapped(f"flush the directory {self.path}"):
                os.fsync(self.fd)

    def is_read_only(self) -> bool:
        """Whether its file system is mounted so; False where that can't be told."""
        if not hasattr(os, "ST_RDONLY"):
            return False
        with wrapped(f"look at the file system of {self.path}"):
            found = os.statvfs(self.path if self.fd is None else self.fd)
        return bool(found.f_flag & os.ST_RDONLY)

    def check_place(self) -> None:
        """Raise `StorageError` when its path leads to another directory by now."""
        if self.fd is None:
            return
        with wrapped(f"look at {self.path}"):
            own = os.fstat(self.fd)
            try:
                found = os.stat(self.path)
            except (FileNotFoundError, NotADirectoryError):
                found = None
        if found is None or not os.path.samestat(found, own):
            raise StorageError(
                f"{self.path} was moved, removed or replaced while it was in use (what "
                "was downloaded is where it was moved to: move it back, or resume it "
                "there)",
                errno=errno.ESTALE,
            )

    def keeps_modes(self) -> bool:
        """
        Whether a new file gets the owner and the mode that it is made with.

        Some file systems have neither (ntfs-3g, CIFS, WSL's drives): there all files
        look alike, whoever made them, and the mount decides who may write to them.
        It is found out with a file of its own, when something depends on it.
        """
        if self._keeps_modes is None:
            self._keeps_modes = self._tried_modes()
        return self._keeps_modes

    def _tried_modes(self) -> bool:
        name = temporary_name(f"{os.getpid()} {threading.get_ident()}")
        try:
            fd = self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError:
            return True  # nothing can be made here, so all checks are to hold
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
            self.unlink(name)
        return _is_private(found)

    def free_bytes(self) -> int | None:
        """Give what an ordinary user may still write here; None when it is not told."""
        with wrapped(f"read the free space of {self.path}"):
            if not hasattr(os, "statvfs"):
                import shutil

                return shutil.disk_usage(self.path).free
            found = os.statvfs(self.path if self.fd is None else self.fd)
        # Some file systems of user space (FUSE) say 0 to everything.
        return found.f_bavail * found.f_frsize if found.f_blocks else None

    def check_name(self, name: str) -> None:
        """Raise `StorageError` when the file system cannot hold so long a name."""
        if self._most_name_bytes is None:
            self._most_name_bytes = 255
            if hasattr(os, "pathconf"):
                with suppress(OSError, ValueError):  # no such limit here: it is usual
                    self._most_name_bytes = os.pathconf(self.path, "PC_NAME_MAX")
        limit = self._most_name_bytes
        with wrapped(f"use the name {name}"):
            length = len(os.fsencode(name))
        if length > limit:
            raise StorageError(
                f"the name {name[:40]}… has {length} bytes, {self.path} takes {limit} "
                "(choose a shorter name)",
                errno=errno.ENAMETOOLONG,
            )

    def stat(self, name: str) -> os.stat_result | None:
        """Look at `name` itself, not at what a link points to; None when missing."""
        with wrapped(f"look at {self.path_of(name)}"):
            try:
                return os.stat(self.at(name), dir_fd=self.fd, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def has_hole(self, name: str) -> bool:
        """Tell whether a file has bytes that were never written; see `has_hole`."""
        with wrapped(f"look for holes in {self.path_of(name)}"):
            fd = self.open_file(name, os.O_RDONLY)
            try:
                return has_hole(fd, 0, os.fstat(fd).st_size)
            finally:
                os.close(fd)

    def names(self) -> list[str]:
        """List what is in it, sorted."""
        with wrapped(f"list {self.path}"):
            return sorted(os.listdir(self.path if self.fd is None else self.fd))

    def exists(self, name: str) -> bool:
        """Tell whether anything has that name, a dangling link included."""
        return self.stat(name) is not None

    def check_replaceable(
        self, name: str, *, replace: bool = True
    ) -> os.stat_result | None:
        """
        Look at a destination that may be replaced.

        Args:
            name: The destination.
            replace: It is to be; else it may be used as it is.

        Raises:
            StorageError: A directory, link, FIFO or device stands there, or a file of
                another file system.
        """
        found = self.stat(name)
        if found is None:
            return None
        if stat.S_ISREG(found.st_mode):
            if (
                replace
                and self.fd is not None
                and found.st_dev != os.fstat(self.fd).st_dev
            ):
                raise StorageError(
                    f"{self.path_of(name)} is mounted there, so it can't be replaced "
                    "(choose another name)",
                    errno=errno.EXDEV,
                )
            return found
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "special file or link"
        raise StorageError(
            f"{self.path_of(name)} is a {kind}, not a file "
            "(remove it, or choose another name)",
            errno=errno.EISDIR if kind == "directory" else errno.EEXIST,
        )

    def unlink(self, name: str, missing_ok: bool = True) -> None:
        """Remove a name."""
        with wrapped(f"remove {self.path_of(name)}"):
            try:
                os.unlink(self.at(name), dir_fd=self.fd)
            except FileNotFoundError:
                if not missing_ok:
                    raise

    def rename(self, old: str, new: str) -> None:
        """Rename atomically, replacing what has the new name."""
        with wrapped(f"rename {self.path_of(old)} to {new}"):
            os.replace(
                self.at(old), self.at(new), src_dir_fd=self.fd, dst_dir_fd=self.fd
            )


def system_error(code: int) -> OSError:
    """Make the error that the system would have given."""
    return OSError(code, os.strerror(code))


def not_a_directory(path: str) -> StorageError:
    """Make the error for a directory that is something else."""
    return StorageError(
        f"{path} is not a directory (choose another one, or remove it)",
        errno=errno.ENOTDIR,
    )


def check_own(found: os.stat_result, directory: Directory, name: str) -> None:
    """Raise `StorageError` for what is no regular file, or another user's."""
    if not stat.S_ISREG(found.st_mode):
        raise foreign(directory.path_of(name), "is not a regular file")
    if not _is_own(found) and directory.keeps_modes():
        raise foreign(directory.path_of(name), f"belongs to user {found.st_uid}")


def check_private(found: os.stat_result, directory: Directory, name: str) -> None:
    """
    Refuse a file that somebody else could have written.

    Raises:
        StorageError: Not a regular file, another user's, or writable by others.
    """
    check_own(found, directory, name)
    if not _is_private(found) and directory.keeps_modes():
        mode = stat.S_IMODE(found.st_mode)
        raise foreign(
            directory.path_of(name), f"has mode {mode:04o}, so others can write to it"
        )


def _is_own(found: os.stat_result) -> bool:
    # Elsewhere there are neither owners nor mode bits.
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _is_private(found: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):
        return True
    return _is_own(found) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def foreign(path: str, trouble: str) -> StorageError:
    """Make the error for a file that cannot be one of segdl's."""
    return StorageError(
        f"{path} {trouble}: it is not used (remove it to start over)",
        errno=errno.EPERM,
    )


def write_all(fd: int, data: bytes) -> None:
    """Write at the file's position until nothing is left of `data`."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if written == 0:
            raise system_error(errno.EIO)
        view = view[written:]


def pwrite(fd: int, data: memoryview, offset: int) -> int:
    """Write some bytes at an offset."""
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)  # Windows; a descriptor has one user here
    return os.write(fd, data)


def has_hole(fd: int, offset: int, length: int) -> bool:
    """
    Tell whether bytes of a range were never written, or lost in a power cut.

    What lies beyond the end of the file counts as a hole. False where the file system
    does not know its holes, so True proves a loss and False nothing.
    """
    end = offset + length
    if end > os.fstat(fd).st_size:
        return True
    seek_hole = getattr(os, "SEEK_HOLE", None)
    if length == 0 or seek_hole is None:
        return False
    try:
        return os.lseek(fd, offset, seek_hole) < end
    except OSError as exc:
        if exc.errno in UNSUPPORTED:
            return False
        raise


def fdatasync(fd: int) -> None:
    """Wait for the data and the length of a file, not for its times."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def temporary_name(name: str) -> str:
    """
    Give the name under which a replacement of `name` is written.

    It is the same each time, so that what a crash left is found and reused, and short,
    so that it fits where `name` does.
    """
    import hashlib

    digest = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f".segdl-{digest[:16]}.tmp"


def replace_atomically(
    directory: Directory, name: str, data: bytes, *, sync: bool
) -> None:
    """
    Write a small private file whole, so that a crash leaves the old or the new one.

    Args:
        directory: It is in.
        name: Of the file, there already or not.
        data: Its new content.
        sync: Make it survive a power cut: the data before the name, then the name.

    Raises:
        DestinationBusy: Another process is writing it at this moment.
        DiskFull, StorageError: A call failed; the old file is as it was.
    """
    temporary = temporary_name(name)
    path = directory.path_of(name)
    directory.unlink(temporary)
    with wrapped(f"write {len(data)} bytes to {path}"):
        try:
            fd = directory.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError as exc:
            raise busy(path) from exc
        try:
            try:
                write_all(fd, data)
                if sync:
                    fdatasync(fd)
            finally:
                os.close(fd)
            directory.rename(temporary, name)
        except BaseException:
            directory.unlink(temporary)
            raise
    if sync:
        directory.fsync()


def busy(path: str) -> DestinationBusy:
    """Make the error for a file that another engine has locked."""
    return DestinationBusy(
        f"{path} is in use by another download (wait for it, or choose another name)",
        errno=errno.EWOULDBLOCK,
    )


def read_capped(directory: Directory, name: str, max_bytes: int) -> bytes:
    """
    Read the beginning of a private file.

    Args:
        directory: It is in.
        name: Of the file.
        max_bytes: What lies beyond is not read.

    Raises:
        StorageError: It is missing (errno ENOENT), a link, or could be somebody else's.
    """
    path = directory.path_of(name)
    with wrapped(f"read {path}"):
        fd = directory.open_file(name, os.O_RDONLY)
        try:
            # First: `open` refuses a directory, and leaves its descriptor open.
            check_private(os.fstat(fd), directory, name)
        except BaseException:
            os.close(fd)
            raise
        with open(fd, "rb") as file:
            return file.read(max_bytes)


def truncate_name(directory: Directory, name: str, length: int) -> None:
    """Cut a private file to `length` bytes."""
    path = directory.path_of(name)
    with wrapped(f"cut {path} to {length} bytes"):
        fd = directory.open_file(name, os.O_WRONLY)
        try:
            check_private(os.fstat(fd), directory, name)
            os.ftruncate(fd, length)
        finally:
            os.close(fd)


def check_space(directory: Directory, needed_bytes: int) -> None:
    """
    Compare what a download still needs with what is free, where that is told.

    Nothing is reserved.

    Raises:
        DiskFull: With the needed, free and missing bytes.
    """
    free = directory.free_bytes()
    if free is None:
        return
    missing = needed_bytes - free
    if missing > 0:
        raise DiskFull(
            f"{directory.path} has {free} bytes free, {needed_bytes} are needed: "
            f"{missing} are missing (free some space or choose another directory)",
            errno=errno.ENOSPC,
            missing_bytes=missing,
        )


def read_system_file(path: str) -> str:
    """Read a file of /proc; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
