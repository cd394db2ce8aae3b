"""A job and its lanes through any order of answers, faults, pauses and kills.

rule ──> Play (scheduler, workers, origin, verifier) ──> Job, Lanes, Store, files
                                      after each: every byte has one state, ...
                                      at the end: the file, whole, of one version
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from test_job import CONTENT, MANIFEST, MIRROR, NAME, NEXT, PART, URL, Play

from segdl._fs import Directory
from segdl._headers import Validator
from segdl._manifest import load
from segdl._messages import PartRef, Split
from segdl.errors import (
    ConnectError,
    IncompleteTransfer,
    ProtocolError,
    RangeMismatch,
    SegdlError,
    StallError,
    StatusError,
    TransferError,
    WorkerError,
)

FAULTS: dict[str, SegdlError] = {
    "refused": ConnectError("refused"),
    "cut": IncompleteTransfer("cut"),
    "stalled": StallError("stalled"),
    "busy": StatusError("503", status=503, retry_after_seconds=2.0),
    "expired": StatusError("403", status=403),
    "wrong": RangeMismatch("another range"),
    "broken": ProtocolError("no HTTP"),
}
LOST = WorkerError("a worker died")
# Of the same length, so that nothing but the validator tells the two apart.
CHANGED = CONTENT[::-1]


class Drawn(Play):
    """A play whose lanes deliver the version that they were answered with."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.versions: dict[int, bytes] = {}
        self.shrunk: set[int] = set()

    def answer(self, lane: int) -> None:
        self.versions[lane] = self.content
        super().answer(lane)

    def deliver(self, lane: int, part: PartRef) -> None:
        now, self.content = self.content, self.versions[lane]
        try:
            super().deliver(lane, part)
        finally:
            self.content = now

    def can_write(self, lane: int) -> int:
        """How many bytes a lane may write now."""
        plan = self.job.lanes.plan
        if plan is None or lane not in plan.segments or self.part_of(lane) is None:
            return 0
        if lane not in self.answered or not self.ranges:
            return 0
        segment = plan.segments[lane]
        return segment.end - segment.begin


