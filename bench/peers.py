"""`python -m bench.peers`: rows of the fault matrix, with other downloaders beside.

    a row     an origin of its own for each program ── the same fault in the URL
                 ^
              segdl, aria2c, wget, curl: each with its best options, and a deadline

Each program gets what it offers against the fault: retries, time limits, several
connections where it has them, resuming, a digest where it takes one. What is said of a
run comes from its exit code, the bytes on the disk and the origins' logs:

    right    it ended with 0, and the bytes are those of one version of the file
    WRONG    it ended with 0, and they are not
    error    it ended with another code; "kept" when something is left to go on with
    hang     it did not end by the deadline, and was killed
    LEAKED   the token in its header went to an origin it was not meant for

Some rows have a second act: the program is killed, or the disk is full, something
happens, and the same command is run again; then the second run is the one that counts.
Nothing is measured here but the outcome. segdl gets fewer tries than the others, since
it counts only those that make no progress.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from pathlib import Path

from bench._content import MIB, work_directory
from bench._disk import in_own_namespace, what_is_missing
from bench._processes import environment, segdl_command, wait_until
from bench._record import record, run_mark
from bench.powercut import others, segdl_at
from bench.powercut import run as cut_power
from segdl.testing import Blob, Origin

NAME = "file.bin"
SIZE = 6 * MIB + 777
_RATE = 6.0 * MIB
_FILE_LIMIT_BYTES = 64 * MIB
_TOKEN = "peers-token-7f3a"
_PRECIOUS = b"another file, which nobody may change\n" * 1000
_POWER_CUTS = 25
_POWER_BYTES = 16 * MIB + 12345

Act = Callable[["Stage"], None]


@dataclass(frozen=True, slots=True)
class Row:
    """
    A fault, and what may come of it.

    Args:
        number: In the matrix.
        fault: In words.
        faults: In the URL.
        options: More options in the URL.
        digest: Whether the programs that take one are given the digest.
        good: Outcomes that are no loss.
        repeat: How many runs.
        before: Called before the first run.
        meanwhile: Called while the first run goes on, on a thread.
        between: Called after the first run, when there is a second.
        served: The URL is of a real file, which `between` may change.
        root: It mounts something.
        deadline: In seconds.
    """

    number: int
    fault: str
    faults: tuple[str, ...] = ()
    _: KW_ONLY
    options: dict[str, str] = field(default_factory=dict)
    digest: bool = False
    good: tuple[str, ...] = ("right",)
    repeat: int = 2
    before: Act | None = None
    meanwhile: Act | None = None
    between: Act | None = None
    served: bool = False
    root: bool = False
    deadline: float = 90.0


class Stage:
    """
    Where one program meets one fault.

    Args:
        row: The fault.
        program: One of `PROGRAMS`.
        place: An empty directory.
        draw: Of what is drawn.
    """

    def __init__(
        self, row: Row, program: str, place: Path, draw: random.Random
    ) -> None:
        self.row = row
        self.program = program
        self.draw = draw
        self.out = place / "out"
        self.out.mkdir()
        self.home = place / "home"
        self.home.mkdir()
        self.origin = Origin(total_rate=_RATE, root=place)
        self.other = Origin(total_rate=_RATE)
        self.blob = Blob(1, SIZE)
        # Each of these is a version of the file; the bytes may be those of any.
        self.versions = [self.blob.read(), Blob(2, SIZE).read()]
        self.process: subprocess.Popen[bytes] | None = None
        self._served = place / NAME
        if row.served:
            self.serve(1, SIZE)

    @property
    def path(self) -> Path:
        """Where the file is saved."""
        return self.out / NAME

    def serve(self, seed: int, size: int) -> None:
        """Put another version of the real file in place."""
        content = Blob(seed, size).read()
        self._served.write_bytes(content)
        os.utime(self._served, (10**9 + seed, 10**9 + seed))
        self.versions = [content]

    def url(self) -> str:
        """Give the URL that the program gets."""
        if self.row.served:
            return self.origin.file_url(NAME)
        faults = [
            each.format(other=self.other.blob_url(1, SIZE, NAME), self=self.origin.url)
            for each in self.row.faults
        ]
        return self.origin.blob_url(1, SIZE, NAME, f=faults, **self.row.options)

    def play(self) -> str:
        """Run the program, twice where there is a second act; say what came of it."""
        with self.origin, self.other:
            if self.row.before is not None:
                self.row.before(self)
            code = self._run(first=True)
            if self.row.between is not None:
                self.row.between(self)
                code = self._run(first=False)
            return self._outcome(code)

    def _run(self, *, first: bool) -> int | None:
        """Run the program; None when it did not end by the deadline."""
        command = PROGRAMS[self.program](self)
        self.process = process = subprocess.Popen(
            ["prlimit", f"--fsize={_FILE_LIMIT_BYTES}", *command],
            cwd=self.home,
            env=environment(HOME=str(self.home)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        helper = None
        if first and self.row.meanwhile is not None:
            helper = threading.Thread(target=self.row.meanwhile, args=(self,))
            helper.start()
        try:
            return process.wait(self.row.deadline)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()
            process.wait()
            if helper is not None:
                helper.join()

    def kill(self) -> None:
        """Kill the program and all of its processes."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def wait_for_part(self, share: float) -> None:
        """Wait until a share of the file was sent, or the program has ended."""
        process = self.process
        assert process is not None
        wait_until(
            lambda: (
                self.origin.log.bytes_sent() >= share * SIZE
                or process.poll() is not None
            ),
            self.row.deadline,
        )

    def _outcome(self, code: int | None) -> str:
        leaked = any(_TOKEN in repr(each.headers) for each in self.other.log.entries)
        if leaked and self.program:
            return "LEAKED"
        if code is None:
            return "hang"
        if code != 0:
            kept = any(each.stat().st_size for each in self.out.iterdir())
            return "error, kept" if kept else "error"
        if not self.path.is_file():
            return "WRONG"
        return "right" if self.path.read_bytes() in self.versions else "WRONG"


