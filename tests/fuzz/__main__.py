"""`scripts/fuzz`: every target for a while, guided by coverage.

    each target ──> a process of its own ── atheris (libFuzzer) ──> executions, edges
                          │        └ without it: hypothesis, batch after batch
                          └──> crash ──> .fuzz/TARGET/crash-…   printed, and kept

What was found interesting stays in .fuzz/TARGET, where the next run begins.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench._processes import ROOT
from bench._record import record, run_mark

HERE = Path(__file__).parent
CORPUS = ROOT / ".fuzz"
_START_SECONDS = 60.0  # for the instrumentation of all modules, and the last input
_MOST_INPUT_BYTES = 4096
_BATCH = 2000


@dataclass(frozen=True)
class Fuzzed:
    """
    How a target's run ended.

    Attributes:
        name: Of the target.
        executions: Inputs that were tried.
        first_edges: Branches that the inputs at the beginning reached; None without
            coverage.
        edges: Branches that were reached in the end.
        seconds: How long it took.
        crash: What failed, None when nothing did.
    """

    name: str
    executions: int
    first_edges: int | None
    edges: int | None
    seconds: float
    crash: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; give its exit code, 1 when something failed."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--seconds", type=float, default=30, help="for each target (30)")
    add("--target", action="append", metavar="NAME", help="this one; may be repeated")
    add("--seed", type=int, default=0, help="0: another one each time")
    add("--record", action="store_true", help="write docs/reliability.md")
    add("--inside", choices=("atheris", "hypothesis"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    sys.path.insert(0, str(HERE))
    if args.inside == "atheris":
        _inside_atheris(args.target[0], args.seconds, args.seed)
    if args.inside == "hypothesis":
        return _inside_hypothesis(args.target[0], args.seconds, args.seed)
    from targets import TARGETS

    unknown = sorted(set(args.target or ()) - TARGETS.keys())
    if unknown:
        parser.error(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    engine = "atheris" if importlib.util.find_spec("atheris") else "hypothesis"
    if engine == "hypothesis":
        print("atheris is not installed: without coverage, by hypothesis alone")
    done = []
    for name in args.target or TARGETS:
        done.append(_outside(engine, name, args.seconds, args.seed))
        print(_line(done[-1]), flush=True)
    if args.record:
        record("fuzz", _markdown(engine, done))
    return 1 if any(each.crash for each in done) else 0


# --- the process around ---------------------------------------------------------------


def _outside(engine: str, name: str, seconds: float, seed: int) -> Fuzzed:
    """Run one target in a process of its own, and read what it says."""
    (CORPUS / name).mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz", "--inside", engine]
    command += ["--target", name, "--seconds", f"{seconds:g}", "--seed", f"{seed}"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        said, _ = process.communicate(timeout=seconds + _START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[0] + "\nthe target did not come to its end"
    edges = [int(n) for n in re.findall(r"^#[0-9]+\s.*\bcov: ([0-9]+)", said, re.M)]
    ran = re.findall(r"^(?:Done ([0-9]+) runs|#([0-9]+)\s)", said, re.M)
    return Fuzzed(
        name=name,
        executions=max((int(a or b) for a, b in ran), default=0),
        first_edges=_first_edges(said),
        edges=max(edges, default=None),
        seconds=time.monotonic() - began,
        crash=None if process.returncode == 0 else _crash_of(said),
    )


def _first_edges(said: str) -> int | None:
    found = re.search(r"^#[0-9]+\s+INITED cov: ([0-9]+)", said, re.MULTILINE)
    return None if found is None else int(found[1])


def _crash_of(said: str) -> str:
    """Give the traceback, and where the input is kept."""
    lines = said.splitlines()
    begins = [n for n, line in enumerate(lines) if "Traceback (most recent" in line]
    kept = re.search(r"Test unit written to (\S+)", said)
    shown = lines[begins[-1] :] if begins else lines[-20:]
    ends = next((n for n, line in enumerate(shown) if line.startswith("==")), None)
    shown = [line for line in shown[:ends] if line.strip()][:40]
    return "\n".join([*shown, f"input: {kept[1] if kept else 'not kept'}"])


def _line(done: Fuzzed) -> str:
    new = "" if done.edges is None else f", {done.edges} edges (+{_new(done)})"
    text = f"{done.name:<16} {done.executions:>9} executions{new}"
    return text if done.crash is None else f"{text}\nFAILED\n{done.crash}\n"


def _new(done: Fuzzed) -> int:
    return (done.edges or 0) - (done.first_edges or 0)


def _markdown(engine: str, done: Sequence[Fuzzed]) -> str:
    total = sum(each.executions for each in done)
    failed = sum(each.crash is not None for each in done)
    rows = [
        f"| {each.name} | {each.executions:,} | {each.seconds:.0f} | "
        f"{'-' if each.edges is None else each.edges} | "
        f"{'-' if each.edges is None else _new(each)} | "
        f"{'nothing' if each.crash is None else '**failed**'} |"
        for each in done
    ]
    return "\n".join(
        [
            f"{len(done)} parsers, {total:,} inputs, {failed} failures; by {engine}, "
            f"{run_mark()}.",
            "",
            "| parser | inputs | seconds | edges | of them new | found |",
            "|---|---:|---:|---:|---:|---|",
            *rows,
        ]
    )


# --- the process within ---------------------------------------------------------------


def _inside_atheris(name: str, seconds: float, seed: int) -> None:
    """Fuzz a target in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(
        include=["segdl", "tomllib"], enable_loader_override=False
    ):
        from targets import SEEDS, TARGETS

    directory = CORPUS / name
    for data in SEEDS[name]:
        (directory / f"seed-{sha256(data).hexdigest()[:16]}").write_bytes(data)
    for old in directory.glob("crash-*"):
        print(f"trying {old} again")
    options = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={_MOST_INPUT_BYTES}",
        f"-seed={seed}",
        f"-artifact_prefix={directory}{os.sep}",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        str(directory),
    ]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()
    raise AssertionError("libFuzzer ends the process")


def _inside_hypothesis(name: str, seconds: float, seed: int) -> int:
    """Try inputs without coverage, batch after batch, until the time is over."""
    from hypothesis import HealthCheck, given, settings
    from hypothesis import seed as seeded
    from inputs import inputs
    from targets import SEEDS, TARGETS

    end = time.monotonic() + seconds
    number = seed or time.time_ns() % 2**32
    tried = 0
    last = b""
    options = settings(
        max_examples=_BATCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )

    def run(data: bytes) -> None:
        nonlocal tried, last
        if time.monotonic() < end:
            tried, last = tried + 1, data
            TARGETS[name](data)

    try:
        while time.monotonic() < end:
            number += 1
            seeded(number)(options(given(inputs(SEEDS[name]))(run)))()
    except BaseException:
        # The last input that failed is the smallest.
        kept = CORPUS / name / f"crash-{sha256(last).hexdigest()[:16]}"
        kept.write_bytes(last)
        print(f"Test unit written to {kept}", flush=True)
        raise
    finally:
        print(f"Done {tried} runs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
