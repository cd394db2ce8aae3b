"""The worker that the program starts before it has loaded the rest of itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from canary import children

from segdl import DownloadEngine
from segdl import _processes as processes
from segdl.cli import main
from segdl.testing import Origin

MakeEngine = Callable[..., DownloadEngine]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="finds workers by their command line"
)


@pytest.fixture(autouse=True)
def _nobody_left() -> Iterator[None]:
    yield
    processes.end_early()
    assert children() == []


def pids() -> list[int]:
    """List the workers that are there."""
    return [child.pid for child in children()]


def test_the_first_engine_takes_it(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """It is asked for the first file, and no other is started."""
    processes.start_early()
    processes.start_early()
    (pid,) = pids()
    first, second = make_engine(), make_engine()
    first.download(origin.blob_url(1, 1000), tmp_path, "a").result(timeout=60)
    assert pids() == [pid]
    second.download(origin.blob_url(2, 1000), tmp_path, "b").result(timeout=60)
    assert len(pids()) == 2
    first.shutdown()
    assert pid not in pids()
    second.shutdown()


def test_one_that_is_dead_is_not_taken(
    origin: Origin, make_engine: MakeEngine, tmp_path: Path
) -> None:
    """Somebody killed it: the engine starts its own, and has lost none."""
    processes.start_early()
    (child,) = children()
    child.kill()
    child.wait(60)
    engine = make_engine()
    engine.download(origin.blob_url(1, 1000), tmp_path, "a").result(timeout=60)
    engine.shutdown()


def test_one_that_can_not_be_started_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine will say so, if it can't either."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(processes.subprocess, "Popen", refuse)
    processes.start_early()
    assert processes.take_early() is None


@pytest.mark.parametrize(
    "arguments", [["get"], ["get", "--no-such-option"], ["get", "nonsense"]]
)
def test_it_ends_with_a_program_that_has_nothing_to_do(arguments: list[str]) -> None:
    """After a usage error nothing is left."""
    assert main(arguments) == 2
    assert pids() == []


def test_no_process_with_processes_0(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants no processes has none while the files come."""
    seen: list[int] = []
    download = DownloadEngine.download

    def look(*arguments: object, **named: object) -> object:
        seen.append(len(pids()))
        return download(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(DownloadEngine, "download", look)
    url = origin.blob_url(1, 1000)
    assert main(["get", "-q", "-d", str(tmp_path), "--processes", "0", url]) == 0
    assert seen == [0]
