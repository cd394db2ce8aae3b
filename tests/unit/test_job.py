"""A job's way from URL to file, on a fake scheduler: each path, ended at each place."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from fake_crew import FakeCrew

from segdl import _fs
from segdl._digests import parse_checksum
from segdl._headers import EntityTag, Validator
from segdl._job import Job
from segdl._lanes import FIRST_BYTES
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
    Stop,
    failure_to_json,
)
from segdl._names import SafeName, checked_name
from segdl._plan import MIB
from segdl._request import Request
from segdl._store import Store
from segdl._verify import Verifier
from segdl.config import EngineConfig
from segdl.errors import (
    ConnectError,
    DestinationBusy,
    DestinationExists,
    DiskFull,
    IncompleteTransfer,
    IntegrityError,
    ProtocolError,
    RepresentationChanged,
    SegdlError,
    SizeLimitExceeded,
    StatusError,
    StorageError,
    WorkerError,
)

URL = "https://example.org/a.bin"
MIRROR = "https://mirror.example.net/a.bin"
NAME, PART, MANIFEST = "a.bin", "a.bin.part", "a.bin.segdl"
CONTENT = random.Random(3).randbytes(5 * MIB + 7)
OTHER = random.Random(4).randbytes(4 * MIB + 1)
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
WRONG = "sha256:" + "ab" * 32
STRONG = Validator(etag=EntityTag("v1", weak=False))
NEXT = Validator(etag=EntityTag("v2", weak=False))
WEAK = Validator(etag=EntityTag("v1", weak=True))
GONE = StatusError("the origin answered 404", status=404)
CRASH = WorkerError("a verify worker ended unexpectedly")


class Play:
    """
    A job whose scheduler, workers, verifier and origin the test plays.

    Attributes:
        content: What the origin has.
        validator: What the origin says about its version.
        ranges: Whether the origin answers ranges with ranges.
        faults: What the next requests end with, None to serve one.
        holding: Whether the verifier does not come to its work.
    """

    def __init__(
        self,
        directory: Path,
        *,
        filename: str | None = NAME,
        checksum: str | None = None,
        urls: tuple[str, ...] = (URL,),
        on_exists: str = "reuse",
        connections: int = 4,
        max_bytes: int | None = None,
        new_url: Callable[[], str] | None = None,
        new_link: bool = False,
        **settings: Any,
    ) -> None:
        self.directory = directory
        self.content, self.validator, self.ranges = CONTENT, STRONG, True
        self.complete = True
        self.accepts_ranges = True
        self.framed = True
        self.disposition: str | None = None
        self.stated: list[tuple[str, str, str]] = []
        self.faults: deque[SegdlError | None] = deque()
        self.holding = False
        self.crew = FakeCrew()
        request = Request(
            urls=urls,
            headers={},
            own_headers={},
            directory=str(directory),
            filename=None if filename is None else checked_name(filename),
            digest=None if checksum is None else parse_checksum(checksum),
            on_exists=on_exists,
            connections=connections,
            max_bytes=max_bytes,
            new_url=new_url,
            new_link=new_link,
        )
        config = EngineConfig(**{"durability": "none", "retry_delay": 1.0, **settings})
        self.job = Job(1, request, config, self.crew)
        self.answered: set[int] = set()
        self.kept: set[int] = set()
        self.over: set[int] = set()
        self.phases = [self.job.phase]
        self.said: deque[Message] = deque()
        self.verifier = Verifier(self.said.append)
        self.heard = 0

    # --- driving ----------------------------------------------------------------------

    def start(self) -> Play:
        """Start the job."""
        self.job.start()
        return self

    def run(self, until: Callable[[Play], bool] | None = None) -> Play:
        """Let things happen until the job has ended, or a condition holds."""
        for _ in range(2000):
            if self.job.phase != self.phases[-1]:
                self.phases.append(self.job.phase)
            if self.job.outcome is not None if until is None else until(self):
                return self
            if not self.step():
                assert self.crew.timers, f"nothing happens in {self.job.phase}"
                self.crew.pass_time(max(0, self.crew.timers[0][0] - self.crew.time))
        raise AssertionError("it does not come to an end")

    def step(self) -> bool:
        """Let one thing happen; False when everybody waits."""
        return self.crew.step() or any(map(self.serve, self.live())) or self.verify()

    def live(self) -> list[int]:
        """Give the lanes that have not ended."""
        return [f.lane for f in self.crew.fetches if f.lane not in self.over]

    # --- the origin and the workers ---------------------------------------------------

    def fetch_of(self, lane: int) -> Fetch:
        """Give the request of a lane."""
        return next(f for f in self.crew.fetches if f.lane == lane)

    def serve(self, lane: int) -> bool:
        """Do the next thing of a lane; False when it waits."""
        fetch, messages = self.fetch_of(lane), self.crew.messages(lane)
        part = self.part_of(lane)
        if Stop(lane) in messages:
            self.end(lane)
        elif lane not in self.answered:
            self.answer(lane)
        elif part is None:
            return self.keep(lane)
        elif not self.ranges and fetch.begin:
            self.end(lane, ProtocolError("another answer than the first one"))
        else:
            self.deliver(lane, part)
        return True

    def keep(self, lane: int) -> bool:
        """Have a lane receive all into memory, if it may; False when nothing came."""
        fetch = self.fetch_of(lane)
        if not fetch.keep or lane in self.kept:
            return False
        self.kept.add(lane)
        self.job.lanes.on_progress(lane, fetch.begin, fetch.end - fetch.begin)
        self.job.lanes.on_kept(lane)
        return True

    def part_of(self, lane: int) -> PartRef | None:
        """Tell where a lane may write, None as long as it is held."""
        accepted = [m for m in self.crew.messages(lane) if isinstance(m, Accept)]
        return accepted[0].part if accepted else self.fetch_of(lane).part

    def answer(self, lane: int) -> None:
        """Answer a request, or fail it."""
        self.answered.add(lane)
        fetch, size = self.fetch_of(lane), len(self.content)
        fault = self.faults.popleft() if self.faults else None
        known = Validator.from_json(fetch.validator) if fetch.validator else None
        if fault is None and (
            fetch.complete not in (None, size)
            or (known is not None and known.disagreement(self.validator))
        ):
            fault = RepresentationChanged("the remote file changed")
        if fault is not None:
            self.end(lane, fault)
            return
        answer = Answered(
            lane=lane,
            url=fetch.url,
            ranges=self.ranges,
            complete=size if self.complete else None,
            validator=self.validator.to_json(),
            disposition=self.disposition,
            digests=self.stated,
            accepts_ranges=self.accepts_ranges,
            framed=self.framed,
        )
        self.job.lanes.on_answered(answer)

    def deliver(self, lane: int, part: PartRef) -> None:
        """Write the next piece of a lane, or end it."""
        plan = self.job.lanes.plan
        if plan is None:
            accepted = [m for m in self.crew.messages(lane) if isinstance(m, Accept)]
            content = self.content[: accepted[0].end]
            self.write_at(part, 0, content)
            pieces = [(lane, 0, len(content), "0" * 16)]
            self.job.lanes.on_pieces(pieces)
            self.end(lane, position=len(content))
            return
        segment = plan.segments[lane]
        if segment.begin == segment.end:
            self.end(lane)
            return
        begin = segment.begin
        end = min(segment.end, (begin // part.piece + 1) * part.piece)
        self.write(lane, end - begin)

    def write(self, lane: int, count: int) -> None:
        """Write and record the next bytes of a lane."""
        plan, part = self.job.lanes.plan, self.part_of(lane)
        assert plan is not None
        assert part is not None
        begin = plan.segments[lane].begin
        data = self.content[begin : begin + count]
        self.write_at(part, begin, data)
        xxh3 = xxhash.xxh3_64_hexdigest(data)
        self.job.lanes.on_pieces([(lane, begin, count, xxh3)])
        received = begin + count - self.fetch_of(lane).begin
        self.job.lanes.on_progress(lane, begin + count, max(received, 0))

    def write_at(self, part: PartRef, offset: int, data: bytes) -> None:
        """Write to the part file, if it is the one that is meant."""
        found = os.stat(part.path)
        assert (found.st_dev, found.st_ino) == (part.device, part.inode)
        with open(part.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def end(
        self, lane: int, error: SegdlError | None = None, position: int | None = None
    ) -> None:
        """End a lane."""
        self.over.add(lane)
        plan, begin = self.job.lanes.plan, self.fetch_of(lane).begin
        if position is None:
            segment = None if plan is None else plan.segments.get(lane)
            position = begin if segment is None else segment.position
        row = None if error is None else failure_to_json(error)
        received = max(0, position - begin)
        self.job.lanes.on_ended(Ended(lane, position, received, row))

    # --- the verifier -----------------------------------------------------------------

    def verify(self) -> bool:
        """Do the verifier's work, and tell one result; False when it waits."""
        if self.holding:
            return False
        while self.heard < len(self.crew.verified):
            self.verifier.handle(self.crew.verified[self.heard])
            self.heard += 1
        while self.verifier.busy:
            self.verifier.turn()
        if not self.said:
            return False
        message = self.said.popleft()
        if isinstance(message, Hashed):
            self.job.verdicts.on_hashed(message)
        elif isinstance(message, Checked):
            self.job.verdicts.on_checked(message)
        return True

    def lose_verifier(self) -> None:
        """Have the verifier die, with all it knows."""
        self.verifier.close()
        self.verifier = Verifier(self.said.append)
        self.heard = len(self.crew.verified)
        self.said.clear()
        self.job.verdicts.on_lost(CRASH)

    # --- what is there ----------------------------------------------------------------

    def kinds(self) -> list[str]:
        """Give the kinds of the events told."""
        return [kind for kind, _ in self.crew.events]

    def completed(self, content: bytes = CONTENT, name: str = NAME) -> None:
        """Expect a job that completed, and its file alone."""
        outcome = self.job.outcome
        assert outcome is not None
        assert (outcome.error, outcome.kind) == (None, "completed")
        path = self.directory / name
        assert path.read_bytes() == content
        assert (self.job.path, self.job.phase) == (str(path), "done")
        assert self.job.total_bytes == self.job.downloaded_bytes == len(content)
        self.ended()

    def failed(self, kind: type[SegdlError], match: str = "") -> SegdlError:
        """Expect a job that failed, and give its error."""
        outcome = self.job.outcome
        assert outcome is not None
        assert outcome.kind == "failed"
        assert type(outcome.error) is kind
        assert match in str(outcome.error)
        self.ended()
        return outcome.error

    def ended(self) -> None:
        """Expect that the end was told once, and nothing happens any more."""
        assert self.crew.over == [self.job]
        fetches, sent = len(self.crew.fetches), len(self.crew.sent)
        verified = [m for m in self.crew.verified if not isinstance(m, Drop)]
        self.crew.pass_time(1000)
        self.crew.settle()
        assert (len(self.crew.fetches), len(self.crew.sent)) == (fetches, sent)
        assert [m for m in self.crew.verified if not isinstance(m, Drop)] == verified
        assert (self.job.phase, self.crew.over) == ("done", [self.job])


