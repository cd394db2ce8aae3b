"""Which lane is so slow that another connection should bring its rest; pure.

    lanes that ended ──> the usual speed
    a lane whose rest is too little to be shared, and takes long, at an eighth of that
      └──> stopped: its rest is missing again, and the next lane takes it

A connection can be far slower than its neighbours without being stalled: it met a sick
server behind a balancer, or lost most of its packets. Splitting takes work off it, down
to 128 KiB; at 1000 bytes/s those are two more minutes with the task at 99 %.
"""

from __future__ import annotations

from collections.abc import Mapping

from segdl._plan import Segment
from segdl._sources import Lane

_SLOWER = 8.0
_LONG_SECONDS = 3.0
# The first lane is replaced after this long, each further one after twice as long: the
# next connection may be as slow.
_PATIENCE_SECONDS = 2.0
_MOST_PATIENCE_SECONDS = 128.0
# What brought less says little about a connection's speed.
_TELLING_BYTES = 64 * 1024


class Pace:
    """The speed of one download's lanes."""

    def __init__(self) -> None:
        self._usual = 0.0  # bytes a second of a lane, from its opening to its end
        self._patience = _PATIENCE_SECONDS

    def ended(self, lane: Lane, now: float) -> None:
        """
        Take a lane that has ended.

        Args:
            lane: Which.
            now: Monotonic time in seconds.
        """
        if lane.received >= _TELLING_BYTES and not lane.stopping:
            rate = lane.received / max(0.001, now - lane.began)
            self._usual = (self._usual + rate) / 2 if self._usual else rate

    def too_slow(
        self, lanes: Mapping[int, Lane], segments: Mapping[int, Segment], now: float
    ) -> int | None:
        """
        Choose a lane to replace.

        Args:
            lanes: Those there are, by number.
            segments: What they are fetching.
            now: Monotonic time in seconds.

        Returns:
            Its number, None when none is that slow.
        """
        for number, lane in lanes.items():
            if number not in segments or lane.held or lane.stopping or lane.splitting:
                continue
            rate = lane.meter.rate(now)
            if (
                now - lane.began >= self._patience
                and rate * _SLOWER < self._usual
                and segments[number].remaining_bytes > rate * _LONG_SECONDS
            ):
                self._patience = min(2 * self._patience, _MOST_PATIENCE_SECONDS)
                return number
        return None