# --- the programs ---------------------------------------------------------------------


def _segdl(stage: Stage) -> list[str]:
    digest = ["--checksum", f"sha256:{stage.blob.digest()}"]
    return segdl_command(
        *("get", "-q", "--no-progress", "-d", str(stage.out), "-o", NAME, "-x", "4"),
        *("--timeout", "5", "--retry-times", "5", "--retry-delay", "0.2"),
        *("-H", f"Authorization: Bearer {_TOKEN}"),
        *(digest if stage.row.digest else []),
        stage.url(),
    )


def _aria2(stage: Stage) -> list[str]:
    digest = [f"--checksum=sha-256={stage.blob.digest()}"]
    return [
        *("aria2c", "--no-conf", "-q", "-c", "-x4", "-s4", "-k1M", "--max-tries=11"),
        *("--retry-wait=1", "--timeout=5", "--connect-timeout=5"),
        *("--lowest-speed-limit=1K", "--auto-file-renaming=false"),
        *("-d", str(stage.out), "-o", NAME),
        f"--header=Authorization: Bearer {_TOKEN}",
        *(digest if stage.row.digest else []),
        stage.url(),
    ]


def _wget(stage: Stage) -> list[str]:
    return [
        *("wget", "--no-config", "-q", "-c", "--tries=11", "--timeout=5"),
        *("--waitretry=1", "--retry-connrefused"),
        "--retry-on-http-error=429,500,502,503,504",
        f"--header=Authorization: Bearer {_TOKEN}",
        *("-O", str(stage.path), stage.url()),
    ]


def _curl(stage: Stage) -> list[str]:
    return [
        *("curl", "-q", "-sS", "--fail", "-L", "-C", "-", "--retry", "10"),
        *("--retry-delay", "1", "--retry-all-errors", "--retry-connrefused"),
        *("--connect-timeout", "5", "--speed-limit", "1000", "--speed-time", "5"),
        *("-H", f"Authorization: Bearer {_TOKEN}"),
        *("-o", str(stage.path), stage.url()),
    ]


