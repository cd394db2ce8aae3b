"""`python -m bench.coverage`: which lines of segdl the tests run, workers included.

    this ── a start-up file in the environment ──> pytest, its processes, programs under
      │                                            test, and the workers of all of them
      └── combine <── .coverage.* of each <────────────────┘

Workers start without `site`, so what starts them is changed: `subprocess.Popen` gets a
bootstrap that begins to measure first. They end by `os._exit`, which coverage patches.
What is killed says nothing of what it ran; other tests run the same lines.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench._processes import ROOT
from bench._record import record, run_mark

LIMIT_PERCENT = 95.0
# What coverage itself imports, and that it needs a current directory, fails these.
_LEFT_OUT = (
    "tests/unit/test_layers.py::test_importing_segdl_is_cheap",
    "tests/processes/test_parents.py::"
    "test_program_whose_current_directory_is_gone_downloads",
)

_CONFIG = """\
[run]
source = {source}
branch = false
parallel = true
concurrency = thread, multiprocessing
sigterm = true
data_file = {data}
patch = _exit

[report]
exclude_also =
    if TYPE_CHECKING:
    raise AssertionError
    ^ +\\.\\.\\.$
    : \\.\\.\\.$
"""

_START = """\
import os

if os.environ.get("COVERAGE_PROCESS_START"):
    import subprocess
    import coverage

    coverage.process_startup()
    _begin = (
        "import sys; sys.path.append(SITE); "
        "import coverage; coverage.process_startup(); "
    )
    _init = subprocess.Popen.__init__

    def __init__(self, args, *rest, **options):
        if isinstance(args, list) and any("segdl._worker" in str(a) for a in args):
            args = [_begin + a if "segdl._worker" in str(a) else a for a in args]
        _init(self, args, *rest, **options)

    subprocess.Popen.__init__ = __init__
"""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the tests, and report.

    Args:
        argv: The arguments, None for those of the process.

    Returns:
        The exit code: 1 when a test failed, or less than 95 % of the lines were run.
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench.coverage", description="Measure what the tests run."
    )
    parser.add_argument(
        "--record", action="store_true", help="write docs/reliability.md"
    )
    parser.add_argument("pytest", nargs="*", help="options of pytest, after --")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = directory / "coveragerc"
        config.write_text(
            _CONFIG.format(source=ROOT / "segdl", data=directory / "data")
        )
        environment = {**os.environ, "COVERAGE_PROCESS_START": str(config)}
        tests = args.pytest or ["-n", "3", "--dist", "worksteal"]
        with _measured_from_the_start():
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-q", *tests),
                    *(f"--deselect={name}" for name in _LEFT_OUT),
                ],
                cwd=ROOT,
                env=environment,
                check=False,
            )
        percent, table = _report(config)
    print(table)
    print(f"{percent:.1f} % of the lines of segdl/ (limit {LIMIT_PERCENT:g} %)")
    if args.record:
        record("coverage", f"{run_mark()}: {percent:.1f} % of the lines.\n\n{table}")
    return 1 if done.returncode or percent < LIMIT_PERCENT else 0


@contextmanager
def _measured_from_the_start() -> Iterator[None]:
    """Have every Python of this environment measure itself, where it is asked to."""
    site = sysconfig.get_path("purelib")
    files = {
        Path(site, "segdl_coverage_start.py"): _START.replace(
            "SITE", repr(site).replace(chr(34), chr(39))
        ),
        Path(site, "segdl_coverage.pth"): "import segdl_coverage_start\n",
    }
    try:
        for path, text in files.items():
            path.write_text(text)
        yield
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _report(config: Path) -> tuple[float, str]:
    """Combine what all processes measured; give the share and a table of the rest."""
    import coverage

    measured = coverage.Coverage(config_file=str(config))
    measured.combine()
    lines = executed = 0
    rows = []
    for path in sorted((ROOT / "segdl").rglob("*.py")):
        _, statements, _, missing, text = measured.analysis2(str(path))
        lines += len(statements)
        executed += len(statements) - len(missing)
        if missing:
            share = 100 * (1 - len(missing) / len(statements))
            name = path.relative_to(ROOT).as_posix()
            rows.append(f"| `{name}` | {share:.0f} % | {text} |")
    head = "| module | run | lines not run |\n|---|---|---|\n"
    return 100 * executed / max(1, lines), head + "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
