"""One task's way from URL to file: the state machine between plan, store and lanes.

    examining ─> probing ─> preparing ─> (checking) ─> transferring ─> verifying
    (disk)       (a held    (disk:       (pieces an    (lanes)           │
                  request)   part and     earlier run                publishing
                             manifest)    left)                         │
                                                                      ended
    any of them ─> stopping ─> ended      (pause, cancel, failure, shutdown)

A job runs on the engine's scheduler thread alone, and waits for nothing: what waits
for the disk goes through `crew.offload`, requests through `crew.fetch`, digests to
the verifier. Every answer comes back as a call of an `on_` method. A restart, when
the remote file changed, goes back to probing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from segdl import _fs, _retry
from segdl._digests import Digest, is_digest_of_nothing
from segdl._headers import Validator
from segdl._manifest import Piece
from segdl._messages import (
    Accept,
    Advance,
    Answered,
    Check,
    Checked,
    Drop,
    Ended,
    Fetch,
    Hash,
    Hashed,
    Message,
    PartRef,
    Split,
    Stop,
    failure_from_json,
)
from segdl._names import SafeName, safe_name
from segdl._plan import MIB, Plan, piece_size
from segdl._ranges import ByteRange
from segdl._retry import Action
from segdl._store import Found, Store, new_header, url_digest
from segdl._urls import headers_for, origin
from segdl.config import EngineConfig
from segdl.errors import (
    DestinationExists,
    IncompleteTransfer,
    IntegrityError,
    ProtocolError,
    SegdlError,
    TransferError,
    WorkerError,
)
from segdl.progress import RateMeter

# The first request asks for this much before the length is known: enough to be
# useful, little enough that other lanes soon share the rest.
FIRST_BYTES = 16 * MIB
# A lane is worth its round trip and slow start from about here on.
MIN_LANE_BYTES = 2 * MIB
AUTO_CONNECTIONS = 16
# How far the finished prefix grows before the verifier hears of it.
_HASH_STEP_BYTES = 8 * MIB
# A 200 to a range is asked again so often: caches do that on a miss.
_WHOLE_ANSWERS = 2
# A lane that delivered something and broke is followed by another after this long.
_CONTINUE_SECONDS = 0.1
_CHECKPOINT_SECONDS = 5.0
# Lanes that do not stop in this time are given up.
_STOP_SECONDS = 1.0
# The end of "everything", where no Range is sent.
_EVERYTHING = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    What a task asks for, checked.

    Attributes:
        urls: The URL, then its mirrors; without userinfo.
        headers: Request headers for the first URL's origin.
        directory: To save in.
        filename: Name to save as, None to take it from the answer.
        digest: What the caller expects, None for nothing.
        on_exists: As in `EngineConfig`.
        connections: As in `EngineConfig`.
    """

    urls: tuple[str, ...]
    headers: Mapping[str, str]
    directory: str
    filename: SafeName | None
    digest: Digest | None
    on_exists: str
    connections: int | str


class Crew(Protocol):
    """What a job needs of the scheduler."""

    def now(self) -> float:
        """Monotonic seconds."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def lane_number(self) -> int:
        """A number no lane has had."""

    def fetch(self, job: Job, fetch: Fetch, size: int | None) -> None:
        """Start a lane on the worker that has fewest; size helps to choose."""

    def send(self, lane: int, message: Message) -> None:
        """Send a command to a lane's worker."""

    def give_up(self, lane: int) -> None:
        """End the worker of a lane that does not stop."""

    def verify(self, message: Message) -> None:
        """Send a command to the verifier, which is started when needed."""

    def offload(
        self, work: Callable[[], Any], done: Callable[[Any, SegdlError | None], None]
    ) -> None:
        """Run `work` on a helper thread, then `done(result, error)` on this one."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call on this thread, after so long."""

    def event(self, job: Job, kind: str, fields: dict[str, Any]) -> None:
        """Tell the users of events."""

    def ended(self, job: Job) -> None:
        """The job is over: `job.outcome` tells how."""


