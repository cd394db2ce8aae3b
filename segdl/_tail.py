"""What lanes with nothing to do take from the others, at the end of a download.

    nothing is missing, a lane is free
      ├─ share: the one that would finish last keeps what it brings meanwhile
      └─ double: a rest too small to share, of a lane that is slow or silent, is asked
         for a second time; who has all of it first wins

Doubling is what spares a download its last percent on one sick connection. The bytes
that come so wait in the worker's memory: when they are all there the other lane is
stopped, and what it has not written by then is taken from them. So no byte of the file
is written by two lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from segdl._messages import Accept, PartRef, Split
from segdl._plan import MIB, Plan
from segdl._ranges import ByteRange

if TYPE_CHECKING:
    from segdl._crew import Crew
    from segdl._sources import Lane, Source, Sources
    from segdl.errors import SegdlError

# Until one was seen.
_SETUP_SECONDS = 0.1
# What waits in memory, at most; a larger rest is shared first.
_MOST_DOUBLED_BYTES = 2 * MIB
# The rest of a lane is asked for again when it is so many times faster, and by so much.
_FASTER = 2.0
_FASTER_SECONDS = 0.25


class Tail:
    """
    The last lanes of one download.

    Args:
        crew: Sends the messages.
        sources: Of the download.
        lanes: Those there are, by number.
        open_lane: `Lanes._open`: sends a request.
        stop_lane: Stops one.
    """

    def __init__(
        self,
        crew: Crew,
        sources: Sources,
        lanes: dict[int, Lane],
        open_lane: Callable[..., None],
        stop_lane: Callable[[int], None],
    ) -> None:
        self._crew = crew
        self._sources = sources
        self._lanes = lanes
        self._open_lane = open_lane
        self._stop_lane = stop_lane
        self._setup_seconds = _SETUP_SECONDS

    def answered(self, lane: Lane) -> None:
        """Take a lane whose answer has come."""
        seconds = self._crew.now() - lane.began
        self._setup_seconds = (self._setup_seconds + seconds) / 2

    def help(self, plan: Plan, free: int, usual: float) -> None:
        """
        Give lanes that could be opened something of what the others have.

        Args:
            plan: Of the download; nothing is missing.
            free: How many.
            usual: What a lane brings, in bytes a second, 0.0 while unknown.
        """
        if free <= 0:
            return
        now = self._crew.now()
        for number, segment in plan.segments.items():
            lane = self._lanes[number]
            if lane.known(now):
                # One that delivers nothing would take for ever: 0.0 means unknown.
                segment.bytes_per_second = max(1.0, lane.meter.rate(now))
        for _ in range(free - self._share(plan, free, usual)):
            slow = self._slowest(plan, usual)
            source = self._sources.pick(self._lanes.values(), now)
            if slow is None or source is None or source.effective_url is None:
                return
            if source.proved or source is self._sources.base:
                self._double(plan, slow, source)

    def kept(self, number: int) -> None:
        """Take a lane that has the whole rest of another one: that one is stopped."""
        lane = self._lanes[number]
        if lane.doubles is None or lane.stopping:
            return
        lane.kept = True
        slow = lane.doubles[0]
        self._stop_lane(slow if slow in self._lanes else number)

    def over(
        self,
        number: int,
        lane: Lane,
        end: int,
        plan: Plan,
        part: PartRef,
        error: SegdlError | None,
    ) -> None:
        """
        Take a lane that is over, whose bytes are given back already.

        Args:
            number: Its number.
            lane: The lane.
            end: One past the last byte it wrote.
            plan: Of the download.
            part: Where to write.
            error: Why it failed, None when it did not.
        """
        if lane.doubled:
            for other, double in list(self._lanes.items()):
                if double.doubles is not None and double.doubles[0] == number:
                    self._take_over(other, double, end, plan, part)
        if lane.doubles is not None:
            slow = self._lanes.get(lane.doubles[0])
            if error is not None:
                alone = not any(each.answered for each in self._lanes.values())
                self._sources.refused(lane, error, alone=alone)
            elif slow is not None:
                slow.doubled = False

    def _take_over(
        self, number: int, double: Lane, end: int, plan: Plan, part: PartRef
    ) -> None:
        """Have a lane write what the one it doubled did not, if it has all of that."""
        assert double.doubles is not None
        if double.stopping:
            return
        given = None
        if double.kept:
            begin = max(end, double.begin)
            given = plan.take_over(number, begin, double.doubles[1])
        if given is None:
            self._stop_lane(number)
            return
        double.held, double.doubles = False, None
        self._crew.send(number, Accept(number, part, given.begin, given.end))

    def _share(self, plan: Plan, free: int, usual: float) -> int:
        """Have lanes share what they have; give how many get something by that."""
        splitting = sum(1 for lane in self._lanes.values() if lane.splitting)
        busy = [
            number
            for number, lane in self._lanes.items()
            if lane.indivisible or lane.doubled or _is_busy(lane)
        ]
        while splitting < free:
            chosen = plan.splittable(
                busy, usual=usual, setup_seconds=self._setup_seconds
            )
            if chosen is None:
                break
            number, kept = chosen
            busy.append(number)
            self._lanes[number].splitting = True
            splitting += 1
            self._crew.send(number, Split(number, round(kept, 3)))
        return min(splitting, free)

    def _slowest(self, plan: Plan, usual: float) -> int | None:
        """Choose a lane whose rest is worth asking for a second time."""
        slowest: tuple[float, int] | None = None
        for number, segment in plan.segments.items():
            lane, rest = self._lanes[number], segment.remaining_bytes
            if _is_busy(lane) or lane.doubled or not segment.bytes_per_second:
                continue
            if not 0 < rest <= _MOST_DOUBLED_BYTES:
                continue
            seconds = rest / segment.bytes_per_second
            again = self._setup_seconds + (rest / usual if usual else 0.0)
            if seconds > _FASTER * again + _FASTER_SECONDS:
                slowest = max(slowest or (seconds, number), (seconds, number))
        return None if slowest is None else slowest[1]

    def _double(self, plan: Plan, slow: int, source: Source) -> None:
        segment = plan.segments[slow]
        number = self._crew.lane_number()
        wanted = ByteRange(segment.position, segment.end)
        self._open_lane(
            source,
            wanted,
            number=number,
            hold=True,
            keep=True,
            complete=plan.size,
            validator=source.validator,
        )
        self._lanes[number].doubles = (slow, segment.end)
        self._lanes[slow].doubled = True


def _is_busy(lane: Lane) -> bool:
    """Whether a lane is in the middle of something, or has all its bytes."""
    return lane.splitting or lane.stopping or lane.held or lane.kept
