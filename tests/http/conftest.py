"""An engine that gives up fast, and an origin whose requests are checked.

origin  ── after the test: single ranges, identity, legal If-Range
engine  ── 4 connections, short delays, on a thread unless a test says more
fetch   ── one download to its end
script  ── an origin that answers what the test says
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from http_checks import NAME, check_requests
from scripted import Asked, Script

from segdl import DownloadEngine, DownloadTask
from segdl.testing import Origin

_TASK_OPTIONS = {"headers", "checksum", "mirrors", "on_exists", "filename"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Give the directory to save in; it is not there yet."""
    return tmp_path / "out"


@pytest.fixture
def origin(segdl_origin: Origin) -> Iterator[Origin]:
    """Give a running origin; what it was asked is checked after the test."""
    yield segdl_origin
    check_requests(segdl_origin)


@pytest.fixture
def other_origin(segdl_origin_factory: Callable[..., Origin]) -> Iterator[Origin]:
    """Give another origin: another port, so other credentials."""
    other = segdl_origin_factory()
    yield other
    check_requests(other)


@pytest.fixture
def tls_origin(segdl_origin_tls: Origin) -> Iterator[Origin]:
    """Give a running origin that speaks TLS."""
    yield segdl_origin_tls
    check_requests(segdl_origin_tls)


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Give a function that starts an origin with the answers of a test."""
    running: list[Script] = []

    def start(answer: Callable[[Asked], bytes | Iterable[bytes]]) -> Script:
        running.append(Script(answer))
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def make_engine() -> Iterator[Callable[..., DownloadEngine]]:
    """Give a function that makes an engine; all are shut down after the test."""
    engines: list[DownloadEngine] = []

    def make(**options: Any) -> DownloadEngine:
        # A thread instead of a process runs the same code and starts faster; the
        # messages between the two are encoded all the same.
        settings = {
            "connections": 4,
            "retry_times": 3,
            "retry_delay": 0.02,
            "timeout": 10,
            "progress_interval": 0.05,
            "processes": 0,
        }
        engines.append(DownloadEngine(**(settings | options)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.shutdown(wait=False)


@pytest.fixture
def engine(make_engine: Callable[..., DownloadEngine]) -> DownloadEngine:
    """Give an engine with the tests' settings."""
    return make_engine()


@pytest.fixture
def fetch(
    make_engine: Callable[..., DownloadEngine], out: Path
) -> Callable[..., DownloadTask]:
    """Give a function that downloads a URL to its end, well or ill."""

    def run(url: str, *, wait: float = 12.0, **options: Any) -> DownloadTask:
        settings = {k: v for k, v in options.items() if k not in _TASK_OPTIONS}
        arguments = {k: v for k, v in options.items() if k in _TASK_OPTIONS}
        arguments = {"filename": NAME} | arguments
        engine = make_engine(**settings)
        task = engine.download(url, out, **arguments)
        ended = task.wait(wait)
        engine.shutdown(wait=False)
        assert ended, f"{task!r} {task.phase} after {wait} s"
        return task

    return run
