"""The file calls: errors, locks, publishing, direct and short writes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segdl import _fs
from segdl._fs import _base, _writer
from segdl.errors import (
    DestinationBusy,
    DestinationExists,
    DiskFull,
    StorageError,
)

PART = "a.bin.part"
NAME = "a.bin"
MIB = 1024 * 1024


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[_fs.Directory]:
    """Give an open directory."""
    with _fs.Directory.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def part(directory: _fs.Directory) -> Iterator[_fs.PartFile]:
    """Give a new part file of 10 bytes."""
    created = _fs.PartFile.create(directory, PART, 10)
    yield created
    created.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system with 1 MiB of room."""
    if os.getuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    point = tmp_path / "small"
    point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.decode().strip()}")
    yield point
    subprocess.run(["umount", point], check=True)


def fail(code: int) -> object:
    """Give a function that fails as a system call does."""

    def failing(*_args: object, **_kwargs: object) -> int:
        raise OSError(code, os.strerror(code))

    return failing


# --- directories -------------------------------------------------------------------


def test_missing_directories_are_created(tmp_path: Path) -> None:
    """A directory and its parents are made when they are missing."""
    with _fs.Directory.open(tmp_path / "a" / "b") as opened:
        assert opened.path == str(tmp_path / "a" / "b")
        assert os.path.isdir(opened.path)


def test_missing_directory_is_an_error_without_create(tmp_path: Path) -> None:
    """Without `create` a missing directory is reported, not made."""
    with pytest.raises(StorageError, match="No such file") as caught:
        _fs.Directory.open(tmp_path / "a", create=False)
    assert caught.value.errno == errno.ENOENT
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("below", ["", "deeper"])
@pytest.mark.parametrize("create", [True, False])
def test_file_is_no_directory(tmp_path: Path, below: str, create: bool) -> None:
    """A file in the place of the directory or of a parent is named as the cause."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"[Nn]ot a directory") as caught:
        _fs.Directory.open(tmp_path / "file" / below, create=create)
    assert caught.value.errno == errno.ENOTDIR


def test_directory_without_write_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that cannot be written fails at once, with what to do."""
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StorageError, match="check the permissions") as caught:
        _fs.Directory.open(tmp_path)
    assert caught.value.errno == errno.EACCES


def test_linked_directory_is_followed_and_held(tmp_path: Path) -> None:
    """A link the user named is followed; changing it later changes nothing."""
    (tmp_path / "real").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("real")
    with _fs.Directory.open(tmp_path / "link") as opened:
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to("other")
        _fs.replace_atomically(opened, "x", b"1", sync=False)
    assert (tmp_path / "real" / "x").read_bytes() == b"1"


def test_name_too_long_is_refused_with_numbers(directory: _fs.Directory) -> None:
    """A name beyond the file system's limit is reported in bytes, not characters."""
    directory.check_name("é" * 127)
    with pytest.raises(StorageError, match=r"has 256 bytes.*takes 255") as caught:
        _fs.PartFile.create(directory, "é" * 128, 1)
    assert caught.value.errno == errno.ENAMETOOLONG


def test_stat_looks_at_the_link_itself(directory: _fs.Directory) -> None:
    """A dangling link exists, a missing name does not."""
    os.symlink("nowhere", directory.path_of("link"))
    assert directory.exists("link")
    assert directory.stat("nothing") is None
    directory.unlink("nothing")
    with pytest.raises(StorageError):
        directory.unlink("nothing", missing_ok=False)


def test_without_dir_fd_paths_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no dir_fd everything works by path."""
    monkeypatch.setattr(_base, "_HAS_DIR_FD", False)
    with _fs.Directory.open(tmp_path) as opened:
        assert opened.fd is None
        part = _fs.PartFile.create(opened, PART, 3)
        part.publish(NAME, overwrite=False, durability="publish")
        part.close()
        assert opened.names() == [NAME]
        assert opened.free_bytes() > 0


def test_check_space_names_all_numbers(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little room is an error with the needed, free and missing bytes."""
    monkeypatch.setattr(_fs.Directory, "free_bytes", lambda _: 100)
    _fs.check_space(directory, 100)
    with pytest.raises(DiskFull, match="100 bytes free, 140 are needed: 40") as caught:
        _fs.check_space(directory, 140)
    assert caught.value.missing_bytes == 40
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EIO, StorageError),
        (errno.EROFS, StorageError),
        (errno.EFBIG, StorageError),
    ],
)
def test_system_errors_are_wrapped_once(
    directory: _fs.Directory,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    kind: type[StorageError],
) -> None:
    """An error keeps its errno and cause, says what failed, and what to do."""
    monkeypatch.setattr(os, "replace", fail(code))
    with pytest.raises(StorageError, match=r"cannot rename .*a to b: .* \(") as caught:
        directory.rename("a", "b")
    assert type(caught.value) is kind
    assert caught.value.errno == code
    assert type(caught.value.__cause__) is OSError


