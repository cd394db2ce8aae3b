"""Which lane is so slow that another connection should take its place; pure.

    lanes that ended ──> the usual speed
    lanes there are ──> their median ──> one at a quarter of that, after a while
      └──> stopped: its rest is missing again, and the next lane takes it

A connection can be far slower than its neighbours without being stalled: it met a sick
server behind a balancer, or lost most of its packets. As long as there is work for
others, it holds a place that a better one could have. What happens at the end of a
download, when there is none, is `_tail`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

from segdl._plan import Segment
from segdl._sources import Lane

_SLOWER = 4.0
# It is not worth a new connection for less.
_LONG_SECONDS = 2.0
_AGE_SECONDS = 1.5
# After the first one, the next is replaced no sooner than so; after each, twice as long
# is waited: the next connection may be as slow.
_PAUSE_SECONDS = 0.25
_MOST_PAUSE_SECONDS = 64.0
# A median of fewer says little.
_FEWEST = 3
# What brought less says little about a connection's speed.
_TELLING_BYTES = 64 * 1024


class Pace:
    """
    The speed of one download's lanes.

    Attributes:
        usual: What a lane brings from its opening to its end, in bytes a second; 0.0
            until one has ended.
    """

    def __init__(self) -> None:
        self.usual = 0.0
        self._pause = _PAUSE_SECONDS
        self._not_before = 0.0

    def ended(self, lane: Lane, now: float) -> None:
        """
        Take a lane that has ended.

        Args:
            lane: Which.
            now: Monotonic time in seconds.
        """
        if lane.received >= _TELLING_BYTES and not lane.stopping:
            rate = lane.received / max(0.001, now - lane.began)
            self.usual = (self.usual + rate) / 2 if self.usual else rate

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
        if now < self._not_before:
            return None
        rates = {
            number: lane.meter.rate(now)
            for number, lane in lanes.items()
            if number in segments and not lane.held and lane.known(now)
        }
        if len(rates) < _FEWEST:
            return None
        median = sorted(rates.values())[len(rates) // 2]
        slowest = min(rates, key=rates.__getitem__)
        lane, rate = lanes[slowest], rates[slowest]
        if (
            rate * _SLOWER >= median
            or lane.stopping
            or lane.splitting
            or now - lane.began < _AGE_SECONDS
            or segments[slowest].remaining_bytes <= rate * _LONG_SECONDS
        ):
            return None
        self._not_before = now + self._pause
        self._pause = min(2 * self._pause, _MOST_PAUSE_SECONDS)
        return slowest
