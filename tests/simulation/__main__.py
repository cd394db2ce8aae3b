"""`scripts/simulate`: run cases, sum them up, or show one message by message."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench._processes import ROOT
from bench._record import record, run_mark
from simulation.cases import FAMILIES, cases, draw
from simulation.desk import Result, simulate
from simulation.summary import by_family, table

_PERFORMANCE = ROOT / "docs" / "performance.md"
_SECTION = "simulator"
_DOCUMENT = f"""\
# How fast it is

Each table is written by the run that it reports; the text around them is written by
hand.

## The scheduler against modelled servers

`scripts/simulate --record` runs the real scheduler of lanes against modelled servers on
a clock that jumps (`tests/simulation/`), and compares each download with its ideal
time: that of a client that knows file and server in advance, opens all connections at
once, and meets no straggler, no stall and no reset (`tests/simulation/ideal.py`). A
ratio of 1.00 is that ideal. Processors and disks are not modelled.

<!-- {_SECTION}: begin -->
<!-- {_SECTION}: end -->
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run what the command line says.

    Returns:
        The exit status: 1 when something did not hold.
    """
    options = _parser().parse_args(arguments)
    if options.case is not None:
        return _show(*options.case.rsplit("-", 1), seed=options.seed)
    results = []
    for case in cases(options.seed, options.each, tuple(options.family)):
        results.append(simulate(case))
        for words in results[-1].broken:
            print(f"broken: {words}: {case}", file=sys.stderr)
    markdown = table(results)
    print(markdown)
    for own in by_family(results).values() if options.worst else ():
        _print_worst(own, options.worst)
    if options.record:
        _record(markdown, options)
    return int(any(result.broken for result in results))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of all cases")
    parser.add_argument("--each", type=int, default=300, help="cases of each family")
    parser.add_argument(
        "--family", action="append", default=[], choices=FAMILIES, help="only these"
    )
    parser.add_argument(
        "--worst", type=int, default=0, metavar="N", help="name N cases of each family"
    )
    parser.add_argument(
        "--case", metavar="FAMILY-NUMBER", help="show this one, message by message"
    )
    parser.add_argument(
        "--record", action="store_true", help="write docs/performance.md"
    )
    return parser


def _show(family: str, number: str, *, seed: int) -> int:
    """Print all that is said in one case."""
    case = draw(family, seed, int(number))
    print(case)
    result = simulate(case, lambda seconds, words: print(f"{seconds:9.4f} {words}"))
    print(
        f"{result.seconds:.3f} s, ideal {result.ideal_seconds:.3f} s, "
        f"ratio {result.ratio:.2f}, {result.requests} requests, "
        f"{result.refused} refused, broken: {result.broken or 'nothing'}"
    )
    return int(bool(result.broken))


def _print_worst(results: Sequence[Result], count: int) -> None:
    numbered = sorted(enumerate(results), key=lambda pair: -pair[1].ratio)
    for number, result in numbered[:count]:
        print(
            f"{result.case.family}-{number}: ratio {result.ratio:.2f}, "
            f"{result.seconds:.2f} s, ideal {result.ideal_seconds:.2f} s"
        )


def _record(markdown: str, options: argparse.Namespace) -> None:
    path = Path(_PERFORMANCE)
    if not path.exists():
        path.write_text(_DOCUMENT)
    said = (
        f"{options.each} cases of each family, seed {options.seed}; {run_mark()}. "
        "Median, p95 and worst are simulated time / ideal time."
    )
    record(_SECTION, f"{said}\n\n{markdown}", path)


if __name__ == "__main__":
    sys.exit(main())
