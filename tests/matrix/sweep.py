"""
The crash sweeps: one small download, disturbed at each call that changes a file.

    scenario ──count()──> every call: process, call, file, nth
                              │ draw some, or all of them with --full
                              v
    download, disturbed ──> what is on the disk, what was told ──> the same command
    (kill, EIO, ENOSPC, EINTR, short, lost)                            │
                                         exact? nothing recorded fetched again?
                                         nothing else left? ──> SUMMARY

`calls.py` disturbs. What must hold between the two runs: the final name is absent, what
it was before, or whole; recorded pieces hold the right bytes; no secret is on the disk.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import calls
from http_checks import MANIFEST, MIB, NAME, PART, file_digest, names, refetched
from world import World

from bench._record import record, run_mark
from segdl._manifest import parse
from segdl.errors import ManifestError
from segdl.testing import Blob, Request

SIZE = 4 * MIB + 77
SMALL = MIB - 77
OLD = b"what was there before"
# Python makes these again after EINTR; on a local disk the others never give it.
INTERRUPTED = frozenset({"write", "pwrite64", "openat", "ftruncate", "fdatasync"})

_DEADLINE_SECONDS = 60.0
_AT_A_TIME = 2
_CALLS = str(Path(calls.__file__))
_OFTEN = (  # checkpoints, many in a download of half a second
    "import sys; from segdl import _job; _job._CHECKPOINT_SECONDS = 0.05; "
    "from segdl.cli import main; sys.exit(main())"
)
_seeds = count(1000)


@dataclass(frozen=True)
class Scenario:
    """
    A download and what is there before it.

    Args:
        name: For the table.
        options: Of `segdl get`.
        rate: Bytes/s of a connection, "" for no limit.
        begin: How the program is begun.
        there: "" for nothing, "old" for a file of the final name, "half" for an
            unfinished download, of which one recorded piece was damaged since.
        checked: Whether the digest is given.
        size: Of the file, in bytes.
        umask: Of the program; with 002 the finished file is one that others may write.
    """

    name: str
    options: tuple[str, ...]
    rate: str = ""
    begin: tuple[str, ...] = ("-m", "segdl")
    there: str = ""
    checked: bool = False
    umask: int = 0o022
    size: int = SIZE


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("none", ("--durability", "none")),
        Scenario("publish", ("--durability", "publish"), umask=0o002),
        Scenario(
            "checkpoint", ("--durability", "checkpoint"), "4M", begin=("-c", _OFTEN)
        ),
        Scenario("overwrite", ("--on-exists", "overwrite"), there="old"),
        Scenario("half", (), "8M", there="half"),
        Scenario("checked", (), checked=True),
        # Without a manifest.
        Scenario("small", (), size=SMALL),
        Scenario("small, over", ("--on-exists", "overwrite"), there="old", size=SMALL),
        Scenario("two workers", ("--processes", "2", "-x", "4"), size=64 * MIB + 77),
    )
}
# The last one is too large to be tried at every call.
SWEPT = tuple(name for name, each in SCENARIOS.items() if each.size <= SIZE)


@dataclass(frozen=True)
class Point:
    """A call, and what happens to it; the fields as in `calls`."""

    scenario: str
    process: str
    call: str
    file: str
    nth: int
    what: str = ""

    @property
    def spec(self) -> str:
        return f"{self.process}:{self.call}:{self.file}:{self.nth}"


@dataclass(frozen=True)
class Outcome:
    """
    How a disturbed download went.

    Args:
        kind: "not reached"; "went on", it ended well all the same; "published", it did
            not, but the file was there; or "resumed".
        text: What the first run wrote to standard error.
        recorded_bytes: What it left recorded.
    """

    kind: str
    text: str = ""
    recorded_bytes: int = 0


@dataclass
class Summary:
    """What the sweeps of a session showed, for the table."""

    calls: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    outcomes: dict[tuple[str, str, str, str], Counter[str]] = field(
        default_factory=dict
    )
    tried: dict[tuple[str, str, str, str], Counter[str]] = field(default_factory=dict)

    def counted(self, points: Iterable[Point]) -> None:
        """Take the calls of an undisturbed download."""
        for point in points:
            self.calls[_key(point)] = max(self.calls[_key(point)], point.nth)

    def note(self, point: Point, outcome: str) -> None:
        """Take the outcome of a point."""
        self.tried.setdefault(_key(point), Counter())[point.what] += 1
        self.outcomes.setdefault(_key(point), Counter())[outcome] += 1

    def write(self) -> None:
        """Put the table into docs/reliability.md."""
        if not self.tried:
            return
        kinds = ("kill", "EIO", "ENOSPC", "EINTR", "short", "lost")
        lines = [
            f"| download | process | call | occurs | {' | '.join(kinds)} | outcomes |",
            f"|---|---|---|---|{'---|' * len(kinds)}---|",
        ]
        for key in sorted(self.tried, key=lambda key: list(SCENARIOS).index(key[0])):
            scenario, process, call, file = key
            tried = " | ".join(str(self.tried[key][kind] or "") for kind in kinds)
            outcomes = ", ".join(
                f"{outcome} {number}"
                for outcome, number in sorted(self.outcomes[key].items())
            )
            occurs = self.calls[key] or "-"
            lines.append(
                f"| {scenario} | {process} | {call} {file} | {occurs} | "
                f"{tried} | {outcomes} |"
            )
        points = sum(sum(each.values()) for each in self.tried.values())
        head = (
            f"{points} points, {SIZE} bytes in pieces of 1 MiB; after each, the same "
            f"command ended in the exact file. Last run: {run_mark()}."
        )
        record("sweeps", "\n".join([head, "", *lines]))


SUMMARY = Summary()


def _key(point: Point) -> tuple[str, str, str, str]:
    return point.scenario, point.process, point.call, point.file


class Sweep:
    """
    The sweeps of one test.

    Args:
        world: Its origin serves, its secrets go along.
        draw: Picks points where not all are tried.
        full: Whether all are.
    """

    def __init__(self, world: World, draw: random.Random, full: bool) -> None:
        self._world = world
        self._draw = draw
        self._full = full
        self._place = world.out.parent / "sweep"
        self._place.mkdir(exist_ok=True)
        self._token = self._place / "token"
        self._token.write_text(f"Authorization: Bearer {world.secrets.header}\n")
        world.most_requests = 1_000_000

    def kinds(self, points: Sequence[Point], *whats: str) -> list[Point]:
        """Give the points at which one of these things can happen."""
        found = []
        for point in points:
            for what in whats:
                if (
                    (what == "short" and point.call not in calls.WRITES)
                    or (what == "lost" and point.call != "pwrite64")
                    or (what == "EINTR" and point.call not in INTERRUPTED)
                ):
                    continue
                found.append(replace(point, what=what))
        return found

    def count(self, name: str) -> list[Point]:
        """List the calls of an undisturbed download, by scenario."""
        run = self.run(name)
        code, text = run.once("none:none:none:1", "kill")
        assert code == 0, text
        run.check_whole()
        points = [
            Point(name, process, call, file, int(nth))
            for process, call, file, nth in run.log()
        ]
        SUMMARY.counted(points)
        return points

    def some(self, points: Sequence[Point], number: int) -> list[Point]:
        """Draw some points; all of them in a full run."""
        if self._full or len(points) <= number:
            return list(points)
        return self._draw.sample(points, number)

    def scenarios(self, *among: str, number: int = 1) -> list[str]:
        """Draw scenarios; all of them in a full run."""
        return list(among) if self._full else self._draw.sample(among, number)

    def run(self, name: str) -> Run:
        """Prepare a single download, by scenario."""
        return Run(self._world, SCENARIOS[name], self._place, self._token)

    def play(self, points: Sequence[Point]) -> dict[Point, Outcome]:
        """Disturb a download at each point, go on, and check everything."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            outcomes = list(pool.map(self._play, points))
        wrong = [
            f"{p}: {o}"
            for p, o in zip(points, outcomes, strict=True)
            if isinstance(o, str)
        ]
        # All of them: a full run takes long.
        assert not wrong, "\n".join(wrong)
        return {
            p: o
            for p, o in zip(points, outcomes, strict=True)
            if isinstance(o, Outcome)
        }

    def _play(self, point: Point) -> Outcome | str:
        """Give the outcome, or what was wrong."""
        try:
            outcome = self.run(point.scenario).play(point)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            SUMMARY.note(point, "**failed**")
            return str(error)
        SUMMARY.note(point, outcome.kind)
        return outcome