# --- part files --------------------------------------------------------------------


def test_new_part_is_private_sparse_and_locked(part: _fs.PartFile) -> None:
    """A new part file has its size, mode 0600, no blocks, and a lock."""
    found = os.stat(part.path)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (part.size, found.st_size, part.blocks()) == (10, 10, 0)
    assert part.identity == (found.st_dev, found.st_ino)
    assert part.locked
    assert part.links == 1


def test_part_of_unknown_size_grows(directory: _fs.Directory) -> None:
    """Without a size the present length counts, until it is set."""
    part = _fs.PartFile.create(directory, PART, None)
    assert part.size == 0
    os.pwrite(part.fd, b"12345", 0)
    assert part.size == 5
    part.truncate(4)
    assert part.size == 4
    part.check()
    part.close()


def test_create_refuses_what_is_there(directory: _fs.Directory) -> None:
    """An existing file is neither truncated nor locked by a create."""
    Path(directory.path_of(PART)).write_bytes(b"mine")
    with pytest.raises(DestinationExists):
        _fs.PartFile.create(directory, PART, 10)
    assert Path(directory.path_of(PART)).read_bytes() == b"mine"


@pytest.mark.parametrize("size", [2**63 - 1, 2**64])
def test_impossible_size_leaves_nothing(directory: _fs.Directory, size: int) -> None:
    """A size the file system cannot hold fails and removes the new file."""
    with pytest.raises(StorageError) as caught:
        _fs.PartFile.create(directory, PART, size)
    assert caught.value.errno in (errno.EFBIG, errno.EINVAL)
    assert directory.names() == []


