"""
The documented usage patterns, run as a user's programs in every way there is.

None of the programs has an `if __name__ == "__main__"` guard. Whatever starts them,
they end with exit code 0, the exact bytes, an empty standard error, and nothing left.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canary import CHECKOUT, Canary, Ended

from segdl.testing import Origin

HERE = Path(__file__).parent
HOSTS = HERE / "hosts"
MIB = 1 << 20

PROGRAMS = ("poll", "callbacks", "batch", "pause_resume")
START_METHODS = ("spawn", "fork", "forkserver")
HOSTED = ("console", "thread", "daemonic", "executor")
WAYS = ("script", "stdin", "-c", "-m", *START_METHODS, *HOSTED)
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
OWN_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

SEED, SIZE = 7, 5 * MIB + 4321
BATCH_SEEDS, BATCH_SIZE = (11, 12, 13), MIB + 77
RATE = 5 * MIB

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the ways are those of Linux"
)


@pytest.fixture
def origin(segdl_origin: Origin) -> Origin:
    """Give an origin that lets a download of 5 MiB take a second."""
    segdl_origin.total_rate = RATE
    return segdl_origin


@pytest.fixture
def canary(origin: Origin, tmp_path: Path) -> Canary:
    """Give the environment that the programs read, marked."""
    batch = (
        origin.blob_url(seed, BATCH_SIZE, f"batch-{seed}.bin") for seed in BATCH_SEEDS
    )
    return Canary(
        URL=origin.blob_url(SEED, SIZE, digest="sha-256"),
        URLS=" ".join(batch),
        DIRECTORY=str(tmp_path / "downloads"),
    )


@pytest.fixture(scope="session")
def other_python(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Give a function that finds a CPython that has what segdl needs, or skips."""
    made: dict[str, Path | str] = {}

    def find(version: str) -> Path:
        if version not in made:
            made[version] = _build(version, tmp_path_factory.mktemp(f"py{version}"))
        python = made[version]
        if isinstance(python, str):
            pytest.skip(python)
        return python

    return find