PROGRAMS: dict[str, Callable[[Stage], list[str]]] = {
    "segdl": _segdl,
    "aria2c": _aria2,
    "wget": _wget,
    "curl": _curl,
}


# --- what happens in some rows --------------------------------------------------------


def _restart_origin(stage: Stage) -> None:
    stage.wait_for_part(0.4)
    stage.origin.stop()
    threading.Event().wait(2.0)  # that long is the fault
    stage.origin.start()


def _kill_half_way(stage: Stage) -> None:
    stage.wait_for_part(stage.draw.uniform(0.2, 0.8))
    stage.kill()


def _go_on(_: Stage) -> None:
    """Nothing happens between the two runs."""


def _replace(seed: int, size: int) -> Act:
    return lambda stage: stage.serve(seed, size)


def _put_other_file(stage: Stage) -> None:
    stage.path.write_bytes(_PRECIOUS)


def _mount(options: str) -> Act:
    command = ("mount", "-t", "tmpfs", "-o", options, "none")
    return lambda stage: subprocess.run([*command, str(stage.out)], check=True)


_ERRORS = ("error", "error, kept")
_EITHER = ("right", *_ERRORS)
_CUT = "fin@req1.byte2000000"
_NO_RANGES = {"ranges": "off"}


def _bad_content_range(name: str, text: str) -> Row:
    text = text.replace("{", "{{").replace("}", "}}")
    return Row(26, f"bad Content-Range: {name}", (_CUT, f"badcr={text}@req2"))


_killed = partial(Row, meanwhile=_kill_half_way)
_replaced = partial(_killed, served=True, repeat=3)

ROWS = [
    Row(2, "origin away for 2 s", meanwhile=_restart_origin),
    Row(3, "connections reset in the body, 6 times", ("rst@byte1200000,6",)),
    Row(4, "connections closed early, 6 times", ("fin@byte1200000,6",)),
    Row(7, "stalls after the head, once", ("stall@req1.byte0",)),
    Row(7, "stalls in the body, once", ("stall@req1.byte1500000",)),
    Row(8, "1 byte a second from 1.5 MB on, once", ("slow=1@req1.byte1500000",)),
    Row(
        20,
        "one bit flipped, with a digest",
        ("corrupt@at3000000",),
        digest=True,
        good=_EITHER,
    ),
    Row(21, "no ranges", options=_NO_RANGES),
    Row(21, "no ranges, and closed early, once", (_CUT,), options=_NO_RANGES),
    Row(22, "200 to the second request's range", (_CUT, "full200@req2")),
    Row(23, "206 that begins 1 byte later", (_CUT, "wrongfirst@req2")),
    Row(24, "206 with 1024 bytes more, head and body", (_CUT, "long@req2")),
    Row(24, "206 with 1024 bytes more in the body", (_CUT, "longbody@req2")),
    Row(25, "206 with half of it", (_CUT, "short@req2")),
    _bad_content_range("last before first", "bytes {last}-{first}/{complete}"),
    _bad_content_range("a sign", "bytes +{first}-{last}/{complete}"),
    _bad_content_range("beyond the end", "bytes {first}-{last}/5"),
    _bad_content_range("no numbers", "bytes all of it"),
    Row(
        29,
        "another complete length from the second request on",
        (_CUT, "wronglen=1000@req2,*"),
        good=_EITHER,
    ),
    _replaced(
        30,
        "file replaced between kill and resume; longer",
        between=_replace(2, SIZE + MIB),
    ),
    Row(
        31,
        "file replaced while it comes, then a cut; same size",
        ("swap=2@req1.byte1500000", _CUT),
    ),
    _replaced(
        31,
        "file replaced between kill and resume; same size",
        between=_replace(2, SIZE),
    ),
    Row(
        32,
        "replaced, nothing in the head tells; with a digest",
        ("swapsame=2@req1.byte1500000", _CUT),
        digest=True,
        good=_ERRORS,
    ),
    _killed(34, "200 to every If-Range, after kill -9", ("ignoreif",), between=_go_on),
    Row(35, "gzip, not asked for", ("gzip",), good=_EITHER),
    Row(36, "Content-Length and chunked both", ("clte",), good=_EITHER),
    _replaced(37, "416: the file is shorter at the resume", between=_replace(1, MIB)),
    Row(41, "503 with Retry-After, twice", ("status=503:retry=1@req1,2",)),
    Row(41, "429 half-way, twice", (_CUT, "status=429:retry=1@req2,2")),
    Row(42, "500 half-way, twice", (_CUT, "status=500@req2,2")),
    Row(42, "404 half-way, for ever", (_CUT, "status=404@req2,*"), good=_EITHER),
    Row(43, "two connections, more get 503", options={"cap": "2"}),
    Row(43, "two connections, more are reset", options={"cap": "2", "over": "rst"}),
    Row(44, "redirect to another origin, with a token", ("redirect={other}",)),
    Row(
        44,
        "60 redirects",
        (f"redirect={'/redirect?to=' * 60}/b/1/100/a",),
        good=_ERRORS,
    ),
    Row(44, "redirect to a local file", ("redirect=file:///etc/passwd",), good=_ERRORS),
    Row(45, "256 MiB of header fields", ("hdrflood=268435456",), good=_ERRORS),
    Row(46, "a body that never ends", (_CUT, "endless@req2,*"), good=_EITHER),
    Row(
        47,
        "a login page from the second request on",
        (_CUT, "html@req2,*"),
        good=_EITHER,
    ),
    Row(
        48,
        "disk full, then freed, the same command",
        before=_mount("size=4m"),
        between=_mount("remount,size=64m"),
        root=True,
    ),
    Row(53, "another file has the name", before=_put_other_file, good=_EITHER),
    _killed(58, "kill -9 at a random instant, resume", between=_go_on, repeat=6),
]


