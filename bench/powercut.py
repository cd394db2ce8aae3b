"""`python -m bench.powercut`: cut the power at random instants, resume, compare.

    origin (a process of its own, throttled, logging)             one for all cuts
       ^                 ^
    PROGRAM ──X       PROGRAM once more ──> exit code, and the bytes that are there
       │ at a random instant               │
    ext4 on a loop device: shut down ──> mounted again, the journal replayed

A cut is the shutdown ioctl of ext4 without a log flush (bench/_disk.py): what the file
system has not written by then is lost, while what runs gets EIO, and is then killed.
For segdl each cut also draws how it writes (buffered, direct), whether it is given a
digest, and whether the system comes back with another boot id (the power went) or with
the same one (the disk went). Where a cut comes is drawn too:

    anywhere   from the start of the program to a while after its usual end
    start      just after the manifest appears
    publish    just after the file has all its blocks, or its final name

A journal that nobody commits for 5 s loses a short download as a whole. So there is a
neighbour in two of three cuts, which makes ext4 commit its journal every now and then
(fsync of a file of its own), or write everything out (syncfs), as other programs do.

What must hold for segdl with durability `publish` and `checkpoint`: after the cut the
final name is absent or whole, and whole if the program had ended with 0; the same
command then ends with 0, with the right bytes, and with nothing beside them. With
durability `none` a file can have its final name and not its bytes; that is counted.
`checkpoint` writes its checkpoints every quarter of a second here, not every 5 s, so
that cuts meet them.

The other programs are resumed as they offer it: `aria2c -c`, `wget -c`, `curl -C -`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType

from bench._content import MIB, is_blob, parse_size, work_directory
from bench._disk import Disk, in_own_namespace, what_is_missing
from bench._origin import Run, length, merged, origin, overlap
from bench._processes import environment, kill, marked, segdl_command, wait_until
from bench._record import record, run_mark
from segdl.testing import Blob

LEVELS = ("none", "publish", "checkpoint")
AIMS = ("anywhere", "anywhere", "start", "publish")
NEIGHBOURS = ("none", "fsync", "syncfs")
NAME = "file.bin"
_MARK = "SEGDL_BENCH_CUT"

_IMAGE_BYTES = 96 * MIB
_HANG_SECONDS = 60.0
_LATE = 1.15  # of the usual time: some cuts come after the end
_AIMED_SECONDS = 0.03
_NEIGHBOUR_SECONDS = (0.02, 0.4)
_CHECKPOINT_SECONDS = 0.25
_PIECE_BYTES = MIB

# The command line, with checkpoints that a download of a second meets.
_OFTEN = (
    "import sys, segdl._job; "
    f"segdl._job._CHECKPOINT_SECONDS = {_CHECKPOINT_SECONDS}; "
    "from segdl.cli import main; sys.exit(main())"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """
    What downloads, and how it is resumed: the same command again.

    Args:
        name: In the table.
        command: Gives the command line for a directory, a URL and a blob.
        promises: A wrong file is a violation.
        aims: Where cuts may be aimed at.
        resume: How, in words.
    """

    name: str
    command: Callable[[Path, str, Blob, random.Random], list[str]]
    promises: bool = False
    aims: tuple[str, ...] = ("anywhere",)
    resume: str = "the same command"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What one cut showed.

    Args:
        told: The program had ended with 0 before the cut.
        after: The final name after the cut: "absent", "whole" or "other".
        ended: "right", "wrong" (reported as success) or "error", after the resume.
        text: What the program said at last.
        beside: Files that are left beside the final one.
        path: Of the URL, for the origin's log.
        resumed: Monotonic seconds of the resume.
        draw: What was drawn, in words.
        before: Bytes that were sent before the resume, each counted once.
        again: Of those, sent again.
    """

    told: bool
    after: str
    ended: str
    text: str
    beside: tuple[str, ...]
    path: str
    resumed: float
    draw: str
    before: int = 0
    again: int = 0


@dataclass(slots=True)
class Series:
    """All cuts of one program."""

    program: Program
    outcomes: list[Outcome] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def segdl_at(level: str) -> Program:
    """Give segdl with a durability."""

    def command(out: Path, url: str, blob: Blob, draw: random.Random) -> list[str]:
        start = segdl_command()
        if level == "checkpoint":
            start = [sys.executable, "-c", _OFTEN]
        digest = ["--checksum", f"sha256:{blob.digest()}"]
        return [
            *start,
            *("get", "-q", "--no-progress", "-d", str(out), "-o", NAME, "-x", "4"),
            *("--durability", level, "--io", draw.choice(["direct", "buffered"])),
            # In a few, so that the verification is met too; it would hide a wrong piece
            # in all of them.
            *(digest if draw.random() < 0.2 else []),
            url,
        ]

    return Program(
        name=f"segdl --durability {level}",
        command=command,
        promises=level != "none",
        aims=AIMS,
    )


