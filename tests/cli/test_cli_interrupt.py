"""Ctrl-C and the other signals; and going on afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Program

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


@pytest.mark.usefixtures("default_signals")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_stops_and_the_same_call_goes_on(
    program: Program, segdl_origin: Origin, tmp_path: Path, number: int, code: int
) -> None:
    """A signal to the whole group keeps what is there; little is sent twice."""
    url = segdl_origin.blob_url(1, SIZE, "a.bin")
    segdl_origin.rate = 2 * MIB
    process = start("get", url, "-x", "2", cwd=tmp_path)
    try:
        part = tmp_path / "a.bin.part"
        wait_until(lambda: blocks(part) * 512 >= 4 * MIB)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert "the same command goes on" in err.splitlines()[-1]
    assert sorted(os.listdir(tmp_path)) == ["a.bin.part", "a.bin.segdl"]

    # Still throttled: an unthrottled origin fills the sockets of lanes that are split.
    segdl_origin.rate = 8 * MIB
    ran = program("get", url, "-x", "2", "--json")
    assert ran.code == 0
    (resumed,) = ran.of("resumed")
    assert resumed["bytes"] >= 2 * MIB
    assert (tmp_path / "a.bin").read_bytes() == segdl_origin.blob(1, SIZE).read()
    segdl_origin.log.settle()
    # What the origin counts includes what its sockets still held at the stop.
    assert segdl_origin.log.bytes_sent() <= SIZE + 2 * (4 * MIB)


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
