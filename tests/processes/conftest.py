"""What the process tests share: a slow origin, and engines that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from segdl import DownloadEngine
from segdl.testing import Origin

MIB = 1 << 20


@pytest.fixture
def origin(segdl_origin: Origin) -> Origin:
    """Give an origin that sends 16 MiB/s, so that there is a middle of a download."""
    segdl_origin.total_rate = 16 * MIB
    return segdl_origin


@pytest.fixture
def make_engine() -> Iterator[Callable[..., DownloadEngine]]:
    """Give a function that makes an engine, which is stopped after the test."""
    with ExitStack() as stack:

        def make(**arguments: Any) -> DownloadEngine:
            engine = DownloadEngine(**{"retry_delay": 0.05, **arguments})
            stack.callback(engine.shutdown, wait=False)
            return engine

        yield make