def run(
    chosen: Sequence[Row], programs: Sequence[str], seed: int, where: Path
) -> list[tuple[Row, dict[str, Counter[str]]]]:
    """
    Play rows with programs, the programs beside each other.

    Args:
        chosen: The rows.
        programs: Keys of `PROGRAMS`.
        seed: Of what is drawn.
        where: A directory for all files.
    """
    found = []
    with ThreadPoolExecutor(len(programs)) as pool:
        for row in chosen:
            outcomes: dict[str, Counter[str]] = {name: Counter() for name in programs}
            for number in range(row.repeat):
                plays = {
                    name: pool.submit(_play, row, name, f"{seed}/{number}", where)
                    for name in programs
                }
                for name, play in plays.items():
                    outcomes[name][play.result()] += 1
            found.append((row, outcomes))
            said = "; ".join(f"{name}: {_cell(outcomes[name])}" for name in programs)
            print(f"{row.number:3} {row.fault}: {said}", flush=True)
    return found


def _play(row: Row, program: str, seed: str, where: Path) -> str:
    place = where / f"{program}-{threading.get_ident()}"
    place.mkdir()
    stage = Stage(row, program, place, random.Random(f"{seed}/{row.fault}/{program}"))
    try:
        return stage.play()
    finally:
        stage.kill()
        if os.path.ismount(stage.out):
            subprocess.run(["umount", "--lazy", str(stage.out)], check=True)
        shutil.rmtree(place)


def _cell(outcomes: Counter[str]) -> str:
    words = []
    for outcome, count in outcomes.most_common():
        shown = f"**{outcome}**" if outcome in ("WRONG", "hang", "LEAKED") else outcome
        words.append(shown if len(outcomes) == 1 else f"{count}x {shown}")
    return "; ".join(words)