@dataclass(slots=True)
class _Lane:
    """
    A lane, as the job sees it.

    Attributes:
        begin: First byte asked for.
        round: The job's round of attempts it belongs to.
        received: Body bytes so far.
        splitting: Whether `Split` was sent and not answered.
        held: Whether it waits for `Accept`.
        meter: How fast it is.
    """

    begin: int
    round: int
    received: int = 0
    splitting: bool = False
    held: bool = False
    meter: RateMeter = field(default_factory=lambda: RateMeter(1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    How a job ended.

    Attributes:
        kind: "completed", "failed", "stopped" (resumable) or "discarded".
        error: Why it failed.
        checksum: The digest that was verified, "algorithm:hex".
    """

    kind: str
    error: SegdlError | None = None
    checksum: str | None = None


class Job:
    """
    One attempt at a task, from admission until it ends.

    Args:
        number: Unique in the engine.
        request: What is asked for.
        config: The engine's settings.
        crew: The scheduler.

    Attributes:
        phase: As in `DownloadTask`.
        path: Full path of the destination, once the name is known.
        total_bytes: Complete length, None while unknown.
        resumed_bytes: What an earlier run left.
        received_bytes: Body bytes received by this job.
        outcome: How it ended, None while it runs.
    """

    def __init__(
        self, number: int, request: Request, config: EngineConfig, crew: Crew
    ) -> None:
        self.number = number
        self.request = request
        self.phase = "probing"
        self.path: str | None = None
        self.total_bytes: int | None = None
        self.resumed_bytes = 0
        self.received_bytes = 0
        self.began = crew.now()
        self.meter = RateMeter()
        self.outcome: Outcome | None = None
        self._config = config
        self._crew = crew
        self._store: Store | None = None
        self._found: Found | None = None
        self._plan: Plan | None = None
        self._lanes: dict[int, _Lane] = {}
        self._answer: Answered | None = None
        self._validator: Validator | None = None
        self._whole = False  # one stream from byte 0, without ranges
        self._whole_answers = 0
        self._if_range = True
        self._part: PartRef | None = None
        self._source = 0
        self._effective_url: str | None = None
        self._resolved_again = False
        self._expected: dict[str, Digest] = {}
        self._hashing = False
        self._hashed_bytes = 0
        self._rechecked = False
        self._wrong: tuple[Digest, str] | None = None
        self._verifier_losses = 0
        self._comparing = False
        self._changed = False  # the representation did, once
        self._fresh = False  # probe from byte 0 and expect nothing
        self._restarting: SegdlError | None = None
        self._attempt = 0
        self._round = 0
        self._not_before = 0.0
        self._lane_cap = _connections(request.connections)
        self._ending: Outcome | None = None
        self._discarding = False
        self._offloaded = 0

    # --- for the scheduler ------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Lanes that are open."""
        return len(self._lanes)

    @property
    def downloaded_bytes(self) -> int:
        """Bytes that are in the file."""
        if self.phase in ("verifying", "publishing", "done"):
            return self.total_bytes or 0
        if self._plan is not None:
            return self._plan.received_bytes
        return self.received_bytes if self._whole else self.resumed_bytes

    def start(self) -> None:
        """Begin, on disk: what is there already decides what is asked for."""
        self._offload(self._examine, self._examined)

    def stop(self) -> None:
        """End in good order; what is there stays resumable."""
        self._end(Outcome(kind="stopped"))

    def discard(self) -> None:
        """End, and remove part and manifest."""
        self._discarding = True
        if self._store is not None and not self._offloaded:
            self._store.discard()
        self._end(Outcome(kind="discarded"))

    def fail(self, error: SegdlError) -> None:
        """End with an error; what is there stays resumable."""
        self._end(Outcome(kind="failed", error=error))

    def _give_up_lanes(self) -> None:
        """End without lanes that do not stop: their workers hang."""
        for lane in list(self._lanes):
            self._release(lane)
            self._crew.give_up(lane)
        if self.outcome is None and not self._offloaded:
            self._close()

    # --- examining --------------------------------------------------------------------

    def _examine(self) -> None:
        """On a helper thread: open the directory, look at what is there."""
        request = self.request
        store = self._store = Store(request.directory, self._config.durability)
        name, url = request.filename, request.urls[0]
        if name is None:
            name = store.name_left_by(url_digest(url)) or safe_name(url, None)
            self._found = store.look(name)
        else:
            self._found = self._look(store, name)

    def _look(self, store: Store, name: SafeName) -> Found | None:
        """Turn to the final name, by the rules for a destination that exists."""
        found = store.look(name)
        if store.published or not store.directory.exists(name):
            return found
        policy = self.request.on_exists
        if policy == "rename":
            store.release()
            return store.look(store.free_name(name))
        if policy == "error":
            raise DestinationExists(
                f"{store.path} exists; choose another name, or on_exists: reuse, "
                "overwrite or rename"
            )
        store.directory.check_replaceable(name)
        return found

    def _examined(self, _: None) -> None:
        assert self._store is not None
        if self.request.filename is not None:
            self.path = self._store.path
        if self._store.published:
            self._finish_reused(None)
        elif self._reuses_existing() and self._caller_digest() is not None:
            self._compare_existing()
        else:
            self._probe()

    def _reuses_existing(self) -> bool:
        store = self._store
        return (
            store is not None
            and self.request.on_exists == "reuse"
            and (self.request.filename is not None or self._answer is not None)
            and store.directory.exists(store.name)
        )

    # --- probing ----------------------------------------------------------------------

    def _probe(self) -> None:
        """Ask for the first missing bytes; the answer's head tells the rest."""
        self.phase = "probing"
        self._effective_url = None
        self._answer = None
        self._part = None
        wanted = ByteRange(0, FIRST_BYTES)
        complete: int | None = None
        validator: Validator | None = None
        found = self._found
        if found is not None and not self._fresh and self._resumable(found):
            plan = _plan_of(found)
            complete, validator = found.header.size, found.header.validator
            missing = next(plan.missing(), None)
            if missing is not None:
                end = min(missing.end, missing.begin + FIRST_BYTES)
                wanted = ByteRange(missing.begin, end)
        if self._whole:
            wanted = ByteRange(0, _EVERYTHING)
        self._open_lane(
            wanted,
            hold=True,
            complete=complete,
            validator=validator,
            if_range=validator.if_range() if validator and self._if_range else None,
        )

    def _resumable(self, found: Found) -> bool:
        """Whether pieces of an earlier run may be combined with new ones."""
        return bool(found.accepted or found.doubtful) and (
            found.header.validator.is_strong or self._caller_digest() is not None
        )

    def on_answered(self, lane: int, answer: Answered) -> None:
        """Take the head of an answer: the probe's, or one that resolved the link."""
        state = self._lanes.get(lane)
        if state is None or self._ending is not None:
            return
        self._effective_url = answer.url
        if not state.held:
            self._fill()
            return
        if not answer.ranges and not self._accepts_whole(lane, answer):
            return
        self._answer = answer
        self._offload(lambda: self._prepare(answer), self._prepared)

    def _accepts_whole(self, lane: int, answer: Answered) -> bool:
        """Decide about a 200 to a range; False when it is asked again, or refused."""
        if self._whole_answers < _WHOLE_ANSWERS and answer.accepts_ranges:
            self._whole_answers += 1
            self._if_range = False  # some origins mishandle it (decision table)
            self._retry_lane(lane)
            return False
        begin = self._lanes[lane].begin
        if not answer.framed and self._caller_digest() is None:
            self.fail(
                ProtocolError(
                    "the origin ends its answer by closing the connection, so a cut "
                    "can't be told from the end; give a checksum to accept it"
                )
            )
            return False
        self._whole = True
        if begin > 0:
            # What was found can't be gone on with: start over, as one stream.
            self._found = None
            self._retry_lane(lane)
            return False
        return True

    def _retry_lane(self, lane: int) -> None:
        """Give a held lane up and probe again once it is gone."""
        self._crew.send(lane, Stop(lane))

    # --- preparing --------------------------------------------------------------------

    def _prepare(self, answer: Answered) -> None:
        """On a helper thread: have part and manifest for what was answered."""
        store = self._store
        assert store is not None
        url = self.request.urls[0]
        ours = self._found is not None and self._found.header.url_sha256 == url_digest(
            url
        )
        if self.request.filename is None and not ours:
            self._found = self._look(store, safe_name(url, answer.disposition))
        if store.published or self._reuses_existing():
            return
        self._prepare_files(store, answer)

    def _prepare_files(self, store: Store, answer: Answered) -> None:
        """Create part and manifest, or take up those that fit."""
        validator = Validator.from_json(answer.validator)
        size, digest = answer.complete, self.request.digest
        header = new_header(
            name=store.name,
            size=size,
            piece=piece_size(size or 0),
            validator=validator,
            url=self.request.urls[0],
            digest=None if digest is None else f"{digest.algorithm}:{digest.hex}",
        )
        found = self._found
        if store.manifest is None:
            store.create(header, size or 0)
            return
        assert store.part is not None
        if found is not None and self._fits(found, size, validator):
            _fs.check_space(store.directory, (size or 0) - store.part.blocks() * 512)
            return
        if found is not None and found.header.url_sha256 != header.url_sha256:
            raise DestinationExists(
                f"{store.part.path} is an unfinished download of "
                f"{found.header.url or 'another URL'}; go on with that one, remove "
                "it with `segdl clean`, or save under another name"
            )
        self._found = None
        _fs.check_space(store.directory, size or 0)
        store.restart(header)

    def _fits(self, found: Found, size: int | None, validator: Validator) -> bool:
        """Whether an earlier run's pieces belong to what the origin has now."""
        return (
            not self._whole
            and found.header.size == size
            and self._resumable(found)
            and (
                found.header.validator.disagreement(validator) is None
                or (self._source > 0 and self._caller_digest() is not None)
            )
        )

    def _prepared(self, _: None) -> None:
        store, answer = self._store, self._answer
        assert store is not None
        assert answer is not None
        self.path = store.path
        self.total_bytes = answer.complete
        self._validator = Validator.from_json(answer.validator)
        self._expected = self._digests_to_verify(answer)
        if store.published:
            self._finish_reused(None)
        elif self._reuses_existing():
            self._compare_existing()
        elif self._found is not None and self._found.doubtful:
            self._check_found(self._found)
        else:
            self._begin()

    def _check_found(self, found: Found) -> None:
        """Have doubtful pieces of an earlier run read back."""
        assert self._store is not None
        assert self._store.part is not None
        rows = [(p.offset, p.length, p.xxh3) for p in found.doubtful]
        self._crew.verify(Check(self.number, self._store.part.path, rows))

    def _begin(self) -> None:
        """Start to transfer."""
        store, answer = self._store, self._answer
        assert store is not None
        assert store.part is not None
        assert answer is not None
        size, found = answer.complete, self._found
        piece = piece_size(size or 0)
        if found is not None:
            piece = found.header.piece
        device, inode = store.part.identity
        direct = _fs.preferred_io(
            store.directory,
            size or 0,
            requested=self._config.io,
            will_verify=bool(self._expected),
        )
        self._part = PartRef(store.part.path, device, inode, direct, piece)
        self.phase = "transferring"
        if size is not None:
            self._plan = Plan(size, piece) if found is None else _plan_of(found)
            self.resumed_bytes = self._plan.done_bytes
            self._plan.divide(self._desired())
        self.meter.add(self._crew.now(), 0)
        if self.resumed_bytes:
            self._crew.event(self, "resumed", {"bytes": self.resumed_bytes})
        self._start_hashing()
        self._accept_probe()
        if self._config.durability == "checkpoint":
            self._crew.call_later(_CHECKPOINT_SECONDS, self._checkpoint)

    def _accept_probe(self) -> None:
        """Let the held lane write what it asked for, as far as it is missing."""
        probe = next((n for n, s in self._lanes.items() if s.held), None)
        if probe is not None:
            state = self._lanes[probe]
            state.held = False
            assert self._part is not None
            plan = self._plan
            if plan is None:
                self._crew.send(probe, Accept(probe, self._part, None))
                return
            segment = self._segment_of_probe(plan, probe, state.begin)
            if segment is not None:
                self._crew.send(probe, Accept(probe, self._part, segment))
            else:
                self._crew.send(probe, Stop(probe))
        elif self._plan is None:
            # The one stream broke while the file was prepared.
            self._restart(IncompleteTransfer("the connection broke"))
        self._fill()

    def _segment_of_probe(self, plan: Plan, probe: int, begin: int) -> int | None:
        """Take the probe's segment from the plan; its end, None if it has no use."""
        first = next(plan.missing(), None)
        if first is None or first.begin != begin:
            return None
        limit = None if self._whole else FIRST_BYTES
        segment = plan.take(probe, limit)
        return None if segment is None else segment.end

    def _checkpoint(self) -> None:
        """Have what is recorded so far put onto the disk, every few seconds."""
        store = self._store
        if self.phase != "transferring" or self._ending is not None or store is None:
            return
        manifest, part = store.manifest, store.part
        if manifest is None or part is None:
            return
        covered = manifest.piece_count

        def done(_: None) -> None:
            if store.manifest is manifest:
                manifest.checkpoint(covered)
            self._crew.call_later(_CHECKPOINT_SECONDS, self._checkpoint)

        self._offload(part.sync, done)

    # --- transferring -----------------------------------------------------------------

    def _desired(self) -> int:
        """How many lanes there should be."""
        if self._whole or self._plan is None:
            return 1
        rest = self._plan.size - self._plan.done_bytes
        return max(1, min(self._lane_cap, rest // MIN_LANE_BYTES))

    def _fill(self) -> None:
        """Give free lanes work: what is missing, or half of what another one has."""
        plan = self._plan
        if (
            self._ending is not None
            or self.phase != "transferring"
            or plan is None
            or self._restarting is not None
        ):
            return
        now = self._crew.now()
        if now < self._not_before:
            return
        desired = self._desired()
        while len(self._lanes) < desired and plan.missing_bytes:
            if self._effective_url is None and self._lanes_resolving():
                return
            self._take_segment(plan)
        splitting = [n for n, s in self._lanes.items() if s.splitting]
        for _ in range(desired - len(self._lanes) - len(splitting)):
            lane = plan.splittable(splitting)
            if lane is None:
                break
            splitting.append(lane)
            self._lanes[lane].splitting = True
            self._crew.send(lane, Split(lane))
        if plan.finished and not self._lanes:
            self._verify()

    @property
    def _source_url(self) -> str:
        """The URL, or the mirror, in use."""
        return self.request.urls[self._source]

    def _lanes_resolving(self) -> bool:
        return any(state.received == 0 for state in self._lanes.values())

    def _take_segment(self, plan: Plan) -> None:
        number = self._crew.lane_number()
        limit = None if not self._whole else plan.size
        segment = plan.take(number, limit)
        assert segment is not None
        begin, end = segment.begin, segment.end
        self._open_lane(
            ByteRange(begin, end),
            number=number,
            complete=plan.size,
            validator=self._validator,
            part=self._part,
        )

    def _open_lane(
        self,
        wanted: ByteRange,
        *,
        number: int | None = None,
        hold: bool = False,
        complete: int | None,
        validator: Validator | None,
        if_range: str | None = None,
        part: PartRef | None = None,
    ) -> None:
        """Send a request."""
        request = self.request
        url = self._effective_url or self._source_url
        first = origin(request.urls[0])
        if number is None:
            number = self._crew.lane_number()
        self._lanes[number] = _Lane(wanted.begin, self._round, held=hold)
        self._crew.fetch(
            self,
            Fetch(
                lane=number,
                url=url,
                headers=headers_for(dict(request.headers), first, origin(url)),
                begin=wanted.begin,
                end=wanted.end,
                ranged=not self._whole,
                follow=self._effective_url is None,
                hold=hold,
                complete=complete,
                validator=None if validator is None else validator.to_json(),
                if_range=if_range,
                part=part,
            ),
            self.total_bytes,
        )

    def on_pieces(self, pieces: list[tuple[int, int, int, str]]) -> None:
        """Record pieces: lane, offset, length, xxh3 each."""
        plan = self._plan
        if plan is None or self._store is None or self._discarding:
            return
        records = []
        for lane, offset, length, xxh3 in pieces:
            if lane in plan.segments:
                plan.record(lane, offset, length)
                records.append(Piece(offset, length, xxh3))
        try:
            self._store.record(records)
        except SegdlError as error:
            self.fail(error)
            return
        self._advance_hash()

    def on_progress(self, lane: int, position: int, received: int) -> None:
        """Note how far a lane is."""
        state = self._lanes.get(lane)
        if state is None:
            return
        now = self._crew.now()
        self.received_bytes += received - state.received
        state.received = received
        state.meter.add(now, received)
        self.meter.add(now, self.received_bytes)
        if received and state.round == self._round and not self._whole:
            self._attempt = 0  # progress refills the budget
            self._resolved_again = False
        if self._plan is not None and lane in self._plan.segments:
            self._plan.advance(lane, position, state.meter.rate(now))

    def on_shrunk(self, lane: int, end: int) -> None:
        """Share out what a split lane gave up."""
        state = self._lanes.get(lane)
        if state is None or self._plan is None or lane not in self._plan.segments:
            return
        state.splitting = False
        if end < self._plan.segments[lane].end:
            self._plan.shrink(lane, end)
            self._fill()

    def on_ended(self, ended: Ended) -> None:
        """A lane is over."""
        state = self._lanes.get(ended.lane)
        if state is None:
            return
        self.on_progress(ended.lane, ended.position, ended.received)
        error = None if ended.failure is None else failure_from_json(ended.failure)
        self._release(ended.lane)
        self._after_lane(state, ended.position, error)

    def on_lane_lost(self, lane: int, error: SegdlError) -> None:
        """A lane's worker died; what it recorded counts."""
        state = self._lanes.get(lane)
        if state is not None:
            self._release(lane)
            self._after_lane(state, state.begin, error)

    def _release(self, lane: int) -> None:
        del self._lanes[lane]
        if self._plan is not None and lane in self._plan.segments:
            self._plan.release(lane)

    def _after_lane(
        self, state: _Lane, position: int, error: SegdlError | None
    ) -> None:
        """Go on after a lane's end."""
        if self._ending is not None:
            if not self._lanes and not self._offloaded:
                self._close()
            return
        if self._restarting is not None:
            if not self._lanes:
                self._restarted()
            return
        if error is not None:
            self._failed_lane(state, error)
        elif state.held and self._answer is None:
            self._probe()  # it was stopped, to be asked again
        elif self._plan is None and self.phase == "transferring":
            self.total_bytes = position  # an answer without a length has ended
            self._verify()
        else:
            self._fill()

    # --- failures ---------------------------------------------------------------------

    def _failed_lane(self, state: _Lane, error: SegdlError) -> None:
        """Decide what a failed lane means for the job."""
        resolvable = (
            not state.held
            and not self._resolved_again
            and self._effective_url not in (None, self._source_url)
        )
        action = _retry.classify(error, resolvable=resolvable)
        if state.held and self._answer is not None:
            return  # the file is being prepared; other lanes will ask for these bytes
        if action is Action.RESOLVE:
            self._resolved_again = True
            self._effective_url = None
            self._fill()
        elif action is Action.CHANGED and not self._changed:
            self._changed = True
            self._restart(error)
        elif action in (Action.FATAL, Action.CHANGED):
            self._give_up_source(error)
        elif self._whole and self.phase == "transferring":
            # One stream can't be gone on with in the middle.
            self._count_attempt(state, error, again=lambda: self._restart(error))
        elif isinstance(error, WorkerError) or (
            action is Action.CONTINUE and state.received
        ):
            self._crew.call_later(_CONTINUE_SECONDS, self._go_on)
        elif _retry.is_busy(error) and not state.received and self._receiving():
            # One connection more than the origin likes: do with those that live.
            self._lane_cap = self._receiving()
        else:
            self._count_attempt(state, error, again=self._go_on)

    def _receiving(self) -> int:
        """Count the lanes that have received something."""
        return sum(1 for state in self._lanes.values() if state.received)

    def _count_attempt(
        self, state: _Lane, error: SegdlError, again: Callable[[], None]
    ) -> None:
        """Count an attempt without progress; give up when there were too many."""
        if state.round != self._round:
            return  # of a wave of failures, the first one counts
        self._round += 1
        self._attempt += 1
        if self._attempt > self._config.retry_times:
            self._give_up_source(error)
            return
        delay = _retry.delay_seconds(
            self._attempt,
            self._config.retry_delay,
            retry_after_seconds=getattr(error, "retry_after_seconds", None),
            random=self._crew.random,
        )
        self._not_before = self._crew.now() + delay
        self._report_retry(str(error), delay)
        self._crew.call_later(delay, again)

    def _go_on(self) -> None:
        """Go on after a delay."""
        if self._ending is None and self._restarting is None:
            if self.phase == "probing":
                if self._answer is None and not self._lanes and not self._offloaded:
                    self._probe()
            else:
                self._fill()

    def _give_up_source(self, error: SegdlError) -> None:
        """Turn to a mirror when there is one and the network is at fault, or fail."""
        last = self._source + 1 >= len(self.request.urls)
        if last or not isinstance(error, TransferError):
            self.fail(error)
            return
        self._source += 1
        self._attempt = self._whole_answers = 0
        self._resolved_again = self._changed = self._whole = False
        self._report_retry(f"{error}; going on with a mirror", 0.0)
        self._restart(error)

    def _report_retry(self, reason: str, delay: float) -> None:
        fields = {"reason": reason, "attempt": self._attempt, "delay": delay}
        self._crew.event(self, "retry", fields)

    def _restart(self, error: SegdlError) -> None:
        """Stop all lanes, then probe again; the new answer decides what can stay."""
        if self._ending is not None or self._restarting is not None:
            return
        self._restarting = error
        self._stop_lanes()
        if not self._lanes:
            self._restarted()

    def _restarted(self) -> None:
        """All lanes have stopped: look at what is there, as at the start."""
        self._restarting = None
        self._fresh = True
        self._plan = None
        self._hashing = False
        self._crew.verify(Drop(self.number))
        self.phase = "probing"
        self.total_bytes = None
        self.resumed_bytes = 0
        store = self._store
        if store is None or store.part is None:
            self._probe()
        else:
            self._offload(lambda: self._look_again(store), lambda _: self._probe())

    def _look_again(self, store: Store) -> None:
        """On a helper thread: take up what this run has recorded."""
        self._found = store.look(store.name)

    # --- verifying --------------------------------------------------------------------

    def _caller_digest(self) -> Digest | None:
        return self.request.digest if self._config.verify_hash else None

    def _digests_to_verify(self, answer: Answered) -> dict[str, Digest]:
        """Collect what is known of the content; the caller's word counts most."""
        if not self._config.verify_hash:
            return {}
        expected = {row[0]: Digest(*row) for row in reversed(answer.digests)}
        if self.request.digest is not None:
            expected[self.request.digest.algorithm] = self.request.digest
        return expected

    def _start_hashing(self) -> None:
        if self._expected:
            assert self._store is not None
            assert self._store.part is not None
            path = self._store.part.path
            self._hashing = True
            self._hashed_bytes = 0
            self._crew.verify(Hash(self.number, path, list(self._expected)))
            self._advance_hash()

    def _advance_hash(self) -> None:
        """Tell the verifier how far the finished prefix has grown."""
        if self._hashing and self._plan is not None:
            prefix = self._plan.prefix
            if prefix - self._hashed_bytes >= _HASH_STEP_BYTES:
                self._hashed_bytes = prefix
                self._crew.verify(Advance(self.number, prefix, False))

    def _verify(self) -> None:
        """All bytes are there: compare their digest, when one is known."""
        self.phase = "verifying"
        if self._expected:
            if not self._hashing:
                self._start_hashing()
            self._crew.verify(Advance(self.number, self.total_bytes or 0, True))
        else:
            self._publish(None)

    def on_hashed(self, hashed: Hashed) -> None:
        """Compare digests: of the finished part, or of a file that exists already."""
        if self._ending is not None:
            return
        self._hashing = False
        if hashed.failure is not None:
            self.fail(failure_from_json(hashed.failure))
            return
        wrong = next(
            (
                d
                for d in self._expected.values()
                if hashed.digests[d.algorithm] != d.hex
            ),
            None,
        )
        if self._comparing:
            self._compared(wrong, hashed.digests)
        elif wrong is None:
            self._publish(self._verified())
        elif self._rechecked or self._plan is None:
            self._mismatch(wrong, hashed.digests[wrong.algorithm])
        else:
            self._recheck(wrong, hashed.digests[wrong.algorithm])

    def _verified(self) -> str | None:
        """The digest to show: the caller's, or the strongest the server stated."""
        best = self.request.digest or next(
            iter(reversed(self._expected.values())), None
        )
        return None if best is None else f"{best.algorithm}:{best.hex}"

    def _recheck(self, wrong: Digest, actual: str) -> None:
        """Read all pieces back: those the disk changed can be fetched again."""
        assert self._store is not None
        assert self._store.part is not None
        assert self._store.manifest is not None
        self._rechecked = True
        self._wrong = (wrong, actual)
        rows = [(p.offset, p.length, p.xxh3) for p in self._store.manifest.pieces()]
        self._crew.verify(Check(self.number, self._store.part.path, rows))

    def on_checked(self, checked: Checked) -> None:
        """Go on after pieces were read back."""
        if self._ending is not None:
            return
        try:
            if checked.failure is not None:
                raise failure_from_json(checked.failure)
            assert self._store is not None
            bad = self._store.forget(checked.bad)
        except SegdlError as error:
            self.fail(error)
            return
        if self._wrong is None:
            self._found_checked({(p.offset, p.length) for p in bad})
        elif not bad:
            self._mismatch(*self._wrong)
        else:
            assert self._plan is not None
            for piece in bad:
                self._plan.forget(piece.offset, piece.length)
            self._wrong = None
            self.phase = "transferring"
            self._start_hashing()
            self._fill()

    def _found_checked(self, bad: set[tuple[int, int]]) -> None:
        """Begin with the pieces of an earlier run that proved right."""
        found = self._found
        assert found is not None
        good = [p for p in found.doubtful if (p.offset, p.length) not in bad]
        self._found = replace(found, accepted=found.accepted + good, doubtful=[])
        self._begin()

    def _mismatch(self, wrong: Digest, actual: str) -> None:
        """Fail for wrong content, with the part kept aside."""
        assert self._store is not None
        message = (
            f"{wrong.algorithm} of {self._store.name} is {actual}, expected "
            f"{wrong.hex} ({wrong.source})"
        )
        if is_digest_of_nothing(wrong):
            message += "; the expected one is the digest of an empty file"
        try:
            message += f"; what was received is kept as {self._store.set_aside()}"
        except SegdlError as error:
            message += f"; what was received could not be kept aside: {error}"
        self.fail(
            IntegrityError(
                message, algorithm=wrong.algorithm, expected=wrong.hex, actual=actual
            )
        )

    def on_verifier_lost(self, error: SegdlError) -> None:
        """The verifier died: have its work done again, once or twice."""
        if self._ending is not None:
            return
        self._verifier_losses += 1
        if self._verifier_losses > 2:
            self.fail(error)
        elif self._comparing:
            self._compare_existing()
        elif self._wrong is not None:
            self._recheck(*self._wrong)
        elif self._found is not None and self._found.doubtful and self._plan is None:
            self._check_found(self._found)
        elif self._hashing:
            self._start_hashing()
            if self.phase == "verifying":
                self._verify()

    # --- a destination that exists ----------------------------------------------------

    def _compare_existing(self) -> None:
        """Find out whether the file that is there is the one that is wanted."""
        store, answer = self._store, self._answer
        assert store is not None
        self._comparing = True
        self._stop_lanes()
        if answer is None:
            digest = self.request.digest
            assert digest is not None
            self._expected = {digest.algorithm: digest}
        size = store.size_of_existing()
        if answer is not None and answer.complete not in (None, size):
            self.fail(
                DestinationExists(
                    f"{store.path} exists and has {size} bytes, the remote file has "
                    f"{answer.complete}; choose on_exists: overwrite or rename"
                )
            )
            return
        self.total_bytes = size
        if not self._expected:
            self._finish_reused(None)
            return
        self.phase = "verifying"
        self._crew.verify(Hash(self.number, store.path, list(self._expected)))
        self._crew.verify(Advance(self.number, size, True))

    def _compared(self, wrong: Digest | None, digests: dict[str, str]) -> None:
        assert self._store is not None
        if wrong is None:
            self._finish_reused(self._verified())
            return
        self.fail(
            DestinationExists(
                f"{self._store.path} exists with other content: its {wrong.algorithm} "
                f"is {digests[wrong.algorithm]}, expected {wrong.hex}; choose "
                "on_exists: overwrite or rename"
            )
        )

    def _finish_reused(self, checksum: str | None) -> None:
        assert self._store is not None
        self.path = self._store.path
        self.total_bytes = self.resumed_bytes = self._store.size_of_existing()
        self._end(Outcome(kind="completed", checksum=checksum))

    # --- the end ----------------------------------------------------------------------

    def _publish(self, checksum: str | None) -> None:
        self.phase = "publishing"
        store, size = self._store, self.total_bytes or 0
        assert store is not None
        overwrite = self.request.on_exists == "overwrite"
        self._offload(
            lambda: store.publish(size, overwrite=overwrite),
            lambda _: self._end(Outcome(kind="completed", checksum=checksum)),
        )

    def _end(self, outcome: Outcome) -> None:
        """Begin to end; the lanes write what they hold first."""
        if self.outcome is not None:
            return
        if self._ending is None or outcome.kind == "discarded":
            self._ending = outcome
        self._restarting = None
        self._stop_lanes()
        if not self._lanes and not self._offloaded:
            self._close()
        else:
            self._crew.call_later(_STOP_SECONDS, self._give_up_lanes)

    def _stop_lanes(self) -> None:
        for lane in self._lanes:
            self._crew.send(lane, Stop(lane))

    def _close(self) -> None:
        """Free everything and report the end."""
        if self.outcome is not None:
            return
        assert self._ending is not None
        self.outcome = self._ending
        self._crew.verify(Drop(self.number))
        if self._store is not None:
            try:
                if self._discarding and not self._store.published:
                    self._store.discard()
            except SegdlError as error:
                self.outcome = Outcome(kind="discarded", error=error)
            self._store.close()
        self.phase = "done"
        self._crew.ended(self)

    def _offload(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._offloaded += 1

        def back(result: Any, error: SegdlError | None) -> None:
            self._offloaded -= 1
            if self._ending is not None:
                if error is None and self.phase == "publishing":
                    done(result)
                    self._ending = Outcome(kind="completed")
                if not self._lanes and not self._offloaded:
                    self._close()
            elif error is not None:
                self.fail(error)
            else:
                done(result)

        self._crew.offload(work, back)


def _plan_of(found: Found) -> Plan:
    """Make the plan of what an earlier run left."""
    size = found.header.size
    assert size is not None
    done = [ByteRange(p.offset, p.offset + p.length) for p in found.accepted]
    return Plan(size, found.header.piece, done)


def _connections(wanted: int | str) -> int:
    return AUTO_CONNECTIONS if isinstance(wanted, str) else wanted
