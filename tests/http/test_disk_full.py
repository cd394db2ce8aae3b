"""A full disk fails a task at once, and the task goes on when there is room again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from segdl import DownloadEngine
from segdl.errors import DiskFull
from segdl.testing import Origin

MIB = 1 << 20
SIZE = 16 * MIB

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not hasattr(os, "geteuid") or os.geteuid() != 0,
        reason="only root can mount a small file system",
    ),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 24 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)],
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 65536)


@pytest.mark.parametrize("processes", [0, 1])
def test_48_disk_fills_in_the_middle(
    segdl_origin: Origin, small_disk: Path, processes: int
) -> None:
    """What was recorded stays, and counts when there is room again."""
    segdl_origin.rate = 4 * MIB
    with DownloadEngine(connections=4, processes=processes) as engine:
        task = engine.download(segdl_origin.blob_url(1, SIZE, "a.bin"), small_disk)
        deadline = time.monotonic() + 30
        while task.downloaded_size < 5 * MIB and time.monotonic() < deadline:
            time.sleep(0.01)
        fill(small_disk / "fill")
        assert isinstance(task.exception(timeout=30), DiskFull)
        assert "No space left" in (task.error or "")
        assert not (small_disk / "a.bin").exists()

        (small_disk / "fill").unlink()
        assert task.resume()
        path = Path(task.result(timeout=30))
        assert task.resumed_size >= MIB
        assert path.read_bytes() == segdl_origin.blob(1, SIZE).read()


def test_48_file_that_can_not_fit(segdl_origin: Origin, small_disk: Path) -> None:
    """Too little room is found out before the first byte, with the numbers."""
    with DownloadEngine() as engine:
        url = segdl_origin.blob_url(1, 64 * MIB, "a.bin")
        task = engine.download(url, small_disk)
        error = task.exception(timeout=30)
    assert isinstance(error, DiskFull)
    assert error.missing_bytes == 40 * MIB
    assert os.listdir(small_disk) == []
