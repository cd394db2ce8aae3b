"""Every parser of foreign bytes, with what it begins with and with that mangled.

`scripts/fuzz` runs the same targets for as long as wanted, guided by coverage.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from inputs import inputs
from targets import SEEDS, TARGETS

_EXAMPLES = 60


def test_every_target_has_seeds() -> None:
    """A new target is given something to begin with, and a sentence."""
    assert TARGETS.keys() == SEEDS.keys()
    assert all(target.__doc__ for target in TARGETS.values())


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """Inputs that are, or once were, of interest hold."""
    for data in (b"", *SEEDS[name]):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
def test_mangled_inputs(name: str) -> None:
    """Whatever comes, nothing but the documented error is raised."""
    target = TARGETS[name]

    @settings(max_examples=_EXAMPLES)
    @given(inputs(SEEDS[name]))
    def run(data: bytes) -> None:
        target(data)

    run()
