"""Where the lanes of a file come from: its URL, its mirrors, and how fast each is.

    base ── the source whose answer fixed length and validator; probed first
      │
    mirrors ── a held lane asks each once ──> proved: has lanes beside the base
                                        └───> put aside: only when the others fail

What an origin bears is learned for all jobs (`_origins`); here each job asks before it
opens a lane, and tells what became of it.

A mirror has lanes beside the base when it is proved to have the same file: a digest
will be compared at the end, or both state the same strong validator. Each free lane
goes to the source whose lanes are fastest at the time; a source whose lanes are far
slower than another's loses them one by one, down to the last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from segdl import _retry
from segdl._urls import strip_secrets
from segdl.progress import RateMeter

if TYPE_CHECKING:
    from segdl._crew import Crew
    from segdl._headers import Validator
    from segdl._job import Job
    from segdl._origins import OriginLimits
    from segdl.errors import SegdlError

# A lane's speed is known after this long.
KNOWN_SECONDS = 0.4
# A lane is moved to another source when that one's are so much faster, and not before
# the last move has shown its effect.
_FAR_SLOWER = 2.0
_MOVE_SECONDS = 0.5
# How much later than it was told to a job comes back, at most, as a share of the time.
_JITTER = 0.1


@dataclass(slots=True, eq=False)
class Source:
    """
    One URL of the file.

    Attributes:
        url: As it was given.
        effective_url: Where it led to, None while that has to be found out.
        led_to: Where it led to last, None before that was found out.
        asked_at: When the request began that found it out.
        validator: What its answers must agree with, None while unknown.
        proved: Whether it may have lanes beside the base.
        aside: Whether it is not to be used as long as others work.
        lied: Whether it is not to be used any more.
        tried: Whether it is or was the base.
        resolved_again: Whether its link expired, and has brought nothing since.
        attempt: Attempts that brought nothing, since something came.
        broke_rules: How its last answer did, None since something came.
        round: Number of the present round of attempts.
        not_before: Monotonic time before which it is not asked.
        held_for: The origin's `not_before` that was taken into account.
        renewing: Whether a new link is being made.
        unsure: Whether it leads elsewhere than before, and no answer has proved yet
            that this is the same file.
        bytes_per_second: Of one of its lanes, None while unknown.
        limits: What is known of the origin of `limits_url`.
    """

    url: str
    effective_url: str | None = None
    led_to: str | None = None
    asked_at: float = 0.0
    validator: Validator | None = None
    proved: bool = False
    aside: bool = False
    lied: bool = False
    tried: bool = False
    resolved_again: bool = False
    attempt: int = 0
    broke_rules: str | None = None
    round: int = 0
    not_before: float = 0.0
    held_for: float = 0.0
    renewing: bool = False
    unsure: bool = False
    bytes_per_second: float | None = None
    limits: OriginLimits | None = None
    limits_url: str = ""

    def leads_to(self, url: str, asked: float) -> None:
        """
        Note where the link leads to, which may be elsewhere than before.

        Args:
            url: Where.
            asked: When the request began that found it out.
        """
        self.asked_at = asked
        before, self.effective_url, self.led_to = self.led_to, url, url
        if before is not None and strip_secrets(before) != strip_secrets(url):
            # What could be told for certain has to be told again.
            self.unsure |= self.validator is not None and self.validator.is_strong


@dataclass(slots=True)
class Lane:
    """
    A lane, as the parent sees it.

    Attributes:
        begin: First byte asked for.
        source: Whose it is.
        url: What it asks, or where that led.
        follow: Whether it follows redirects, and tells where they led.
        round: The round of attempts it belongs to.
        began: When it was opened.
        held: Whether it waits for `Accept`.
        answered: Whether its answer passed every check.
        received: Body bytes so far.
        splitting: Whether `Split` was sent and not answered.
        indivisible: Whether the last one changed nothing.
        doubles: The lane whose rest it fetches as well, and that one's end; None for
            bytes of its own.
        doubled: Whether another one has been, or is, fetching its rest as well.
        kept: Whether it has all that it was to fetch, in memory.
        stopping: Whether `Stop` was sent.
        limits: Of the origin its connection is with.
        meter: How fast it is.
    """

    begin: int
    source: Source
    url: str
    follow: bool
    round: int
    began: float
    held: bool = False
    answered: bool = False
    received: int = 0
    splitting: bool = False
    indivisible: bool = False
    doubles: tuple[int, int] | None = None
    doubled: bool = False
    kept: bool = False
    stopping: bool = False
    limits: OriginLimits | None = None
    meter: RateMeter = field(default_factory=lambda: RateMeter(1.0))

    def known(self, now: float) -> bool:
        """Whether its speed says something."""
        return now - self.began >= KNOWN_SECONDS


class Sources:
    """
    The sources of one file.

    Args:
        urls: The URL, then its mirrors.
        crew: The scheduler.
        job: Whose they are.
        wake: Called when a wait for an origin is over.

    Attributes:
        base: The one in use, or the first of those.
    """

    def __init__(
        self, urls: Iterable[str], crew: Crew, job: Job, wake: Callable[[], None]
    ) -> None:
        self._all = [Source(url) for url in urls]
        self.base = self._all[0]
        self.base.tried = True
        self._crew = crew
        self._job = job
        self._wake = wake
        self._moved = 0.0
        # Which other source brought a piece, by its offset; the rest is the first's.
        self._first = self.base
        self._others: dict[int, Source] = {}

    @property
    def on_mirror(self) -> bool:
        """Whether the base is not the URL that was given first."""
        return self.base is not self.first

    @property
    def first(self) -> Source:
        """The URL that was given first."""
        return self._all[0]

    # --- turning to another one -------------------------------------------------------

    def begin_again(self) -> None:
        """Use the base alone, until mirrors are proved again: a probe follows."""
        self._first = self.base
        self._others.clear()
        for source in self._all:
            source.proved = source.aside = source.unsure = False
            source.effective_url = source.led_to = source.validator = None

    def turn_to_mirror(self, *, forgiving: bool = False) -> bool:
        """
        Make a mirror the base that was not yet; False when there is none.

        Args:
            forgiving: Also one that was given up since it disagreed with the base.
        """
        for number, source in enumerate(self._all):
            if not source.tried and (forgiving or not source.lied):
                self._leave(source)
                self.base = self._all[number] = Source(source.url, tried=True)
                return True
        return False

    def has_untried(self) -> bool:
        """Whether there is a mirror to turn to."""
        return any(not (source.tried or source.lied) for source in self._all)

    def put_aside(self, source: Source, *, lied: bool) -> None:
        """Use a source no more, unless others fail; never again when it lied."""
        source.aside, source.lied = True, lied
        self._leave(source)

    def turn_to_proved(self) -> bool:
        """Make a mirror the base that has lanes already; False when there is none."""
        found = next((s for s in self._beside() if s.proved), None)
        if found is None:
            return False
        self.base = found
        found.tried = True
        return True

    # --- who brought what -------------------------------------------------------------

    def brought(self, offset: int, source: Source) -> None:
        """Note whose a piece is."""
        if source is not self._first:
            self._others[offset] = source
        else:
            self._others.pop(offset, None)

    def those_of(self, source: Source) -> Callable[[int], bool]:
        """Give a test for the offsets of the pieces that a source brought."""
        return lambda offset: self._others.get(offset, self._first) is source

    def drop_others(self) -> Callable[[int], bool] | None:
        """
        Use nothing now but the source that the download began with.

        Returns:
            A test for the offsets of the pieces that others brought; None when there
            are none.
        """
        others = set(self._others)
        if not others or self._first.lied:
            return None
        for source in self._all:
            source.aside = source is not self._first
        self.base = self._first
        self._others.clear()
        return others.__contains__

    # --- which one a lane should use --------------------------------------------------

    def pick(self, lanes: Collection[Lane], now: float) -> Source | None:
        """
        Choose the source of one more lane.

        Args:
            lanes: Those there are.
            now: Monotonic time in seconds.

        Returns:
            None when there is none that can have one now.
        """
        candidates = [self.base]
        if beside := self._beside():
            counts = self._measure(lanes, now)
            # One lane is enough to find out about a mirror.
            candidates += [s for s in beside if s.proved or not counts.get(s)]
            candidates.sort(key=lambda s: (-_speed(s), counts.get(s, 0)))
        return next((s for s in candidates if self.room(s, lanes)), None)

    def room_in_all(self, lanes: Collection[Lane]) -> int:
        """
        Give how many more lanes all sources together can have now.

        Args:
            lanes: Those there are.
        """
        proved = [source for source in self._beside() if source.proved]
        return sum(self.room(source, lanes) for source in (self.base, *proved))

    def to_stop(self, lanes: Mapping[int, Lane], now: float) -> list[int]:
        """
        Choose lanes that others need more, or that another source serves better.

        Args:
            lanes: Those there are, by number.
            now: Monotonic time in seconds.
        """
        chosen = []
        by_origin: dict[OriginLimits, list[int]] = {}
        for number, lane in lanes.items():
            assert lane.limits is not None
            by_origin.setdefault(lane.limits, []).append(number)
        for limits, own in by_origin.items():
            stopping = sum(1 for n in own if lanes[n].stopping)
            surplus = limits.surplus(self._job.number, now) - stopping
            if surplus > 0:
                chosen += [n for n in own if not lanes[n].stopping][-surplus:]
        misplaced = self._misplaced(lanes, now)
        return chosen if misplaced is None else list({*chosen, misplaced})

    def _misplaced(self, lanes: Mapping[int, Lane], now: float) -> int | None:
        """Find a lane whose rest another source would bring far faster."""
        if not self._beside() or now - self._moved < _MOVE_SECONDS:
            return None
        counts = self._measure(lanes.values(), now)
        rates = [
            source.bytes_per_second or 0.0
            for source in counts
            if self.room(source, lanes.values())
        ]
        best = max(rates, default=0.0)
        for number, lane in reversed(list(lanes.items())):
            rate = lane.source.bytes_per_second
            if (
                rate is not None
                and rate * _FAR_SLOWER < best
                and counts[lane.source] > 1
                and lane.known(now)
                and not lane.stopping
            ):
                self._moved = now
                return number
        return None

    def _beside(self) -> list[Source]:
        return [
            source
            for source in self._all
            if not (source.tried or source.aside or source.lied)
        ]

    def _measure(self, lanes: Collection[Lane], now: float) -> dict[Source, int]:
        """Note how fast each source's lanes are; give how many there are."""
        counts: dict[Source, int] = {}
        rates: dict[Source, list[float]] = {}
        for lane in lanes:
            counts[lane.source] = counts.get(lane.source, 0) + 1
            if lane.known(now):
                rates.setdefault(lane.source, []).append(lane.meter.rate(now))
        for source, found in rates.items():
            source.bytes_per_second = sum(found) / len(found)
        return counts

    # --- what their origins bear ------------------------------------------------------

    def room(self, source: Source, lanes: Collection[Lane]) -> int:
        """
        Give how many more lanes a source can have now.

        Args:
            source: Which.
            lanes: Those there are.
        """
        now = self._crew.now()
        limits = self._limits(source)
        if limits.not_before > max(now, source.held_for):
            self._wait_too(source, limits.not_before, now)
        if source.renewing or now < source.not_before:
            return 0
        if source.effective_url is None and any(
            lane.follow and lane.source is source and not lane.received
            for lane in lanes
        ):
            return 0  # that one finds out where the link leads
        return limits.room(self._job.number, now)

    def opened(self, lane: Lane) -> None:
        """Count a lane."""
        lane.limits = self._crew.limits(lane.url)
        lane.limits.opened(self._job.number)

    def answered(self, lane: Lane, url: str) -> None:
        """
        Count a lane that has its answer, with the origin that gave it.

        Args:
            lane: Which.
            url: Where it was led to.
        """
        assert lane.limits is not None
        if lane.follow:
            if lane.url == lane.source.url:  # else the link is another one by now
                lane.source.leads_to(url, lane.began)
            lane.url = url
            lane.limits.closed(self._job.number, answered=False)
            self.opened(lane)
        lane.limits.answered()

    def closed(self, lane: Lane) -> None:
        """Count a lane no more."""
        assert lane.limits is not None
        lane.limits.closed(self._job.number, answered=lane.answered)

    def leave(self) -> None:
        """Wait for nothing any more."""
        for source in self._all:
            self._leave(source)

    def _leave(self, source: Source) -> None:
        if source.limits is not None:
            source.limits.leave(self._job.number)

    def refused(self, lane: Lane, error: SegdlError, *, alone: bool) -> bool:
        """
        Take what a failure teaches about an origin.

        Args:
            lane: Which failed.
            error: Why.
            alone: Whether no other lane of that origin has an answer.

        Returns:
            Whether it may have refused a connection because there are too many.
        """
        assert lane.limits is not None
        if lane.received or not _retry.may_be_refused(error):
            return False
        now = self._crew.now()
        lane.limits.refused(self._job.number, now, alone=alone)
        seconds = getattr(error, "retry_after_seconds", None)
        if seconds is not None and alone:
            lane.limits.hold_until(now + seconds)
        elif seconds is not None:
            lane.limits.raise_after(now + seconds)
        return True

    def hold_back(self, lane: Lane, error: SegdlError) -> None:
        """Have all others wait too, where an origin said that it is busy."""
        assert lane.limits is not None
        if _retry.is_busy(error):
            lane.limits.hold_until(lane.source.not_before)
            lane.source.held_for = lane.limits.not_before

    def _wait_too(self, source: Source, until: float, now: float) -> None:
        """Somebody else was told to wait; not all come back in the same moment."""
        source.held_for = until
        wait = (until - now) * (1.0 + _JITTER * self._crew.random())
        source.not_before = max(source.not_before, now + wait)
        self._crew.call_later(self._job, source.not_before - now, self._wake)
        self._job.report_retry(
            "the origin is busy, and told another request to wait", source.attempt, wait
        )

    def _limits(self, source: Source) -> OriginLimits:
        url = source.effective_url or source.url
        if source.limits is None or source.limits_url != url:
            self._leave(source)
            source.limits, source.limits_url = self._crew.limits(url), url
        return source.limits


def _speed(source: Source) -> float:
    """What a lane of a source may bring: one that nobody tried may be the best."""
    return inf if source.bytes_per_second is None else source.bytes_per_second
