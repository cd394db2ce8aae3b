"""The fault matrix: fixtures of every row, and the table that a run writes.

test_NN_what_goes_wrong      @row("how it is injected")
  "Required behaviour."      ──> outcome ──> docs/reliability.md, with --record

--full      leave nothing out: every crash point, every round
--seed N    of what is drawn where not everything is tried
--record    write the outcomes into docs/reliability.md
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rows import Table
from sweep import SUMMARY, Sweep
from world import World

from segdl.testing import Origin

TABLE = Table()


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what is deep, unless asked for; note what each row says of itself."""
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        if item.get_closest_marker("full") and not config.getoption("--full"):
            item.add_marker(pytest.mark.skip(reason="part of scripts/faults --full"))
        TABLE.expect(item)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note an outcome."""
    TABLE.note(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, when asked to."""
    if session.config.getoption("--record"):
        TABLE.write()
        if session.config.getoption("--full"):
            SUMMARY.write()


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Tell whether everything is to be tried."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def draw(request: pytest.FixtureRequest) -> random.Random:
    """Give the random numbers of this test: the same for the same seed."""
    return random.Random(f"{request.config.getoption('--seed')}-{request.node.name}")


@pytest.fixture
def world(
    segdl_origin_factory: Callable[..., Origin],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Give what a row runs in; what must hold after each is checked after it."""
    first, other = segdl_origin_factory(), segdl_origin_factory()
    world = World(first, other, tmp_path / "out", monkeypatch)
    try:
        yield world
    finally:
        world.close()
    world.check()


@pytest.fixture
def sweep(world: World, draw: random.Random, full: bool) -> Sweep:
    """Give the crash sweeps of this test."""
    return Sweep(world, draw, full)


@pytest.fixture
def tls_world(
    segdl_origin_factory: Callable[..., Origin],
    segdl_tls_files: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """Give the same over TLS; an engine needs `ca_file=world.origin.ca_file`."""
    first = segdl_origin_factory(tls=segdl_tls_files)
    other = segdl_origin_factory(tls=segdl_tls_files)
    world = World(first, other, tmp_path / "out", monkeypatch)
    try:
        yield world
    finally:
        world.close()
    world.check()