def test_second_opening_in_this_process_is_busy(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """Two engines of one process cannot have the same part file."""
    with pytest.raises(DestinationBusy):
        _fs.PartFile.open_existing(directory, PART)
    part.close()
    reopened = _fs.PartFile.open_existing(directory, PART)
    assert reopened.size == 10
    reopened.close()


HOLDER = """
import sys
from segdl import _fs
part = _fs.PartFile.create(_fs.Directory.open(sys.argv[1]), sys.argv[2], 10)
print("locked", flush=True)
sys.stdin.read()
"""


def test_new_part_that_was_removed_before_its_lock_is_not_used(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another engine, or `segdl clean`, took the empty file for a leftover."""
    lock = _fs.PartFile._lock

    def late(part: _fs.PartFile) -> bool:
        monkeypatch.undo()
        other = _fs.PartFile.open_existing(directory, PART)
        assert other.is_empty()
        other.remove()
        other.close()
        return lock(part)

    monkeypatch.setattr(_fs.PartFile, "_lock", late)
    with pytest.raises(DestinationBusy):
        _fs.PartFile.create(directory, PART, 10)
    assert not directory.exists(PART)


def test_lock_of_another_process_ends_with_it(directory: _fs.Directory) -> None:
    """A part file is busy while another process has it, and free after its kill."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, directory.path, PART],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(DestinationBusy):
            _fs.PartFile.open_existing(directory, PART)
        holder.kill()
    _fs.PartFile.open_existing(directory, PART).close()


FORKER = """
import os, sys
from segdl import _fs
from segdl.errors import DestinationBusy
directory = _fs.Directory.open(sys.argv[1])
part = _fs.PartFile.create(directory, sys.argv[2], 10)
go, ready = os.pipe()
forked, tell = os.pipe()
child = os.fork()
if child == 0:
    os.close(ready)
    os.write(tell, b"x")    # fork returned, so the hook has run
    os.read(go, 1)      # lives on until the parent has tried
    os._exit(0 if part.fd == -1 else 9)
os.read(forked, 1)
try:
    _fs.PartFile.open_existing(directory, sys.argv[2])
    print("lost")
except DestinationBusy:
    print("kept")
part.close()
_fs.PartFile.open_existing(directory, sys.argv[2]).close()
print("free")
os.write(ready, b"x")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_does_not_keep_the_lock(directory: _fs.Directory) -> None:
    """A child of fork lets go: the parent keeps its lock, and its close frees it."""
    done = subprocess.run(
        [sys.executable, "-c", FORKER, directory.path, PART],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["kept", "free", "0"]


def test_broken_locks_do_not_stop_a_download(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system has no locks the part is used without, and says so."""
    import fcntl

    monkeypatch.setattr(fcntl, "flock", fail(errno.ENOLCK))
    part = _fs.PartFile.create(directory, PART, 10)
    assert not part.locked
    part.close()


def test_link_planted_for_the_part_is_refused(
    directory: _fs.Directory, tmp_path: Path
) -> None:
    """A symbolic link in the part's place is not followed, its target unchanged."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / PART).symlink_to(victim)
    with pytest.raises(DestinationExists):
        _fs.PartFile.create(directory, PART, 10)
    with pytest.raises(StorageError, match="remove it") as caught:
        _fs.PartFile.open_existing(directory, PART)
    assert caught.value.errno == errno.ELOOP
    assert victim.read_bytes() == b"precious"


def test_hard_link_planted_for_the_part_is_refused(
    directory: _fs.Directory, tmp_path: Path
) -> None:
    """A part with another name is refused, unless that is the destination."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    os.link(victim, tmp_path / PART)
    for final_name in (None, NAME):
        with pytest.raises(StorageError, match="has 2 names"):
            _fs.PartFile.open_existing(directory, PART, final_name=final_name)
    part = _fs.PartFile.open_existing(directory, PART, final_name="victim")
    assert part.links == 2
    part.close()


def test_fifo_in_place_of_the_part_does_not_hang(directory: _fs.Directory) -> None:
    """A FIFO is refused at once, by the parent and by a worker."""
    os.mkfifo(directory.path_of(PART), 0o600)
    with pytest.raises(StorageError, match="not a regular file"):
        _fs.PartFile.open_existing(directory, PART)
    with pytest.raises(StorageError):
        _fs.PartWriter(directory.path_of(PART), (0, 0), direct=False)
    with pytest.raises(StorageError):
        _fs.read_capped(directory, PART, 10)


def test_part_that_others_can_write_is_refused(
    directory: _fs.Directory, tmp_path: Path
) -> None:
    """What a group or everybody can write is no evidence of anything."""
    (tmp_path / PART).touch()
    for mode in (0o660, 0o602):
        (tmp_path / PART).chmod(mode)
        with pytest.raises(StorageError, match=f"mode {mode:04o}"):
            _fs.PartFile.open_existing(directory, PART)


def test_part_of_another_user_is_refused(
    directory: _fs.Directory, part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that belongs to somebody else is not resumed."""
    part.close()
    owner = os.getuid()
    assert directory.keeps_modes()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    with pytest.raises(StorageError, match=f"belongs to user {owner}"):
        _fs.PartFile.open_existing(directory, PART)


def test_part_replaced_while_waiting_for_the_lock_is_looked_up_again(
    directory: _fs.Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock must be on the file that has the name, not on its predecessor."""
    import fcntl

    (tmp_path / PART).write_bytes(b"old")
    (tmp_path / PART).chmod(0o600)
    real = fcntl.flock
    replaced = []

    def replacing(fd: int, how: int) -> None:
        if not replaced:
            replaced.append(fd)
            _fs.replace_atomically(directory, PART, b"newer", sync=False)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", replacing)
    part = _fs.PartFile.open_existing(directory, PART)
    assert part.size == 5
    assert part.identity[1] == os.stat(tmp_path / PART).st_ino
    part.close()


def test_missing_part_tells_by_errno(directory: _fs.Directory) -> None:
    """A part that is not there can be told from one that cannot be read."""
    with pytest.raises(StorageError) as caught:
        _fs.PartFile.open_existing(directory, PART)
    assert caught.value.errno == errno.ENOENT


def test_check_notices_replaced_removed_and_resized(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """A part that changed under the download is an error, not a result."""
    part.check()
    os.truncate(part.path, 4)
    with pytest.raises(StorageError, match="has 4 bytes instead of 10"):
        part.check()
    os.truncate(part.path, 10)
    directory.rename(PART, "elsewhere")
    with pytest.raises(StorageError, match="replaced or removed"):
        part.check()
    _fs.replace_atomically(directory, PART, b"0123456789", sync=False)
    with pytest.raises(StorageError, match="replaced or removed"):
        part.check()


def test_holes_are_seen(directory: _fs.Directory) -> None:
    """A range with an unwritten block has a hole, a written range of zeros none."""
    part = _fs.PartFile.create(directory, PART, 4 * MIB)
    os.pwrite(part.fd, bytes(MIB), MIB)
    found = [part.has_hole(at * MIB, MIB) for at in range(4)]
    across = part.has_hole(MIB, MIB + 1)
    beyond = part.has_hole(4 * MIB - 1, 2)
    part.close()
    assert beyond
    if found == [False] * 4:
        pytest.skip("this file system does not tell its holes")
    assert found == [True, False, True, True]
    assert across


def test_end_of_the_file_is_no_hole(directory: _fs.Directory) -> None:
    """The hole that every file has at its end is not taken for a lost piece."""
    part = _fs.PartFile.create(directory, PART, 5)
    os.pwrite(part.fd, b"12345", 0)
    assert not part.has_hole(0, 5)
    assert not part.has_hole(2, 3)
    assert not part.has_hole(2, 0)
    part.close()


def test_no_hole_where_they_are_not_told(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without SEEK_HOLE nothing is called a hole but what is beyond the end."""
    monkeypatch.setattr(os, "lseek", fail(errno.EINVAL))
    assert not part.has_hole(0, 10)
    assert part.has_hole(0, 11)
    monkeypatch.setattr(os, "lseek", fail(errno.EIO))
    with pytest.raises(StorageError, match="look for holes"):
        part.has_hole(0, 10)


def test_failed_sync_is_final(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one failed flush no later one succeeds, and nothing is published."""
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail(errno.EIO))
        with pytest.raises(StorageError) as first:
            part.sync()
    with pytest.raises(StorageError) as second:
        part.sync()
    assert second.value is first.value
    with pytest.raises(StorageError):
        part.publish(NAME, overwrite=True, durability="publish")
    assert not part.directory.exists(NAME)


# --- publishing --------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("durability", ["none", "publish", "checkpoint"])
def test_published_file_has_name_content_and_mode(
    directory: _fs.Directory, part: _fs.PartFile, overwrite: bool, durability: str
) -> None:
    """Publishing leaves the final name alone, with the mode of a new file."""
    os.pwrite(part.fd, b"0123456789", 0)
    old = os.umask(0o027)
    try:
        part.publish(NAME, overwrite=overwrite, durability=durability)
    finally:
        os.umask(old)
    final = Path(directory.path_of(NAME))
    assert directory.names() == [NAME]
    assert final.read_bytes() == b"0123456789"
    assert stat.S_IMODE(final.stat().st_mode) == 0o640


def test_flushes_come_before_and_after_the_name(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data is flushed before the name exists, the directory after; with none, never."""
    calls: list[str] = []
    for name in ("fdatasync", "link", "unlink", "fsync"):
        real = getattr(os, name)

        def noting(
            *args: object, _name: str = name, _real: object = real, **keys: object
        ) -> object:
            calls.append(_name)
            return _real(*args, **keys)  # type: ignore[operator]  # an os function

        monkeypatch.setattr(os, name, noting)
    # The set is asked for the function as it is now.
    monkeypatch.setattr(os, "supports_follow_symlinks", {os.link})
    part.publish(NAME, overwrite=False, durability="publish")
    assert calls == ["fdatasync", "link", "unlink", "fsync"]


def test_nothing_is_flushed_with_durability_none(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With durability none a cache pays for no flush."""
    monkeypatch.setattr(os, "fdatasync", fail(errno.EIO))
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    part.publish(NAME, overwrite=False, durability="none")
    assert part.directory.names() == [NAME]


def test_existing_destination_is_not_touched(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """Without overwrite an existing file wins, and the part stays."""
    final = Path(directory.path_of(NAME))
    final.write_bytes(b"old")
    with pytest.raises(DestinationExists):
        part.publish(NAME, overwrite=False, durability="publish")
    assert final.read_bytes() == b"old"
    assert directory.names() == [NAME, PART]


def test_overwrite_keeps_the_mode_of_the_replaced_file(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """The file that replaces another one takes its mode."""
    final = Path(directory.path_of(NAME))
    final.write_bytes(b"old")
    final.chmod(0o604)
    part.publish(NAME, overwrite=True, durability="publish")
    assert final.read_bytes() == bytes(10)
    assert stat.S_IMODE(final.stat().st_mode) == 0o604
    assert directory.names() == [NAME]


def test_directory_and_link_are_not_overwritten(
    directory: _fs.Directory, part: _fs.PartFile, tmp_path: Path
) -> None:
    """Overwriting means files: a directory or a link in the way is an error."""
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    for name, what in (("d", "is a directory"), ("l", "special file or link")):
        with pytest.raises(StorageError, match=what):
            part.publish(name, overwrite=True, durability="none")
    assert directory.names() == [PART, "d", "l"]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_publish_without_hard_links(
    directory: _fs.Directory,
    part: _fs.PartFile,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    """Where links are not possible a rename does it, still refusing what exists."""
    monkeypatch.setattr(os, "link", fail(code))
    final = Path(directory.path_of(NAME))
    final.write_bytes(b"old")
    with pytest.raises(DestinationExists):
        part.publish(NAME, overwrite=False, durability="none")
    final.unlink()
    part.publish(NAME, overwrite=False, durability="none")
    assert directory.names() == [NAME]


@pytest.mark.parametrize("overwrite", [True, False])
def test_publish_cut_short_is_finished(
    directory: _fs.Directory,
    part: _fs.PartFile,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
) -> None:
    """A crash between link and unlink leaves one file with two names: finish it."""
    with monkeypatch.context() as broken:
        broken.setattr(os, "unlink", fail(errno.EIO))
        with pytest.raises(StorageError):
            part.publish(NAME, overwrite=False, durability="none")
    part.close()
    assert directory.names() == [NAME, PART]
    again = _fs.PartFile.open_existing(directory, PART, final_name=NAME)
    again.publish(NAME, overwrite=overwrite, durability="publish")
    again.close()
    assert directory.names() == [NAME]


def test_replaced_part_is_not_published(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """What took the part's name while it was written does not become the file."""
    directory.unlink(PART)
    _fs.replace_atomically(directory, PART, b"0123456789", sync=False)
    with pytest.raises(StorageError, match="replaced or removed"):
        part.publish(NAME, overwrite=True, durability="none")
    assert directory.names() == [PART]


def test_part_with_a_foreign_name_is_not_published(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """A second name means that somebody else can go on writing the file."""
    os.link(part.path, directory.path_of("other"))
    with pytest.raises(StorageError, match="has 2 names"):
        part.publish(NAME, overwrite=True, durability="none")


def test_umask_is_read_where_the_system_does_not_tell_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both ways of reading the umask agree, and neither changes it."""
    old = os.umask(0o031)
    try:
        told = _fs.current_umask()
        monkeypatch.setattr(_base, "read_system_file", lambda _: "")
        asked = _fs.current_umask()
    finally:
        left = os.umask(old)
    assert (told, asked, left) == (0o031, 0o031, 0o031)


# --- workers -----------------------------------------------------------------------


def writer_for(part: _fs.PartFile, direct: bool = False) -> _fs.PartWriter:
    """Open the part as a worker does."""
    return _fs.PartWriter(part.path, part.identity, direct)


def test_worker_refuses_a_replaced_part(
    directory: _fs.Directory, part: _fs.PartFile
) -> None:
    """A worker writes to the file the parent has, not to what has its name."""
    directory.unlink(PART)
    Path(part.path).write_bytes(b"victim")
    for direct in (False, True):
        with pytest.raises(StorageError, match="was replaced"):
            writer_for(part, direct)
    assert Path(part.path).read_bytes() == b"victim"


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 8192), (4096, 4096), (1, 4096), (0, 4095), (8192, 5000), (4096, 0), (3, 1)],
)
def test_bytes_land_at_their_offset(
    directory: _fs.Directory, direct: bool, offset: int, length: int
) -> None:
    """Aligned or not, direct or not: the bytes and no others are written."""
    part = _fs.PartFile.create(directory, PART, 16384)
    writer = writer_for(part, direct)
    buffer = _fs.aligned_buffer(8192)
    buffer[:] = bytes(range(1, 256)) * 32 + bytes(range(32))
    content = bytes(buffer[:length])
    writer.pwrite(buffer[:length], offset)
    writer.start_writeback(0, 16384)
    writer.close()
    part.close()
    expected = (bytes(offset) + content).ljust(16384, b"\0")
    assert Path(directory.path_of(PART)).read_bytes() == expected


@pytest.mark.parametrize("direct", [False, True])
def test_short_writes_are_completed(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    """A write that takes only some bytes is gone on with, without a gap."""
    part = _fs.PartFile.create(directory, PART, 8192)
    writer = writer_for(part, direct)
    buffer = _fs.aligned_buffer(8192)
    buffer[:] = os.urandom(8192)
    real = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, offset: real(fd, data[:1000], offset)
    )
    writer.pwrite(buffer, 0)
    monkeypatch.undo()
    writer.close()
    part.close()
    assert Path(directory.path_of(PART)).read_bytes() == bytes(buffer)


def test_write_of_nothing_does_not_loop(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that never takes a byte is an error, not an endless loop."""
    writer = writer_for(part)
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(StorageError, match="write 3 bytes at offset 0"):
        writer.pwrite(memoryview(b"abc"), 0)
    writer.close()


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="needs O_DIRECT")
def test_refusal_to_open_direct_means_buffered(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without direct I/O is written through the cache."""
    real = os.open

    def refusing(path: str, flags: int, *args: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return real(path, flags, *args)

    monkeypatch.setattr(os, "open", refusing)
    writer = writer_for(part, direct=True)
    assert not writer.direct
    writer.pwrite(memoryview(b"0123456789"), 0)
    writer.close()
    assert Path(part.path).read_bytes() == b"0123456789"


def test_refusal_to_write_direct_means_buffered(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that takes the flag and refuses the write is written buffered."""
    part = _fs.PartFile.create(directory, PART, 8192)
    writer = writer_for(part, direct=True)
    if not writer.direct:
        pytest.skip("this file system has no direct I/O")
    refused = []
    real = os.pwrite

    def refusing(fd: int, data: memoryview, offset: int) -> int:
        if not refused:
            refused.append(fd)
            raise OSError(errno.EINVAL, "refused")
        assert fd != refused[0]
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", refusing)
    writer.pwrite(memoryview(bytes([7]) * 8192), 0)
    monkeypatch.undo()
    assert not writer.direct
    writer.close()
    part.close()
    assert Path(directory.path_of(PART)).read_bytes() == bytes([7]) * 8192


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_failed_write_names_offset_and_rest(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A disk that fails is reported with offset and length, and not asked again."""
    writer = writer_for(part)
    monkeypatch.setattr(os, "pwrite", fail(code))
    with pytest.raises(StorageError, match="write 2 bytes at offset 5") as caught:
        writer.pwrite(memoryview(b"ab"), 5)
    assert caught.value.errno == code
    assert isinstance(caught.value, DiskFull) == (code == errno.ENOSPC)
    writer.close()


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
from segdl import _fs
from segdl.errors import StorageError
import os
found = os.stat(sys.argv[1])
writer = _fs.PartWriter(sys.argv[1], (found.st_dev, found.st_ino), False)
try:
    writer.pwrite(memoryview(bytes(10)), 4090)
except StorageError as error:
    print(error.errno, error)
"""


def test_file_size_limit_is_an_error_and_kills_nobody(part: _fs.PartFile) -> None:
    """`ulimit -f` ends in StorageError with EFBIG, not in SIGXFSZ."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, part.path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{errno.EFBIG} cannot write 4 bytes at offset 4096")


def test_part_is_read_back(part: _fs.PartFile) -> None:
    """The verifier reads at offsets, and an early end is an error, not a loop."""
    os.pwrite(part.fd, b"0123456789", 0)
    reader = _fs.PartReader(part.path)
    buffer = memoryview(bytearray(4))
    assert reader.pread(buffer, 3) == 4
    assert bytes(buffer) == b"3456"
    assert reader.pread(buffer, 8) == 2
    with pytest.raises(StorageError, match="at 10"):
        reader.pread(buffer, 10)
    reader.close()
    reader.close()


def test_positional_calls_have_a_fallback(
    part: _fs.PartFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no pwrite and preadv, seeking does the same."""
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.delattr(os, "preadv")
    writer = writer_for(part)
    writer.pwrite(memoryview(b"cd"), 6)
    writer.pwrite(memoryview(b"ab"), 2)
    writer.close()
    reader = _fs.PartReader(part.path)
    buffer = memoryview(bytearray(6))
    assert reader.pread(buffer, 2) == 6
    assert bytes(buffer) == b"ab\0\0cd"
    reader.close()


# --- the choice between buffered and direct ----------------------------------------

MOUNTS = r"""22 1 254:0 / / rw - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
24 22 0:40 / /data rw shared:1 - xfs /dev/vdb rw
25 24 0:41 / /data/a\040b rw - nfs server:/x rw
26 22 0:42 / /mnt rw - ext4 /dev/vdc rw
27 22 0:43 / /mnt rw - tmpfs tmpfs rw
garbage
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/data", "xfs"),
        ("/data/y", "xfs"),
        ("/database", "ext4"),
        ("/data/a b/c", "nfs"),
        ("/mnt/x", "tmpfs"),
    ],
)
def test_file_system_is_the_innermost_mount(path: str, expected: str) -> None:
    """The longest mount point that holds the path counts, of equal ones the last."""
    assert _fs.file_system_of(path, MOUNTS) == expected
    assert _fs.file_system_of(path, "") == ""


@pytest.mark.parametrize(
    ("size", "will_verify", "file_system", "available", "expected"),
    [
        (256 * MIB, False, "ext4", 0, True),
        (256 * MIB - 1, False, "ext4", 0, False),
        (256 * MIB, False, "xfs", 64 * MIB, True),
        (256 * MIB, True, "ext4", 1024 * MIB, False),
        (257 * MIB, True, "ext4", 1024 * MIB, True),
        (257 * MIB, True, "ext4", 0, False),
        *((2**40, False, kind, 0, False) for kind in ("tmpfs", "nfs4", "overlay", "")),
    ],
)
def test_direct_is_for_large_files_nobody_reads_from_memory(
    size: int, will_verify: bool, file_system: str, available: int, expected: bool
) -> None:
    """Auto takes direct I/O where it is real and the cache would not be read."""
    chosen = _fs.choose_direct(
        size,
        will_verify=will_verify,
        file_system=file_system,
        available_bytes=available,
    )
    assert chosen == expected


def test_choice_reads_this_system(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mounts and memory of the system decide for auto; a request decides alone."""

    def told(path: str) -> str:
        mounts = "1 1 1:1 / / rw - xfs /dev/x rw\n"
        return mounts if "mountinfo" in path else "MemAvailable:  4096000 kB\n"

    def choose(size: int, requested: str, will_verify: bool = True) -> bool:
        return _fs.preferred_io(
            directory, size, requested=requested, will_verify=will_verify
        )

    monkeypatch.setattr(_writer, "read_system_file", told)
    assert choose(1000 * MIB, "auto") is False
    assert choose(1001 * MIB, "auto") is True
    assert choose(1000 * MIB, "auto", will_verify=False) is True
    assert choose(1, "direct") is True
    assert choose(2**40, "buffered") is False


def test_system_files_may_be_missing(tmp_path: Path) -> None:
    """Where there is no /proc the answers are empty, not errors."""
    assert _base.read_system_file(str(tmp_path / "nothing")) == ""
    assert _fs.boot_id() == _fs.boot_id()


# --- small files and logs ----------------------------------------------------------


def test_replacing_is_private_and_leaves_no_temporary(
    directory: _fs.Directory,
) -> None:
    """A small file is replaced whole, and what a crash left does not matter."""
    stale = Path(directory.path_of(_fs.temporary_name("f")))
    stale.write_bytes(b"torn")
    for data in (b"one", b"two"):
        _fs.replace_atomically(directory, "f", data, sync=True)
        assert _fs.read_capped(directory, "f", 100) == data
    assert directory.names() == ["f"]
    assert stat.S_IMODE(os.stat(directory.path_of("f")).st_mode) == 0o600


@pytest.mark.parametrize("call", ["write", "fdatasync", "replace", "fsync"])
def test_failed_replacing_keeps_a_whole_file(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whichever call fails, the name has the old or the new content, and no rest."""
    _fs.replace_atomically(directory, "f", b"old", sync=False)
    with monkeypatch.context() as broken:
        broken.setattr(os, call, fail(errno.ENOSPC))
        with pytest.raises(DiskFull):
            _fs.replace_atomically(directory, "f", b"new", sync=True)
    expected = b"new" if call == "fsync" else b"old"
    assert _fs.read_capped(directory, "f", 100) == expected
    assert directory.names() == ["f"]


def test_read_is_capped_and_truncate_cuts(directory: _fs.Directory) -> None:
    """No more than the cap is read, however large the file."""
    _fs.replace_atomically(directory, "f", b"0123456789", sync=False)
    assert _fs.read_capped(directory, "f", 4) == b"0123"
    _fs.truncate_name(directory, "f", 2)
    assert _fs.read_capped(directory, "f", 4) == b"01"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of them")
def test_directory_in_place_of_a_small_file_takes_no_descriptor(
    directory: _fs.Directory, tmp_path: Path
) -> None:
    """It is refused, and its descriptor is closed."""
    (tmp_path / "f").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(StorageError, match="not a regular file"):
            _fs.read_capped(directory, "f", 4)
    assert len(os.listdir("/proc/self/fd")) < before + 10


def test_links_in_place_of_small_files_are_refused(
    directory: _fs.Directory, tmp_path: Path
) -> None:
    """Neither reading, cutting nor appending follows a link; replacing replaces it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "f").symlink_to(victim)
    with pytest.raises(StorageError):
        _fs.read_capped(directory, "f", 4)
    with pytest.raises(StorageError):
        _fs.truncate_name(directory, "f", 0)
    with pytest.raises(StorageError):
        _fs.append_file(directory, "f")
    _fs.replace_atomically(directory, "f", b"x", sync=False)
    assert victim.read_bytes() == b"precious"


@pytest.fixture
def log(directory: _fs.Directory) -> Iterator[_fs.AppendLog]:
    """Give a log of one line."""
    _fs.replace_atomically(directory, "log", b"first\n", sync=False)
    opened = _fs.append_file(directory, "log")
    yield opened
    opened.close()


def test_short_append_is_completed(
    log: _fs.AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append that the system cuts into pieces is whole in the end."""
    real = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: real(fd, data[:2]))
        log.append(b"second\n")
    log.sync()
    assert Path(log.path).read_bytes() == b"first\nsecond\n"
    assert log.size == 13


def test_failed_append_is_taken_back(
    log: _fs.AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of an append leaves the log as it was."""
    real = os.write
    room = [4]

    def filling(fd: int, data: memoryview) -> int:
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[: room.pop()])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", filling)
        with pytest.raises(DiskFull, match="append 7 bytes"):
            log.append(b"second\n")
    assert Path(log.path).read_bytes() == b"first\n"
    log.append(b"third\n")
    assert Path(log.path).read_bytes() == b"first\nthird\n"


def test_torn_append_is_cut_before_the_next(
    log: _fs.AppendLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even the cut failed, the next append does it first, or fails."""
    real = os.write
    room = [4]

    def filling(fd: int, data: memoryview) -> int:
        if not room:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, data[: room.pop()])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", filling)
        broken.setattr(os, "ftruncate", fail(errno.EIO))
        with pytest.raises(StorageError, match="append"):
            log.append(b"second\n")
        with pytest.raises(StorageError, match="cut"):
            log.append(b"second\n")
    assert Path(log.path).read_bytes() == b"first\nseco"
    log.append(b"third\n")
    assert Path(log.path).read_bytes() == b"first\nthird\n"


def test_log_knows_whether_it_is_alone(
    directory: _fs.Directory, log: _fs.AppendLog
) -> None:
    """A foreign append or a replaced file is noticed, the log's own append is not."""
    log.append(b"second\n")
    assert log.is_ours()
    with open(log.path, "ab") as file:
        file.write(b"x")
    assert not log.is_ours()
    _fs.replace_atomically(directory, "log", b"first\nsecond\n", sync=False)
    assert not log.is_ours()
    directory.unlink("log")
    assert not log.is_ours()


@pytest.mark.root
def test_full_disk_leaves_what_was_recorded(small_disk: Path) -> None:
    """On a full file system writes, appends and replacements fail and break nothing."""
    with _fs.Directory.open(small_disk) as directory:
        part = _fs.PartFile.create(directory, PART, 4 * MIB)
        _fs.replace_atomically(directory, "log", b"first\n", sync=True)
        log = _fs.append_file(directory, "log")
        writer = _fs.PartWriter(part.path, part.identity, direct=True)
        with pytest.raises(DiskFull):
            writer.pwrite(_fs.aligned_buffer(2 * MIB), 0)
        with pytest.raises(DiskFull):
            log.append(b"x" * 8192 + b"\n")
        assert _fs.read_capped(directory, "log", 100) == b"first\n"
        with pytest.raises(DiskFull):
            _fs.replace_atomically(directory, "log", b"y" * 8192, sync=True)
        assert directory.names() == [PART, "log"]
        with pytest.raises(DiskFull, match="are missing"):
            _fs.check_space(directory, MIB)
        part.truncate(0)
        log.append(b"second\n")
        assert _fs.read_capped(directory, "log", 100) == b"first\nsecond\n"
        for opened in (part, log, writer):
            opened.close()
