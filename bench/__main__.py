"""`python -m bench`: run the scenarios, print a report, keep the figures.

    $ scripts/bench --record              everything, in at most 40 minutes
    $ scripts/bench --quick               the same with small files, in five minutes
    $ scripts/bench --only http --repeat 9
    $ scripts/bench --publish A.json B.json

The exit code is 1 when a file had wrong bytes, not when a limit was missed: figures
of a busy machine say little, and the report names every limit.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from compileall import compile_dir
from pathlib import Path

from bench import (
    batch,
    floor,
    growth,
    huge,
    large,
    memory,
    shaped,
    small,
    tasks,
    verified,
)
from bench._content import GIB, MIB, parse_size, show_size, work_directory
from bench._machine import describe, flags
from bench._processes import ROOT
from bench._publish import publish
from bench._record import run_mark
from bench._report import Results, Section, load, save
from bench._server import NotInstalled
from bench._settings import Settings

SCENARIOS: dict[str, Callable[[Settings], Section]] = {
    "cold": small.run_cold,
    "plan": memory.run_plan,
    "tasks": tasks.run,
    "memory": memory.run_tree,
    "http": lambda settings: large.run_disk(settings, "http"),
    "https": lambda settings: large.run_disk(settings, "https"),
    "http_memory": lambda settings: large.run_memory(settings, "http"),
    "https_memory": lambda settings: large.run_memory(settings, "https"),
    "per_connection": shaped.run_per_connection,
    "many_connections": shaped.run_many_connections,
    "slow_ones": shaped.run_slow_ones,
    "capped": shaped.run_capped,
    "far": shaped.run_far,
    "batch": batch.run_batch,
    "verified": verified.run_verified,
    "floor": floor.run_floor,
    "growth": growth.run_growth,
    "huge": huge.run_huge,
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the scenarios.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        The exit code.
    """
    args = _arguments(argv)
    # Ended in any way, it stops its servers and removes its files.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    if args.publish:
        publish([load(path) for path in args.publish])
        return 0
    with work_directory(args.dir) as directory:
        settings = Settings(
            size=args.size or (256 * MIB if args.quick else 4 * GIB),
            repeat=args.repeat or (1 if args.quick else 5),
            quick=args.quick,
            directory=Path(directory),
            before=args.before,
        )
        results = _run(settings, args.only or list(SCENARIOS))
    path = save(results, args.json)
    print(f"figures: {path}", file=sys.stderr)
    if args.record:
        publish([results])
    checks = [each for found in results.sections.values() for each in found.checks]
    print(f"limits missed: {sum(not check.kept for check in checks)} of {len(checks)}")
    wrong = [name for name, found in results.sections.items() if not found.exact]
    if wrong:
        print(f"WRONG: {', '.join(wrong)}")
    return 1 if wrong else 0


def _run(settings: Settings, names: Sequence[str]) -> Results:
    mark = run_mark()
    # As an installation does; else the first run would, and its time would count.
    compile_dir(ROOT / "segdl", quiet=1)
    results = Results(
        machine=describe(settings.directory), flags=flags(), marks={}, sections={}
    )
    print(f"# segdl: {show_size(settings.size)}, {', '.join(names)}\n")
    for fact, value in results.machine.items():
        print(f"- {fact}: {value}")
    print(flush=True)
    for name in names:
        begin = time.monotonic()
        settings.say(f"{name} ...")
        try:
            found = SCENARIOS[name](settings)
        except NotInstalled as error:
            found = Section(title=f"{name}: left out", notes=[str(error)])
        settings.say(f"{name} took {time.monotonic() - begin:.0f} s")
        results.sections[name] = found
        results.marks[name] = mark
        print(found.markdown(), flush=True)
    return results


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure segdl beside other programs."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small files, to see that it works")
    add("--repeat", type=int, help="runs of each contender (5; quick: 1)")
    add("--size", type=parse_size, help="of the large file (4G; quick: 256M)")
    add("--only", choices=SCENARIOS, action="append", help="may be repeated")
    add("--dir", type=Path, help="where files are written; on a disk")
    earlier = "another checkout with its .venv, beside this in http and https"
    add("--before", type=Path, metavar="DIR", help=earlier)
    add("--json", type=Path, metavar="FILE", help="write the figures to this one too")
    add("--record", action="store_true", help="write docs/performance.md")
    merged = "measure nothing, but write docs/performance.md from earlier figures"
    add("--publish", type=Path, nargs="+", metavar="FILE.json", help=merged)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
