"""File systems that tell less than ext4, or tell of an error at the last moment."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from segdl import _fs
from segdl._destination import new_header
from segdl._headers import EntityTag, Validator
from segdl._manifest import url_digest
from segdl._names import checked_name, sidecar_names
from segdl._store import Store
from segdl.errors import DiskFull, StorageError

NAME = checked_name("a.bin")
PART, MANIFEST = sidecar_names(NAME)
URL = "https://example.org/a.bin"
SIZE = 10_000


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[_fs.Directory]:
    """Give an open directory."""
    with _fs.Directory.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give the store of a download that has begun."""
    opened = Store(str(tmp_path), "none")
    opened.look(NAME)
    opened.create(
        new_header(
            name=NAME,
            size=SIZE,
            piece=SIZE,
            validator=Validator(etag=EntityTag("v1", weak=False)),
            url=URL,
            url_sha256=url_digest(URL),
            digest=None,
        )
    )
    opened.record([])
    opened.settle()
    yield opened
    opened.close()


def refuse_close(patch: pytest.MonkeyPatch, *names: str, code: int = errno.EIO) -> None:
    """Have the close of some files fail, after it has freed the descriptor."""
    close = os.close

    def failing(fd: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        close(fd)
        if name in names:
            raise OSError(code, os.strerror(code))

    patch.setattr(os, "close", failing)


def open_in(directory: Path) -> list[str]:
    """List what this process has open in a directory, itself included."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the listing's own
            continue
        if target.startswith(str(directory)):
            found.append(target)
    return found


linux = pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="finds open files in /proc"
)


# --- modes and owners -----------------------------------------------------------------


def test_modes_are_kept_here(directory: _fs.Directory) -> None:
    """It is tried with a file, of which nothing stays."""
    assert directory.keeps_modes()
    assert directory.names() == []


@pytest.mark.parametrize("mode", [0o666, 0o660])
@pytest.mark.parametrize("name", [PART, MANIFEST])
def test_what_others_can_write_is_refused(
    tmp_path: Path, store: Store, name: str, mode: int
) -> None:
    """Where modes are kept, neither part nor manifest may be open to others."""
    store.release()
    (tmp_path / name).chmod(mode)
    before = (tmp_path / name).read_bytes()
    with pytest.raises(StorageError, match=f"mode {mode:04o}"):
        store.look(NAME)
    assert (tmp_path / name).stat().st_mode & 0o777 == mode
    assert (tmp_path / name).read_bytes() == before


# --- room -----------------------------------------------------------------------------


def test_room_that_is_not_told(
    directory: _fs.Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that says 0 to everything is not taken for a full one."""
    told = SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096, f_flag=0)
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    assert directory.free_bytes() is None
    _fs.check_space(directory, 2**40)
    told.f_blocks = 1
    with pytest.raises(DiskFull):
        _fs.check_space(directory, 1)


# --- errors of close ------------------------------------------------------------------


@linux
@pytest.mark.parametrize("names", [[PART], [MANIFEST], [PART, MANIFEST]])
@pytest.mark.parametrize("end", [Store.close, lambda store: store.end(discard=False)])
def test_close_that_fails(
    tmp_path: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    end: Callable[[Store], None],
) -> None:
    """Its error is told, and everything else is closed nevertheless."""
    assert len(open_in(tmp_path)) == 3
    refuse_close(monkeypatch, *names)
    with pytest.raises(StorageError, match=f"cannot close .*{names[0]}"):
        end(store)
    monkeypatch.undo()
    assert open_in(tmp_path) == []
    store.close()


@linux
def test_close_of_the_manifest_that_fails_at_last(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the file has its name, the records are not missed."""
    (tmp_path / PART).write_bytes(bytes(SIZE))
    refuse_close(monkeypatch, MANIFEST)
    store.publish(SIZE, overwrite=False)
    assert os.listdir(tmp_path) == [NAME]


@linux
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT])
def test_writer_whose_close_fails(
    tmp_path: Path,
    directory: _fs.Directory,
    monkeypatch: pytest.MonkeyPatch,
    direct: bool,
    code: int,
) -> None:
    """A file system that writes late tells it there; all descriptors are freed."""
    part = _fs.PartFile.create(directory, PART, SIZE)
    writer = _fs.PartWriter(part.path, part.identity, direct)
    part.close()
    refuse_close(monkeypatch, PART, code=code)
    with pytest.raises(StorageError, match="cannot close") as caught:
        writer.close()
    monkeypatch.undo()
    assert isinstance(caught.value, DiskFull) == (code == errno.EDQUOT)
    assert open_in(tmp_path) == [str(tmp_path)]
    writer.close()
