"""`python -m bench.stress`: many tasks, random faults, random orders, for minutes.

    a round     origin (a process of its own; TLS or not; throttled or not), or
                   ^    nginx (throttled, few connections for all; reloaded on the way)
                engine <── 10 - 60 tasks, each with its trouble     (bench/_draw.py)
                   ^
                hands: threads that pause, resume, cancel, change the rate limit, and
                       kill workers, all the time

    and then    once or twice shutdown(wait=False), a new engine, resume_unfinished;
                all paused ones go on; shutdown(); everything is looked at

Looked at after each round: every completed file byte by byte; every failure's error
against its trouble; that cancelled tasks left no file, and nothing else any that does
not belong there; one completion callback an ending; no process, thread, descriptor or
name in /dev/shm that was not there before. Over all rounds: resident memory and
descriptors.

A seed repeats what is drawn; when threads meet what is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench._content import MIB, is_blob, make_file, work_directory
from bench._draw import MUST_COMPLETE, MUST_FAIL, Spec, plain_specs, specs
from bench._processes import children, kill, rss_bytes, shared_memory, wait_until
from bench._record import record, run_mark
from bench._served import Served, faulty_origin, nginx
from bench._server import find_nginx, make_certificate
from bench._watcher import Watcher
from segdl import DownloadEngine, DownloadTask
from segdl.errors import UsageError
from segdl.testing import TlsFiles

_FINAL = ("completed", "failed", "cancelled")

# The promise is 2 s; a machine with 2 busy cores gets more.
_STOP_SECONDS = 5.0
_HANG_SECONDS = 240.0
_GRACE_SECONDS = 5.0
# As often as one task may lose its verifier; the workers together may die more often.
_KILLS_A_ROUND = 2
_GROWTH_LIMIT_BYTES = 16 * MIB
_M_ARENA_MAX = -8  # glibc's malloc.h
# So many rounds make medians that mean something.
_JUDGED_ROUNDS = 12


class Violation(Exception):
    """segdl did not do what it promises."""


@dataclass(slots=True, kw_only=True)
class Totals:
    """
    What all rounds did.

    Args:
        endings: Tasks by their last status.
        acts: What the hands did, and restarts.
        bytes: In completed files.
        rounds: Of each kind.
        resident: Bytes after each round.
        held: Descriptors after each round.
        moments: Seconds from the start to the end of each round.
    """

    endings: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    rounds: Counter[str] = field(default_factory=Counter)
    resident: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)


class Hands:
    """
    Threads that do to an engine what users and systems do.

    Args:
        stress: The round.
        count: How many.
        seed: Of what they do.
    """

    def __init__(self, stress: Round, count: int, seed: str) -> None:
        self.error: BaseException | None = None
        self._stress = stress
        self._stop = threading.Event()
        # Otherwise two could resume one task, and the second one after it had failed.
        self._resuming = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._run, args=(random.Random(f"{seed}/{number}"),)
            )
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; raise what one of them met."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.error is not None:
            raise Violation(f"a call raised {self.error!r}") from self.error

    def _run(self, draw: random.Random) -> None:
        acts = {"pause": 6, "resume": 8, "cancel": 1, "limit": 2, "look": 3, "kill": 1}
        acts["reload"] = 1
        try:
            while not self._stop.wait(draw.uniform(0.005, 0.08)):
                act = draw.choices(list(acts), list(acts.values()))[0]
                if self._act(act, draw):
                    self._stress.totals.acts[act] += 1
        except BaseException as error:
            self.error = error

    def _act(self, act: str, draw: random.Random) -> bool:
        engine = self._stress.engine
        tasks = engine.get_all_tasks()
        if not tasks:  # A restart found everything done.
            return False
        task = draw.choice(tasks)
        if act == "pause":
            return task.pause()
        if act == "resume":
            with self._resuming:
                return task.status == "paused" and task.resume()
        if act == "cancel":
            return task.cancel()
        if act == "limit":
            engine.limit_rate = draw.choice([None, 4 * MIB, 16 * MIB, 64 * MIB])
            return True
        if act == "reload":
            return self._stress.reload_server(draw)
        if act == "kill":
            return self._stress.kill_worker(draw)
        _ = (task.progress, task.speed, task.eta, task.downloaded_size, task.error)
        return engine.get_task(task.id) is task


class Round:
    """
    One engine after the other, over one directory and one origin.

    Args:
        name: "SEED/NUMBER"; decides everything that is drawn.
        server: Where everything comes from.
        directory: An empty one.
        totals: To add to.
    """

    def __init__(
        self,
        name: str,
        server: Served,
        directory: Path,
        totals: Totals,
    ) -> None:
        self.totals = totals
        self.watchers: list[Watcher] = []
        self.tasks: dict[str, DownloadTask] = {}
        self._name = name
        self._base = server.base
        self._server = server
        self._directory = directory
        self._draw = random.Random(name)
        self._kills = _KILLS_A_ROUND
        self._settings = self._drawn_settings(server)
        drawn = (
            specs(self._draw, self._settings["retry_times"])
            if server.files is None
            else plain_specs(self._draw)
        )
        self.specs = {spec.name: spec for spec in drawn}
        self._begun_again: set[str] = set()
        if server.files is not None:
            for spec in drawn:
                path = server.files / spec.target[1:]
                if not path.exists():
                    make_file(path, spec.size, spec.seed)
        self.engine = self._new_engine()

    def play(self) -> None:
        """Do everything, and look at what came of it."""
        try:
            first, *later = [self._draw.uniform(0.3, 2.0) for _ in range(3)]
            for spec in self.specs.values():
                self._submit(spec)
            self._let_hands(first)
            for seconds in later[: self._draw.randrange(3)]:
                self._restart()
                self._let_hands(seconds)
            self._finish()
        except BaseException:
            self.engine.shutdown(wait=False)
            raise
        self._check_endings()
        self._check_files()

    def kill_worker(self, draw: random.Random) -> bool:
        """Kill one of the engine's workers, as far as the budget goes."""
        workers = [pid for pid in children(os.getpid()) if pid != self._server.pid]
        if not workers or self._kills == 0:
            return False
        self._kills -= 1
        return kill(draw.choice(workers))

    def reload_server(self, draw: random.Random) -> bool:
        """Have nginx begin anew with the next connection, now and then."""
        if self._server.reload is None or draw.random() > 0.2:
            return False
        self._server.reload()
        return True

    def describe(self) -> str:
        """Give the settings in short."""
        shown = {
            name: value for name, value in self._settings.items() if name != "ca_file"
        }
        return " ".join(f"{name}={value}" for name, value in shown.items())

    # --- what happens -----------------------------------------------------------------

    def _drawn_settings(self, server: Served) -> dict[str, Any]:
        draw = self._draw
        return {
            "max_workers": draw.randint(2, 8),
            "processes": draw.choice(["auto", "auto", 0, 1, 2]),
            "connections": draw.choice(["auto", "auto", 1, 4, 16]),
            "retry_times": draw.randint(2, 4),
            "retry_delay": server.retry_delay,
            # The machine may do other things beside: a stall has to be one.
            "timeout": draw.choice([5, 8]),
            "progress_interval": 0.05,
            "durability": draw.choice(["none", "publish", "checkpoint"]),
            "io": draw.choice(["auto", "buffered", "direct"]),
            "ca_file": server.ca_file,
        }

    def _new_engine(self) -> DownloadEngine:
        engine = DownloadEngine(**self._settings)
        self.watchers.append(Watcher(engine))
        return engine

    def _submit(self, spec: Spec) -> None:
        self.tasks[spec.name] = self.engine.download(
            self._base + spec.target,
            self._directory,
            spec.name,
            priority=spec.priority,
            checksum=spec.checksum,
        )

    def _let_hands(self, seconds: float) -> None:
        hands = Hands(self, 3, f"{self._name}/{len(self.watchers)}")
        try:
            self.engine.wait(timeout=seconds)
        finally:
            hands.stop()

    def _restart(self) -> None:
        """Stop in the middle; take up with another engine what that left."""
        self.totals.acts["restart"] += 1
        self._shut_down(wait=False)
        self.engine = self._new_engine()
        before = dict(self.tasks)
        for task in self.engine.resume_unfinished(self._directory):
            name = str(task.filename)
            if name not in before:
                raise Violation(f"resume_unfinished found {name}, nobody's task")
            if before[name].status == "cancelled":
                raise Violation(f"{name} was cancelled, and can be resumed")
            # Its URL had a query: never stored, so it has to be given again.
            if not isinstance(_error(task), UsageError):
                self.tasks[name] = task
        for name, task in before.items():
            if task.status not in _FINAL and self.tasks[name] is task:
                self._begun_again.add(name)
                self._submit(self.specs[name])

    def _finish(self) -> None:
        self.engine.limit_rate = None
        for task in self.engine.get_all_tasks():
            if task.status == "paused":
                task.resume()
        if not self.engine.wait(timeout=_HANG_SECONDS):
            waiting = {
                name: f"{task.status}, {task.phase}, {task.downloaded_size} of "
                f"{task.total_size}"
                for name, task in self.tasks.items()
                if task.status not in _FINAL
            }
            raise Violation(f"no end within {_HANG_SECONDS:.0f} s: {waiting}")
        self._shut_down(wait=True)

    def _shut_down(self, *, wait: bool) -> None:
        begin = time.monotonic()
        self.engine.shutdown(wait)
        seconds = time.monotonic() - begin
        if seconds > _STOP_SECONDS:
            raise Violation(f"shutdown(wait={wait}) took {seconds:.1f} s")
        left = [pid for pid in children(os.getpid()) if pid != self._server.pid]
        if left:
            raise Violation(f"processes outlived shutdown(wait={wait}): {left}")
        try:
            self.engine.download(f"{self._base}/b/1/1", self._directory)
        except RuntimeError:
            return
        raise Violation("download() after shutdown() did not raise RuntimeError")

    # --- what must be so --------------------------------------------------------------

    def _check_endings(self) -> None:
        for name, task in self.tasks.items():
            spec = self.specs[name]
            self.totals.endings[task.status] += 1
            if task.status not in _FINAL:
                raise Violation(f"{name} ended as {task.status}")
            error = _error(task) if task.status == "failed" else None
            rules = spec.rules
            if task.status == "completed" and rules.ending == MUST_FAIL:
                raise Violation(f"{name} completed, though it can't ({spec.target})")
            if error is not None and rules.ending == MUST_COMPLETE:
                told = "; ".join(w.retries_of(task) for w in self.watchers)
                raise Violation(f"{name} failed: {error!r} ({spec.target}) {told}")
            if error is not None and not isinstance(error, rules.errors):
                raise Violation(
                    f"{name} failed with an error that does not fit: {error!r} "
                    f"({spec.target})"
                )
        for watcher in self.watchers:
            if watcher.late:
                raise Violation(f"progress callbacks after the ending: {watcher.late}")
            twice = [each for each, count in watcher.endings.items() if count > 1]
            if twice:
                raise Violation(f"several completion callbacks for {twice}")
        told = self.watchers[-1].endings
        silent = [
            task.id
            for task in self.engine.get_all_tasks()
            if task.status in _FINAL
            and not told[task.id]
            # What resume_unfinished gives back as failed was never on its way.
            and not isinstance(_error(task), UsageError)
        ]
        if silent:
            raise Violation(f"no completion callback for {silent}")

    def _check_files(self) -> None:
        allowed: set[str] = set()
        for name, task in self.tasks.items():
            spec, path = self.specs[name], self._directory / name
            if task.status == "completed":
                allowed.add(name)
                if name in self._begun_again:
                    # The stop may have hidden that wrong bytes were put aside.
                    allowed.add(f"{name}.corrupt")
                if not path.exists():
                    raise Violation(f"{name} completed, and there is no file")
                if not any(is_blob(path, seed, spec.size) for seed in spec.seeds):
                    raise Violation(
                        f"{name} completed with wrong bytes: {path.stat().st_size} of "
                        f"them ({spec.target})"
                    )
                self.totals.bytes += spec.size
            elif task.status == "failed":
                # What it has is kept, for a resume; bytes that have the wrong digest
                # are put aside.
                allowed |= {f"{name}.part", f"{name}.segdl", f"{name}.corrupt"}
        for path in sorted(self._directory.iterdir()):
            if path.name not in allowed:
                owner = self.tasks.get(path.name) or self.tasks.get(path.stem)
                status = "nobody's" if owner is None else owner.status
                raise Violation(
                    f"{path.name} does not belong there; the task: {status}, "
                    f"{owner and owner.error}"
                )


