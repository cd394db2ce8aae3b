"""The program as a subprocess, and in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from segdl import DownloadEngine
from segdl.cli import main
from segdl.testing import Origin


@dataclass(frozen=True)
class Ran:
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """What `--json` wrote."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The events of one kind."""
        return [event for event in self.events if event["event"] == kind]


Program = Callable[..., Ran]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Give a function that runs the real program in an empty directory."""

    def run(
        *arguments: str | Path, stdin: str = "", env: dict[str, str] | None = None
    ) -> Ran:
        done = subprocess.run(
            [sys.executable, "-m", "segdl", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def inside(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Program:
    """Give a function that runs the program here, for what ends before it begins."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Ran:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run


MIB = 1 << 20
UNFINISHED_SIZE = 16 * MIB


@contextmanager
def downloading(origin: Origin, directory: Path, url: str) -> Iterator[DownloadEngine]:
    """Have a throttled download under way: some of it is recorded, it can't finish."""
    origin.rate = 2 * MIB
    deadline = time.monotonic() + 30
    pause = threading.Event()
    engine = DownloadEngine(processes=0, connections=2, durability="none")
    try:
        engine.download(url, directory)
        manifest = None
        while manifest is None or b'"t":"P"' not in manifest.read_bytes():
            assert time.monotonic() < deadline, "nothing was recorded in time"
            pause.wait(0.02)
            manifest = next(directory.glob("*.segdl"), None)
        yield engine
    finally:
        engine.shutdown(wait=False)
        origin.rate = None


@pytest.fixture
def unfinished(segdl_origin: Origin, tmp_path: Path) -> Path:
    """Leave an unfinished download of `/b/1/SIZE/a.bin` in "left"; give its path."""
    directory = tmp_path / "left"
    directory.mkdir()
    url = segdl_origin.blob_url(1, UNFINISHED_SIZE, "a.bin")
    with downloading(segdl_origin, directory, url):
        pass
    return directory / "a.bin"
