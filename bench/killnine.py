"""`python -m bench.killnine`: kill segdl at random instants, and see what it costs.

    origin (a process of its own, throttled, logging)          one a round
       ^            ^
    segdl get ──X   segdl get ──> exact?                       a directory a round
        SIGKILL at a random instant, to
          parent   its process alone; the workers must leave by themselves
          worker   one of its workers; the program must go on by itself
          all      every process of the tree

A resume is the same command once more. Counted from the origin's log, in bytes:

    again     sent in the resume although the manifest had them recorded when it
              began: must be 0. When all of the file was recorded, one byte is asked
              for to compare the validator; it is counted apart
    lost      sent before the resume, and not recorded when it began: at most a piece,
              and what sockets hold, for each connection
    repeated  sent more often than once in the whole round: what was lost, and what was
              on its way to lanes that were split. At most a piece, and what sockets
              hold, for each connection and each answer that was cut short

What a socket held was sent by the origin's account, though no process ever read it;
so the limits count it. An origin that is throttled cannot fill a socket: it holds what
came since the client last looked, which is taken as half a second of the rate, the
time in which workers without a parent leave. After a round there must be no
process, no file but the finished one, and no new name of segdl's in /dev/shm.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench._content import MIB, parse_size, sha256, show_size, work_directory
from bench._origin import Answer, length, merged, origin, overlap, read_log
from bench._processes import (
    children,
    descendants,
    environment,
    is_running,
    kill,
    marked,
    segdl_command,
    shared_memory,
    wait_until,
)
from bench._record import record, run_mark
from segdl._manifest import parse
from segdl._plan import piece_size
from segdl.errors import ManifestError
from segdl.testing import Blob
from segdl.testing.throttle import parse_rate

VICTIMS = ("parent", "worker", "all")
NAME = "file.bin"
_VICTIM_WORDS = {
    "parent": "the program; its workers left",
    "worker": "a worker; the program went on",
    "all": "the program and its workers",
    "late": "nothing: it had ended",
}
_MARK = "SEGDL_BENCH_ROUND"

# No step of a round takes longer, or it hangs.
_HANG_SECONDS = 120.0
# Workers look for their parent twice a second, and finish what they are at.
_LEAVE_SECONDS = 5.0
_GRACE_SECONDS = 5.0
_UNREAD_SECONDS = 0.5
_ATTEMPTS = 3


class Violation(Exception):
    """segdl did not keep a promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """
    What a call asks for.

    Args:
        rounds: How many kills.
        seed: Of all that is drawn; the instant of a kill is exact to a millisecond or
            so, hence a seed repeats the draw, not every interleaving.
        size: Of the file, in bytes.
        rate: Of each connection, as the origin takes it.
        connections: Of segdl.
    """

    rounds: int
    seed: int
    size: int
    rate: str
    connections: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What one round showed.

    Args:
        victim: One of `VICTIMS`; "late" when the program had ended before the kill.
        recorded: Bytes the manifest had when the resume began, 0 without one.
        again: Of those, sent in the resume.
        compared: The byte asked for to compare the validator, when all was recorded.
        lost: Sent before the resume and not recorded then, each byte counted once.
        repeated: Sent more often than once.
        cut: Answers that were not sent to their end.
    """

    victim: str
    recorded: int = 0
    again: int = 0
    compared: int = 0
    lost: int = 0
    repeated: int = 0
    cut: int = 0


class Round:
    """
    One download that is killed once.

    Args:
        options: Of the call.
        directory: An empty one; removed by the caller.
        draw: Decides everything that is random.
        base: URL of the origin.
    """

    def __init__(
        self, options: Options, directory: Path, draw: random.Random, base: str
    ) -> None:
        self.target = directory / "target"
        self.temporary = directory / "tmp"
        self.target.mkdir()
        self.temporary.mkdir()
        self._mark = f"{os.getpid()}-{directory.name}"
        self._draw = draw
        self._blob = Blob(options.seed, options.size)
        self._command = segdl_command(
            *("get", "-q", "--no-progress", "-d", str(self.target), "-o", NAME),
            *("-x", str(options.connections), "--retry-delay", "0"),
            # In half of the rounds, so that kills meet the verification too.
            *(["--checksum", f"sha256:{self._digest}"] if draw.random() < 0.5 else []),
            f"{base}/b/{options.seed}/{options.size}/{NAME}",
        )

    @property
    def _digest(self) -> str:
        return self._blob.digest("sha256")

    def undisturbed(self) -> float:
        """Run it to its end, and give the seconds that took."""
        begin = time.monotonic()
        self._finish(self._start())
        seconds = time.monotonic() - begin
        self.check()
        return seconds

    def kill(self, victim: str, after_seconds: float) -> bool:
        """
        Start the program and kill.

        Args:
            victim: One of `VICTIMS`.
            after_seconds: From the start of the program on.

        Returns:
            Whether there was something to kill.
        """
        begin = time.monotonic()
        process = self._start()
        wait_until(
            lambda: process.poll() is not None,
            begin + after_seconds - time.monotonic(),
        )
        workers = children(process.pid)
        tree = descendants(process.pid)
        met = process.poll() is None
        if victim == "worker":
            met = met and bool(workers) and kill(self._draw.choice(workers))
            self._finish(process)
            return met
        if met:
            process.kill()
        if victim == "all":
            for pid in tree:
                kill(pid)
        process.wait(_HANG_SECONDS)
        assert process.stderr is not None
        process.stderr.close()
        # In the other half, the resume meets workers that have not left yet.
        if (victim == "all" or self._draw.random() < 0.5) and not wait_until(
            lambda: not any(map(is_running, tree)), _LEAVE_SECONDS
        ):
            left = [pid for pid in tree if is_running(pid)]
            raise Violation(f"workers {left} outlived the kill of the parent")
        return met

    @property
    def published(self) -> bool:
        """Whether the file is there already, so that its manifest says nothing."""
        return (self.target / NAME).exists()

    def recorded(self) -> list[tuple[int, int]]:
        """Give the runs the manifest has, merged; none without a manifest."""
        path = self.target / f"{NAME}.segdl"
        try:
            pieces = parse(path.read_bytes()).pieces
        except (FileNotFoundError, ManifestError):
            return []
        return merged((begin, begin + count) for begin, count in pieces.ranges())

    def resume(self) -> None:
        """Run the program again until it succeeds."""
        for attempt in range(_ATTEMPTS):
            process = self._start()
            code, text = self._end(process)
            if code == 0:
                return
            print(f"  resume {attempt + 1}: exit code {code}: {text}", flush=True)
        raise Violation(f"{_ATTEMPTS} resumes failed; the last: {text}")

    def check(self) -> None:
        """See that the file is exact, and that nothing else is left."""
        path = self.target / NAME
        if not path.exists():
            raise Violation("the program succeeded, and there is no file")
        found = sha256(path)
        if found != self._digest:
            raise Violation(f"sha256 {found}, expected {self._digest}")
        names = {each.name for each in self.target.iterdir()} - {NAME}
        names |= {each.name for each in self.temporary.iterdir()}
        if names:
            raise Violation(f"files are left: {sorted(names)}")
        if not wait_until(lambda: not marked(_MARK, self._mark), _GRACE_SECONDS):
            raise Violation(f"processes are left: {marked(_MARK, self._mark)}")

    def abandon(self) -> None:
        """End every process of the round, after a violation."""
        for pid in marked(_MARK, self._mark):
            kill(pid)

    def _start(self) -> subprocess.Popen[str]:
        mark = {_MARK: self._mark, "TMPDIR": str(self.temporary)}
        return subprocess.Popen(
            self._command,
            cwd=self.target,
            env=environment(**mark),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(self, process: subprocess.Popen[str]) -> None:
        code, text = self._end(process)
        if code:
            raise Violation(f"exit code {code}: {text}")

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            _, text = process.communicate(timeout=_HANG_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Violation(f"no end within {_HANG_SECONDS:.0f} s") from None
        return process.returncode, text.strip()


def account(
    answers: Sequence[Answer],
    resumed: float | None,
    recorded: list[tuple[int, int]],
) -> Outcome:
    """
    Count what was sent again.

    Args:
        answers: All of a round.
        resumed: Monotonic seconds of the resume; None when there was none, or nothing
            to go on with.
        recorded: Runs in the manifest when the resume began.

    Returns:
        The counts, with no victim yet.
    """
    served = [(answer.begin, answer.end) for answer in answers]
    outcome = {
        "repeated": length(served) - length(merged(served)),
        "cut": sum(not answer.complete for answer in answers),
    }
    if resumed is not None:
        before = merged(
            (answer.begin, answer.end) for answer in answers if answer.began < resumed
        )
        outcome["lost"] = length(before) - sum(overlap(run, recorded) for run in before)
        outcome["recorded"] = length(recorded)
        outcome["again"] = sum(
            overlap((answer.begin, answer.end), recorded)
            for answer in answers
            if answer.began >= resumed
        )
    return Outcome(victim="", **outcome)


def allowance_bytes(options: Options) -> int:
    """Give what one connection may lose: a piece, and what its sockets hold."""
    held = int(parse_rate(options.rate) * _UNREAD_SECONDS)
    return piece_size(options.size) + held


def play(
    options: Options, directory: Path, number: int, seconds: float
) -> tuple[Outcome, float]:
    """
    Play one round.

    Args:
        options: Of the call.
        directory: For its files; they are removed.
        number: Of the round, 1 for the first; 0 is undisturbed.
        seconds: What an undisturbed round takes.

    Returns:
        The outcome, and for round 0 its seconds.

    Raises:
        Violation: What segdl promises was not so.
    """
    draw = random.Random(f"{options.seed}/{number}")
    place = directory / f"round-{number}"
    place.mkdir()
    log = place / "origin.log"
    shared = shared_memory()
    victim, resumed = VICTIMS[number % len(VICTIMS)], None
    recorded: list[tuple[int, int]] = []
    try:
        with origin("--log", str(log), "--rate", options.rate) as (base, _):
            made = Round(options, place, draw, base)
            try:
                if number == 0:
                    victim, seconds = "none", made.undisturbed()
                else:
                    met = made.kill(victim, draw.uniform(0.0, seconds))
                    if victim != "worker":
                        if not made.published:
                            recorded, resumed = made.recorded(), time.monotonic()
                        made.resume()
                    made.check()
                    victim = victim if met else "late"
            finally:
                made.abandon()
        # The origin has ended, so its log is complete.
        outcome = account(read_log(log), resumed, recorded)
    finally:
        shutil.rmtree(place)
    if not wait_until(lambda: shared_memory() <= shared, _GRACE_SECONDS):
        raise Violation(f"left in /dev/shm: {shared_memory() - shared}")
    return _judged(options, victim, outcome), seconds


def _judged(options: Options, victim: str, found: Outcome) -> Outcome:
    """Name the victim, and hold the counts to their limits."""
    each = allowance_bytes(options)
    if found.recorded == options.size and found.again == 1:
        # It has to be asked for, or nobody would notice that the remote file changed.
        found = replace(found, again=0, compared=1)
    if found.again:
        raise Violation(f"{found.again} recorded bytes were sent again")
    if found.lost > options.connections * each:
        raise Violation(f"{found.lost} bytes were lost by one kill")
    if found.repeated > (options.connections + found.cut) * each:
        raise Violation(f"{found.repeated} bytes repeated, {found.cut} answers cut")
    return replace(found, victim=victim)


def run(options: Options, directory: Path, *, note: bool = False) -> int:
    """
    Play all rounds.

    Args:
        options: Of the call.
        directory: For all files.
        note: Write the outcome into docs/reliability.md.

    Returns:
        The exit code.
    """
    seconds = 0.0
    outcomes: list[Outcome] = []
    begin = time.monotonic()
    for number in range(options.rounds + 1):
        try:
            outcome, seconds = play(options, directory, number, seconds)
        except Violation as error:
            text = f"VIOLATION in round {number}, --seed {options.seed}: {error}"
            print(text)
            if note:
                record("kills", f"{run_mark()}: {text}")
            return 1
        print(
            f"{number:4} {outcome.victim:7} recorded {_mib(outcome.recorded)}, again "
            f"{outcome.again}, lost {_mib(outcome.lost)}, repeated "
            f"{_mib(outcome.repeated)} ({outcome.cut} answers cut short)",
            flush=True,
        )
        outcomes.append(outcome)
    total = time.monotonic() - begin
    print(*_summary(options, outcomes, seconds, total), sep="\n")
    if note:
        record("kills", _table(options, outcomes, total))
    return 0


def _table(options: Options, outcomes: Sequence[Outcome], total: float) -> str:
    """Give what docs/reliability.md says: a line for each kind of kill."""
    lines = [
        f"Files of {show_size(options.size)}, {options.connections} connections of "
        f"{options.rate}/s; bytes that one kill may cost: "
        f"{_mib(options.connections * allowance_bytes(options))}. Seed {options.seed}, "
        f"{total / 60:.0f} minutes; {run_mark()}.",
        "",
        "| killed | rounds | exact | recorded bytes sent again | all was recorded: "
        "validator compared | lost, mean | most |",
        "|---|---|---|---|---|---|---|",
    ]
    killed = outcomes[1:]
    for victim in sorted({outcome.victim for outcome in killed}):
        mine = [outcome for outcome in killed if outcome.victim == victim]
        lost = [outcome.lost for outcome in mine]
        cost = f"{_mib(sum(lost) / len(lost))} | {_mib(max(lost))}"
        if victim not in ("parent", "all"):
            cost = "- | -"
        lines.append(
            f"| {_VICTIM_WORDS[victim]} | {len(mine)} | {len(mine)} | "
            f"{sum(outcome.again for outcome in mine)} | "
            f"{sum(outcome.compared for outcome in mine)} | {cost} |"
        )
    return "\n".join(lines)


def _summary(
    options: Options, outcomes: Sequence[Outcome], seconds: float, total: float
) -> tuple[str, ...]:
    undisturbed, *killed = outcomes
    counts = Counter(outcome.victim for outcome in killed)
    victims = ", ".join(f"{counts[name]} {name}" for name in sorted(counts))
    resumed = [outcome for outcome in killed if outcome.victim in ("parent", "all")]
    lost = [outcome.lost for outcome in resumed] or [0]
    each = allowance_bytes(options)
    repeated = [outcome.repeated for outcome in killed] or [0]
    return (
        f"limit of lost bytes: {options.connections} lanes x (piece + sockets, "
        f"{_mib(each)}) = {_mib(options.connections * each)}; "
        f"mean {_mib(sum(lost) / len(lost))}, most {_mib(max(lost))}",
        f"repeated a round: mean {_mib(sum(repeated) / len(repeated))}, most "
        f"{_mib(max(repeated))}; undisturbed {_mib(undisturbed.repeated)}",
        f"killnine: {len(killed)} rounds of {show_size(options.size)} ({victims}), "
        f"{len(killed)} exact, {sum(each.again for each in killed)} recorded bytes "
        f"sent again ({sum(each.compared for each in killed)} times the one that "
        f"compares the validator), nothing left behind; undisturbed {seconds:.1f} s; "
        f"seed {options.seed}, {total:.0f} s",
    )


def _mib(count: float) -> str:
    return f"{count / MIB:.1f} MiB"


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run with a command line.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        0, or 1 at the first violation.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.killnine", description="Kill segdl, resume, compare."
    )
    add = parser.add_argument
    add("--rounds", type=int, default=100, help="kills (%(default)s)")
    add("--seed", type=int, default=1, help="of all that is drawn (%(default)s)")
    add("--size", type=parse_size, default=1 << 30, help="of the file (1G)")
    add("--rate", default="16M", help="bytes/s of a connection (%(default)s)")
    add("--connections", type=int, default=16, help="(%(default)s)")
    add("--dir", type=Path, help="where files are written; on a disk")
    add("--record", action="store_true", help="write docs/reliability.md")
    args = parser.parse_args(argv)
    options = Options(
        rounds=args.rounds,
        seed=args.seed,
        size=args.size,
        rate=args.rate,
        connections=args.connections,
    )
    with work_directory(args.dir) as directory:
        return run(options, Path(directory), note=args.record)


if __name__ == "__main__":
    sys.exit(main())
