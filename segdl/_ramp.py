"""How many lanes are worth having: few, as long as the machine is what limits.

    begin ─> FEW ─┬─ next to nothing after a moment ──────────────> all that are allowed
                  └─ fast ─> twice as many ─┬─ faster ─> twice as many, and so on
                                            └─ not ────> as before, for good
             slower than FAST at any time ────────────────────────> all that are allowed

Many connections use up what a server or a network gives to each of them. Where few
keep the processors or the disk busy, more of them only cost: 4 GiB over TLS from
loopback took 4.6 s over 16 connections and 3.7 s over 2 (2 cores, medians of 4), since
more data waits in sockets and buffers than the processor's cache holds.
"""

from __future__ import annotations

from segdl._plan import MIB

# Below this size it is over before there is anything to learn.
FROM_BYTES = 256 * MIB
FEW = 2
# The first look. A worker's first report takes 40 ms; what brings less than 8 MiB by
# then is no match for the machine (loopback brought 16 - 20 MiB).
FIRST_SECONDS = 0.05
_FIRST_BYTES = 8 * MIB
# In all: an ordinary network (4 Gbit/s) is slower, and gets all lanes at once.
_FAST_BYTES_PER_SECOND = 512 * MIB
_LOOK_SECONDS = 0.4
_GAIN = 1.15


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
        self._settled = False
        self._best = 0.0  # bytes a second, before the present number was tried
        self._since = 0.0
        self._received = 0

    def begin(self, now: float, received_bytes: int) -> None:
        """
        Begin with few lanes.

        Args:
            now: Monotonic time in seconds.
            received_bytes: Body bytes so far.
        """
        self.lanes = min(FEW, self._most)
        self._first, self._settled, self._best = True, False, 0.0
        self._since, self._received = now, received_bytes

    def look(self, now: float, received_bytes: int) -> None:
        """Decide anew, once enough time has passed; to be called often."""
        if self.lanes >= self._most:
            return
        seconds = now - self._since
        if seconds < (FIRST_SECONDS if self._first else _LOOK_SECONDS):
            return
        count = received_bytes - self._received
        self._since, self._received = now, received_bytes
        if self._first:
            self._first = False
            if count < _FIRST_BYTES:
                self.lanes = self._most
        else:
            self._compare(count / seconds)

    def _compare(self, rate: float) -> None:
        if rate < _FAST_BYTES_PER_SECOND:
            self.lanes = self._most
        elif self._settled:
            return
        elif rate >= _GAIN * self._best:
            self._best = rate
            self.lanes = min(2 * self.lanes, self._most)
        else:
            self.lanes //= 2
            self._settled = True
