"""Signals that a program started by `nohup` ignores; the others: tests/matrix."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segdl.testing import Origin

MIB = 1 << 20
SIZE = 24 * MIB
DEADLINE_SECONDS = 30.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail after a deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.02)


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """Start the program in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "segdl", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def blocks(path: Path) -> int:
    """Count what is written of a sparse file."""
    return path.stat().st_blocks if path.exists() else 0


def test_a_signal_that_was_ignored_stays_so(
    segdl_origin: Origin, tmp_path: Path
) -> None:
    """Under nohup a closed terminal does not end the download."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        url = segdl_origin.blob_url(1, 4 * MIB, "a.bin", rate="8M")
        process = start("get", url, "-x", "1", cwd=tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    try:
        wait_until(lambda: blocks(tmp_path / "a.bin.part") > 0)
        process.send_signal(signal.SIGHUP)
        out, _ = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, f"{tmp_path / 'a.bin'}\n")


@pytest.mark.parametrize(
    ("options", "arguments", "kept"),
    [
        ({}, (), True),
        ({"ranges": "off"}, (), False),
        ({"etag": "none", "lm": "none"}, (), False),
        ({"etag": "none", "lm": "none"}, ("--checksum", "md5:" + "0" * 32), True),
    ],
)
@pytest.mark.usefixtures("default_signals")
def test_only_what_can_be_gone_on_with_is_promised(
    segdl_origin: Origin,
    tmp_path: Path,
    options: dict[str, str],
    arguments: tuple[str, ...],
    kept: bool,
) -> None:
    """Without ranges, or anything that proves the version, all is asked for again."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin", rate="4M", **options)
    process = start("get", url, "-x", "2", *arguments, cwd=tmp_path)
    try:
        wait_until(lambda: b'"t":"P"' in manifest(tmp_path))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    assert err.splitlines()[-1].startswith("segdl: stopped by SIGTERM")
    assert ("the same command goes on from there" in err) == kept


def manifest(directory: Path) -> bytes:
    """Read the manifest of a.bin, as far as there is one."""
    path = directory / "a.bin.segdl"
    return path.read_bytes() if path.exists() else b""
