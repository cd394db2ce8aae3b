"""The connections of a modelled server, and how fast each of them delivers.

    open ─> (handshake) ─> admit ─┬─ 503: one more than the server has
                                  └─ start(count) ─> rate ─> "end" | "reset"
                                          ^           ^
                              cut (a split)           └── caps, slow start, stalls,
                                                          and all other connections

The rate of a connection is its share of the total cap, shared max-min fairly, and no
more than it can take itself: its cap, a straggler's part of it, 0 while it is stalled,
and the congestion window for each round trip in slow start.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from simulation.clock import BEGIN_SECONDS, Clock

# RFC 6928: what a sender may have on its way before the first acknowledgement.
INITIAL_WINDOW_BYTES = 10 * 1460
# So close to a mark counts as there: sums of floats are not exact.
_CLOSE_SECONDS = 1e-9

Ending = Literal["end", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    New caps from a moment on.

    Attributes:
        at_seconds: Since the beginning.
        connection_rate: Bytes a second of one connection.
        total_rate: Bytes a second of all together.
    """

    at_seconds: float
    connection_rate: float
    total_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """
    A server, the way to it, and the file it has.

    Attributes:
        size: Of the file, in bytes.
        connection_rate: Bytes a second of one connection.
        total_rate: Bytes a second of all together.
        connections: It answers 503 to a request on one more; None for any number. An
            open connection counts, also one that is idle.
        retry_after_seconds: What such an answer tells.
        slow_share: Share of the connections that are stragglers, below 1.
        slow_factor: What part of `connection_rate` these get.
        round_trip_seconds: From a request to the first byte of its answer.
        tls: Whether a new connection costs two round trips, not one, before a request.
        slow_start: Whether the congestion window limits a connection that is new.
        stall_share: Share of the connections that stop to deliver at some point.
        stall_after_bytes: Mean of how much they deliver before.
        stall_seconds: For how long; infinite for good.
        reset_share: Share of the connections that are reset at some point.
        reset_after_bytes: Mean of how much they deliver before.
        changes: New caps over time, in order.
    """

    size: int
    connection_rate: float = inf
    total_rate: float = inf
    connections: int | None = None
    retry_after_seconds: float | None = None
    slow_share: float = 0.0
    slow_factor: float = 1.0
    round_trip_seconds: float = 0.0
    tls: bool = False
    slow_start: bool = False
    stall_share: float = 0.0
    stall_after_bytes: float = 0.0
    stall_seconds: float = inf
    reset_share: float = 0.0
    reset_after_bytes: float = 0.0
    changes: tuple[Change, ...] = ()

    @property
    def handshake_seconds(self) -> float:
        """How long it takes until a new connection can carry a request."""
        return (2 if self.tls else 1) * self.round_trip_seconds

    @property
    def fastest(self) -> float:
        """Bytes a second that a connection can have at best, at any time."""
        caps = [(self.connection_rate, self.total_rate)]
        caps += [(each.connection_rate, each.total_rate) for each in self.changes]
        return max(min(cap) for cap in caps)


class Connection:
    """
    One connection, from its opening to its close.

    Attributes:
        factor: The part of the connection cap it gets.
        admitted: Whether the server counts it.
        rate: Bytes a second it delivers now.
        due: When it reaches what comes first: the end of the body, a stall, a reset.
    """

    __slots__ = (
        "admitted",
        "begun",
        "closed",
        "delivered",
        "due",
        "end",
        "factor",
        "growing",
        "over",
        "rate",
        "reset_at",
        "since",
        "stall_at",
        "stalled",
        "window",
    )

    def __init__(self, factor: float, stall_at: float, reset_at: float) -> None:
        self.factor = factor
        self.stall_at = stall_at  # bytes of all bodies together, as `delivered`
        self.reset_at = reset_at
        self.window = float(INITIAL_WINDOW_BYTES)
        self.admitted = self.closed = self.stalled = self.growing = False
        self.delivered = 0.0
        self.begun = 0.0  # what was delivered before the present body
        self.end = 0.0  # what will have been after it
        self.rate = 0.0
        self.since = 0.0
        self.due = inf
        self.over: Callable[[Ending], None] = lambda _: None

    def settle(self, now: float) -> None:
        """Count what came since the rate changed last."""
        self.delivered += self.rate * (now - self.since)
        self.since = now

    def aim(self) -> None:
        """Compute when the next mark is reached; `settle` was called."""
        rest = min(self.end, self.stall_at, self.reset_at) - self.delivered
        if rest <= 0:
            self.due = self.since
        else:
            self.due = self.since + rest / self.rate if self.rate else inf


