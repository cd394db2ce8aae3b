"""Row 71: the power is cut; by the model of a disk, and on a real file system."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from http_checks import NAME, PART, names
from replay import CERTAIN, DRAWN, Cut, Disk, Image, Op, Tape, crash, look, prefixes
from world import World

from bench._disk import what_is_missing
from segdl import DownloadEngine, _fs
from segdl._manifest import Header
from segdl.errors import SegdlError
from segdl.testing import Blob

ROOT = Path(__file__).parents[2]
KIB = 1 << 10
PIECE = 64 * KIB
SIZE = 5 * PIECE + 777
OLD = b"what was there before" * 500


@dataclass
class Replay:
    """
    Downloads that are recorded, and gone on with after every power cut.

    Args:
        world: Of the test.
        patch: Puts the tape in, and makes the download small.
        draw: Of the test.
        scratch: For what the cuts leave, and for what is served.
        full: Try more of it.

    Attributes:
        durability: Of all downloads.
        options: More options of all downloads.
        faults: Query of the URL, for the origin.
    """

    world: World
    patch: pytest.MonkeyPatch
    draw: random.Random
    scratch: Path
    full: bool
    durability: str = "publish"
    options: dict[str, str] = field(default_factory=dict)
    faults: str = ""
    tape: Tape = field(default_factory=Tape)
    boot: str = "boot-1"
    engine: DownloadEngine | None = None
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for module in ("_base", "_append", "_part", "_writer"):
            self.patch.setattr(f"segdl._fs.{module}.os", self.tape)
        self.patch.setattr(_fs, "boot_id", lambda: self.boot)
        # Five pieces, ten writes: every instant of it can be tried.
        self.patch.setattr("segdl._plan.MIN_PIECE_BYTES", PIECE)
        for module in ("_lanes", "_job"):
            self.patch.setattr(f"segdl.{module}.FIRST_BYTES", PIECE)
        for module in ("_sink", "_writebehind"):
            self.patch.setattr(f"segdl.{module}.BLOCK_BYTES", PIECE // 2)
        self.patch.setattr("segdl._job._CHECKPOINT_SECONDS", 0.05)
        # A slow lane's bytes move at every report, so that pieces have many writes.
        self.patch.setattr("segdl._exchange._SLOW_TICKS", 1)
        self.world.origin.root = self.scratch / "served"
        self.world.origin.root.mkdir()
        # The resumes are many, and served from the same origin.
        self.world.most_requests = 10**6
        self.contents: dict[str | None, bytes] = {}
        self.serve(1)

    def serve(self, seed: int) -> None:
        """Have a version of the file served; a later one has another entity tag."""
        blob = self.world.allow(Blob(seed, SIZE))
        path = self.scratch / "served" / NAME
        path.write_bytes(blob.read())
        os.utime(path, (seed, seed))
        tag = f'"{path.stat().st_mtime_ns:x}-{SIZE:x}"'
        self.contents[tag] = blob.read()
        self.content = blob.read()

    @property
    def url(self) -> str:
        """Of what is served."""
        url = self.world.origin.file_url(NAME) + self.faults
        return self.world.with_secrets(url)

    def record(self, before: Disk) -> list[Op]:
        """
        Download to the end, and give the operations of that.

        Args:
            before: What is on the disk for certain before.
        """
        shutil.rmtree(self.world.out, ignore_errors=True)
        self.tape.put(before, self.world.out)
        self.world.origin.rate = 600 * KIB
        self.tape.ops = []
        self.tape.recording = True
        task = self.world.fetch(
            self.url,
            connections=2,
            durability=self.durability,
            io="buffered",
            **self.options,
        )
        self.tape.recording = False
        self.world.origin.rate = None
        assert task.status == "completed", task.error
        assert (self.world.out / NAME).read_bytes() == self.content
        return self.tape.ops

    def try_all(self, before: Disk, ops: Sequence[Op]) -> None:
        """
        Cut the power after every operation, and see what can be trusted then.

        Args:
            before: What was on the disk for certain.
            ops: The operations that followed.
        """
        boot = self.boot
        drawn = DRAWN * (20 if self.full else 1)
        for done in prefixes(ops):
            for cut in (*CERTAIN, *drawn):
                disk = crash(before, done, cut, self.draw)
                self.boot = boot if cut.same_boot else "boot-later"
                self.look(disk, done, cut)
            # The rest of the way, from one of the states.
            cut = self.draw.choice(DRAWN)
            self.boot = boot if cut.same_boot else "boot-later"
            if self.full or len(done) % 3 == 0:
                self.go_on(crash(before, done, cut, self.draw), done, cut)
        self.boot = boot

    def look(self, disk: Disk, done: Sequence[Op], cut: Cut) -> None:
        """Compare what is trusted, and what has the final name."""
        where = f"{cut.name}, after {len(done)} operations, the last: {done[-1:]}"[:300]
        self.counts["states"] += 1
        self.check_published(disk, done, where)
        directory = self.scratch / "state"
        self.tape.put(disk, directory)
        try:
            self.counts["trusted"] += look(
                directory, NAME, self.durability, self.content_of
            )
        except SegdlError as error:
            if self.durability != "none":
                pytest.fail(f"{error!r}: {where}")
            self.counts["refused"] += 1
        except AssertionError as error:
            raise AssertionError(f"{error}: {where}") from None
        shutil.rmtree(directory)

    def check_published(self, disk: Disk, done: Sequence[Op], where: str) -> None:
        """I4: the final name is absent, old, or whole; and there once it was told."""
        number = disk.names.get(NAME)
        there = None if number is None else bytes(disk.files[number].content)
        if self.durability == "none":
            self.counts["other"] += there not in (None, OLD, self.content)
            return
        assert there in (None, OLD, self.content), f"published wrong: {where}"
        named = [i for i, op in enumerate(done) if op.name == NAME]
        if named and any(op.kind == "syncdir" for op in done[named[-1] :]):
            assert there == self.content, f"published and lost: {where}"

    def content_of(self, header: Header) -> bytes:
        """Give the version of the file that a manifest is about."""
        assert header.validator.etag is not None
        return self.contents[str(header.validator.etag)]

    def go_on(self, disk: Disk, done: Sequence[Op], cut: Cut) -> None:
        """Download again, over what a power cut left."""
        directory = self.scratch / "again"
        self.tape.put(disk, directory)
        there = disk.names.get(NAME)
        # Nothing but its length can be compared without a digest.
        excused = self.durability == "none" and there is not None
        if self.engine is None:
            self.engine = self.world.engine(durability=self.durability)
        task = self.engine.download(self.url, directory, NAME, **self.options)
        assert task.wait(20)
        where = f"{cut.name}, after {len(done)} operations: {task.error}"
        self.counts["resumes"] += 1
        if self.durability == "none" and task.status == "failed":
            self.counts["errors"] += 1
        elif not excused:
            assert task.status == "completed", where
            assert (directory / NAME).read_bytes() == self.content, where
            assert names(directory) == [NAME], where
        shutil.rmtree(directory)


def first_download(replay: Replay) -> None:
    """Nothing is there before."""
    replay.try_all(Disk(), replay.record(Disk()))


def broken(replay: Replay) -> None:
    """Connections break within blocks, of which others write the rest."""
    cuts = ("fin@byte21001", "rst@byte90001", "fin@byte170003", "fin@byte260007")
    replay.faults = "?" + "&".join(f"f={cut}" for cut in cuts)
    replay.try_all(Disk(), replay.record(Disk()))


def overwriting(replay: Replay) -> None:
    """Another file has the name, and is to be replaced."""
    old = Image()
    old.write(0, OLD)
    before = Disk(names={NAME: 1}, files={1: old})
    replay.options["on_exists"] = "overwrite"
    replay.try_all(before, replay.record(before))


def half_done(replay: Replay) -> Disk:
    """Give what a download leaves that is killed before it publishes."""
    durability, replay.durability = replay.durability, "publish"
    ops = replay.record(Disk())
    replay.durability = durability
    named = next(index for index, op in enumerate(ops) if op.name == NAME)
    return crash(Disk(), ops[:named], CERTAIN[0], replay.draw)


def after_damage(replay: Replay) -> None:
    """A power cut left garbage in two recorded pieces, and others cut the resume."""
    before = half_done(replay)
    part = before.files[before.names[PART]]
    for piece in (1, 3):
        part.write(piece * PIECE + 100, replay.draw.randbytes(PIECE // 2))
    replay.boot = "boot-2"
    replay.try_all(before, replay.record(before))


def after_change(replay: Replay) -> None:
    """An earlier version of the remote file is there, whole but for its name."""
    before = half_done(replay)
    replay.serve(2)
    replay.try_all(before, replay.record(before))


def really_cut(durability: str, full: bool, seed: int) -> None:
    """Cut the power of a real file system, in a process of its own."""
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(missing)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.powercut", "--durability", durability),
            *("--seed", str(seed), "--cuts", "200" if full else "2"),
            *([] if full else ["--size", "4M"]),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


REPLAYS: dict[str, tuple[Callable[[Replay], None], str]] = {
    "publish": (first_download, "publish"),
    "checkpoint": (first_download, "checkpoint"),
    "none": (first_download, "none"),
    "broken": (broken, "publish"),
    "broken_checkpoint": (broken, "checkpoint"),
    "overwriting": (overwriting, "publish"),
    "after_damage": (after_damage, "publish"),
    "after_damage_checkpoint": (after_damage, "checkpoint"),
    "after_change": (after_change, "publish"),
}


DEEP = ("broken_checkpoint", "after_damage_checkpoint", "cuts_none", "cuts_checkpoint")

CUTS = {
    "cuts_none": "none",
    "cuts_publish": "publish",
    "cuts_checkpoint": "checkpoint",
}


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """Give a directory in memory, as thousands of files come and go; it has holes."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="test-71-", dir=memory if memory.is_dir() else tmp_path
    ) as directory:
        yield Path(directory)


@pytest.mark.row("unflushed writes lost, torn, garbage; ext4 shut down at any instant")
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "variant",
    [
        *(each for each in REPLAYS if each not in DEEP),
        pytest.param("cuts_publish", marks=pytest.mark.root),
        *(pytest.param(each, marks=pytest.mark.full) for each in DEEP),
    ],
)
def test_71_power_cut(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    draw: random.Random,
    full: bool,
    variant: str,
) -> None:
    """No byte that was lost is trusted, and what has the final name is whole."""
    if variant in CUTS:
        really_cut(CUTS[variant], full, request.config.getoption("--seed"))
        return
    act, durability = REPLAYS[variant]
    world, scratch = map(request.getfixturevalue, ("world", "scratch"))
    replay = Replay(world, monkeypatch, draw, scratch, full, durability)
    act(replay)
    assert replay.counts["trusted"] > 0, replay.counts
    assert replay.counts["resumes"] > 0, replay.counts
    # Only what flushes nothing may have lost what was published, or be refused.
    assert durability == "none" or not (
        replay.counts["other"] + replay.counts["refused"] + replay.counts["errors"]
    ), replay.counts