def _build(version: str, directory: Path) -> Path | str:
    """Make a virtual environment; the reason in words when there can be none."""
    pyenv = Path.home() / ".pyenv/versions"
    places = [*sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)]
    on_path = shutil.which(f"python{version}")
    if not places and on_path is None:
        return f"there is no python{version}"
    interpreter = places[0] if places else Path(str(on_path))
    needed = ["pycurl", "psutil", "xxhash", *(["tomli"] if version == "3.10" else [])]
    python = directory / "bin/python"
    commands: tuple[list[str | Path], ...] = (
        [interpreter, "-m", "venv", directory],
        [python, "-m", "pip", "install", "-q", "--only-binary", ":all:", *needed],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            words = done.stderr.strip().splitlines() or ["no reason given"]
            return f"python{version} can't be made ready: {words[-1]}"
    return python


def start(
    canary: Canary, way: str, program: str, python: str | Path, directory: Path
) -> Ended:
    """Run a program in one of the ways."""
    path = HERE / f"{program}.py"
    command: list[str | Path] = [python]
    if way == "script":
        return canary.run([*command, path])
    if way == "stdin":
        return canary.run(command, stdin=path)
    if way == "-c":
        return canary.run([*command, "-c", path.read_text()])
    if way == "-m":
        return canary.run([*command, "-m", program], cwd=HERE)
    if way in HOSTED:
        return canary.run([*command, HOSTS / f"{way}.py", path])
    script = directory / "program.py"
    script.write_text(
        f"import multiprocessing\nmultiprocessing.set_start_method({way!r})\n"
        + path.read_text()
    )
    return canary.run([*command, script])


def check(program: str, ended: Ended, origin: Origin, directory: Path) -> None:
    """Check what a program printed and downloaded."""
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    CHECKS[program](json.loads(line), origin, directory / "downloads")


def check_poll(told: dict[str, Any], origin: Origin, directory: Path) -> None:
    assert (told["status"], told["error"]) == ("completed", None)
    assert told["seen"] == sorted(told["seen"])
    assert told["seen"], "the loop ended before the download had begun"
    assert told["progress"] == 1.0
    assert told["total_size"] == told["downloaded_size"] == SIZE
    assert told["path"] == str(directory / "poll.bin")
    assert files(directory) == {"poll.bin": origin.blob(SEED, SIZE).read()}


def check_callbacks(told: dict[str, Any], origin: Origin, directory: Path) -> None:
    *progress, completion = told["calls"]
    path = str(directory / "callbacks.bin")
    assert completion == ["completion", "completed", None, path]
    assert progress, "there was time for some progress callbacks"
    assert {kind for kind, _ in progress} == {"progress"}
    assert progress == sorted(progress)
    assert files(directory) == {"callbacks.bin": origin.blob(SEED, SIZE).read()}


def check_batch(told: dict[str, Any], origin: Origin, directory: Path) -> None:
    names = [f"batch-{seed}.bin" for seed in BATCH_SEEDS]
    assert told["first"] == ["downloading", "downloading", "pending"]
    assert told["errors"] == [None, None, None]
    assert told["last"] == ["completed", "completed", "completed"]
    assert told["paths"] == [str(directory / name) for name in names]
    assert told["bytes"] == BATCH_SIZE * len(BATCH_SEEDS)
    assert files(directory) == {
        name: origin.blob(seed, BATCH_SIZE).read()
        for name, seed in zip(names, BATCH_SEEDS, strict=True)
    }


def check_pause_resume(told: dict[str, Any], origin: Origin, directory: Path) -> None:
    assert told["paused"]
    assert told["resumed"]
    assert told["while_paused"] == "paused"
    assert (told["status"], told["error"]) == ("completed", None)
    assert told["path"] == str(directory / "pause.bin")
    assert files(directory) == {"pause.bin": origin.blob(SEED, SIZE).read()}


CHECKS = {
    "poll": check_poll,
    "callbacks": check_callbacks,
    "batch": check_batch,
    "pause_resume": check_pause_resume,
}


def files(directory: Path) -> dict[str, bytes]:
    """Read a directory; a part file or a manifest left there would show."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("way", WAYS)
def test_pattern_works_however_it_is_started(
    way: str, program: str, canary: Canary, origin: Origin, tmp_path: Path
) -> None:
    """Each pattern works as it stands, whatever started the program."""
    ended = start(canary, way, program, sys.executable, tmp_path)
    check(program, ended, origin, tmp_path)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", [v for v in VERSIONS if v != OWN_VERSION])
def test_every_way_works_on_every_python(
    version: str,
    way: str,
    other_python: Callable[[str], Path],
    canary: Canary,
    origin: Origin,
    tmp_path: Path,
) -> None:
    """Every way works on every CPython; each of them gets all patterns in turn."""
    program = PROGRAMS[(WAYS.index(way) + VERSIONS.index(version)) % len(PROGRAMS)]
    ended = start(canary, way, program, other_python(version), tmp_path)
    check(program, ended, origin, tmp_path)


def test_pattern_works_in_a_notebook_and_its_cell_runs_twice(
    canary: Canary, origin: Origin, tmp_path: Path
) -> None:
    """A cell of a Jupyter kernel downloads; run again, it finds the file there."""
    for package in ("nbclient", "ipykernel"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        canary.environment[name] = str(tmp_path / name)
    program = HERE / "callbacks.py"
    ended = canary.run([sys.executable, HOSTS / "notebook.py", program])
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second = ended.stdout.splitlines()
    check("callbacks", Ended(0, first, ""), origin, tmp_path)
    path = str(tmp_path / "downloads/callbacks.bin")
    assert json.loads(second)["calls"][-1] == ["completion", "completed", None, path]
    assert origin.log.served_twice() < SIZE


def test_every_pattern_is_a_program_without_a_guard() -> None:
    """The programs are those of the documentation: no guard, no help."""
    for program in PROGRAMS:
        text = (HERE / f"{program}.py").read_text()
        assert "__main__" not in text
        assert "try:" not in text
        assert "multiprocessing" not in text


def test_programs_run_the_checkout(canary: Canary) -> None:
    """What the programs import is this checkout, not an installed segdl."""
    ended = canary.run([sys.executable, "-c", "import segdl; print(segdl.__file__)"])
    assert ended.stdout.strip() == os.fspath(CHECKOUT / "segdl/__init__.py")