class Network:
    """
    All connections of one client with one server.

    Args:
        server: The model.
        clock: The time.
        seed: Of each connection's fate.

    Attributes:
        due: When the next connection reaches a mark; `step` is for then.
        opened: How many connections there were.
        most: How many were open at the same time, as the client sees it.
        refused: How many requests were answered 503.
    """

    def __init__(self, server: Server, clock: Clock, seed: int) -> None:
        self.server = server
        self.due = inf
        self.opened = self.most = self.refused = 0
        self._clock = clock
        self._random = random.Random(seed)
        self._open = 0
        self._admitted = 0
        self._flowing: dict[Connection, None] = {}
        self._changed = False
        self._connection_rate = server.connection_rate
        self._total_rate = server.total_rate
        for change in server.changes:
            wait = BEGIN_SECONDS + change.at_seconds - clock.now
            clock.later(wait, lambda change=change: self._change(change))  # type: ignore[misc]

    # --- what a client does -----------------------------------------------------------

    def open(self) -> Connection:
        """Open a connection, whose fate is drawn; the handshake is for the caller."""
        server, draw = self.server, self._random.random
        # All are drawn each time: one model's numbers don't depend on another's.
        slow, stalls, resets = (draw() for _ in range(3))
        stall_bytes, reset_bytes = (self._random.expovariate(1.0) for _ in range(2))
        self.opened += 1
        self._open += 1
        self.most = max(self.most, self._open)
        return Connection(
            server.slow_factor if slow < server.slow_share else 1.0,
            1 + stall_bytes * server.stall_after_bytes
            if stalls < server.stall_share
            else inf,
            1 + reset_bytes * server.reset_after_bytes
            if resets < server.reset_share
            else inf,
        )

    def admit(self, connection: Connection) -> bool:
        """Have a request arrive at the server; False when it answers 503."""
        if connection.admitted:
            return True
        cap = self.server.connections
        if cap is not None and self._admitted >= cap:
            self.refused += 1
            return False
        connection.admitted = True
        self._admitted += 1
        return True

    def start(
        self, connection: Connection, count: int, over: Callable[[Ending], None]
    ) -> None:
        """
        Have a body delivered.

        Args:
            connection: On which.
            count: Bytes, 1 or more.
            over: Told of the end, when it comes before `stop`.
        """
        connection.begun = connection.delivered
        connection.end = connection.begun + count
        connection.since, connection.rate = self._clock.now, 0.0
        connection.over = over
        self._flowing[connection] = None
        self._changed = True
        self._grow_later(connection)

    def cut(self, connection: Connection, count: int) -> None:
        """End the present body earlier, at `count` bytes."""
        connection.end = connection.begun + count
        if connection in self._flowing:
            connection.settle(self._clock.now)
            connection.aim()
            self._changed = True

    def received(self, connection: Connection) -> int:
        """Tell how many bytes of the present body have come."""
        delivered = connection.delivered
        if connection in self._flowing:
            delivered += connection.rate * (self._clock.now - connection.since)
        # A float that lacks a millionth of a byte has it.
        return int(min(delivered, connection.end) - connection.begun + 1e-6)

    def stop(self, connection: Connection) -> None:
        """Deliver no more of the present body."""
        if connection in self._flowing:
            connection.settle(self._clock.now)
            del self._flowing[connection]
            connection.rate, connection.due = 0.0, inf
            self._changed = True

    def close(self, connection: Connection) -> None:
        """Close a connection; the server sees it half a round trip later."""
        self.stop(connection)
        if connection.closed:
            return
        connection.closed = True
        self._open -= 1
        if connection.admitted:
            half = self.server.round_trip_seconds / 2
            self._clock.later(half, self._forget)

    # --- what time does ---------------------------------------------------------------

    def settle(self) -> None:
        """Share the rates anew, if anything changed since."""
        if not self._changed:
            return
        self._changed = False
        now = self._clock.now
        flowing = list(self._flowing)
        rates = max_min(list(map(self._limit, flowing)), self._total_rate)
        self.due = inf
        for connection, rate in zip(flowing, rates, strict=True):
            if rate != connection.rate:
                connection.settle(now)
                connection.rate = rate
                connection.aim()
            if connection.due < self.due:
                self.due = connection.due

    def step(self) -> None:
        """Do what happens at the marks that are reached now."""
        now = self._clock.now
        self._changed = True
        for connection in list(self._flowing):
            if connection.due > now + _CLOSE_SECONDS:
                continue
            connection.settle(now)
            mark = min(connection.end, connection.stall_at, connection.reset_at)
            connection.delivered = mark
            if mark == connection.end:
                self.stop(connection)
                connection.over("end")
            elif mark == connection.reset_at:
                self.close(connection)
                connection.over("reset")
            else:
                self._stall(connection)

    def _limit(self, connection: Connection) -> float:
        if connection.stalled:
            return 0.0
        limit = self._connection_rate * connection.factor
        trip = self.server.round_trip_seconds
        if self.server.slow_start and trip:
            limit = min(limit, connection.window / trip)
        return limit

    def _stall(self, connection: Connection) -> None:
        connection.stall_at = inf
        connection.stalled = True
        connection.rate, connection.due = 0.0, inf
        if self.server.stall_seconds < inf:
            self._clock.later(self.server.stall_seconds, lambda: self._wake(connection))

    def _wake(self, connection: Connection) -> None:
        connection.stalled = False
        self._changed = True

    def _grow_later(self, connection: Connection) -> None:
        """Double the window after a round trip in which something was delivered."""
        server = self.server
        trip = server.round_trip_seconds
        wanted = server.fastest * connection.factor * trip
        if server.slow_start and not connection.growing and connection.window < wanted:
            connection.growing = True
            self._clock.later(trip, lambda: self._grow(connection))

    def _grow(self, connection: Connection) -> None:
        connection.growing = False
        if connection in self._flowing:
            connection.window *= 2
            self._changed = True
            self._grow_later(connection)

    def _forget(self) -> None:
        self._admitted -= 1

    def _change(self, change: Change) -> None:
        self._connection_rate = change.connection_rate
        self._total_rate = change.total_rate
        self._changed = True


def go_on(clock: Clock, network: Network, last: float = inf) -> bool:
    """
    Let time pass until something happens, and have it happen.

    Args:
        clock: The time.
        network: What happens there, and on the clock.
        last: No later than this.

    Returns:
        False when nothing happens until then; time stands there, if it is finite.
    """
    network.settle()
    moment = min(clock.due, network.due)
    if moment > last or moment == inf:
        clock.now = clock.now if last == inf else last
        return False
    clock.now = max(clock.now, moment)
    if network.due <= moment:
        network.step()
    else:
        clock.call_next()
    return True


def max_min(limits: Sequence[float], total: float) -> list[float]:
    """
    Share a total rate max-min fairly.

    Nobody can be given more without taking it from somebody who has no more.

    Args:
        limits: The most that each can use, bytes a second.
        total: What there is.

    Returns:
        The rate of each, in the order of `limits`.
    """
    if sum(limits) <= total:
        return list(limits)
    left, count = total, len(limits)
    for limit in sorted(limits):
        if limit * count >= left:
            break
        left -= limit
        count -= 1
    share = left / count
    return [min(limit, share) for limit in limits]
