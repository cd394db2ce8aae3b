"""What the HTTP tests check of a download: the file, the disk, what the origin saw."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

from segdl import DownloadTask
from segdl._fs import Directory
from segdl._manifest import load
from segdl.errors import SegdlError
from segdl.testing import Blob, Origin, Request

MIB = 1 << 20
NAME = "file.bin"
PART, MANIFEST = f"{NAME}.part", f"{NAME}.segdl"


def until(condition: Callable[[], object], timeout: float = 15.0) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        pause.wait(0.005)


def names(directory: Path) -> list[str]:
    """List a directory, sorted; empty when it is not there."""
    return sorted(os.listdir(directory)) if directory.is_dir() else []


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Compute the digest of a file."""
    hasher = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while data := file.read(MIB):
            hasher.update(data)
    return hasher.hexdigest()


def umask() -> int:
    """Give the umask of this process."""
    value = os.umask(0o022)
    os.umask(value)
    return value


def check_whole(task: DownloadTask, blob: Blob) -> None:
    """Check a completed download: right bytes, right mode, and nothing beside them."""
    assert (task.status, task.error) == ("completed", None)
    path = Path(task.result(0))
    assert path.stat().st_size == blob.size
    assert file_digest(path) == blob.digest()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask()
    assert names(path.parent) == [path.name]
    assert task.downloaded_size == task.total_size == blob.size
    assert (task.progress, task.phase, task.connections) == (1.0, "done", 0)


def check_failed(
    task: DownloadTask, kind: type[SegdlError], *words: str
) -> BaseException:
    """Check a failed download: the error's class and words; nothing is published."""
    error = task.exception(0)
    assert type(error) is kind, repr(error)
    assert task.status == "failed"
    assert task.error == str(error)
    for word in words:
        assert word in str(error)
    assert not (Path(task.output_path) / (task.filename or NAME)).exists()
    return error


def recorded_bytes(directory: Path, blob: Blob, name: str = NAME) -> int:
    """
    Check what an unfinished download left, and count the bytes it has recorded.

    Every recorded piece must hold the bytes of the blob; part and manifest must be
    private to the user.
    """
    assert names(directory) == [f"{name}.part", f"{name}.segdl"]
    for found in names(directory):
        mode = stat.S_IMODE((directory / found).stat().st_mode)
        assert mode == 0o600
    with Directory.open(directory, create=False) as opened:
        loaded = load(opened, f"{name}.segdl")
    total = 0
    with (directory / f"{name}.part").open("rb") as file:
        for piece in loaded.pieces:
            file.seek(piece.offset)
            data = file.read(piece.length)
            assert data == blob.read(piece.offset, piece.offset + piece.length)
            total += piece.length
    return total


def check_requests(origin: Origin) -> None:
    """Check that every request an origin got was legal (RFC 9110 s13.1.5, s14.2)."""
    for request in origin.log.entries:
        fields = request.headers
        assert request.method == "GET"
        assert fields.get("accept-encoding") == "identity"
        wanted = fields.get("range")
        assert wanted is None or re.fullmatch(r"bytes=[0-9]+-[0-9]+", wanted)
        condition = fields.get("if-range")
        assert condition is None or wanted is not None
        assert condition is None or not condition.startswith("W/")


def peak(origin: Origin, slack_seconds: float = 0.1) -> int:
    """
    Count how many requests were answered at the same time, at most.

    A client that ends an answer early is noticed a moment later: the end of each is
    put back by the slack.
    """
    moments: list[tuple[float, int]] = []
    for request in origin.log.settle():
        ended = request.ended if request.ended is not None else request.began
        if ended - slack_seconds > request.began:
            moments += [(request.began, 1), (ended - slack_seconds, -1)]
    highest = now = 0
    for _, change in sorted(moments):
        now += change
        highest = max(highest, now)
    return highest


def refetched(requests: tuple[Request, ...], begin: int, end: int) -> int:
    """Count the bytes of [begin, end) that these requests were sent."""
    total = 0
    for request in requests:
        if request.offset is not None:
            stop = request.offset + request.sent_bytes
            total += max(0, min(stop, end) - max(request.offset, begin))
    return total
