"""`python -m bench`: run the scenarios, print a report, keep the figures.

    $ scripts/bench                       everything, in at most a quarter of an hour
    $ scripts/bench --quick               the same with small files, in two minutes
    $ scripts/bench --only http --repeat 9

The exit code is 1 when a file had wrong bytes, not when a limit was missed: figures
of a busy machine say little, and the report names every limit.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import large, memory, shaped, small, tasks
from bench._content import GIB, MIB, parse_size, show_size, work_directory
from bench._machine import describe
from bench._report import Section, save
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
    "five_gib": small.run_five_gib,
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
    size = args.size or (256 * MIB if args.quick else 4 * GIB)
    names = args.only or list(SCENARIOS)
    sections: dict[str, Section] = {}
    with work_directory(args.dir) as directory:
        settings = Settings(
            size=size,
            repeat=args.repeat or (3 if args.quick else 5),
            quick=args.quick,
            directory=Path(directory),
            before=args.before,
        )
        machine = describe(settings.directory)
        print(f"# segdl: {show_size(size)}, {', '.join(names)}\n")
        for fact, value in machine.items():
            print(f"- {fact}: {value}")
        print(flush=True)
        for name in names:
            begin = time.monotonic()
            settings.say(f"{name} ...")
            try:
                sections[name] = SCENARIOS[name](settings)
            except NotInstalled as error:
                sections[name] = Section(title=f"{name}: left out", notes=[str(error)])
            settings.say(f"{name} took {time.monotonic() - begin:.0f} s")
            print(sections[name].markdown(), flush=True)
    path = save(machine, sections, args.json)
    print(f"figures: {path}", file=sys.stderr)
    missed = [
        check
        for section in sections.values()
        for check in section.checks
        if not check.kept
    ]
    wrong = [name for name, section in sections.items() if not section.exact]
    if wrong:
        print(f"WRONG: {', '.join(wrong)}")
    print(f"limits missed: {len(missed)}")
    return 1 if wrong else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure segdl beside other programs."
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small files, to see that it works")
    add("--repeat", type=int, help="runs of each contender (5; quick: 3)")
    add("--size", type=parse_size, help="of the large file (4G; quick: 256M)")
    add("--only", choices=SCENARIOS, action="append", help="may be repeated")
    add("--dir", type=Path, help="where files are written; on a disk")
    earlier = "another checkout with its .venv, beside this in http and https"
    add("--before", type=Path, metavar="DIR", help=earlier)
    add("--json", type=Path, metavar="FILE", help="write the figures to this one too")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
