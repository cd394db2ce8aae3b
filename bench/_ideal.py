"""The least time that a server's limits allow."""

from __future__ import annotations


def ideal_seconds(
    size: int, rate: float, connections: int, round_trip: float = 0.0
) -> float:
    """
    Say how long a file takes at best: every connection busy at its rate until the end.

    The handshake and the first request each take a round trip. nginx lets what a
    connection may have in its first second through at once, at every request; that is
    left out, so a run can be faster than this.

    Args:
        size: In bytes.
        rate: Of each connection, in bytes per second.
        connections: At once.
        round_trip: In seconds.
    """
    return 2 * round_trip + size / (rate * connections)
