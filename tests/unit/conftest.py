"""What several files of unit tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segdl._store import Store


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Give a function that opens stores in one directory, closed at the end."""
    opened: list[Store] = []

    def opening(durability: str = "none") -> Store:
        opened.append(Store(str(tmp_path), durability))
        return opened[-1]

    yield opening
    for store in opened:
        store.close()
