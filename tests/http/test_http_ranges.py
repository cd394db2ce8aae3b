"""Ranges of an honest origin: how many, over how many connections.

The smallest lane is 2 MiB and the first request asks for 16 MiB, so files of 20 MiB are
fetched over several lanes.
"""

from __future__ import annotations

import pytest
from http_checks import MIB, check_whole, peak

SIZE = 20 * MIB + 12_345


@pytest.mark.parametrize("processes", [0, 2])
def test_file_is_fetched_over_several_connections(origin, fetch, processes) -> None:
    """An honest origin's file comes over as many connections as wanted, no more."""
    origin.rate = 16 * MIB
    task = fetch(origin.blob_url(1, SIZE), processes=processes)
    check_whole(task, origin.blob(1, SIZE))
    assert peak(origin) in (3, 4)
    assert all(request.status == 206 for request in origin.log.entries)
    # A lane is cut short where another one took over; all else is sent once.
    assert origin.log.served_twice() <= 4 * MIB


def test_first_request_is_a_range_from_byte_0(origin, fetch) -> None:
    """No HEAD and no range-less GET: the first request is useful by itself."""
    fetch(origin.blob_url(1, 1000))
    (request,) = origin.log.settle()
    assert request.headers["range"] == f"bytes=0-{16 * MIB - 1}"
    assert "if-range" not in request.headers
    assert request.sent_bytes == 1000
