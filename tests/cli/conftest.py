"""The program as a subprocess, and in this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_program import UNFINISHED_SIZE, Program, Ran, downloading

from segdl.cli import main
from segdl.testing import Origin


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


@pytest.fixture
def unfinished(segdl_origin: Origin, tmp_path: Path) -> Path:
    """Leave an unfinished download of `/b/1/SIZE/a.bin` in "left"; give its path."""
    directory = tmp_path / "left"
    directory.mkdir()
    url = segdl_origin.blob_url(1, UNFINISHED_SIZE, "a.bin")
    with downloading(segdl_origin, directory, url):
        pass
    return directory / "a.bin"
