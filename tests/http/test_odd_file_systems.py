"""Downloads to file systems without modes and owners, or that write late."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from http_checks import (
    MANIFEST,
    MIB,
    NAME,
    PART,
    check_failed,
    check_whole,
    file_digest,
    names,
    until,
)

from segdl._fs import Directory, _writer
from segdl.errors import StorageError

SIZE = 6 * MIB + 321
MODULES = ("_base", "_append", "_part", "_writer")


class Disguised:
    """
    The os module, on a file system that makes something up for each file.

    Args:
        shown: What `stat` and `fstat` give instead of the truth.
    """

    def __init__(self, **shown: int) -> None:
        self._shown = shown

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _of(self, found: os.stat_result) -> Any:
        if not stat.S_ISREG(found.st_mode):
            return found
        told = {name: getattr(found, name) for name in dir(found) if name[:3] == "st_"}
        return SimpleNamespace(**(told | self._shown))

    def stat(self, *args: Any, **options: Any) -> Any:
        return self._of(os.stat(*args, **options))

    def fstat(self, fd: int) -> Any:
        return self._of(os.fstat(fd))

    def fchmod(self, *_args: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.fixture(
    params=[{"st_mode": stat.S_IFREG | 0o777}, {"st_uid": os.getuid() + 1}],
    ids=["mode", "owner"],
)
def disguised(request, monkeypatch) -> None:
    """Have every file shown with a mode or an owner that nobody gave it."""
    for module in MODULES:
        monkeypatch.setattr(f"segdl._fs.{module}.os", Disguised(**request.param))


@pytest.mark.usefixtures("disguised")
def test_modes_that_are_made_up(tmp_path) -> None:
    """It is found out with a file, of which nothing stays."""
    with Directory.open(tmp_path) as directory:
        assert not directory.keeps_modes()
        assert directory.names() == []


@pytest.mark.usefixtures("disguised")
@pytest.mark.parametrize("overwrite", [True, False])
def test_download_where_no_mode_can_be_set(origin, fetch, out, overwrite) -> None:
    """It has the file's name in the end, whatever its mode."""
    on_exists = "error"
    if overwrite:
        out.mkdir()
        (out / NAME).write_bytes(b"old")
        on_exists = "overwrite"
    task = fetch(origin.blob_url(1, SIZE), on_exists=on_exists)
    assert file_digest(task.result(0)) == origin.blob(1, SIZE).digest()
    assert names(out) == [NAME]


@pytest.mark.usefixtures("disguised")
def test_resume_where_no_mode_can_be_set(origin, make_engine, out) -> None:
    """What one engine left is its own for the next one too."""
    origin.rate = 2 * MIB
    size = 4 * SIZE  # more than what the sockets hold
    engine = make_engine()
    task = engine.download(origin.blob_url(1, size), out, NAME)
    until(lambda: task.downloaded_size > 4 * MIB or task.status == "failed")
    engine.shutdown(wait=False)
    assert (task.status, names(out)) == ("paused", [PART, MANIFEST])
    origin.rate = None
    task = make_engine().download(origin.blob_url(1, size), out, NAME)
    assert file_digest(task.result(15)) == origin.blob(1, size).digest()
    assert task.resumed_size > 0
    assert names(out) == [NAME]


def test_chmod_that_is_refused_where_modes_are_kept(
    origin, fetch, out, monkeypatch
) -> None:
    """There a file that stays private, though it should not, is an error."""
    monkeypatch.setattr("segdl._fs._part.os", Disguised())
    task = fetch(origin.blob_url(1, SIZE))
    check_failed(task, StorageError, "cannot set the mode")
    assert names(out) == [PART, MANIFEST]


def test_file_system_that_writes_late(origin, make_engine, out, monkeypatch) -> None:
    """What it says at a close fails the task, which can go on later."""
    close: Callable[[int, str], None] = _writer._close

    def refuse(fd: int, path: str) -> None:
        close(fd, path)
        raise StorageError(f"cannot close {path}", errno=errno.EIO)

    monkeypatch.setattr(_writer, "_close", refuse)
    engine = make_engine()
    task = engine.download(origin.blob_url(1, SIZE), out, NAME)
    assert task.wait(15)
    check_failed(task, StorageError, "cannot close")
    assert names(out) == [PART, MANIFEST]
    monkeypatch.undo()
    assert task.resume()
    assert task.wait(15)
    check_whole(task, origin.blob(1, SIZE))