def lanes_of(play: Play, url: str) -> list[int]:
    """Give the lanes of a source that have work."""
    plan = play.job.lanes.plan
    if plan is None:
        return []
    live = (lane for lane in play.live() if lane in plan.segments)
    return [lane for lane in live if play.fetch_of(lane).url == url]


MakePlay = Callable[..., Play]


@pytest.fixture
def make_play(tmp_path: Path) -> Iterator[MakePlay]:
    """Give a function that makes plays in one directory, closed at the end."""
    made: list[Play] = []

    def making(**options: Any) -> Play:
        made.append(Play(tmp_path, **options))
        return made[-1]

    yield making
    for play in made:
        play.verifier.close()
        if play.job.destination.is_open:
            play.job.destination.store.close()


def names(directory: Path) -> list[str]:
    """List a directory."""
    return sorted(os.listdir(directory))


def in_phase(phase: str) -> Callable[[Play], bool]:
    """Give the condition that the job is in a phase."""
    return lambda play: play.job.phase == phase


def recorded(count: int) -> Callable[[Play], bool]:
    """Give the condition that so many bytes are recorded."""

    def condition(play: Play) -> bool:
        plan = play.job.lanes.plan
        return plan is not None and plan.done_bytes >= count

    return condition


def left_behind(make_play: MakePlay, count: int = 2 * MIB, **options: Any) -> int:
    """Have an earlier run leave some bytes, and give how many."""
    play = make_play(**{"connections": 1, **options}).start().run(recorded(count))
    assert play.job.lanes.plan is not None
    done: int = play.job.lanes.plan.done_bytes
    play.job.stop()
    play.run()
    return done


# --- from nothing to the file ---------------------------------------------------------


def test_from_url_to_file(tmp_path: Path, make_play: MakePlay) -> None:
    """A file is probed, fetched over several lanes and published."""
    play = make_play().start().run()
    play.completed()
    assert names(tmp_path) == [NAME]
    assert play.phases == ["probing", "transferring", "publishing", "done"]
    assert len(play.crew.fetches) == 4
    assert (play.job.outcome.checksum, play.job.resumed_bytes) == (None, 0)  # type: ignore[union-attr]  # it has ended
    assert play.kinds() == []


@pytest.mark.parametrize("durability", ["none", "publish", "checkpoint"])
def test_durability(make_play: MakePlay, durability: str) -> None:
    """With each durability a file completes."""
    make_play(durability=durability).start().run().completed()


def test_an_empty_file(make_play: MakePlay) -> None:
    """A file without a byte completes."""
    play = make_play(checksum="sha256:" + hashlib.sha256(b"").hexdigest())
    play.content = b""
    play.start().run().completed(b"")


def test_what_is_known_when(make_play: MakePlay) -> None:
    """Path, length and bytes are known as soon as they can be."""
    play = make_play().start()
    job = play.job
    assert (job.path, job.total_bytes, job.downloaded_bytes) == (None, None, 0)
    play.crew.settle()
    assert job.path == str(play.directory / NAME)
    play.run(recorded(2 * MIB))
    assert job.total_bytes == len(CONTENT)
    assert job.downloaded_bytes == 2 * MIB
    play.run(in_phase("publishing"))
    assert job.downloaded_bytes == len(CONTENT)


def test_the_name_of_the_url(make_play: MakePlay) -> None:
    """Without a name, the URL's is taken."""
    make_play(filename=None).start().run().completed()


def test_the_name_of_the_answer(tmp_path: Path, make_play: MakePlay) -> None:
    """Without a name, the answer's is taken before the URL's."""
    play = make_play(filename=None)
    play.disposition = 'attachment; filename="../b.bin"'
    play.start().run().completed(name="b.bin")
    assert names(tmp_path) == ["b.bin"]


