"""A slow disk holds lanes back, not the loop that reads commands."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from segdl._transfer import Transfers


@pytest.fixture
def transfers() -> Iterator[Transfers]:
    """Give transfers without a lane."""
    made = Transfers(lambda _: None)
    yield made
    made.close()


def test_no_lane_takes_bytes_after_a_long_wait(transfers: Transfers) -> None:
    """Until the next turn all lanes are refused, with a rate limit or without."""
    assert not transfers.limited
    transfers._behind.congested = True
    assert transfers.limited
    assert not transfers.allow(1)
    transfers.limit(1e9)
    assert not transfers.allow(1)


def test_the_next_turn_lets_lanes_go_on(transfers: Transfers) -> None:
    """A turn does not sleep while lanes are held back, and holds none afterwards."""
    transfers._behind.congested = True
    assert transfers._wait_seconds(60.0) == 0.0
    assert transfers.turn(60.0) == []
    assert not transfers.limited
    assert transfers.allow(1)
