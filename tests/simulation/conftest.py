"""What holds for the simulator's tests: thousands of cases run when asked for."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what is deep, unless asked for."""
    if config.getoption("--full"):
        return
    left_out = pytest.mark.skip(reason="thousands of cases: run with --full")
    own = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in own:
        if item.get_closest_marker("full"):
            item.add_marker(left_out)
