"""One task's way from URL to file: the state machine between store, lanes and digests.

    examining ─> probing ─> preparing ─> (checking) ─> transferring ─> verifying
    (disk)       (a held    (disk:       (pieces an    (lanes)           │
       │          request)   part and     earlier run                publishing
       │                     manifest)    left)                         │
       └── a destination that exists ─> comparing ────────────────────> ended

    any of them ─> lanes stop ─┬─> ended     (pause, cancel, failure, shutdown)
                               └─> probing   (the remote file changed, another mirror)

A job lives on the scheduler's thread, and waits for nothing: what waits for the disk
goes through `crew.offload`, requests through its lanes, digests to the verifier.
Only one helper thread is at work on a job's files at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from segdl import _fs
from segdl._crew import Crew, Outcome
from segdl._destination import Destination
from segdl._headers import Validator
from segdl._lanes import FIRST_BYTES, Lanes
from segdl._manifest import Piece
from segdl._messages import Answered, PartRef
from segdl._plan import Plan, piece_size
from segdl._ranges import ByteRange
from segdl._request import Request
from segdl._retry import Action, with_advice
from segdl._verdicts import Verdicts
from segdl._verification import Verification
from segdl.config import EngineConfig
from segdl.errors import (
    DestinationExists,
    ProtocolError,
    SegdlError,
    StorageError,
    TransferError,
)

# A 200 to a range is asked again so often: caches do that on a miss.
_WHOLE_ANSWERS = 2
_CHECKPOINT_SECONDS = 5.0


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
        began: Monotonic time of its start.
        outcome: How it ended, None while it runs.
        lanes: Its requests.
        destination: Its files.
        verdicts: Takes what the verifier answers.
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
        self.began = crew.now()
        self.outcome: Outcome | None = None
        self.lanes = Lanes(self, request, config, crew)
        self._config = config
        self._crew = crew
        self._verification = Verification(
            self, crew, request.digest, enabled=config.verify_hash
        )
        self.verdicts = Verdicts(self, crew, self._verification)
        self.destination = self._new_destination()
        self._answer: Answered | None = None
        self._whole_answers = 0
        self._fresh = False  # probe from byte 0, and expect nothing
        self._changed = False  # the remote file did, once
        self._checkpoints = False
        self._after_stop: Callable[[], None] = self._nothing
        self._ending: Outcome | None = None
        self._closing = False
        self._publishable = True
        self._offloaded = 0
        self._when_idle: list[Callable[[], None]] = []

    # --- for the engine ---------------------------------------------------------------

    @property
    def downloaded_bytes(self) -> int:
        """Bytes that are in the file."""
        if self.outcome is not None and self.outcome.kind == "completed":
            return self.total_bytes or 0
        if self.lanes.plan is not None:
            return self.lanes.plan.received_bytes
        return self.lanes.stream_bytes if self.lanes.whole else self.resumed_bytes

    @property
    def is_ending(self) -> bool:
        """Whether how it ends is decided, so that nothing new is begun."""
        return self._ending is not None

    @property
    def verified(self) -> bool:
        """Whether a digest of the whole file will be compared."""
        return bool(self._verification)

    def start(self) -> None:
        """Begin, on disk: what is there already decides what is asked for."""
        if self.request.new_url is not None:
            self._ask_for_link(self._got_first_link)
        else:
            self.offload(self.destination.examine, self._examined)

    def stop(self) -> None:
        """End in good order; what is there stays resumable."""
        self._end(Outcome(kind="stopped"))

    def hold(self) -> bool:
        """
        Publish nothing from now on: `stop` or `discard` will follow.

        Returns:
            False when it is too late for that.
        """
        if self.phase == "publishing":
            return False
        self._publishable = False
        return True

    def abandon(self) -> None:
        """Let go of the files; the scheduler has ended, and nothing else will."""
        if self.destination.is_open:
            with suppress(StorageError):  # nobody is left to be told
                self.destination.store.close()

    def discard(self) -> None:
        """End, and remove part and manifest."""
        self._end(Outcome(kind="discarded"))

    def fail(self, error: SegdlError) -> None:
        """End with an error; what is there stays resumable."""
        self._end(Outcome(kind="failed", error=error))

    # --- examining --------------------------------------------------------------------

    def _new_destination(self) -> Destination:
        return Destination(
            self.request,
            self._config.durability,
            verified=self._verification.given is not None,
        )

    def _got_first_link(self, request: Request) -> None:
        self._use_link(request)
        self.destination = self._new_destination()
        self.offload(self.destination.examine, self._examined)

    def _examined(self, _: None) -> None:
        destination, given = self.destination, self._verification.given
        self._report_dropped()
        if self.request.filename is not None:
            self.path = destination.store.path
        if destination.published_before and given is None:
            self.reuse(None)
        elif given is not None and (destination.published_before or destination.taken):
            self.compare_existing()
        else:
            self.probe_again()

    def _report_dropped(self) -> None:
        store = self.destination.store
        if store.dropped is not None:
            self.report_retry(store.dropped)
            store.dropped = None

    # --- probing ----------------------------------------------------------------------

    def probe_again(self) -> None:
        """Ask for the first missing bytes; the answer's head tells the rest."""
        if self._ending is not None:
            return
        self.phase = "probing"
        self._answer = None
        found = self.destination.found
        if self._fresh or found is None or not self.destination.resumable(found):
            self.lanes.open_probe(None, complete=None, validator=None, if_range=None)
            return
        validator = found.header.validator
        size = found.header.size or 0
        # With nothing missing one byte is enough to compare the validator.
        plan = found.plan(hoping=True)
        missing = next(plan.missing(), ByteRange(max(0, size - 1), size))
        end = min(missing.end, missing.begin + FIRST_BYTES)
        missing = ByteRange(missing.begin, end)
        self.lanes.open_probe(
            missing,
            complete=found.header.size,
            validator=validator,
            # Some origins mishandle If-Range: one that answered 200 is asked without.
            if_range=None if self._whole_answers else validator.if_range(),
        )

    def probe_answered(self, answer: Answered) -> None:
        """Take the head of the probe's answer."""
        if answer.ranges or self._accepts_whole(answer):
            self._answer = answer
            self.offload(
                lambda: self.destination.prepare(
                    answer,
                    whole=self.lanes.whole,
                    mirror=self.lanes.sources.on_mirror,
                    conditional=not (self._fresh or self._whole_answers),
                ),
                self._prepared,
            )

    def _accepts_whole(self, answer: Answered) -> bool:
        """Decide about a 200 to a range; False when it is refused, or asked again."""
        if self._whole_answers < _WHOLE_ANSWERS and answer.accepts_ranges:
            self._whole_answers += 1
            self._stop_then(self.probe_again)
            return False
        if not answer.framed and self._verification.given is None:
            self.fail(
                ProtocolError(
                    "the origin ends its answer by closing the connection, so a cut "
                    "can't be told from the end; give a checksum to accept it"
                )
            )
            return False
        if not self.lanes.whole:
            self.lanes.whole = True
            if self.destination.found is not None and not self._fresh:
                # The answer is for the middle of the file: ask for all of it.
                self._fresh = True
                self._stop_then(self.probe_again)
                return False
        return True

    # --- preparing --------------------------------------------------------------------

    def _prepared(self, _: None) -> None:
        destination, answer = self.destination, self._answer
        assert answer is not None
        found, self.path = destination.found, destination.store.path
        self.total_bytes = answer.complete
        # What the first URL stated of its file, a mirror must keep.
        further = found is not None or self.lanes.sources.on_mirror
        known = [*destination.digests, *answer.digests]  # the first one counts
        self._verification.expect(known, further=further)
        self._report_dropped()
        if destination.taken or destination.published_before:
            self.compare_existing()
        elif found is not None and found.doubtful:
            self.verdicts.check(found.doubtful)
        else:
            self.transfer()

    def transfer(self) -> None:
        """Start to transfer."""
        part, answer = self.destination.part, self._answer
        assert answer is not None
        plan, found = None, self.destination.found
        validator = Validator.from_json(answer.validator)
        if found is not None:
            plan, known = found.plan(), found.header.validator
            if known.disagreement(validator) is None:
                validator = known.merged(validator)
        elif answer.complete is not None:
            plan = Plan(answer.complete, piece_size(answer.complete))
        self.phase = "transferring"
        self.resumed_bytes = 0 if plan is None else plan.done_bytes
        if self.resumed_bytes:
            self._crew.event(self, "resumed", {"bytes": self.resumed_bytes})
        self._verification.start(part.path)
        if self._config.durability == "checkpoint" and not self._checkpoints:
            self._checkpoints = True
            self._crew.call_later(self, _CHECKPOINT_SECONDS, self._checkpoint)
        self.lanes.begin(plan, self._part_ref(part, plan), validator)
        self._advance()

    def _part_ref(self, part: _fs.PartFile, plan: Plan | None) -> PartRef:
        size = 0 if plan is None else plan.size
        direct = _fs.preferred_io(
            part.directory,
            size,
            requested=self._config.io,
            will_verify=bool(self._verification),
        )
        device, inode = part.identity
        piece = piece_size(size) if plan is None else plan.piece
        return PartRef(part.path, device, inode, direct, piece)

    # --- transferring -----------------------------------------------------------------

    def pieces_written(self, pieces: list[Piece]) -> None:
        """Record pieces; the verifier may read them from now on."""
        if self._closing or not self.destination.is_open:
            return
        try:
            self.destination.store.record(pieces)
        except SegdlError as error:
            self.fail(error)
            return
        self._advance()

    def _advance(self) -> None:
        if self.lanes.plan is not None:
            self._verification.advance(self.lanes.plan.prefix)

    def _checkpoint(self) -> None:
        """Have what is recorded so far put onto the disk, every few seconds."""
        if self._ending is not None:
            return
        self._crew.call_later(self, _CHECKPOINT_SECONDS, self._checkpoint)
        if self.phase == "transferring" and not self._offloaded:
            store = self.destination.store
            covered = store.recorded
            self.offload(lambda: store.checkpoint(covered), lambda _: None)

    def source_failed(self, error: SegdlError, action: Action) -> None:
        """Start over when the file changed once, turn to a mirror, or fail."""
        if action is Action.CHANGED and not self._changed:
            self._changed = True
            self.report_retry(f"{error}; starting over")
            self.stream_broke()
        elif isinstance(error, TransferError) and self.lanes.turn_to_mirror():
            self._changed = False
            self._whole_answers = 0
            self.report_retry(f"{error}; going on with a mirror")
            self.stream_broke()
        else:
            self.fail(self._advised(error))

    def report_retry(
        self, reason: str, attempt: int = 0, delay_seconds: float = 0.0
    ) -> None:
        """Tell the users of events why something is asked for again."""
        fields = {"reason": reason, "attempt": attempt, "delay": delay_seconds}
        self._crew.event(self, "retry", fields)

    def _advised(self, error: SegdlError) -> SegdlError:
        """Say what to do about a link that has expired, with much of the file there."""
        known = self.lanes.sources.base.validator or Validator()
        resumable = known.is_strong or self._verification.given is not None
        if self.downloaded_bytes and resumable and not self.lanes.whole:
            return with_advice(error, self.destination.store.path)
        return error

    def renew_link(self) -> None:
        """Have the caller's function make a new link, for all lanes."""
        self._ask_for_link(self._use_link)

    def _use_link(self, request: Request) -> None:
        self.request = request
        self.lanes.use_link(request)

    def _ask_for_link(self, done: Callable[[Request], None]) -> None:
        """Call the caller's function, which may take long: nothing waits for it."""

        def back(request: Request, error: SegdlError | None) -> None:
            if self._ending is not None:
                return
            if error is not None:
                self.fail(error)
            else:
                done(request)

        self._crew.offload(self, self.request.renewed, back)

    def pieces_doubted(self, doubted: Callable[[int], bool]) -> None:
        """Have pieces fetched again that a source brought which can't be trusted."""
        self.verdicts.doubt(doubted)

    def forget(self, doubted: Callable[[int], bool]) -> list[Piece]:
        """Drop the records of pieces, by their offset."""
        store = self.destination.store
        rows = [(p.offset, p.length) for p in store.pieces() if doubted(p.offset)]
        try:
            return store.forget(rows) if rows else []
        except SegdlError as error:
            if self._ending is not None:
                self._ending = replace(self._ending, error=error)
            self.fail(error)
            return []

    def fetch_again(self, pieces: list[Piece]) -> None:
        """Fetch pieces whose records were dropped."""
        plan = self.lanes.plan
        if plan is None or not pieces:
            return
        plan.forget((piece.offset, piece.length) for piece in pieces)
        self.phase = "transferring"
        self._verification.start(self.destination.part.path)
        self.lanes.fill()

    def stream_broke(self) -> None:
        """Probe again, from byte 0; what the new answer fits to is kept."""
        if self._ending is None:
            self._fresh = True
            self._stop_then(lambda: self.once_idle(self._start_over))

    def _start_over(self) -> None:
        """All lanes have stopped: look at what is there, as at the start."""
        self.phase = "probing"
        self.total_bytes = None
        self.resumed_bytes = 0
        self.lanes.plan = None
        self._verification.drop()
        if self.destination.store.part is None:
            self.probe_again()
        else:
            again = self.destination.look_again
            self.offload(again, lambda _: self.probe_again())

    # --- verifying --------------------------------------------------------------------

    def all_written(self, end: int) -> None:
        """All bytes are there: compare their digests, when some are known."""
        try:
            self.request.check_size(end, ended=False)
        except SegdlError as error:
            self.fail(error)
            return
        self.total_bytes = end
        self.phase = "verifying"
        if self._verification:
            self._verification.finish(self.destination.part.path, end)
        else:
            self.publish(None)

    # --- a destination that exists ----------------------------------------------------

    def compare_existing(self) -> None:
        """Find out whether the file that is there is the one that is wanted."""
        store, answer = self.destination.store, self._answer
        self._stop_then(self._nothing)
        size = store.size_of_existing()
        if answer is not None and answer.complete != size:
            length = "unknown" if answer.complete is None else str(answer.complete)
            if answer.complete is not None or not self._verification:
                self.fail(
                    DestinationExists(
                        f"{store.path} exists and has {size} bytes, the length of the "
                        f"remote file is {length}; choose on_exists: overwrite or "
                        "rename"
                    )
                )
                return
        self.total_bytes = size
        if not self._verification:
            self.reuse(None)
            return
        self.phase = "verifying"
        self.verdicts.compare(store.path, size)

    def reuse(self, checksum: str | None) -> None:
        """End with the file that was there."""
        store = self.destination.store
        self.path = store.path
        self.total_bytes = self.resumed_bytes = store.size_of_existing()
        self._end(Outcome(kind="completed", checksum=checksum))

    # --- the end ----------------------------------------------------------------------

    def publish(self, checksum: str | None) -> None:
        if not self._publishable:
            return
        self.phase = "publishing"
        store, size = self.destination.store, self.total_bytes or 0
        overwrite = self.request.on_exists == "overwrite"
        completed = Outcome(kind="completed", checksum=checksum)

        def published(_: str) -> None:
            if self._ending is None or self._ending.kind != "discarded":
                self._ending = completed  # also when it was to stop meanwhile
            self._end(completed)

        def work() -> str:
            return store.publish(size, overwrite=overwrite)

        def begin() -> None:
            plan = self.lanes.plan
            # Pieces may have been doubted while a helper was at work on the store.
            if plan is None or plan.finished:
                self.offload(work, published, final=True)

        self.once_idle(begin)

    def _end(self, outcome: Outcome) -> None:
        """Begin to end: the lanes stop, and write what they hold."""
        if self.outcome is not None:
            return
        if self._ending is None or outcome.kind == "discarded":
            self._ending = outcome
        self._stop_then(self._close)

    def _stop_then(self, call: Callable[[], None]) -> None:
        """Stop all lanes, then call; a later call of this one counts instead."""
        self._after_stop = call
        self.lanes.stop()

    def lanes_gone(self) -> None:
        """All lanes have stopped."""
        call, self._after_stop = self._after_stop, self._nothing
        call()

    def _nothing(self) -> None:
        """What follows a stop that nothing waits for."""

    def _close(self) -> None:
        """Free everything, once no helper thread is at work; then report the end."""
        if self._closing or self._offloaded or len(self.lanes):
            return
        assert self._ending is not None
        self._closing = True
        self._verification.drop()
        destination = self.destination
        if not destination.is_open or destination.store.published:
            self._report(self._ending)
            return
        if self._ending.kind != "discarded":
            self.verdicts.drop_doubted()
        store = destination.store

        def free() -> Outcome:
            ending = self._ending  # as late as possible: a discard may come yet
            assert ending is not None
            store.end(discard=ending.kind == "discarded" and destination.owned)
            return ending

        def freed(ending: Outcome | None, error: SegdlError | None) -> None:
            store.close()  # again, where no helper thread could be had
            assert self._ending is not None
            self._report(ending or replace(self._ending, error=error))

        # Removing a large file takes its time.
        self._crew.offload(self, free, freed)

    def _report(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.phase = "done"
        self._crew.ended(self)

    def once_idle(self, call: Callable[[], None]) -> None:
        """Call when no helper thread is at work on the store, unless the job ends."""
        if self._ending is not None:
            self._close()
        elif self._offloaded:
            self._when_idle.append(call)
        else:
            call()

    def offload(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        *,
        final: bool = False,
    ) -> None:
        """
        Run `work` on a helper thread, then `done` here.

        Args:
            work: What may wait for the disk.
            done: Called with its result; not when the job ends meanwhile.
            final: Call it also then.
        """
        self._offloaded += 1

        def back(result: Any, error: SegdlError | None) -> None:
            self._offloaded -= 1
            if error is None and (final or self._ending is None):
                done(result)
            elif error is not None and self._ending is None:
                self.fail(error)
            calls, self._when_idle = self._when_idle, []
            for call in calls or [self._nothing]:
                self.once_idle(call)

        self._crew.offload(self, work, back)