def test_an_unfinished_file_of_the_urls_name(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """What another URL left under the guessed name is neither used nor removed."""
    left_behind(make_play, urls=("https://example.org/x/a.bin",))
    before = (tmp_path / PART).read_bytes()
    play = make_play(filename=None)
    play.disposition = "attachment; filename=b.bin"
    play.start().run().completed(name="b.bin")
    assert names(tmp_path) == [PART, MANIFEST, "b.bin"]
    assert (tmp_path / PART).read_bytes() == before


# --- digests --------------------------------------------------------------------------


def test_a_given_digest(make_play: MakePlay) -> None:
    """A given digest is verified, and told."""
    play = make_play(checksum=SHA256).start().run()
    play.completed()
    assert play.phases == [
        "probing",
        "transferring",
        "verifying",
        "publishing",
        "done",
    ]
    assert play.job.outcome.checksum == SHA256  # type: ignore[union-attr]  # it has ended


def test_a_stated_digest(make_play: MakePlay) -> None:
    """What the server states is verified, and told."""
    play = make_play()
    play.stated = [("sha256", SHA256.partition(":")[2], "Repr-Digest")]
    play.start().run().completed()
    assert play.job.outcome.checksum == SHA256  # type: ignore[union-attr]  # it has ended


def test_verifying_is_switched_off(make_play: MakePlay) -> None:
    """With verify_hash off, no digest is compared."""
    play = make_play(checksum=WRONG, verify_hash=False).start().run()
    play.completed()
    assert not any(isinstance(m, Hash) for m in play.crew.verified)


def test_wrong_content(tmp_path: Path, make_play: MakePlay) -> None:
    """Content with another digest never gets the name; it is kept aside."""
    play = make_play(checksum=WRONG).start().run()
    error = play.failed(IntegrityError, str(tmp_path / "a.bin.corrupt"))
    assert isinstance(error, IntegrityError)
    assert (error.algorithm, "sha256:" + error.expected) == ("sha256", WRONG)
    assert "sha256:" + error.actual == SHA256
    assert names(tmp_path) == ["a.bin.corrupt"]
    assert (tmp_path / "a.bin.corrupt").read_bytes() == CONTENT


def test_the_digest_of_nothing(make_play: MakePlay) -> None:
    """An expected digest of an empty file is explained."""
    play = make_play(checksum="sha256:" + hashlib.sha256(b"").hexdigest())
    play.start().run().failed(IntegrityError, "the digest of an empty file")


def test_wrong_content_that_cannot_be_kept(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When wrong content can't be put aside, the mismatch is what is told."""

    def failing(_store: Store) -> str:
        raise StorageError("no room for it")

    monkeypatch.setattr(Store, "set_aside", failing)
    play = make_play(checksum=WRONG).start().run()
    play.failed(IntegrityError, "no room for it")


def damage(play: Play, offset: int) -> None:
    """Change a byte of the part file behind the job's back."""
    with open(play.directory / PART, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_a_piece_that_the_disk_changed(make_play: MakePlay) -> None:
    """With the wrong digest, the pieces that changed on disk are fetched again."""
    play = make_play(checksum=SHA256).start().run(recorded(3 * MIB))
    damage(play, MIB + 5)
    fetched = len(play.crew.fetches)
    play.run().completed()
    assert play.kinds() == ["retry"]
    again = [(f.begin, f.end) for f in play.crew.fetches[fetched:]]
    assert again == [(MIB, 2 * MIB)]


def test_pieces_change_again(tmp_path: Path, make_play: MakePlay) -> None:
    """Bad pieces are fetched again once; a disk that goes on lying is a failure."""
    play = make_play(checksum=SHA256, connections=1).start().run(recorded(3 * MIB))
    damage(play, 5)
    play.run(lambda p: p.kinds() == ["retry"])
    damage(play, 2 * MIB)
    play.run().failed(IntegrityError)
    assert names(tmp_path) == ["a.bin.corrupt"]


def test_a_file_that_cannot_be_read_back(make_play: MakePlay) -> None:
    """When the digest can't be computed the job fails, and stays resumable."""
    play = make_play(checksum=SHA256).start().run(in_phase("verifying"))
    row = failure_to_json(StorageError("EIO", errno=errno.EIO))
    play.job.verdicts.on_hashed(Hashed(1, {}, row))
    play.run().failed(StorageError, "EIO")
    assert names(play.directory) == [PART, MANIFEST]


def test_pieces_that_cannot_be_read_back(make_play: MakePlay) -> None:
    """When pieces can't be compared the job fails, and stays resumable."""
    play = make_play(checksum=WRONG).start()
    play.run(lambda p: any(isinstance(m, Check) for m in p.crew.verified))
    row = failure_to_json(StorageError("EIO", errno=errno.EIO))
    play.job.verdicts.on_checked(Checked(1, [], row))
    play.run().failed(StorageError, "EIO")
    assert names(play.directory) == [PART, MANIFEST]


# --- going on with what an earlier run left -------------------------------------------


def test_a_resume(make_play: MakePlay) -> None:
    """What is recorded is not fetched again, and its version is asked for."""
    done = left_behind(make_play)
    play = make_play().start().run()
    play.completed()
    assert play.kinds() == ["resumed"]
    assert play.crew.events[0][1] == {"bytes": done}
    assert play.job.resumed_bytes == done
    assert min(f.begin for f in play.crew.fetches) == done
    probe = play.crew.fetches[0]
    assert (probe.complete, probe.if_range) == (len(CONTENT), '"v1"')
    assert probe.validator == STRONG.to_json()


def test_a_resume_without_a_name(make_play: MakePlay) -> None:
    """Without a name, an earlier run is found by its URL."""
    play = make_play(filename=None, connections=1)
    play.disposition = "attachment; filename=b.bin"
    play.start().run(recorded(2 * MIB))
    play.job.stop()
    play.run()
    play = make_play(filename=None).start().run()
    play.completed(name="b.bin")
    assert play.job.resumed_bytes == 2 * MIB


def test_a_resume_of_a_large_gap(make_play: MakePlay) -> None:
    """The first request of a resume asks for no more than a first request does."""
    play = make_play(connections=1)
    play.content = CONTENT * 5
    play.start().run(recorded(2 * MIB))
    play.job.stop()
    play.run()
    play = make_play()
    play.content = CONTENT * 5
    play.start().crew.settle()
    probe = play.crew.fetches[0]
    assert (probe.begin, probe.end) == (2 * MIB, 2 * MIB + FIRST_BYTES)
    play.run().completed(CONTENT * 5)


def test_files_that_are_abandoned(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of their close is told to nobody, and keeps no other job's open."""
    play = make_play().start().run(recorded(MIB))
    close = Store.close

    def refuse(store: Store) -> None:
        close(store)
        raise StorageError("cannot close", errno=errno.EIO)

    with monkeypatch.context() as broken:
        broken.setattr(Store, "close", refuse)
        play.job.abandon()
    assert play.job.destination.store.part is None


@pytest.mark.parametrize("checksum", [None, SHA256])
def test_a_resume_with_nothing_missing(
    make_play: MakePlay, checksum: str | None
) -> None:
    """When all is there, it is only verified and published."""
    play = make_play().start().run(in_phase("publishing"))
    play.job.stop()
    play.crew.waiting.clear()
    play.job.destination.store.close()  # as a killed process does
    play = make_play(checksum=checksum).start().run()
    play.completed()
    assert play.job.resumed_bytes == len(CONTENT)


@pytest.mark.parametrize(
    ("checksum", "resumed"), [(None, 0), (SHA256, 2 * MIB)], ids=["alone", "digest"]
)
def test_a_resume_without_a_strong_validator(
    make_play: MakePlay, checksum: str | None, resumed: int
) -> None:
    """Bytes of two runs are combined with a strong validator, or with a digest."""
    play = make_play(connections=1)
    play.validator = WEAK
    play.start().run(recorded(2 * MIB))
    play.job.stop()
    play.run()
    play = make_play(checksum=checksum)
    play.validator = WEAK
    play.start().run().completed()
    assert play.job.resumed_bytes == resumed


def test_a_resume_of_another_version(make_play: MakePlay) -> None:
    """Of a file that changed since, nothing is kept."""
    left_behind(make_play)
    play = make_play()
    play.content, play.validator = OTHER, NEXT
    play.start().run().completed(OTHER)
    assert (play.kinds(), play.job.resumed_bytes) == (["retry"], 0)


def test_a_resume_of_another_version_of_the_same_length(make_play: MakePlay) -> None:
    """A digest of the new version doesn't make the old one's pieces part of it."""
    content = CONTENT[::-1]
    left_behind(make_play)
    play = make_play(checksum="sha256:" + hashlib.sha256(content).hexdigest())
    play.content, play.validator = content, NEXT
    play.start().run().completed(content)
    assert play.job.resumed_bytes == 0


def test_an_unfinished_download_of_another_url(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """What another URL left under a given name is not thrown away."""
    left_behind(make_play, urls=("https://example.org/x/a.bin?token=s3cret",))
    before = (tmp_path / PART).read_bytes()
    play = make_play()
    play.content, play.validator = OTHER, NEXT
    error = play.start().run().failed(DestinationExists, "unfinished download of")
    assert "https://example.org/x/a.bin" in str(error)
    assert "s3cret" not in str(error)
    assert names(tmp_path) == [PART, MANIFEST]
    assert (tmp_path / PART).read_bytes() == before


def test_two_jobs_for_one_file(make_play: MakePlay) -> None:
    """A file that another job is at is refused; that one completes."""
    first = make_play().start().run(recorded(MIB))
    make_play().start().run().failed(DestinationBusy)
    first.run().completed()


@pytest.mark.parametrize("bad", [[], [0], [1], [0, 1]])
def test_doubtful_pieces(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch, bad: list[int]
) -> None:
    """After a restart of the system pieces are compared; bad ones are fetched again."""
    left_behind(make_play)
    monkeypatch.setattr(_fs, "boot_id", lambda: "another")
    play = make_play()
    for number in bad:
        damage(play, number * MIB + 9)
    play.start().run().completed()
    assert play.job.resumed_bytes == (2 - len(bad)) * MIB
    checks = [m for m in play.crew.verified if isinstance(m, Check)]
    assert [[row[:2] for row in check.pieces] for check in checks] == [
        [(0, MIB), (MIB, MIB)]
    ]


# --- the remote file changes ----------------------------------------------------------


def test_a_file_that_changes(make_play: MakePlay) -> None:
    """A file that changes is fetched anew, and never mixed with its old version."""
    play = make_play(connections=2).start().run(recorded(2 * MIB))
    play.content, play.validator = OTHER, NEXT
    lane = play.live()[0]
    play.end(lane, RepresentationChanged("the entity tag is another"))
    play.run().completed(OTHER)
    assert play.kinds() == ["retry"]
    assert "starting over" in play.crew.events[0][1]["reason"]
    assert play.phases[-3:] == ["transferring", "publishing", "done"]


def test_a_digest_of_the_old_version(make_play: MakePlay) -> None:
    """What the server stated for the old version is not expected of the new one."""
    play = make_play(connections=2)
    play.stated = [("sha256", SHA256.partition(":")[2], "Repr-Digest")]
    play.start().run(recorded(2 * MIB))
    play.content, play.validator = OTHER, NEXT
    digest = hashlib.sha256(OTHER).hexdigest()
    play.stated = [("sha256", digest, "Repr-Digest")]
    play.end(play.live()[0], RepresentationChanged("the entity tag is another"))
    play.run().completed(OTHER)
    assert play.job.outcome.checksum == f"sha256:{digest}"  # type: ignore[union-attr]  # it has ended


def test_a_false_alarm(make_play: MakePlay) -> None:
    """When the new answer is of the same version, its pieces are kept."""
    play = make_play(connections=1).start().run(recorded(2 * MIB))
    play.end(play.live()[0], RepresentationChanged("one backend said so"))
    fetched = len(play.crew.fetches)
    play.run().completed()
    assert play.job.resumed_bytes == 2 * MIB
    assert min(f.begin for f in play.crew.fetches[fetched + 1 :]) == 2 * MIB


def test_a_file_that_changes_twice(make_play: MakePlay) -> None:
    """A file that changes all the time is given up."""
    play = make_play(connections=2).start().run(recorded(2 * MIB))
    for content, validator in ((OTHER, NEXT), (CONTENT, WEAK)):
        play.content, play.validator = content, validator
        play.end(play.live()[0], RepresentationChanged("the entity tag is another"))
        if content is OTHER:
            play.run(in_phase("probing")).run(recorded(MIB))
    play.run().failed(RepresentationChanged, "another")


# --- mirrors --------------------------------------------------------------------------


def test_a_mirror(make_play: MakePlay) -> None:
    """When the URL can't serve it, a mirror does, over ranges of its own."""
    play = make_play(urls=(URL, MIRROR))
    play.faults.append(GONE)
    play.start().run().completed()
    assert [f.url for f in play.crew.fetches] == [URL, *[MIRROR] * 4]
    assert "mirror" in play.crew.events[0][1]["reason"]


@pytest.mark.parametrize(
    ("checksum", "resumed"), [(None, 0), (SHA256, 2 * MIB)], ids=["alone", "digest"]
)
def test_a_mirror_in_the_middle(
    make_play: MakePlay, checksum: str | None, resumed: int
) -> None:
    """With a digest a mirror goes on with what is there; else it starts anew."""
    play = make_play(urls=(URL, MIRROR), checksum=checksum, connections=1)
    play.start().run(recorded(2 * MIB))
    play.validator = NEXT
    play.end(play.live()[0], GONE)
    play.run().completed()
    assert play.job.resumed_bytes == resumed


def test_a_mirror_of_the_same_version(make_play: MakePlay) -> None:
    """A mirror with the same strong entity tag goes on with what is there."""
    play = make_play(urls=(URL, MIRROR), connections=1).start().run(recorded(2 * MIB))
    play.end(play.live()[0], GONE)
    play.run().completed()
    assert play.job.resumed_bytes == 2 * MIB


def test_all_mirrors_fail(make_play: MakePlay) -> None:
    """When no source can serve it, the last failure is told."""
    play = make_play(urls=(URL, MIRROR))
    play.faults.extend([GONE, StatusError("the origin answered 410", status=410)])
    play.start().run().failed(StatusError, "410")


def test_a_disk_that_fails_has_no_mirror(make_play: MakePlay) -> None:
    """A failure of the disk is not the source's: no mirror is asked."""
    play = make_play(urls=(URL, MIRROR)).start().run(recorded(MIB))
    play.end(play.live()[0], DiskFull("no room"))
    asked = len(play.crew.fetches)
    play.run().failed(DiskFull)
    assert len(play.crew.fetches) == asked


def test_a_network_that_fails(make_play: MakePlay) -> None:
    """When the attempts are used up the job fails, and stays resumable."""
    play = make_play(retry_times=2)
    play.faults.extend([ConnectError("refused")] * 3)
    play.start().run().failed(ConnectError, "refused")
    assert play.kinds() == ["retry", "retry"]
    make_play().start().run().completed()


def test_a_probe_is_tried_again(make_play: MakePlay) -> None:
    """A probe that failed and passed is no failure."""
    play = make_play()
    play.faults.extend([ConnectError("refused"), IncompleteTransfer("cut")])
    play.start().run().completed()


# --- origins without ranges -----------------------------------------------------------


def test_a_200_is_asked_again(make_play: MakePlay) -> None:
    """A cache that answers a range with 200 once is asked for the range again."""
    play = make_play()
    play.ranges = False
    play.start().run(lambda p: bool(p.answered))
    play.ranges = True
    play.run().completed()
    assert all(f.ranged for f in play.crew.fetches)
    assert len(play.crew.fetches) == 5


def test_an_origin_without_ranges(make_play: MakePlay) -> None:
    """After the third 200 one stream brings everything."""
    play = make_play()
    play.ranges = False
    play.start().run().completed()
    assert len(play.crew.fetches) == 3


def test_an_origin_that_says_it_has_no_ranges(make_play: MakePlay) -> None:
    """An origin that says so is believed at once."""
    play = make_play()
    play.ranges = play.accepts_ranges = False
    play.start().run().completed()
    assert len(play.crew.fetches) == 1


def test_a_length_that_is_not_known(make_play: MakePlay) -> None:
    """Without a length, the end of a framed body is the end of the file."""
    play = make_play(checksum=SHA256)
    play.ranges = play.accepts_ranges = play.complete = False
    play.start().run(in_phase("transferring"))
    assert play.job.total_bytes is None
    play.run().completed()


def test_a_stream_of_just_the_bytes_that_are_allowed(make_play: MakePlay) -> None:
    """A stream that ends where `max_bytes` does is whole."""
    play = make_play(checksum=SHA256, max_bytes=len(CONTENT))
    play.ranges = play.accepts_ranges = play.complete = False
    play.start().run().completed()


@pytest.mark.parametrize("urls", [(URL,), (URL, MIRROR)])
def test_a_stream_of_more_bytes_than_are_allowed(
    make_play: MakePlay, urls: tuple[str, ...]
) -> None:
    """One byte too many is taken, and ends it: no retry, no mirror, no digest."""
    limit = len(CONTENT) - MIB
    play = make_play(checksum=SHA256, max_bytes=limit, urls=urls)
    play.ranges = play.accepts_ranges = play.complete = False
    play.start().run()
    words = f"sent {limit + 1} bytes, more than the {limit} bytes of max_bytes"
    play.failed(SizeLimitExceeded, words)
    assert len(play.crew.fetches) == 1
    assert (play.directory / PART).stat().st_size == limit + 1
    assert NAME not in names(play.directory)
    assert not any(isinstance(m, Advance) and m.last for m in play.crew.verified)


@pytest.mark.parametrize("checksum", [None, SHA256])
def test_an_end_that_can_be_a_cut(make_play: MakePlay, checksum: str | None) -> None:
    """A body that only the connection ends is accepted with a digest alone."""
    play = make_play(checksum=checksum)
    play.ranges = play.accepts_ranges = play.complete = play.framed = False
    play.start().run()
    if checksum is None:
        play.failed(ProtocolError, "give a checksum")
    else:
        play.completed()


def test_wrong_content_of_a_stream(make_play: MakePlay) -> None:
    """Without a length no piece is recorded, so none can be fetched again."""
    play = make_play(checksum=WRONG)
    play.ranges = play.accepts_ranges = play.complete = False
    play.start().run().failed(IntegrityError)
    assert not any(isinstance(m, Check) for m in play.crew.verified)


def test_a_resume_where_ranges_are_gone(make_play: MakePlay) -> None:
    """A 200 for the middle of a file is not written there: all is asked for anew."""
    left_behind(make_play)
    play = make_play()
    play.ranges = play.accepts_ranges = False
    play.start().run().completed()
    assert [(f.begin, f.ranged) for f in play.crew.fetches] == [
        (2 * MIB, True),
        (0, False),
    ]
    assert play.job.resumed_bytes == 0


def test_if_range_that_is_answered_with_200(make_play: MakePlay) -> None:
    """After a 200 to If-Range, the plain range is asked for."""
    left_behind(make_play)
    play = make_play()
    play.ranges = False
    play.start().run(lambda p: bool(p.answered))
    play.ranges = True
    play.run().completed()
    assert [f.if_range for f in play.crew.fetches[:2]] == ['"v1"', None]
    assert play.job.resumed_bytes == 2 * MIB


@pytest.mark.parametrize("complete", [True, False])
def test_a_stream_that_breaks(make_play: MakePlay, complete: bool) -> None:
    """A stream that breaks begins again, and is not counted twice."""
    play = make_play()
    play.ranges = play.accepts_ranges = False
    play.complete = complete
    play.start().run(in_phase("transferring"))
    (lane,) = play.live()
    if complete:
        play.write(lane, MIB)
        play.end(lane, IncompleteTransfer("cut"))
    else:
        play.end(lane, IncompleteTransfer("cut"), position=MIB)
    play.run(in_phase("probing")).run(in_phase("transferring"))
    assert play.job.downloaded_bytes == 0
    play.run().completed()
    assert play.kinds() == ["retry"]


# --- a destination that exists --------------------------------------------------------


def test_a_file_with_the_right_digest(tmp_path: Path, make_play: MakePlay) -> None:
    """A file that has the digest is there already: not a request is sent."""
    (tmp_path / NAME).write_bytes(CONTENT)
    play = make_play(checksum=SHA256).start().run()
    play.completed()
    assert play.crew.fetches == []
    assert play.job.resumed_bytes == len(CONTENT)
    assert play.job.outcome.checksum == SHA256  # type: ignore[union-attr]  # it has ended


def test_a_file_with_another_digest(tmp_path: Path, make_play: MakePlay) -> None:
    """A file with another digest is untouched, and the job fails."""
    (tmp_path / NAME).write_bytes(b"mine")
    play = make_play(checksum=SHA256).start().run()
    play.failed(DestinationExists, "other content")
    assert (tmp_path / NAME).read_bytes() == b"mine"
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("filename", [NAME, None])
def test_a_file_of_the_right_length(
    tmp_path: Path, make_play: MakePlay, filename: str | None
) -> None:
    """Without a digest a file of the answer's length is taken for it."""
    (tmp_path / NAME).write_bytes(CONTENT)
    play = make_play(filename=filename).start().run()
    play.completed()
    assert len(play.crew.fetches) == 1
    assert names(tmp_path) == [NAME]


def test_a_file_of_another_length(tmp_path: Path, make_play: MakePlay) -> None:
    """A file of another length is untouched, and the job fails."""
    (tmp_path / NAME).write_bytes(b"mine")
    make_play().start().run().failed(DestinationExists, "has 4 bytes")
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_a_file_with_another_stated_digest(tmp_path: Path, make_play: MakePlay) -> None:
    """A file of the right length has to have the digest that the server states."""
    (tmp_path / NAME).write_bytes(bytes(len(CONTENT)))
    play = make_play()
    play.stated = [("sha256", SHA256.partition(":")[2], "Repr-Digest")]
    play.start().run().failed(DestinationExists, "other content")


@pytest.mark.parametrize("checksum", [None, SHA256])
def test_a_file_beside_an_answer_without_a_length(
    tmp_path: Path, make_play: MakePlay, checksum: str | None
) -> None:
    """Without a length and a digest nothing shows that a file is the wanted one."""
    (tmp_path / NAME).write_bytes(CONTENT)
    stated = [] if checksum is None else [("sha256", SHA256[7:], "Repr-Digest")]
    play = make_play()
    play.ranges = play.accepts_ranges = play.complete = False
    play.stated = stated
    play.start().run()
    if checksum is None:
        play.failed(DestinationExists, "unknown")
    else:
        play.completed()
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_overwriting(tmp_path: Path, make_play: MakePlay) -> None:
    """With overwrite the old file is there until the new one is whole."""
    (tmp_path / NAME).write_bytes(b"old")
    play = make_play(on_exists="overwrite").start().run(in_phase("publishing"))
    assert (tmp_path / NAME).read_bytes() == b"old"
    play.run().completed()


def test_refusing(tmp_path: Path, make_play: MakePlay) -> None:
    """With error the job fails before a request is sent."""
    (tmp_path / NAME).write_bytes(b"old")
    play = make_play(on_exists="error").start().run()
    play.failed(DestinationExists, "on_exists")
    assert (play.crew.fetches, names(tmp_path)) == ([], [NAME])


def test_renaming(tmp_path: Path, make_play: MakePlay) -> None:
    """With rename the file gets a name that is free, and a stop keeps that name."""
    (tmp_path / NAME).write_bytes(b"old")
    assert left_behind(make_play, on_exists="rename") == 2 * MIB
    play = make_play(on_exists="rename").start().run()
    play.completed(name="a.1.bin")
    assert play.job.resumed_bytes == 2 * MIB
    assert names(tmp_path) == ["a.1.bin", NAME]


def test_a_name_that_is_taken_while_probing(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """With rename, a name that another download takes meanwhile is passed by."""
    play = make_play(on_exists="rename").start()
    play.crew.settle()
    other = make_play(urls=("https://example.org/x/a.bin",)).start()
    other.run(recorded(MIB))
    play.run().completed(name="a.1.bin")
    other.run().completed()
    assert names(tmp_path) == ["a.1.bin", NAME]


def test_a_name_that_is_taken_while_probing_without_rename(
    make_play: MakePlay,
) -> None:
    """Without rename, of two downloads to one name the second to begin fails."""
    play = make_play().start()
    play.crew.settle()
    other = make_play(urls=("https://example.org/x/a.bin",)).start()
    other.run(recorded(MIB))
    play.run().failed(DestinationExists)
    other.run().completed()


def test_a_directory_of_that_name(tmp_path: Path, make_play: MakePlay) -> None:
    """A directory is never taken for the file, nor replaced."""
    (tmp_path / NAME).mkdir()
    play = make_play(on_exists="overwrite").start().run()
    play.failed(StorageError, "is a directory")


def test_a_file_that_appears(tmp_path: Path, make_play: MakePlay) -> None:
    """A file that has the name at the end is untouched, and the part is kept."""
    play = make_play().start().run(in_phase("publishing"))
    (tmp_path / NAME).write_bytes(b"quicker")
    play.run().failed(DestinationExists)
    assert (tmp_path / NAME).read_bytes() == b"quicker"
    assert names(tmp_path) == [NAME, PART, MANIFEST]


def test_a_publish_that_was_cut_short(tmp_path: Path, make_play: MakePlay) -> None:
    """What an earlier run had only to finish is finished, without a request."""
    play = make_play().start().run(in_phase("publishing"))
    play.job.destination.store.close()  # as a killed process does
    os.link(tmp_path / PART, tmp_path / NAME)
    play = make_play().start().run()
    play.completed()
    assert (play.crew.fetches, names(tmp_path)) == ([], [NAME])


def test_a_publish_of_another_url_that_was_cut_short(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """What another URL's run had only to finish is finished, and not taken for ours."""
    other = make_play(urls=("https://example.org/x/a.bin",)).start()
    other.content = OTHER
    other.run(in_phase("publishing"))
    other.job.destination.store.close()  # as a killed process does
    os.link(tmp_path / PART, tmp_path / NAME)
    play = make_play().start().run()
    play.failed(DestinationExists, f"has {len(OTHER)} bytes")
    assert (tmp_path / NAME).read_bytes() == OTHER
    assert names(tmp_path) == [NAME]


# --- ended at each place --------------------------------------------------------------


def scene_waiting(make_play: MakePlay) -> Play:
    """Its first look at the disk has not begun."""
    return make_play().start()


def scene_examined(make_play: MakePlay) -> Play:
    """Its first look at the disk is done, and not told."""
    play = make_play().start()
    play.crew.work()
    return play


def scene_probing(make_play: MakePlay) -> Play:
    """The probe has no answer yet."""
    play = make_play().start()
    play.crew.settle()
    return play


def scene_retrying(make_play: MakePlay) -> Play:
    """The probe failed, and waits to be sent again."""
    play = make_play()
    play.faults.append(ConnectError("refused"))
    return play.start().run(lambda p: bool(p.over))


def scene_preparing(make_play: MakePlay) -> Play:
    """The files are about to be made."""
    return make_play().start().run(lambda p: bool(p.answered))


def scene_prepared(make_play: MakePlay) -> Play:
    """The files are made, and the job has not been told."""
    play = scene_preparing(make_play)
    play.crew.work()
    return play


def scene_transferring(make_play: MakePlay) -> Play:
    """Two lanes are at it."""
    return make_play().start().run(recorded(2 * MIB))


def scene_lanes_broke(make_play: MakePlay) -> Play:
    """All lanes broke, and wait to be followed."""
    play = make_play().start().run(recorded(2 * MIB))
    for lane in play.live():
        play.end(lane, IncompleteTransfer("cut"))
    return play


def scene_stream_broke(make_play: MakePlay) -> Play:
    """A stream without ranges broke, and waits to begin again."""
    play = make_play()
    play.ranges = play.accepts_ranges = False
    play.start().run(recorded(MIB))
    play.end(play.live()[0], IncompleteTransfer("cut"))
    return play


def scene_changed(make_play: MakePlay) -> Play:
    """The file changed, and the other lanes are being stopped."""
    play = make_play().start().run(recorded(2 * MIB))
    play.end(play.live()[0], RepresentationChanged("another"))
    assert play.live()
    return play


def scene_starting_over(make_play: MakePlay) -> Play:
    """The file changed, and what is there is about to be looked at."""
    play = scene_changed(make_play)
    return play.run(lambda p: bool(p.crew.waiting))


def scene_verifying(make_play: MakePlay) -> Play:
    """The digest is being computed."""
    return make_play(checksum=SHA256).start().run(in_phase("verifying"))


def scene_rechecking(make_play: MakePlay) -> Play:
    """The digest was wrong, and the pieces are being compared."""
    play = make_play(checksum=SHA256).start().run(recorded(3 * MIB))
    damage(play, 5)
    return play.run(lambda p: any(isinstance(m, Check) for m in p.crew.verified))


def scene_publishing(make_play: MakePlay) -> Play:
    """The file is about to be published."""
    return make_play().start().run(in_phase("publishing"))


def scene_checkpoint(make_play: MakePlay) -> Play:
    """A checkpoint is being flushed."""
    play = make_play(durability="checkpoint").start().run(recorded(2 * MIB))
    play.crew.pass_time(5)
    assert play.crew.waiting
    return play


SCENES = [
    scene_waiting,
    scene_examined,
    scene_probing,
    scene_retrying,
    scene_preparing,
    scene_prepared,
    scene_transferring,
    scene_lanes_broke,
    scene_stream_broke,
    scene_changed,
    scene_starting_over,
    scene_verifying,
    scene_rechecking,
    scene_publishing,
    scene_checkpoint,
]
scenes = pytest.mark.parametrize(
    "scene", SCENES, ids=[scene.__name__.removeprefix("scene_") for scene in SCENES]
)


@scenes
def test_stop(make_play: MakePlay, scene: Callable[[MakePlay], Play]) -> None:
    """A job stops wherever it is, and a later one goes on from there."""
    play = scene(make_play)
    play.job.stop()
    play.job.stop()
    play.run()
    assert play.job.outcome is not None
    # A file that has its name when the stop is done is a completed one.
    kind = "completed" if scene is scene_publishing else "stopped"
    assert (play.job.outcome.kind, play.job.outcome.error) == (kind, None)
    play.ended()
    later = make_play(checksum=SHA256).start().run()
    later.completed()
    assert names(play.directory) == [NAME]


@scenes
def test_discard(
    tmp_path: Path, make_play: MakePlay, scene: Callable[[MakePlay], Play]
) -> None:
    """A job is given up wherever it is, and no partial file is left."""
    play = scene(make_play)
    play.job.discard()
    play.run()
    assert play.job.outcome is not None
    assert (play.job.outcome.kind, play.job.outcome.error) == ("discarded", None)
    play.ended()
    # What was about to get its name when the job ended has it by then.
    assert names(tmp_path) == ([NAME] if scene is scene_publishing else [])


@scenes
def test_discard_while_it_stops(
    tmp_path: Path, make_play: MakePlay, scene: Callable[[MakePlay], Play]
) -> None:
    """A job that is stopping can still be given up; one that has stopped can't."""
    play = scene(make_play)
    play.job.stop()
    had_stopped = play.job.outcome is not None
    kept = names(tmp_path) if had_stopped else []
    play.job.discard()
    play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == ("stopped" if had_stopped else "discarded")
    play.ended()
    assert names(tmp_path) == ([NAME] if scene is scene_publishing else kept)


@scenes
def test_failure(make_play: MakePlay, scene: Callable[[MakePlay], Play]) -> None:
    """A job fails wherever it is, with the first error, and stays resumable."""
    play = scene(make_play)
    play.job.fail(StorageError("the first"))
    play.job.fail(StorageError("the second"))
    play.job.stop()
    play.run()
    if scene is scene_publishing:
        play.completed()
        return
    play.failed(StorageError, "the first")
    make_play(checksum=SHA256).start().run().completed()


@scenes
def test_the_verifier_dies(
    make_play: MakePlay, scene: Callable[[MakePlay], Play]
) -> None:
    """Wherever the verifier dies, its work is done again, and the file completes."""
    play = scene(make_play)
    play.lose_verifier()
    play.run().completed()
    assert play.phases.count("publishing") == 1


def test_discard_of_a_file_that_is_published(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """A file that has its name already is not removed."""
    play = scene_publishing(make_play)
    play.crew.work()
    play.job.discard()
    play.run()
    assert names(tmp_path) == [NAME]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_stop_of_a_comparison(tmp_path: Path, make_play: MakePlay) -> None:
    """A comparison with a file that exists is stopped, and the file stays."""
    (tmp_path / NAME).write_bytes(CONTENT)
    play = make_play(checksum=SHA256)
    play.holding = True
    play.start().run(in_phase("verifying"))
    play.job.stop()
    play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == "stopped"
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_discard_of_a_comparison(tmp_path: Path, make_play: MakePlay) -> None:
    """To give up a comparison does not remove the file that exists."""
    (tmp_path / NAME).write_bytes(CONTENT)
    play = make_play(checksum=SHA256)
    play.holding = True
    play.start().run(in_phase("verifying"))
    play.job.discard()
    play.run()
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_lanes_that_hang(make_play: MakePlay) -> None:
    """A stop does not wait longer than five seconds for a worker that hangs."""
    play = scene_transferring(make_play)
    play.job.stop()
    lanes = play.live()
    play.crew.pass_time(4.9)
    assert play.crew.given_up == []
    play.crew.pass_time(0.2)
    assert play.crew.given_up == lanes
    play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == "stopped"


def test_nothing_counts_after_the_end(make_play: MakePlay) -> None:
    """Late results of the verifier, and late pieces, change nothing."""
    play = scene_verifying(make_play)
    play.job.stop()
    play.job.verdicts.on_hashed(Hashed(1, {"sha256": "00" * 32}, None))
    play.job.verdicts.on_checked(Checked(1, [], None))
    play.job.verdicts.on_lost(CRASH)
    play.job.pieces_written([])
    play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == "stopped"
    play.job.verdicts.on_hashed(Hashed(1, {"sha256": "00" * 32}, None))
    play.job.pieces_written([])
    play.job.fail(StorageError("late"))
    assert play.job.outcome.kind == "stopped"
    assert names(play.directory) == [PART, MANIFEST]


@pytest.mark.parametrize("kind", ["stop", "fail"])
def test_bytes_of_a_job_that_did_not_complete(make_play: MakePlay, kind: str) -> None:
    """A job that ended early has downloaded what is in the file, not all of it."""
    play = scene_transferring(make_play)
    if kind == "stop":
        play.job.stop()
    else:
        play.job.fail(StorageError("no more"))
    play.run()
    assert play.job.downloaded_bytes == 2 * MIB


# --- the verifier dies ----------------------------------------------------------------


def test_the_verifier_dies_while_it_compares(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """A comparison with a file that exists is begun again."""
    (tmp_path / NAME).write_bytes(CONTENT)
    play = make_play(checksum=SHA256)
    play.holding = True
    play.start().run(in_phase("verifying"))
    play.lose_verifier()
    play.holding = False
    play.run().completed()
    assert play.crew.fetches == []


def test_the_verifier_dies_while_pieces_are_compared(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of an earlier run are compared again, and the transfer begins once."""
    left_behind(make_play)
    monkeypatch.setattr(_fs, "boot_id", lambda: "another")
    play = make_play()
    play.start().run(lambda p: any(isinstance(m, Check) for m in p.crew.verified))
    play.lose_verifier()
    play.run().completed()
    assert play.kinds() == ["resumed"]
    assert play.job.resumed_bytes == 2 * MIB


@pytest.mark.parametrize("doubtful", [False, True])
def test_the_verifier_dies_while_the_file_is_prepared(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch, doubtful: bool
) -> None:
    """A verifier that has no work of this job yet has none to do again."""
    left_behind(make_play)
    if doubtful:
        monkeypatch.setattr(_fs, "boot_id", lambda: "another")
    play = make_play().start().run(lambda p: bool(p.answered))
    play.lose_verifier()
    assert play.crew.verified == []
    play.run().completed()
    assert play.kinds() == ["resumed"]


def test_the_verifier_dies_again_and_again(make_play: MakePlay) -> None:
    """A file at which each verifier dies is given up."""
    play = scene_verifying(make_play)
    for _ in range(3):
        play.lose_verifier()
    play.run().failed(WorkerError)


@pytest.mark.parametrize("scene", [scene_transferring, scene_publishing])
def test_the_verifier_of_others_dies(
    make_play: MakePlay, scene: Callable[[MakePlay], Play]
) -> None:
    """A job that has nothing to verify does not care how often the verifier dies."""
    play = scene(make_play)
    for _ in range(5):
        play.lose_verifier()
    play.run().completed()


def test_a_new_verifier_hears_the_prefix_again(make_play: MakePlay) -> None:
    """After its death the digest begins from the first byte."""
    play = scene_verifying(make_play)
    play.lose_verifier()
    assert play.crew.verified[-2:] == [
        Hash(1, str(play.directory / PART), ["sha256"]),
        Advance(1, len(CONTENT), True),
    ]
    play.run().completed()


# --- checkpoints ----------------------------------------------------------------------


def test_checkpoints(make_play: MakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a checkpoint covered is accepted after a restart of the system."""
    play = make_play(durability="checkpoint", connections=1)
    play.start().run(recorded(2 * MIB))
    play.crew.pass_time(5)
    play.crew.settle()
    play.run(recorded(3 * MIB))
    play.job.stop()
    play.run()
    monkeypatch.setattr(_fs, "boot_id", lambda: "another")
    play = make_play().start().run()
    play.completed()
    assert play.job.resumed_bytes == 3 * MIB
    (check,) = [m for m in play.crew.verified if isinstance(m, Check)]
    assert [row[:2] for row in check.pieces] == [(2 * MIB, MIB)]


def test_checkpoints_go_on(make_play: MakePlay) -> None:
    """There is a checkpoint every five seconds, until the transfer is over."""
    play = make_play(durability="checkpoint").start().run(recorded(2 * MIB))
    for _ in range(3):
        play.crew.pass_time(4.9)
        assert not play.crew.waiting
        play.crew.pass_time(0.1)
        assert len(play.crew.waiting) == 1
        play.crew.settle()
    play.run().completed()


def test_one_checkpoint_at_a_time(make_play: MakePlay) -> None:
    """A job that starts over does not make its checkpoints twice as often."""
    play = make_play(durability="checkpoint").start().run(recorded(2 * MIB))
    play.end(play.live()[0], RepresentationChanged("another"))
    play.run(in_phase("probing")).run(in_phase("transferring"))
    play.crew.pass_time(20)
    assert len(play.crew.waiting) == 1
    play.crew.settle()
    play.crew.pass_time(5)
    assert len(play.crew.waiting) == 1
    play.run().completed()


def test_a_disk_that_fails_at_a_checkpoint(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that can't flush fails the job."""

    def failing(_part: _fs.PartFile) -> None:
        raise StorageError("EIO at the flush", errno=errno.EIO)

    play = make_play(durability="checkpoint").start().run(recorded(2 * MIB))
    monkeypatch.setattr(_fs.PartFile, "sync", failing)
    play.crew.pass_time(5)
    play.run().failed(StorageError, "EIO")
    assert names(play.directory) == [PART, MANIFEST]


def test_a_restart_during_a_checkpoint(make_play: MakePlay) -> None:
    """A file that changes while a checkpoint is flushed starts over all the same."""
    play = scene_checkpoint(make_play)
    held = play.crew.waiting.popleft()
    play.content, play.validator = OTHER, NEXT
    play.end(play.live()[0], RepresentationChanged("another"))
    while play.live() and not play.crew.waiting:
        play.step()
    play.crew.settle()
    play.crew.waiting.append(held)
    play.run().completed(OTHER)


def test_the_end_during_a_checkpoint(make_play: MakePlay) -> None:
    """A file is published when the flush of a checkpoint is over, not beside it."""
    play = scene_checkpoint(make_play)
    while play.live():
        play.serve(play.live()[0])
    assert (play.job.phase, len(play.crew.waiting)) == ("publishing", 1)
    play.run().completed()


# --- the disk fails -------------------------------------------------------------------


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A directory that is a file fails the job at once."""
    (tmp_path / "file").touch()
    play = Play(tmp_path / "file").start().run()
    play.failed(StorageError, "is not a directory")
    assert play.crew.fetches == []


def test_too_little_room(make_play: MakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that will not fit fails before its first byte is written."""
    monkeypatch.setattr(_fs.Directory, "free_bytes", lambda _self: MIB)
    play = make_play().start().run()
    error = play.failed(DiskFull)
    assert isinstance(error, DiskFull)
    assert error.missing_bytes == len(CONTENT) - MIB
    assert names(play.directory) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_is_larger_than_allowed(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    """It fails by its length alone, before there is a file, whatever room there is."""
    monkeypatch.setattr(_fs.Directory, "free_bytes", lambda _self: MIB)
    play = make_play(max_bytes=len(CONTENT) - 1, urls=(URL, MIRROR))
    play.ranges = play.accepts_ranges = ranges
    play.start().run()
    error = play.failed(SizeLimitExceeded, f"has {len(CONTENT)} bytes")
    assert f"more than the {len(CONTENT) - 1} bytes of max_bytes" in str(error)
    assert "raise max_bytes (--max-bytes)" in str(error)
    assert len(play.crew.fetches) == 1
    assert names(play.directory) == []


def test_a_resume_of_a_file_that_is_larger_than_allowed(make_play: MakePlay) -> None:
    """What an earlier run left stays, for a run that allows it."""
    done = left_behind(make_play)
    play = make_play(max_bytes=len(CONTENT) - 1).start().run()
    play.failed(SizeLimitExceeded)
    assert names(play.directory) == [PART, MANIFEST]
    play = make_play(max_bytes=len(CONTENT)).start().run()
    play.completed()
    assert play.job.resumed_bytes == done


def test_a_file_that_exists_and_is_larger_than_allowed(
    tmp_path: Path, make_play: MakePlay
) -> None:
    """It is not received, so it may be of any size."""
    (tmp_path / NAME).write_bytes(CONTENT)
    make_play(max_bytes=1).start().run().completed()


def test_a_record_that_cannot_be_written(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the manifest can't be written the job fails; what it has stays."""

    def failing(_store: Store, _pieces: object) -> None:
        raise DiskFull("no room for a record")

    play = make_play(connections=1).start().run(recorded(2 * MIB))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "record", failing)
        play.run().failed(DiskFull)
    later = make_play().start().run()
    later.completed()
    assert later.job.resumed_bytes == 2 * MIB


def test_partial_files_that_cannot_be_removed(
    make_play: MakePlay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When giving up fails, the job ends all the same, and says so."""

    def failing(_self: _fs.Directory, name: SafeName, **_: object) -> None:
        raise StorageError(f"cannot remove {name}")

    play = scene_preparing(make_play)
    play.job.discard()
    play.crew.work()
    with monkeypatch.context() as patch:
        patch.setattr(_fs.Directory, "unlink", failing)
        play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == "discarded"
    assert "cannot remove" in str(play.job.outcome.error)
    play.ended()


def doubted_during_a_checkpoint(make_play: MakePlay) -> Play:
    """A mirror lied, while a checkpoint is under way, and the rest is there."""
    play = make_play(urls=(URL, MIRROR), durability="checkpoint", connections=4)
    play.start().run(lambda p: bool(lanes_of(p, MIRROR)))
    (lane,) = lanes_of(play, MIRROR)
    play.serve(lane)
    right, play.content = play.content, bytes(len(play.content))
    part = play.part_of(lane)
    assert part is not None
    play.deliver(lane, part)
    play.content = right
    play.crew.pass_time(5.1)
    assert play.crew.waiting  # the checkpoint, until the disk has done it
    play.end(lane, RepresentationChanged("the mirror has another file"))
    while any(map(play.serve, play.live())):
        pass
    assert play.job.phase == "publishing"
    return play


def test_pieces_doubted_while_the_disk_is_slow(make_play: MakePlay) -> None:
    """What a mirror brought that lied is fetched again before anything is published."""
    doubted_during_a_checkpoint(make_play).run().completed()


def test_a_wrong_digest_while_the_disk_is_slow(make_play: MakePlay) -> None:
    """The part is not set aside under a checkpoint that is at work on it."""
    play = make_play(durability="checkpoint", checksum=WRONG)
    play.ranges = play.complete = False
    play.start().run(in_phase("transferring"))
    play.crew.pass_time(5.1)
    assert play.crew.waiting
    while any(map(play.serve, play.live())):
        pass
    while play.verify():
        pass
    assert play.job.destination.store.part is not None
    play.run().failed(IntegrityError)


def test_a_verifier_that_cannot_read_on(make_play: MakePlay) -> None:
    """It hashes behind the transfer: what fails there fails the download."""
    play = make_play(checksum=SHA256).start().run(recorded(2 * MIB))
    assert play.job.phase == "transferring"
    row = failure_to_json(StorageError("the disk has a bad sector"))
    play.job.verdicts.on_hashed(Hashed(play.job.number, {}, row))
    play.run().failed(StorageError, "bad sector")


def test_a_link_that_is_long_in_the_making(make_play: MakePlay) -> None:
    """A stop does not wait for the caller's function."""
    play = make_play(new_url=lambda: URL)
    play.start()
    play.job.stop()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == "stopped"
    play.crew.work()
    assert play.crew.fetches == []


@pytest.mark.parametrize("proof", ["nothing", "query", "new link", "digest"])
def test_another_url_with_an_equal_tag(make_play: MakePlay, proof: str) -> None:
    """Two URLs with equal tags may be two files: nginx makes them of time and size."""
    left_behind(make_play)
    options: dict[str, Any] = {}
    if proof == "digest":
        options["checksum"] = SHA256
    if proof == "new link":
        options["new_link"] = True
    url = f"{URL}?signature=2" if proof == "query" else "https://other.example/a.bin"
    play = make_play(urls=(url,), **options).start().run()
    if proof == "nothing":
        error = play.failed(DestinationExists)
        assert "segdl resume --url" in str(error)
    else:
        play.completed()
        assert play.job.resumed_bytes == 2 * MIB


@pytest.mark.parametrize("end", ["stop", "discard"])
def test_a_held_job_publishes_nothing(make_play: MakePlay, end: str) -> None:
    """After `hold` the file does not get its name, however late the stop comes."""
    play = make_play(checksum=SHA256).start().run(in_phase("verifying"))
    assert play.job.hold() is True
    while play.step():
        pass
    assert play.job.outcome is None
    getattr(play.job, end)()
    play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == ("stopped" if end == "stop" else "discarded")
    assert not (play.directory / NAME).exists()


def test_it_is_too_late_to_hold_a_publish(make_play: MakePlay) -> None:
    """A file that is getting its name is completed."""
    play = scene_publishing(make_play)
    assert play.job.hold() is False
    play.run().completed()


def test_a_pause_that_came_too_late_forbids_nothing(make_play: MakePlay) -> None:
    """It is refused, so the job goes on, also when it has to fetch pieces again."""
    play = doubted_during_a_checkpoint(make_play)
    assert play.job.hold() is False
    play.run().completed()


@pytest.mark.parametrize("end", ["stop", "fail"])
def test_an_end_while_pieces_are_doubted(make_play: MakePlay, end: str) -> None:
    """Pieces that a mirror brought which lied are not there for the next run."""
    play = doubted_during_a_checkpoint(make_play)
    if end == "stop":
        play.job.stop()
    else:
        play.job.fail(GONE)
    play.run()
    make_play().start().run().completed()


def test_a_cancel_after_the_part_was_set_aside(make_play: MakePlay) -> None:
    """Whoever cancels finds nothing left, also where the digest had just been wrong."""
    play = make_play(checksum=WRONG).start().run(lambda p: p.job.is_ending)
    assert [path.suffix for path in play.directory.iterdir()] == [".corrupt"]
    play.job.discard()
    play.run()
    assert play.job.outcome is not None
    assert play.job.outcome.kind == "discarded"
    assert not list(play.directory.iterdir())


def test_an_old_failure_of_the_verifier(make_play: MakePlay) -> None:
    """What it could not read of the old version is nothing to the new one."""
    play = make_play(checksum=SHA256).start().run(recorded(2 * MIB))
    old = Hashed(
        play.job.number, {}, failure_to_json(StorageError("the file ends there"))
    )
    play.validator = NEXT
    play.end(play.live()[0], RepresentationChanged("another"))
    play.run(in_phase("probing"))
    play.job.verdicts.on_hashed(old)
    play.run().completed()


def test_wrong_content_after_a_mirror_was_dropped(make_play: MakePlay) -> None:
    """Its pieces, brought again by the URL and cut otherwise, are there no more."""
    play = make_play(urls=(URL, MIRROR), checksum=WRONG, connections=2)
    play.content, half = CONTENT[: 3 * MIB + 7], MIB // 2
    play.start().run(recorded(1))
    (base,) = lanes_of(play, URL)
    play.job.lanes.on_shrunk(base, MIB + half)
    (lane,) = lanes_of(play, MIRROR)
    play.serve(lane)
    play.write(base, half // 2)
    part = play.part_of(lane)
    assert part is not None
    play.deliver(lane, part)
    play.end(base, IncompleteTransfer("the connection ended early"))
    play.end(lane, RepresentationChanged("the mirror has another file"))
    play.run().failed(IntegrityError)


def test_a_file_that_changes_while_a_link_is_made(make_play: MakePlay) -> None:
    """The old one has expired: the next probe waits for the new one."""
    links = iter([f"{URL}?s=1", f"{URL}?s=2"])
    play = make_play(urls=("",), new_url=lambda: next(links), connections=3)
    play.start().run(recorded(MIB))
    first, second, *_ = play.live()
    play.end(first, StatusError("the origin answered 403", status=403))
    work, done = play.crew.waiting.popleft()
    play.content, play.validator = OTHER, NEXT
    play.end(second, RepresentationChanged("another"))
    for lane in play.live():
        play.end(lane)
    play.crew.settle()
    assert play.live() == []
    done(work(), None)
    play.job.lanes.fill()
    (probe,) = play.live()
    assert play.fetch_of(probe).url == f"{URL}?s=2"
    play.run().completed(OTHER)
