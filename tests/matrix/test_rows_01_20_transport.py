"""Rows 1 - 20: connections that are refused, break, stall or lie."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from http_checks import MIB, names
from world import World

from segdl.errors import ConnectError

SIZE = 20 * MIB + 4321
RATE = 24 * MIB


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port on which nothing listens, and nothing else will meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.row("a port on which nothing listens")
def test_01_connection_refused(world: World, closed_port: int) -> None:
    """It is tried as often as said, then an error that names host and port."""
    url = world.with_secrets(f"http://127.0.0.1:{closed_port}/a")
    task = world.fetch(url, retry_times=2)
    world.failed(task, ConnectError, f"127.0.0.1:{closed_port}")
    assert len(world.told("retry")) == 2
    assert names(world.out) == []


@pytest.mark.row("the origin's sockets are reset (SO_LINGER 0) or closed")
@pytest.mark.parametrize("processes", [0, 2])
@pytest.mark.parametrize("where", ["byte1", "byte100000", "byte1048576"])
def test_03_reset_in_the_body(world: World, where: str, processes: int) -> None:
    """Every lane that is cut goes on at the exact byte."""
    world.origin.rate = RATE
    task = world.fetch(
        world.url(SIZE, f=f"rst@{where},12"), retry_times=2, processes=processes
    )
    world.whole(task)
    assert world.origin.log.served_twice() < 8 * MIB
