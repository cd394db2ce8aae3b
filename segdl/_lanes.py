"""The lanes of one download: who fetches what.

    Job ──open_probe──> a held lane ──Answered──> Job.probe_answered
        ──begin───────> Plan.take, Split ──────> lanes ──Pieces──> Job.pieces_written
                             ^                     │
                             └── go_on, by ────────┴──Ended──> Job.all_written,
                                 Failures                      Job.source_failed

While bytes are missing no lane is idle: one that is free takes what no other has, or
half of the rest of the one that would finish last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from segdl._crew import Crew, LaneOwner
from segdl._failures import Failures
from segdl._headers import Validator
from segdl._manifest import Piece
from segdl._messages import (
    Accept,
    Answered,
    Ended,
    Fetch,
    PartRef,
    Stop,
    failure_from_json,
)
from segdl._pace import Pace
from segdl._plan import MIB, Plan, share_of_hashed
from segdl._ramp import FIRST_SECONDS, FROM_BYTES, Ramp, most_lanes
from segdl._ranges import ByteRange
from segdl._redaction import hide_echo
from segdl._request import Request
from segdl._sources import Lane, Source, Sources
from segdl._tail import Tail
from segdl._urls import headers_for, origin, strip_secrets
from segdl.errors import IncompleteTransfer, RepresentationChanged, SegdlError
from segdl.progress import RateMeter

if TYPE_CHECKING:
    from segdl._job import Job
    from segdl.config import EngineConfig

# The first request asks for this much before the length is known: enough to be
# useful, little enough that other lanes soon share the rest.
FIRST_BYTES = 16 * MIB
# The end of "everything", where no Range is sent.
_EVERYTHING = 2**62
# Lanes that do not stop in this time are given up, and their workers with them: a slow
# disk needs some of it to write what is on its way.
_STOP_SECONDS = 5.0
# A mirror that has not answered its first request in this time is put aside, once
# others wait for the bytes it was asked for.
_ANSWER_SECONDS = 2.0
# When the ramp is asked again for the first time: a little late, since a timer that
# comes a moment early would find its time not over and have nobody call again.
_FIRST_LOOK_SECONDS = FIRST_SECONDS + 0.01


class Lanes:
    """
    All lanes of one job.

    Args:
        job: The job they belong to.
        request: What is asked for.
        config: The engine's settings.
        crew: The scheduler.

    Attributes:
        request: What is asked for.
        plan: None until `begin`, and for an answer without a length.
        sources: The URL and its mirrors.
        whole: Whether the origin has no ranges, so that one stream brings everything.
        received_bytes: Body bytes received in this job.
        meter: Their rate.
    """

    def __init__(
        self, job: Job, request: Request, config: EngineConfig, crew: Crew
    ) -> None:
        self.plan: Plan | None = None
        self.request = request
        self.sources = Sources(request.urls, crew, job, self.go_on)
        self.whole = False
        self.received_bytes = 0
        self.meter = RateMeter()
        self._owner: LaneOwner = job
        self._job = job
        self._crew = crew
        self._lanes: dict[int, Lane] = {}
        self._part: PartRef | None = None
        self._failures = Failures(self, job, config, crew)
        self._early_failure: tuple[Lane, SegdlError] | None = None
        self._probe: Callable[[], None] | None = None
        self._begun_at = 0
        self._had: tuple[int, Validator] | None = None
        self._streamed = Validator()
        self._complete = False
        self._stopping = False
        self._stops = 0
        self._most = most_lanes(request.connections)
        self._ramp = Ramp(self._most)
        self._pace = Pace()
        self._tail = Tail(crew, self.sources, self._lanes, self._open, self._stop_lane)

    @property
    def stream_bytes(self) -> int:
        """Body bytes of the present stream, since `begin`."""
        return self.received_bytes - self._begun_at

    @property
    def effective_url(self) -> str | None:
        """Where the base led to, None while that has to be found out."""
        return self.sources.base.effective_url

    def __len__(self) -> int:
        return len(self._lanes)

    # --- orders of the job ------------------------------------------------------------

    def turn_to_mirror(self, *, forgiving: bool = False) -> bool:
        """Go on with another URL of the file, and a fresh budget; False without one."""
        if not self.sources.turn_to_mirror(forgiving=forgiving):
            return False
        self.whole = False
        return True

    def use_link(self, request: Request) -> None:
        """Go on with a link that was made anew, in place of one that expired."""
        self.request = request
        first = self.sources.first
        url = request.urls[0]
        # Signed anew, it differs in its query; elsewhere there may be another file.
        first.unsure = strip_secrets(url) != strip_secrets(first.url)
        first.url, first.effective_url, first.renewing = url, None, False
        if self._part is not None:
            self.go_on()

    def open_probe(
        self,
        wanted: ByteRange | None,
        *,
        complete: int | None,
        validator: Validator | None,
        if_range: str | None,
    ) -> None:
        """
        Send the first request, and hold its answer.

        Args:
            wanted: None for the first bytes.
            complete: Complete length the answer must state, None for any.
            validator: What the answer must agree with, None for anything.
            if_range: Value of an If-Range field, None for none.
        """
        self._stopping = False
        self._early_failure = None
        self.plan = self._part = None
        if complete is not None and validator is not None:
            self._had = complete, validator
        if self.sources.on_mirror and self._had and not self._owner.verified:
            # Another file is no new version; nor is it worth what is there.
            complete = self._had[0]
        self.sources.begin_again()
        if self.whole:
            wanted = ByteRange(0, _EVERYTHING)

        def probe() -> None:
            self._open(
                self.sources.base,
                wanted or ByteRange(0, FIRST_BYTES),
                hold=True,
                complete=complete,
                validator=validator,
                if_range=if_range,
            )

        self._probe = probe
        self._open_probe()

    def begin(
        self, plan: Plan | None, part: PartRef, validator: Validator | None
    ) -> None:
        """
        Start to write.

        Args:
            plan: What is done and missing; None for an answer without a length.
            part: Where to write.
            validator: What every further answer must agree with.
        """
        self.plan, self._part = plan, part
        self.sources.base.validator = validator
        if plan is not None and validator is not None:
            self._had = plan.size, validator
        self._begun_at = self.received_bytes
        self._complete = False
        now = self._crew.now()
        self.meter.add(now, self.received_bytes)
        automatic = self.request.connections == "auto"
        if automatic and plan is not None:
            few = plan.missing_bytes >= FROM_BYTES
            self._ramp.begin(now, self.received_bytes, few=few)
            self._crew.call_later(self._job, _FIRST_LOOK_SECONDS, self.go_on)
        probe = next((n for n, lane in self._lanes.items() if lane.held), None)
        if plan is not None:
            plan.divide(1 if self.whole else self._most)
        if probe is not None:
            self._accept_probe(probe, part)
        elif plan is None and self._early_failure is not None:
            lane, error = self._early_failure
            self._failures.count(lane, error, self._owner.stream_broke)
        self.fill()

    def stop(self) -> None:
        """Stop all lanes in good order; `lanes_gone` follows, maybe at once."""
        self._stopping = True
        self._stops += 1
        self._probe = None
        self.sources.leave()
        for number in self._lanes:
            self._stop_lane(number)
        if self._lanes:
            stops = self._stops
            self._crew.call_later(self._job, _STOP_SECONDS, lambda: self._hangs(stops))
        else:
            self._owner.lanes_gone()

    def give_up(self) -> None:
        """End without lanes that were told to stop and did not: their workers hang."""
        if not self._stopping or not self._lanes:
            return
        for number in list(self._lanes):
            self._crew.give_up(number)
            self._release(number)
        self._owner.lanes_gone()

    def fill(self) -> None:
        """Give free lanes work: what is missing, or half of what another one has."""
        plan = self.plan
        if self._probe is not None:
            self._open_probe()
        if plan is None or self._part is None or self._stopping:
            return
        if plan.finished:
            if not self._lanes and not self._complete:
                self._complete = True
                self.sources.leave()
                self._owner.all_written(plan.size)
            return
        self._complete = False
        most = 1 if self.whole else min(self._most, self._worth_having())
        now = self._crew.now()
        self._open_missing(plan, most)
        free = most - len(self._lanes)
        if free > 0 and not plan.missing_bytes:
            if not self.whole:
                room = self.sources.room_in_all(self._lanes.values())
                self._tail.help(plan, min(free, room), self._pace.usual)
            self._give_up_silent(now)
        elif not self.whole:
            slow = self._pace.too_slow(self._lanes, plan.segments, now)
            if slow is not None:
                self._stop_lane(slow)
        for number in self.sources.to_stop(self._lanes, now):
            self._stop_lane(number)

    # --- what workers say -------------------------------------------------------------

    def on_answered(self, answer: Answered) -> None:
        """Take the head of an answer: the probe's, or one that resolved the link."""
        lane = self._lanes.get(answer.lane)
        if lane is None or lane.answered or self._stopping:
            return
        lane.answered = True
        self.sources.answered(lane, answer.url)
        validator = Validator.from_json(answer.validator)
        self._tail.answered(lane)
        if not lane.held or lane.doubles is not None:
            self._compare(lane, validator)
            self.fill()
        elif self.plan is None:
            self._streamed = validator
            self._owner.probe_answered(answer)
        else:
            self._mirror_answered(answer.lane, lane, answer)

    def _compare(self, lane: Lane, found: Validator) -> None:
        """Take up what an answer tells that was not known when it was asked for."""
        source = lane.source
        known = source.validator or Validator()
        why = known.disagreement(found)
        if lane.url == source.effective_url:  # else the answer is an old link's
            if source.unsure and not (self._owner.verified or known.vouches_for(found)):
                why = why or "nothing proves that the link leads to the same one"
            source.unsure = False
        source.validator = known.merged(found)
        if why is not None:
            # Tags are the server's words, which may repeat what it was told.
            for url in {lane.url, source.url}:
                why = hide_echo(why, url, self.request.headers)
            error = RepresentationChanged(f"the remote file changed: {why}")
            self._failures.failed(lane, error)

    def on_pieces(self, pieces: list[tuple[int, int, int, str]]) -> None:
        """Count pieces: lane, offset, length, xxh3 each."""
        plan = self.plan
        if plan is None:
            return
        written = []
        for number, offset, length, xxh3 in pieces:
            # What came from a source that lied is not recorded, and fetched again.
            if number in plan.segments and not self._lanes[number].source.lied:
                plan.record(number, offset, length)
                written.append(Piece(offset, length, xxh3))
                self.sources.brought(offset, self._lanes[number].source)
        self._owner.pieces_written(written)

    def on_progress(self, number: int, position: int, received: int) -> None:
        """Note how far a lane is."""
        lane = self._lanes.get(number)
        if lane is None:
            return
        now = self._crew.now()
        if received > lane.received and not self.whole:
            lane.source.attempt = 0  # progress refills the budget
            lane.source.broke_rules = None
            if lane.url == lane.source.effective_url:
                lane.source.resolved_again = False
        self.received_bytes += received - lane.received
        lane.received = received
        lane.meter.add(now, received)
        self.meter.add(now, self.received_bytes)
        if self.plan is not None and number in self.plan.segments:
            self.plan.advance(number, position)

    def on_shrunk(self, number: int, end: int) -> None:
        """Share out what a split lane gave up."""
        lane = self._lanes.get(number)
        plan = self.plan
        if lane is None or plan is None or number not in plan.segments:
            return
        lane.splitting = False
        lane.indivisible = end >= plan.segments[number].end
        if end < plan.segments[number].end:
            plan.shrink(number, end)
            self.fill()

    def on_ended(self, ended: Ended) -> None:
        """A lane is over."""
        lane = self._lanes.get(ended.lane)
        if lane is not None:
            self.on_progress(ended.lane, ended.position, ended.received)
            row = ended.failure
            error = None if row is None else failure_from_json(row)
            self._over(ended.lane, lane, ended.position, error)

    def on_lost(self, number: int, error: SegdlError) -> None:
        """A lane's worker died; what the lane recorded counts."""
        lane = self._lanes.get(number)
        if lane is not None:
            self._over(number, lane, lane.begin, error)

    # --- what follows failures --------------------------------------------------------

    def living(self) -> Collection[Lane]:
        """Give the lanes there are."""
        return self._lanes.values()

    def stop_those_of(self, source: Source) -> None:
        """Stop the lanes of a source that is of no more use."""
        for number, lane in self._lanes.items():
            if lane.source is source:
                self._stop_lane(number)

    def go_on(self) -> None:
        """Go on, after a delay or with a new link."""
        if self._stopping:
            return
        if self._part is not None:
            self.fill()
        elif self._probe is not None:
            self._open_probe()
        elif not (self._lanes or self._early_failure or self.effective_url):
            self._owner.probe_again()

    # --- lanes ------------------------------------------------------------------------

    def _open_missing(self, plan: Plan, most: int) -> None:
        """Have lanes fetch what no other does."""
        hashed = self._owner.verified and not self.whole
        while len(self._lanes) < most and plan.missing_bytes:
            source = self.sources.pick(self._lanes.values(), self._crew.now())
            if source is None:
                return
            number = self._crew.lane_number()
            limit = share_of_hashed(self._pace.usual) if hashed else None
            segment = plan.take(number, limit)
            assert segment is not None
            proved = source is self.sources.base or source.proved
            self._open(
                source,
                ByteRange(segment.begin, segment.end),
                number=number,
                hold=not proved,
                complete=plan.size,
                validator=source.validator,
                part=self._part if proved else None,
            )

    def _open_probe(self) -> None:
        """Send the first request, once the origin may be asked."""
        probe = self._probe
        base = self.sources.base
        if probe is not None and self.sources.room(base, self._lanes.values()):
            self._probe = None
            probe()

    def _open(
        self,
        source: Source,
        wanted: ByteRange,
        *,
        number: int | None = None,
        hold: bool = False,
        keep: bool = False,
        complete: int | None,
        validator: Validator | None,
        if_range: str | None = None,
        part: PartRef | None = None,
    ) -> None:
        """Send a request."""
        request = self.request
        url = source.effective_url or source.url
        if number is None:
            number = self._crew.lane_number()
        follow = source.effective_url is None
        lane = Lane(wanted.begin, source, url, follow, source.round, self._crew.now())
        lane.held = hold
        self._lanes[number] = lane
        self.sources.opened(lane)
        fetch = Fetch(
            lane=number,
            url=url,
            headers=headers_for(
                dict(request.headers), origin(request.urls[0]), origin(url)
            ),
            begin=wanted.begin,
            end=wanted.end,
            ranged=not self.whole,
            follow=follow,
            hold=hold,
            keep=keep,
            complete=complete,
            had=None if self._had is None else self._had[0],
            validator=None if validator is None else validator.to_json(),
            proof=not ((hold and not keep) or self.whole or self._owner.verified),
            if_range=if_range,
            part=part,
        )
        self._crew.fetch(self._job, fetch, complete)

    def _accept_probe(self, probe: int, part: PartRef) -> None:
        """Let the held lane write what it asked for, as far as it is missing."""
        lane, plan = self._lanes[probe], self.plan
        lane.held = False
        if plan is None:
            most = self.request.max_bytes
            # One byte beyond it shows that there are more.
            end = None if most is None else most + 1
            self._crew.send(probe, Accept(probe, part, lane.begin, end))
            return
        first = next(plan.missing(), None)
        if first is None or first.begin != lane.begin:
            self._stop_lane(probe)
            return
        segment = plan.take(probe, None if self.whole else FIRST_BYTES)
        assert segment is not None
        self._crew.send(probe, Accept(probe, part, segment.begin, segment.end))

    def _mirror_answered(self, number: int, lane: Lane, answer: Answered) -> None:
        """Let a mirror's first lane write, if the mirror has the same file."""
        validator = Validator.from_json(answer.validator)
        base = self.sources.base.validator
        assert self.plan is not None
        assert self._part is not None
        if answer.ranges and (
            self._owner.verified or (base is not None and base.vouches_for(validator))
        ):
            lane.source.proved, lane.source.validator = True, validator
            lane.held = False
            given = self.plan.segments[number]
            accept = Accept(number, self._part, given.begin, given.end)
            self._crew.send(number, accept)
        else:
            lane.source.aside = True
            self._stop_lane(number)

    def _stop_lane(self, number: int) -> None:
        self._lanes[number].stopping = True
        self._crew.send(number, Stop(number))

    def on_kept(self, number: int) -> None:
        """A lane has the whole rest of another one."""
        if number in self._lanes:
            self._tail.kept(number)

    def _give_up_silent(self, now: float) -> None:
        """Stop lanes of mirrors that say nothing while others have nothing to do."""
        for number, lane in self._lanes.items():
            silent = lane.held and not (lane.answered or lane.stopping)
            if (
                silent
                and lane.doubles is None
                and lane.source is not self.sources.base
                and now - lane.began >= _ANSWER_SECONDS
            ):
                self.sources.put_aside(lane.source, lied=False)
                self._stop_lane(number)

    def move(self, number: int) -> None:
        """Have another lane go on for this one, on the worker that has fewest."""
        lane = self._lanes.get(number)  # None for one that was given up
        if lane is None or self.plan is None or self.whole:
            return
        if not (lane.held or lane.stopping):
            self._stop_lane(number)

    def _hangs(self, stops: int) -> None:
        """Give lanes up that this very stop did not stop."""
        if stops == self._stops:
            self.give_up()

    def _worth_having(self) -> int:
        """How many lanes help; those that proved not to are stopped."""
        before = self._ramp.lanes
        answered = sum(1 for lane in self._lanes.values() if lane.answered)
        self._ramp.look(self._crew.now(), self.received_bytes, answered)
        if self._ramp.lanes < before:
            for number in list(self._lanes)[self._ramp.lanes :]:
                self._stop_lane(number)
        return self._ramp.lanes

    def _release(self, number: int) -> None:
        lane = self._lanes.pop(number)
        self._pace.ended(lane, self._crew.now())
        self.sources.closed(lane)
        if self.plan is not None and number in self.plan.segments:
            self.plan.release(number)

    def _over(
        self, number: int, lane: Lane, position: int, error: SegdlError | None
    ) -> None:
        """Go on after a lane's end."""
        self._release(number)
        if not self._stopping and self.plan is not None and self._part is not None:
            self._tail.over(number, lane, position, self.plan, self._part, error)
        if self._stopping:
            if not self._lanes:
                self._owner.lanes_gone()
        elif lane.doubles is not None:
            self.fill()
        elif error is not None and self._is_probe(lane):
            # Answered: the file is being prepared, others will ask for these bytes.
            self._early_failure = lane, error
        elif error is not None:
            self._failures.failed(lane, error)
        elif self._is_short(position):
            short = IncompleteTransfer("the answer ended before the file did")
            self._failures.failed(lane, short)
        elif self.plan is None:
            self._owner.all_written(position)  # an answer without a length has ended
        elif not (lane.received or lane.stopping):
            # Asked for again at once, it would be asked for without an end.
            short = IncompleteTransfer("the answer ended before its first byte")
            self._failures.failed(lane, short)
        else:
            self.fill()

    def _is_short(self, end: int) -> bool:
        """Whether a stream of the version that is known ended at another length."""
        if self.plan is not None:
            return self.whole and end < self.plan.size
        size, validator = self._had or (end, Validator())
        return end != size and validator.vouches_for(self._streamed)

    def _is_probe(self, lane: Lane) -> bool:
        """Whether a lane is the held probe, and was answered."""
        base = lane.source is self.sources.base and not lane.source.aside
        return base and lane.held and lane.answered