def play(number: int, seed: int, directory: Path, tls: TlsFiles, all_: Totals) -> str:
    """
    Play one round, and see that nothing is left of it.

    Args:
        number: Of the round.
        seed: Of the call.
        directory: For its files; they are removed.
        tls: For rounds over https.
        all_: The totals.

    Returns:
        A line about it.

    Raises:
        Violation: Something was not as it must be.
    """
    name = f"{seed}/{number}"
    draw = random.Random(f"{name}/origin")
    before = _held()
    begin = time.monotonic()
    serve = nginx if find_nginx() and draw.random() < 0.3 else faulty_origin
    with work_directory(directory) as own, serve(draw, tls, Path(own)) as server:
        target = Path(own, "saved")
        target.mkdir()
        made = Round(name, server, target, all_)
        try:
            made.play()
        except Violation as error:
            raise Violation(f"{error}\n  {made.describe()} {server.shown}") from error
        count = len(made.tasks)
        described = made.describe()
    del made
    _check_left(before)
    all_.rounds[server.shown.split()[0]] += 1
    all_.resident.append(rss_bytes())
    all_.held.append(len(os.listdir("/proc/self/fd")))
    return (
        f"{number:4} {count} tasks, {time.monotonic() - begin:.1f} s, "
        f"{all_.resident[-1] / MIB:.1f} MiB: {described} {server.shown}"
    )