class DownloadMachine(RuleBasedStateMachine):
    """Plays of one file in one directory, the next one where the last one ended."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.content, self.validator = CONTENT, None
        self.play: Drawn | None = None
        self.options: dict[str, Any] = {}

    @initialize(
        connections=st.integers(1, 5),
        mirror=st.booleans(),
        verify=st.booleans(),
        retry_times=st.integers(0, 3),
    )
    def begin(
        self, connections: int, mirror: bool, verify: bool, retry_times: int
    ) -> None:
        """Begin with nothing."""
        self.options = {
            "connections": connections,
            "urls": (URL, MIRROR) if mirror else (URL,),
            "retry_times": retry_times,
            "on_exists": "overwrite",
        }
        self.verify = verify
        self.start()

    def start(self) -> None:
        """Start a play over what is there."""
        self.close()
        options = dict(self.options)
        if self.verify:
            digest = hashlib.sha256(self.content).hexdigest()
            options["checksum"] = f"sha256:{digest}"
        self.play = Drawn(self.directory, **options)
        self.play.content = self.content
        if self.validator is not None:
            self.play.validator = self.validator
        self.play.start()

    def close(self) -> None:
        """Let go of files, as a killed process does."""
        play, self.play = self.play, None
        if play is not None:
            play.verifier.close()
            play.crew.waiting.clear()
            if play.job.destination.is_open:
                play.job.destination.store.close()

    def lane(self, data: st.DataObject) -> int:
        """Draw a lane that has not ended."""
        assert self.play is not None
        return data.draw(st.sampled_from(self.play.live()))

    def running(self) -> bool:
        """Whether there is a job to go on with."""
        return self.play is not None and self.play.job.outcome is None

    def has_lanes(self) -> bool:
        """Whether it has lanes."""
        return self.running() and bool(self.play and self.play.live())

    # --- what happens -----------------------------------------------------------------

    @precondition(has_lanes)
    @rule(data=st.data(), times=st.integers(1, 8))
    def serve(self, data: st.DataObject, times: int) -> None:
        """A lane's next things: its answer, pieces, its end."""
        assert self.play is not None
        lane = self.lane(data)
        for _ in range(times):
            if lane in self.play.live() and not self.play.serve(lane):
                return

    @precondition(running)
    @rule(times=st.integers(1, 12))
    def get_on(self, times: int) -> None:
        """Things go as they should for a while."""
        assert self.play is not None
        for _ in range(times):
            if self.play.job.outcome is None:
                self.play.step()

    @precondition(running)
    @rule(times=st.integers(1, 6))
    def work(self, times: int) -> None:
        """The disk and the verifier get on with what they have."""
        assert self.play is not None
        for _ in range(times):
            if self.play.job.outcome is None and not self.play.crew.step():
                self.play.verify()

    @precondition(has_lanes)
    @rule(data=st.data(), part=st.floats(0.001, 1))
    def write_some(self, data: st.DataObject, part: float) -> None:
        """A lane writes less than a piece, as one that is about to stop does."""
        assert self.play is not None
        lane = self.lane(data)
        room = self.play.can_write(lane)
        if room:
            now, self.play.content = self.play.content, self.play.versions[lane]
            self.play.write(lane, max(1, int(min(room, 1 << 20) * part)))
            self.play.content = now

    @precondition(has_lanes)
    @rule(data=st.data(), fault=st.sampled_from(sorted(FAULTS)))
    def fail(self, data: st.DataObject, fault: str) -> None:
        """A lane fails, before or after its answer."""
        assert self.play is not None
        self.play.end(self.lane(data), FAULTS[fault])

    @precondition(has_lanes)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """A lane's worker dies."""
        assert self.play is not None
        lane = self.lane(data)
        self.play.over.add(lane)
        self.play.job.lanes.on_lost(lane, LOST)

    @precondition(has_lanes)
    @rule(data=st.data(), part=st.floats(0, 1))
    def shrink(self, data: st.DataObject, part: float) -> None:
        """A lane that was told to split gives the end of its segment up."""
        play = self.play
        assert play is not None
        lane = self.lane(data)
        asked = any(isinstance(m, Split) for m in play.crew.messages(lane))
        if asked and lane not in play.shrunk and play.can_write(lane):
            play.shrunk.add(lane)
            assert play.job.lanes.plan is not None
            segment = play.job.lanes.plan.segments[lane]
            (split,) = [m for m in play.crew.messages(lane) if isinstance(m, Split)][:1]
            # To the border after the share that it keeps, or to none.
            rest = segment.end - segment.position
            least = int(rest * split.kept)
            end = segment.position + least + int((rest - least) * part)
            play.job.lanes.on_shrunk(lane, max(end, segment.begin))

    @precondition(running)
    @rule(data=st.data(), kept=st.booleans())
    def fall_silent(self, data: st.DataObject, kept: bool) -> None:
        """All but nothing is left, and comes no more: it is asked for a second time."""
        play = self.play
        assert play is not None
        plan = play.job.lanes.plan
        if plan is None or plan.missing_bytes:
            return
        for lane in sorted(plan.segments):
            if lane in play.live() and isinstance(play.can_write(lane), int):
                play.job.lanes.on_shrunk(lane, plan.segments[lane].end)
        play.crew.pass_time(data.draw(st.floats(0.5, 3.0)))
        for _ in range(3):
            play.job.lanes.fill()
            for lane in sorted(plan.segments):
                asked = any(isinstance(m, Split) for m in play.crew.messages(lane))
                if asked and lane in play.live():
                    play.shrunk.add(lane)
                    play.job.lanes.on_shrunk(lane, plan.segments[lane].end)
        for lane in play.live():
            if play.fetch_of(lane).keep and kept and lane not in play.kept:
                play.serve(lane)
                play.serve(lane)

    @precondition(running)
    @rule(seconds=st.floats(0.01, 40))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        assert self.play is not None
        self.play.crew.pass_time(seconds)

    @precondition(lambda self: self.running() and self.validator is None)
    @rule()
    def change(self) -> None:
        """The remote file becomes another one; only once, and not with a digest."""
        if not self.verify:
            assert self.play is not None
            self.content, self.validator = CHANGED, NEXT
            self.play.content, self.play.validator = CHANGED, NEXT

    @precondition(running)
    @rule()
    def pause(self) -> None:
        """The job is stopped, and goes on."""
        assert self.play is not None
        self.play.job.stop()
        self.play.run()
        self.start()

    @precondition(running)
    @rule()
    def kill(self) -> None:
        """The whole program is killed, and goes on."""
        self.start()

    @precondition(lambda self: not self.running())
    @rule()
    def again(self) -> None:
        """After its end the same is asked for once more."""
        self.check_ended()
        self.start()

    # --- what must hold ---------------------------------------------------------------

    @invariant()
    def each_byte_has_one_state(self) -> None:
        """Done, missing, or one lane's."""
        plan = None if self.play is None else self.play.job.lanes.plan
        if plan is None:
            return
        segments = [(s.begin, s.end) for s in plan.segments.values()]
        missing = [(run.begin, run.end) for run in plan.missing()]
        done = [(run.begin, run.end) for run in plan.done()]
        end = 0
        for begin, stop in sorted(segments + missing + done):
            if begin < stop:
                assert begin == end
                end = stop
        assert end == plan.size

    @invariant()
    def no_more_lanes_than_wanted(self) -> None:
        """As many as were asked for, at most."""
        if self.play is not None:
            assert len(self.play.job.lanes) <= self.options["connections"]

    @invariant()
    def name_is_of_a_whole_file(self) -> None:
        """The final name is there for a whole file alone."""
        path = self.directory / NAME
        assert not path.exists() or path.stat().st_size == len(CONTENT)

    @invariant()
    def counts_are_sane(self) -> None:
        """No more is downloaded than there is."""
        if self.play is not None and self.play.job.total_bytes is not None:
            job = self.play.job
            assert 0 <= job.downloaded_bytes <= (job.total_bytes or 0)

    def check_recorded(self) -> None:
        """What is recorded is there, of the version that the manifest names."""
        if not (self.directory / MANIFEST).exists():
            return
        with Directory.open(self.directory, create=False) as opened:
            loaded = load(opened, MANIFEST)
        content = CHANGED if _agree(loaded.header.validator, NEXT) else CONTENT
        part = (self.directory / PART).read_bytes()
        for piece in loaded.pieces:
            end = piece.offset + piece.length
            assert part[piece.offset : end] == content[piece.offset : end]

    def teardown(self) -> None:
        """Without further faults it comes to an end; at last with the whole file."""
        try:
            if self.play is not None:
                self.finish()
        finally:
            self.close()
            shutil.rmtree(self.directory)

    def finish(self) -> None:
        """Let the play come to its end, and one more where that was a failure."""
        assert self.play is not None
        self.check_recorded()
        self.play.run()
        if not self.check_ended():
            self.start()
            self.play.run()
            assert self.check_ended()

    def check_ended(self) -> bool:
        """Check how a job ended; tell whether it completed."""
        assert self.play is not None
        outcome = self.play.job.outcome
        assert outcome is not None
        if outcome.kind == "completed":
            # Whole, and one version: of a change that no request met nothing is known.
            found = (self.directory / NAME).read_bytes()
            self.play.completed(CONTENT if found == CONTENT else self.content)
            return True
        assert isinstance(outcome.error, (TransferError, WorkerError)), outcome
        self.check_recorded()
        return False


def _agree(one: Validator, other: Validator) -> bool:
    return one.disagreement(other) is None


TestDownloadMachine = DownloadMachine.TestCase
TestDownloadMachine.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    suppress_health_check=list(HealthCheck),
)