def others() -> list[Program]:
    """Give the other programs, each with its own way to resume."""
    aria2 = ("aria2c", "-c", "-q", "-x4", "-s4", "-k1M", "--file-allocation=prealloc")
    wget = ("wget", "-c", "-q", "--tries=3", "-O")
    curl = ("curl", "-C", "-", "-sS", "--fail", "--retry", "3", "-o")
    return [
        Program(
            name="aria2c -c",
            command=lambda out, url, *_: [*aria2, "-d", str(out), "-o", NAME, url],
        ),
        Program(
            name="wget -c",
            command=lambda out, url, *_: [*wget, str(out / NAME), url],
        ),
        Program(
            name="curl -C -",
            command=lambda out, url, *_: [*curl, str(out / NAME), url],
        ),
    ]


@contextmanager
def running_neighbour(kind: str, place: Path, draw: random.Random) -> Iterator[None]:
    """
    Run another program on the same disk, for the time of a with block.

    Args:
        kind: One of `NEIGHBOURS`.
        place: The directory for its file.
        draw: Of the time between two of its steps.
    """
    own_draw = random.Random(draw.random())
    over = threading.Event()

    def run() -> None:
        syncfs = ctypes.CDLL(None).syncfs
        # OSError: the power was cut.
        with contextlib.suppress(OSError), open(place / "neighbour", "wb") as file:
            while not over.wait(own_draw.uniform(*_NEIGHBOUR_SECONDS)):
                if kind == "syncfs":
                    syncfs(file.fileno())
                else:
                    file.write(b"line\n")
                    file.flush()
                    os.fsync(file.fileno())

    if kind == "none":
        yield
        return
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Cutter:
    """
    Plays cuts on a disk, one after the other.

    Args:
        disk: What is cut.
        base: URL of the origin.
        program: What downloads.
        size: Of the file, in bytes.
        seed: Of all that is drawn; an instant is exact to a millisecond or so.
    """

    def __init__(
        self, disk: Disk, base: str, program: Program, size: int, seed: int
    ) -> None:
        self._disk = disk
        self._base = base
        self._program = program
        self._size = size
        self._seed = seed
        self._usual_seconds = self._undisturbed()

    def play(self, number: int) -> Outcome:
        """
        Play one cut.

        Args:
            number: Of the cut, from 1.
        """
        program = self._program
        draw = random.Random(f"{self._seed}/{program.name}/{number}")
        # Other content each time, or old blocks could pass for new ones.
        blob = Blob(draw.getrandbits(48), self._size)
        path = f"/b/{blob.seed}/{blob.size}/{NAME}"
        out = self._disk.mount / f"cut-{number}"
        command = program.command(out, self._base + path, blob, draw)
        out.mkdir()
        subprocess.run(["sync", "--file-system", str(out)], check=True)
        aim = draw.choice(program.aims)
        seconds = draw.uniform(0.0, self._usual_seconds * _LATE)
        near, new_boot = draw.uniform(0.0, _AIMED_SECONDS), draw.random() < 0.5
        neighbour = draw.choice(NEIGHBOURS)
        with (
            running_neighbour(neighbour, self._disk.mount, draw),
            self._started(command, out, str(number)) as process,
        ):
            begin = time.monotonic()
            if aim == "anywhere":
                wait_until(lambda: False, begin + seconds - time.monotonic())
            else:
                _until_reached(aim, out, process, self._size)
                time.sleep(near)
            self._disk.cut()
            told = process.poll() == 0
            process.kill()
            process.wait(_HANG_SECONDS)
        self._disk.revive(new_boot=new_boot)
        after = _state(out / NAME, blob)
        resumed = time.monotonic()
        code, text = self._finish(command, out, str(number))
        state = _state(out / NAME, blob)
        ended = "error" if code else ("right" if state == "whole" else "wrong")
        beside = {each.name for each in out.iterdir()} - {NAME}
        self._disk.empty()
        words = [
            part for part in ("direct", "buffered", "--checksum") if part in command
        ]
        words += [aim, "new boot" if new_boot else "same boot", f"{neighbour} beside"]
        return Outcome(
            told=told,
            after=after,
            ended=ended,
            text=text,
            beside=tuple(sorted(beside)),
            path=path.rpartition("/")[0],
            resumed=resumed,
            draw=", ".join(words),
        )

    def _undisturbed(self) -> float:
        """Give how long the program takes when nothing happens."""
        blob = Blob(self._seed, self._size)
        url = f"{self._base}/b/{blob.seed}/{blob.size}/{NAME}"
        out = self._disk.mount / "undisturbed"
        command = self._program.command(out, url, blob, random.Random(self._seed))
        out.mkdir()
        begin = time.monotonic()
        code, text = self._finish(command, out, "undisturbed")
        seconds = time.monotonic() - begin
        if code or _state(out / NAME, blob) != "whole":
            raise RuntimeError(f"{self._program.name} fails undisturbed: {text}")
        self._disk.empty()
        return seconds

    @contextmanager
    def _started(
        self, command: list[str], out: Path, mark: str
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a program, and end all of its processes."""
        value = f"{self._seed}-{mark}"
        process = subprocess.Popen(
            command,
            cwd=out,
            env=environment(**{_MARK: value}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

            def gone() -> bool:
                left = marked(_MARK, value)
                for pid in left:
                    kill(pid)
                return not left

            if not wait_until(gone, _HANG_SECONDS):
                raise RuntimeError(f"processes do not end: {marked(_MARK, value)}")

    def _finish(self, command: list[str], out: Path, mark: str) -> tuple[int, str]:
        with self._started(command, out, mark) as process:
            try:
                _, text = process.communicate(timeout=_HANG_SECONDS)
            except subprocess.TimeoutExpired:
                return -1, f"no end within {_HANG_SECONDS:.0f} s"
            return process.returncode, text.strip()


def _until_reached(
    aim: str, out: Path, process: subprocess.Popen[str], size: int
) -> None:
    """Wait for what a cut is aimed at, or for the end of the program."""

    def reached() -> bool:
        if aim == "start":
            return (out / f"{NAME}.segdl").exists()
        if (out / NAME).exists():
            return True
        part = out / f"{NAME}.part"
        try:
            return part.stat().st_blocks * 512 >= size
        except FileNotFoundError:
            return False

    deadline = time.monotonic() + _HANG_SECONDS
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def _state(path: Path, blob: Blob) -> str:
    if not path.exists():
        return "absent"
    return "whole" if is_blob(path, blob.seed, blob.size) else "other"


def judge(program: Program, outcome: Outcome) -> list[str]:
    """Say what of a program's promises was broken."""
    if not program.promises:
        return []
    broken = []
    if outcome.after == "other":
        broken.append("the final name is not whole after the cut")
    if outcome.told and outcome.after != "whole":
        broken.append("it had ended with 0, and its file is gone")
    if outcome.ended != "right":
        broken.append(f"the resume ended {outcome.ended}: {outcome.text}")
    elif outcome.beside:
        broken.append(f"left beside the file: {', '.join(outcome.beside)}")
    return broken


def run(
    programs: Sequence[Program], cuts: int, size: int, seed: int, rate: str, where: Path
) -> list[Series]:
    """
    Play all cuts of all programs.

    Args:
        programs: What downloads.
        cuts: Of each.
        size: Of the file, in bytes.
        seed: Of all that is drawn.
        rate: Of all connections together, as the origin takes it.
        where: A directory on a disk.
    """
    log = where / "origin.log"
    played = [Series(program) for program in programs]
    with origin("--log", str(log), "--total-rate", rate) as (base, _):
        for series in played:
            with contextlib.closing(Disk(_IMAGE_BYTES, where)) as disk:
                cutter = Cutter(disk, base, series.program, size, seed)
                for number in range(1, cuts + 1):
                    outcome = cutter.play(number)
                    series.outcomes.append(outcome)
                    print(_line(series.program, number, outcome), flush=True)
                    for broken in judge(series.program, outcome):
                        series.violations.append(f"cut {number}: {broken}")
                        print(f"VIOLATION, --seed {seed}: {broken}", flush=True)
    # The origin has ended, so its log is complete.
    for series in played:
        series.outcomes = _counted(series.outcomes, log)
    return played


def _line(program: Program, number: int, outcome: Outcome) -> str:
    told = "had ended" if outcome.told else "ran"
    said = f" ({outcome.text.splitlines()[-1]})" if outcome.ended == "error" else ""
    return (
        f"{number:4} {program.name:28} {told}, then {outcome.after}, resumed: "
        f"{outcome.ended}{said}; {outcome.draw}"
    )


def _counted(outcomes: Sequence[Outcome], log: Path) -> list[Outcome]:
    """Add what was sent, from the origin's log."""
    sent: dict[str, list[tuple[float, Run]]] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["offset"] is not None and entry["sent_bytes"]:
            begin = entry["offset"]
            path = entry["path"].rpartition("/")[0]
            sent.setdefault(path, []).append(
                (entry["began"], (begin, begin + entry["sent_bytes"]))
            )
    counted = []
    for outcome in outcomes:
        runs = sent.get(outcome.path, [])
        before = merged(run for began, run in runs if began < outcome.resumed)
        after = merged(run for began, run in runs if began >= outcome.resumed)
        again = sum(overlap(run, before) for run in after)
        counted.append(replace(outcome, before=length(before), again=again))
    return counted


def table(played: Sequence[Series], size: int, seed: int) -> str:
    """Write what all series showed, as Markdown."""
    lines = [
        f"{size} bytes from a throttled origin to ext4; seed {seed}; {run_mark()}.",
        "",
        "| program | cuts | final name after the cut: absent, whole, other | "
        "resumed: right bytes | wrong bytes as success | error | fetched again |",
        "|---|---|---|---|---|---|---|",
    ]
    for series in played:
        outcomes = series.outcomes
        after = Counter(outcome.after for outcome in outcomes)
        ended = Counter(outcome.ended for outcome in outcomes)
        before = sum(outcome.before for outcome in outcomes)
        again = sum(outcome.again for outcome in outcomes)
        share = f"{100 * again / before:.0f} %" if before else "-"
        cells = [
            f"`{series.program.name}`",
            len(outcomes),
            f"{after['absent']}, {after['whole']}, {after['other']}",
            ended["right"],
            f"**{ended['wrong']}**" if ended["wrong"] else 0,
            ended["error"],
            share,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", *_remarks(played)]
    return "\n".join(lines).strip()


def _remarks(played: Sequence[Series]) -> list[str]:
    """Say in words what the numbers do not."""
    said = []
    for series in played:
        lost = [o for o in series.outcomes if o.told and o.after != "whole"]
        if lost:
            said.append(
                f"- `{series.program.name}`: {len(lost)} files that were reported as "
                "done before the cut were not whole after it."
            )
        errors = Counter(
            o.text.splitlines()[-1] if o.text else "(silent)"
            for o in series.outcomes
            if o.ended == "error"
        )
        for text, count in _shortened(errors).items():
            said.append(f"- `{series.program.name}`, {count} cuts: {text}")
        said += [f"- `{series.program.name}`, {each}" for each in series.violations]
    return said


def _shortened(errors: Counter[str]) -> Counter[str]:
    """Join messages that differ in paths and numbers alone."""
    joined: Counter[str] = Counter()
    for text, count in errors.items():
        words = ["…" if "/" in word else word for word in text.split()]
        joined[" ".join(words)[:160]] += count
    return joined


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run with a command line.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        0, or 1 when a promise was broken, or 2 when no power can be cut here.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.powercut", description="Cut the power, resume, compare."
    )
    add = parser.add_argument
    add("--cuts", type=int, default=200, help="of each program (%(default)s)")
    add("--seed", type=int, default=1, help="of all that is drawn (%(default)s)")
    add("--durability", default=",".join(LEVELS), help="levels (%(default)s)")
    add("--peers", action="store_true", help="aria2c, wget and curl too")
    add("--size", type=parse_size, default=16 * MIB + 12345, help="of the file (16M)")
    add("--rate", default="24M", help="bytes/s of all connections (%(default)s)")
    add("--record", action="store_true", help="write docs/reliability.md")
    add("--dir", type=Path, help="where images are made; on a disk")
    given = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(given)
    levels = args.durability.split(",")
    if not set(levels) <= set(LEVELS):
        parser.error(f"a durability is one of {', '.join(LEVELS)}")
    missing = what_is_missing()
    if missing is not None:
        print(f"no power can be cut here: it {missing}", file=sys.stderr)
        return 2
    in_own_namespace("bench.powercut", given)
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _stop)
    programs = [segdl_at(level) for level in levels]
    programs += others() if args.peers else []
    with work_directory(args.dir) as directory:
        played = run(
            programs, args.cuts, args.size, args.seed, args.rate, Path(directory)
        )
    result = table(played, args.size, args.seed)
    print(result)
    if args.record:
        record("power-cuts", result)
    return 1 if any(series.violations for series in played) else 0


if __name__ == "__main__":
    sys.exit(main())