def _held() -> dict[str, set[str]]:
    return {
        "descriptor": set(os.listdir("/proc/self/fd")),
        "thread": {str(thread.ident) for thread in threading.enumerate()},
        "process": {str(pid) for pid in children(os.getpid())},
        "/dev/shm": shared_memory(),
    }


def _check_left(before: dict[str, set[str]]) -> None:
    left: dict[str, set[str]] = {}

    def gone() -> bool:
        now = _held()
        left.clear()
        left.update({kind: now[kind] - before[kind] for kind in now})
        return not any(left.values())

    # Engines hold descriptors in reference cycles.
    gc.collect()
    _trim()
    if not wait_until(gone, _GRACE_SECONDS):
        raise Violation(f"left behind: { {k: v for k, v in left.items() if v} }")


def _use_one_arena() -> None:
    """
    Have all threads allocate from one heap, where that can be told to the allocator.

    glibc gives threads heaps of their own, 8 a processor, and each keeps what it once
    needed. With `processes=0` an engine's thread is new every round, so resident memory
    went up by some MiB for 20 rounds while the number of objects stayed the same.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _trim() -> None:
    """Have the allocator give free memory back, so that what is resident is in use."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _error(task: DownloadTask) -> BaseException | None:
    return task.exception(timeout=0) if task.status == "failed" else None


