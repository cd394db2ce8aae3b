"""What no client could be faster than, with so many connections.

The client of the ideal time knows the file and the server before it begins. It opens
all connections at once, as many as it may and the server has, none of them is a
straggler, stalls or is reset, it asks each for one range, and all end together:

    seconds until the first byte:  handshake (1 round trip, 2 with TLS) + 1 round trip
    then, at every moment:         min(total, connections * min(cap, window / trip))
    where the window:              begins with 14,600 bytes, and doubles each round trip
                                   (no limit without slow start)

integrated over the changes of the caps, until the sum is the size of the file. Each
part is the best case, so no oracle is faster. What it leaves out, and any real client
has, is the first request that finds out how long the file is, and the round trips that
it takes to find out about a straggler and to replace it.
"""

from __future__ import annotations

from math import inf

from simulation.network import INITIAL_WINDOW_BYTES, Server


def ideal_seconds(server: Server, connections: int) -> float:
    """
    Compute the ideal time.

    Args:
        server: The model; its caps must not stay 0 for good.
        connections: The most that the client may open.

    Returns:
        Seconds from the first connect to the last byte.
    """
    usable = min(connections, server.connections or connections)
    begin = server.handshake_seconds + server.round_trip_seconds
    caps = _caps(server)
    left = float(server.size)
    now, window = begin, float(INITIAL_WINDOW_BYTES)
    trip = server.round_trip_seconds if server.slow_start else 0.0
    doubles_at = begin + trip if trip else inf
    while True:
        connection, total = next(cap for at, *cap in reversed(caps) if at <= now)
        most = min(connection, window / trip) if trip else connection
        rate = min(total, usable * most)
        until = min([at for at, *_ in caps if at > now] + [doubles_at])
        if left <= rate * (until - now):
            return now + left / rate
        left -= rate * (until - now)
        now = until
        if now == doubles_at:
            window *= 2
            # Once it limits nothing any more, it need not be looked at.
            limits = window < server.fastest * trip
            doubles_at = now + trip if limits else inf


def _caps(server: Server) -> list[tuple[float, float, float]]:
    """Give (from when, of a connection, of all) of each time."""
    first = (0.0, server.connection_rate, server.total_rate)
    return [
        first,
        *((c.at_seconds, c.connection_rate, c.total_rate) for c in server.changes),
    ]
