"""How many lanes are worth having, where the number is left to segdl; pure.

    begin ─> FEW ─┬─ next to nothing after a moment ──────────────> START ─> climb
      │           └─ fast ─> twice as many ─┬─ faster ─> twice as many, and so on
      │                                     └─ not ────> as before, for good
      │      slower than FAST at any time ────────────────────────> START ─> climb
      └───> START ─> climb: a second of it, then twice as many for a second
                       ├─ 15 % faster ─> kept, and so on, up to what is allowed
                       └─ not ─────────> as before, for good

Many connections use up what a server or a network gives to each of them. Where few
keep the processors or the disk busy, more of them only cost: 4 GiB over TLS from
loopback took 4.6 s over 16 connections and 3.7 s over 2 (2 cores, medians of 4), since
more data waits in sockets and buffers than the processor's cache holds.

Sixteen is the most that aria2 allows itself for one file, so that servers know it;
twice as many are kept only where they help.
Where the user gives a number, all of it is used at once.
"""

from __future__ import annotations

from math import inf

from segdl._plan import MIB

# Below this size it is over before there is anything to learn.
FROM_BYTES = 256 * MIB
FEW = 2
START = 16
AUTO_CONNECTIONS = 32
# The first look. A worker's first report takes 40 ms; what brings less than 8 MiB by
# then is no match for the machine (loopback brought 16 - 20 MiB).
FIRST_SECONDS = 0.05
_FIRST_BYTES = 8 * MIB
# In all: an ordinary network (4 Gbit/s) is slower, and gets more lanes at once.
_FAST_BYTES_PER_SECOND = 512 * MIB
_LOOK_SECONDS = 0.4
# Servers that limit a connection do so by the second (nginx lets the first second's
# worth through at once), so that less says nothing.
_CLIMB_SECONDS = 1.0
# New lanes have answered by then, or won't count.
_ANSWER_SECONDS = 2.0
_GAIN = 1.15


def most_lanes(connections: int | str) -> int:
    """Give how many lanes are allowed, for the `connections` of a request."""
    return AUTO_CONNECTIONS if isinstance(connections, str) else connections


class Ramp:
    """
    The number of lanes of one download.

    Args:
        most: That are allowed.

    Attributes:
        lanes: That are worth having now.
    """

    def __init__(self, most: int) -> None:
        self.lanes = most
        self._most = most
        self._first = False
        self._climbs = True
        self._settled = True
        self._best = 0.0  # bytes a second, before the present number was tried
        self._since = 0.0
        self._received = 0
        self._tried_at = 0.0

    def begin(self, now: float, received_bytes: int, *, few: bool) -> None:
        """
        Begin to learn.

        Args:
            now: Monotonic time in seconds.
            received_bytes: Body bytes so far.
            few: Whether to begin with very few, to see whether the machine is what
                limits.
        """
        self._settled, self._best = False, 0.0
        self._since, self._received = now, received_bytes
        self._first, self._climbs = few, False
        self.lanes = min(FEW, self._most)
        if not few:
            self._climb(now)

    def look(self, now: float, received_bytes: int, answered: int) -> None:
        """
        Decide anew, once enough time has passed; to be called often.

        Args:
            now: Monotonic time in seconds.
            received_bytes: Body bytes so far.
            answered: How many lanes have their answer.
        """
        if self._climbs and (self._settled or self._is_early(now, answered)):
            self._since, self._received = now, received_bytes
            return
        seconds = now - self._since
        if seconds < self._wait_seconds():
            return
        count = received_bytes - self._received
        self._since, self._received = now, received_bytes
        if self._first:
            self._first = False
            if count < _FIRST_BYTES:
                self._climb(now)
        elif not self._climbs and count / seconds < _FAST_BYTES_PER_SECOND:
            self._climb(now)
        elif not self._settled:
            self._compare(count / seconds, now)

    def _is_early(self, now: float, answered: int) -> bool:
        """Whether lanes that were opened lately may yet get their answers."""
        early = answered < self.lanes and now - self._tried_at < _ANSWER_SECONDS
        if not early:
            self._tried_at = -inf
        return early

    def _wait_seconds(self) -> float:
        if self._first:
            return FIRST_SECONDS
        return _CLIMB_SECONDS if self._climbs else _LOOK_SECONDS

    def _climb(self, now: float) -> None:
        """Have as many as a network needs, and see whether more help."""
        self.lanes = max(self.lanes, min(START, self._most))
        self._climbs, self._best, self._tried_at = True, 0.0, now
        self._settled = self.lanes == self._most

    def _compare(self, rate: float, now: float) -> None:
        if rate >= _GAIN * self._best:
            self._best = rate
            self._settled = self.lanes == self._most
            self.lanes = min(2 * self.lanes, self._most)
            self._tried_at = now
        else:
            self.lanes = max(1, self.lanes // 2)
            self._settled = True