def power_cuts(
    programs: Sequence[str], seed: int, where: Path
) -> dict[str, Counter[str]]:
    """
    Cut the power, as bench/powercut.py does.

    Args:
        programs: Keys of `PROGRAMS`.
        seed: Of what is drawn.
        where: A directory on a disk.
    """
    known = {program.name.split()[0]: program for program in others()}
    known["segdl"] = segdl_at("publish")
    wanted = [known[name] for name in programs]
    played = cut_power(wanted, _POWER_CUTS, _POWER_BYTES, seed, "24M", where)
    words = {"right": "right", "wrong": "WRONG", "error": "error, kept"}
    return {
        name: Counter(words[outcome.ended] for outcome in series.outcomes)
        for name, series in zip(programs, played, strict=True)
    }


def table(
    found: Sequence[tuple[Row, dict[str, Counter[str]]]], programs: Sequence[str]
) -> str:
    """Write all outcomes as Markdown."""
    versions = ", ".join(filter(None, map(_version, programs)))
    lines = [
        f"{versions}; {run_mark()}. `right`: the bytes of one version of the file; "
        "`WRONG`: other bytes, reported as success; `error, kept`: an error, with "
        "something left to go on with; `hang`: killed at a deadline; `LEAKED`: the "
        "token went to another origin. wget and curl take no digest.",
        "",
        f"| # | fault | runs | {' | '.join(programs)} |",
        f"|---|---|---|{'---|' * len(programs)}",
    ]
    for row, outcomes in found:
        cells = [row.number, row.fault, row.repeat]
        cells += [_cell(outcomes[name]) for name in programs]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    totals = []
    for name in programs:
        bad = Counter(
            outcome
            for _, outcomes in found
            for outcome in outcomes[name]
            if outcome in ("WRONG", "hang", "LEAKED")
        )
        words = [f"{bad[each]} {each}" for each in ("WRONG", "hang", "LEAKED")]
        totals.append(f"{name} {', '.join(words)}")
    lines += ["", f"Rows with at least one such run: {'; '.join(totals)}."]
    return "\n".join(lines)


def _version(program: str) -> str:
    command = (
        segdl_command("--version") if program == "segdl" else [program, "--version"]
    )
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False
    )
    words = done.stdout.split("\n", 1)[0].split()
    number = next((word for word in words if word[:1].isdigit()), "")
    return f"{program} {number.rstrip(',')}".strip()


def lost(row: Row, outcomes: dict[str, Counter[str]]) -> list[str]:
    """Say what segdl should not have done."""
    return [
        f"row {row.number}, {row.fault}: segdl {outcome}"
        for outcome in outcomes.get("segdl", ())
        if outcome not in row.good
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run with a command line.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        0, or 1 when segdl lost a row.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description="The same faults, several programs."
    )
    add = parser.add_argument
    add("--seed", type=int, default=1, help="of what is drawn (%(default)s)")
    add("--rows", help="numbers of rows, such as 3,31 (all)")
    add("--record", action="store_true", help="write docs/reliability.md")
    add("--dir", type=Path, help="where files are written; on a disk")
    given = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(given)
    missing = what_is_missing()
    if missing is None:
        in_own_namespace("bench.peers", given)
    else:
        print(f"rows 48 and 71 are left out: they {missing}", file=sys.stderr)
    programs = [name for name in PROGRAMS if name == "segdl" or shutil.which(name)]
    numbers = set(map(int, args.rows.split(","))) if args.rows else None
    chosen = [
        row
        for row in ROWS
        if (numbers is None or row.number in numbers)
        and (missing is None or not row.root)
    ]
    with work_directory(args.dir) as directory:
        found = run(chosen, programs, args.seed, Path(directory))
        if missing is None and (numbers is None or 71 in numbers):
            row = Row(71, "power cut at a random instant, resume", repeat=_POWER_CUTS)
            found.append((row, power_cuts(programs, args.seed, Path(directory))))
    result = table(found, programs)
    print(result)
    if args.record:
        record("peers", result)
    problems = [each for row, outcomes in found for each in lost(row, outcomes)]
    print(*problems, sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