class Run:
    """
    One download of a sweep, in a directory of its own.

    Attributes:
        out: That directory.
        begin: How the program is begun.
    """

    def __init__(
        self, world: World, scenario: Scenario, place: Path, token: Path
    ) -> None:
        seed = next(_seeds)
        self._world = world
        self._scenario = scenario
        self._blob = Blob(seed, scenario.size)
        self._path = f"/b/{seed}/{scenario.size}"
        self.out = place / str(seed)
        self.out.mkdir()
        self._log = place / f"{seed}.log"
        rate = {"rate": scenario.rate} if scenario.rate else {}
        url = world.with_secrets(world.origin.blob_url(seed, scenario.size, **rate))
        digest = f"sha256:{self._blob.digest()}"
        self.begin = scenario.begin
        self._arguments = [
            *("get", "-q", "--no-progress"),
            *("-d", str(self.out), "-o", NAME, "-x", "2", "--processes", "1"),
            *("--retry-delay", "0", "-H", f"@{token}", *scenario.options),
            *(("--checksum", digest) if scenario.checked else ()),
            url,
        ]
        self._damaged = (0, 0)
        if scenario.there == "old":
            (self.out / NAME).write_bytes(OLD)
        elif scenario.there == "half":
            self._leave_half()

    def _leave_half(self) -> None:
        """Have some pieces recorded, and one of them changed on the disk."""
        code, text = self.once("program:write:manifest:2", "kill")
        assert code == -signal.SIGKILL, text
        begin, end = self._recorded()[0]
        self.damage(begin)
        # As if it had been copied, so that its pieces are compared.
        copy = self.out / f"{PART}.copy"
        copy.write_bytes((self.out / PART).read_bytes())
        copy.chmod(0o600)
        copy.replace(self.out / PART)
        self._damaged = (begin, end)

    def once(self, spec: str, what: str) -> tuple[int, str]:
        """Download with one call disturbed; give exit code and standard error."""
        tracer = [sys.executable, _CALLS, "--below", str(self.out)]
        tracer += ["--log", str(self._log), "--at", spec, "--do", what, "--"]
        return self._run([*tracer, *self._command()])

    def undisturbed(self) -> tuple[int, str]:
        """Download; give exit code and standard error."""
        return self._run(self._command())

    def _command(self) -> list[str]:
        return [sys.executable, *self.begin, *self._arguments]

    def _run(self, command: list[str]) -> tuple[int, str]:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_DEADLINE_SECONDS,
            umask=self._scenario.umask,
        )
        assert done.stdout in ("", f"{self.out / NAME}\n"), done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, self._world.clean_text(done.stderr, "standard error")

    def log(self, disturbed: bool = False) -> list[list[str]]:
        """Give the calls, in words; or what was done, where something was."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [line for line in lines if (len(line) == 5) is disturbed]

    def damage(self, offset: int) -> None:
        """Change what the part holds."""
        with (self.out / PART).open("r+b") as part:
            part.seek(offset)
            part.write(b"\0" * 4096)

    def play(self, point: Point) -> Outcome:
        """Disturb, look, go on, look again."""
        code, text = self.once(point.spec, point.what)
        if not self.log(disturbed=True):
            assert code == 0, text
            self.check_whole()
            return Outcome("not reached")
        self._check_told(point, code, text)
        if code == 0:
            self.check_whole()
            return Outcome("went on", text)
        published = self._check_between(killed=point.what == "kill")
        recorded = self._recorded()
        before = len(self._world.origin.log.entries)
        code, later = self.undisturbed()
        assert code == 0, later
        self.check_whole()
        self._check_cost(recorded, before)
        kind = "published" if published else "resumed"
        return Outcome(kind, text, sum(end - begin for begin, end in recorded))

    def _check_told(self, point: Point, code: int, text: str) -> None:
        """Check exit code and message."""
        failure = getattr(errno, point.what, errno.EINTR)
        if point.what == "kill" and point.process == "program":
            assert code == -signal.SIGKILL, text
        elif failure != errno.EINTR:
            assert code in (0, 5), text
            assert not code or os.strerror(failure) in text, text
        else:
            assert code == 0, text

    def _check_between(self, *, killed: bool) -> bool:
        """Check what a run left that did not end well; tell whether it published."""
        final = self.out / NAME
        published = False
        if final.exists():
            published = file_digest(final) == self._blob.digest()
            old = self._scenario.there == "old" and final.read_bytes() == OLD
            assert published or old, "the final name is neither old nor whole"
        else:
            assert self._scenario.there != "old", "the old file is gone"
        there = set(names(self.out))
        if killed:  # nobody could remove it any more
            there -= {name for name in there if name.endswith(".tmp")}
        else:
            assert published or (PART in there) == (MANIFEST in there), there
        assert there <= {NAME, PART, MANIFEST}, there
        if (self.out / MANIFEST).exists():
            text = (self.out / MANIFEST).read_bytes().decode("latin-1")
            self._world.clean_text(text, "the manifest")
        return published

    def _recorded(self) -> list[tuple[int, int]]:
        """Give what a resume must not fetch, each piece compared; but for damage."""
        try:
            pieces = parse((self.out / MANIFEST).read_bytes()).pieces
        except (FileNotFoundError, ManifestError):
            return []
        holder = self.out / (PART if (self.out / PART).exists() else NAME)
        runs = []
        with holder.open("rb") as file:
            for piece in pieces:
                begin, end = piece.offset, piece.offset + piece.length
                file.seek(begin)
                right = file.read(piece.length) == self._blob.read(begin, end)
                if not right and begin < self._damaged[1] and self._damaged[0] < end:
                    continue
                assert right, f"I2: the piece at {begin} is recorded and not there"
                runs.append((begin, end))
        return runs

    def _check_cost(self, recorded: list[tuple[int, int]], before: int) -> None:
        """Check that nothing recorded was sent again."""

        def mine(entries: tuple[Request, ...]) -> tuple[Request, ...]:
            return tuple(e for e in entries[before:] if e.path == self._path)

        log = self._world.origin.log
        log.wait_for(lambda entries: all(e.ended is not None for e in mine(entries)))
        again = sum(refetched(mine(log.entries), begin, end) for begin, end in recorded)
        whole = sum(end - begin for begin, end in recorded) == self._blob.size
        # One byte has to be asked for, to see whether the remote file changed.
        assert again <= (1 if whole else 0), f"{again} recorded bytes were sent again"

    def check_whole(self) -> None:
        """Check that the file is exact, and alone."""
        assert names(self.out) == [NAME], names(self.out)
        assert file_digest(self.out / NAME) == self._blob.digest(), "wrong bytes"
