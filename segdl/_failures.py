"""What follows a lane that failed: ask again, at once or later, or give a source up.

    failed ── classify ──> RESOLVE   resolve the link again, or have a new one made
                       ├─> CONTINUE  another lane goes on where it broke
                       ├─> RETRY     count: wait, then go on; too often: source over
                       └─> others    source over ──> other sources, or the job decides

The budget: an attempt counts when it brought nothing. Lanes fail in waves (the server
restarts, all break), so of the lanes that started before a counted failure only that
first one counts; `round` tells them apart. Progress refills the budget. Each source has
a budget of its own; what an origin bears is learned for all jobs (`_origins`). An
answer that breaks HTTP's rules twice in the same way will do so again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from segdl import _retry
from segdl._crew import Crew, LaneOwner
from segdl._origins import RAISE_SECONDS
from segdl._retry import Action
from segdl._sources import Lane, Source
from segdl.errors import (
    ProtocolError,
    RangeMismatch,
    SegdlError,
    StatusError,
    TransferError,
    WorkerError,
)

if TYPE_CHECKING:
    from segdl._job import Job
    from segdl._lanes import Lanes
    from segdl.config import EngineConfig

# A lane that delivered something and broke is followed by another after this long.
_CONTINUE_SECONDS = 0.1


class Failures:
    """
    The failures of one job's lanes.

    Args:
        lanes: What goes on.
        job: Theirs.
        config: The engine's settings.
        crew: The scheduler.
    """

    def __init__(
        self, lanes: Lanes, job: Job, config: EngineConfig, crew: Crew
    ) -> None:
        self._lanes = lanes
        self._sources = lanes.sources
        self._owner: LaneOwner = job
        self._job = job
        self._config = config
        self._crew = crew

    def failed(self, lane: Lane, error: SegdlError) -> None:
        """Decide what a failed lane means."""
        source = lane.source
        base = source is self._sources.base
        if source.aside or source.lied:
            self._lanes.fill()  # it was given up already
            return
        action = _retry.classify(error, resolvable=self._was_led(lane, error))
        if action is Action.RESOLVE and self._outdated(lane):
            # It used a link that was found expired already: that says nothing new.
            self._crew.call_later(self._job, _CONTINUE_SECONDS, self._lanes.go_on)
        elif action is Action.RESOLVE and not source.resolved_again:
            source.resolved_again = True
            self._resolve(source)
        elif action in (Action.FATAL, Action.RESOLVE, Action.CHANGED):
            self._source_over(source, error, action)
        elif self._lanes.whole and not lane.held:
            # One stream can't be gone on with in the middle.
            self.count(lane, error, self._owner.stream_broke)
        elif isinstance(error, WorkerError) or (
            action is Action.CONTINUE and lane.received
        ):
            self._crew.call_later(self._job, _CONTINUE_SECONDS, self._lanes.go_on)
        elif lane.held and not base:
            self._source_over(source, error, action)
        elif self._was_refused(lane, error):
            # One connection more than the origin likes: do with those that live.
            self._crew.call_later(self._job, RAISE_SECONDS, self._lanes.go_on)
        else:
            self.count(lane, error, self._lanes.go_on)

    def count(self, lane: Lane, error: SegdlError, again: Callable[[], None]) -> None:
        """Count an attempt that brought nothing; give up when there were too many."""
        source = lane.source
        if lane.round != source.round:
            self._crew.call_later(self._job, _CONTINUE_SECONDS, self._lanes.go_on)
            return
        source.round += 1
        source.attempt += 1
        again_the_same = source.broke_rules == str(error)
        source.broke_rules = str(error) if _breaks_rules(error) else None
        if again_the_same or source.attempt > self._config.retry_times:
            self._source_over(source, error, Action.FATAL)
            return
        delay = _retry.delay_seconds(
            source.attempt,
            self._config.retry_delay,
            retry_after_seconds=getattr(error, "retry_after_seconds", None),
            random=self._crew.random,
        )
        if delay > self._config.timeout and self._sources.has_untried():
            # Told to come back much later, while another one may serve at once.
            self._source_over(source, error, Action.FATAL)
            return
        source.not_before = self._crew.now() + delay
        self._sources.hold_back(lane, error)
        self._owner.report_retry(str(error), source.attempt, delay)
        self._crew.call_later(self._job, delay, again)

    def _resolve(self, source: Source) -> None:
        """Find out anew where a link leads: of the URL given, or of a new one."""
        source.effective_url = None
        if self._lanes.request.new_url is not None and source is self._sources.first:
            source.renewing = True
            self._owner.renew_link()
        else:
            self._lanes.fill()

    def _source_over(self, source: Source, error: SegdlError, action: Action) -> None:
        """A source is of no more use: go on with the others, or leave it to the job."""
        changed = action is Action.CHANGED
        if source is self._sources.base:
            replaced = (
                isinstance(error, TransferError)
                and (self._owner.verified or not changed)
                and self._sources.turn_to_proved()
            )
            if not replaced:
                self._owner.source_failed(error, action if changed else Action.FATAL)
                return
        self._sources.put_aside(source, lied=changed)
        self._owner.report_retry(f"{error}; going on with the others")
        self._lanes.stop_those_of(source)
        if changed:
            self._owner.pieces_doubted(self._sources.those_of(source))
        self._lanes.fill()

    def _was_led(self, lane: Lane, error: SegdlError) -> bool:
        """Whether a lane used a link that may lead elsewhere by now."""
        status = error.status if isinstance(error, StatusError) else 0
        led = lane.url != lane.source.url or self._lanes.request.new_url is not None
        return not lane.held and (led or 300 <= status < 400)

    def _outdated(self, lane: Lane) -> bool:
        """Whether the link was resolved again, or is being, since a lane began."""
        source = lane.source
        return not lane.follow and (
            lane.url != source.effective_url or lane.began < source.asked_at
        )

    def _was_refused(self, lane: Lane, error: SegdlError) -> bool:
        """Whether a lane was one too many, since others of its origin live."""
        # An origin's, not a source's: a link leads from one origin to another.
        others = (each.limits for each in self._lanes.living() if each.answered)
        alone = lane.limits not in others
        return self._sources.refused(lane, error, alone=alone) and not alone


def _breaks_rules(error: SegdlError) -> bool:
    """Whether an answer was no HTTP, or unfit; a wrong range is maybe one backend's."""
    return isinstance(error, ProtocolError) and not isinstance(error, RangeMismatch)