def _check_memory(resident: Sequence[int]) -> None:
    if len(resident) < _JUDGED_ROUNDS:
        return
    # The second quarter, not the first: with `processes=0` this process loads libcurl,
    # and holds what 16 lanes of 8 tasks needed.
    quarter = len(resident) // 4
    early, late = resident[quarter : 2 * quarter], resident[-quarter:]
    growth = statistics.median(late) - statistics.median(early)
    if growth > _GROWTH_LIMIT_BYTES:
        raise Violation(f"resident memory grew by {growth / MIB:.1f} MiB")


def _check_held(held: Sequence[int]) -> None:
    if len(held) >= _JUDGED_ROUNDS and held[-1] > held[len(held) // 4]:
        raise Violation(f"descriptors went from {held[len(held) // 4]} to {held[-1]}")


def _table(totals: Totals) -> str:
    """Give what was held after each tenth of the rounds."""
    count = len(totals.resident)
    rows = [
        f"| {totals.moments[number - 1] / 60:.1f} | {number} | "
        f"{totals.resident[number - 1] / MIB:.1f} | {totals.held[number - 1]} |"
        for number in sorted({max(1, count * tenth // 10) for tenth in range(1, 11)})
    ]
    head = "| minutes | rounds | resident, MiB | descriptors |\n|---|---|---|---|\n"
    return head + "\n".join(rows)


def run(
    seconds: float, seed: int, first: int, directory: Path, *, recording: bool = False
) -> int:
    """
    Play rounds until the time is over.

    Args:
        seconds: For how long; the round that is under way is finished.
        seed: Of all that is drawn.
        first: Number of the first round, to repeat one.
        directory: For all files.
        recording: Write docs/reliability.md.

    Returns:
        The exit code.
    """
    totals = Totals()
    _use_one_arena()
    begin = time.monotonic()
    number = first
    tls = make_certificate(directory)
    try:
        while number == first or time.monotonic() - begin < seconds:
            print(play(number, seed, directory, tls, totals), flush=True)
            totals.moments.append(time.monotonic() - begin)
            number += 1
        _check_memory(totals.resident)
        _check_held(totals.held)
    except Violation as error:
        print(f"VIOLATION --seed {seed} --first {number}: {error}")
        return 1
    endings = ", ".join(f"{count} {name}" for name, count in totals.endings.items())
    acts = ", ".join(f"{count} {name}" for name, count in totals.acts.items())
    kinds = ", ".join(f"{count} {name}" for name, count in totals.rounds.items())
    told = (
        f"stress: {number - first} rounds ({kinds}), {totals.endings.total()} tasks "
        f"({endings}), {totals.bytes / MIB:.0f} MiB exact; {acts}; resident "
        f"{totals.resident[0] / MIB:.1f} MiB at first, "
        f"{totals.resident[-1] / MIB:.1f} MiB at last; nothing left behind; seed "
        f"{seed}, {time.monotonic() - begin:.0f} s"
    )
    print(told)
    if recording:
        record("soak", f"{run_mark()}: {told}.\n\n{_table(totals)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run with a command line.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        0, or 1 at the first violation.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.stress", description="Try to break segdl."
    )
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, help="for how long (%(default)s)")
    add("--seed", type=int, default=1, help="of all that is drawn (%(default)s)")
    add("--first", type=int, default=1, help="number of the first round (%(default)s)")
    add("--dir", type=Path, help="where files are written; on a disk")
    add("--record", action="store_true", help="write docs/reliability.md")
    args = parser.parse_args(argv)
    for name in list(os.environ):
        if name.startswith("SEGDL_") or name.lower().endswith("_proxy"):
            del os.environ[name]
    with work_directory(args.dir) as directory:
        return run(
            args.minutes * 60,
            args.seed,
            args.first,
            Path(directory),
            recording=args.record,
        )


if __name__ == "__main__":
    sys.exit(main())
