"""Start-up: what a small download and an import cost."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench._contenders import peers, segdl
from bench._content import MIB
from bench._course import Failed, served, source_file
from bench._measure import Usage
from bench._report import Check, Section, spread
from bench._settings import Settings
from segdl._peers import Invocation

_RUNS, _QUICK_RUNS = 7, 3
_LIMITS_MS = {"segdl, 1 MiB": 200.0, "import segdl": 60.0}


def run_cold(settings: Settings) -> Section:
    """Measure 1 MiB with everybody, `import segdl`, and the bare interpreter."""
    runs = _QUICK_RUNS if settings.quick else _RUNS
    section = Section(
        title=f"cold: whole processes, {runs} runs each",
        header=("", "wall ms, median (min - max)", "CPU ms"),
    )
    shown: dict[str, tuple[list[float], list[float]]] = {}
    with served(settings, source_file(settings, MIB)) as course:
        course.prepare()
        for contender in [segdl(), *peers()]:
            made = contender.make(course.fetch(1))
            name = f"{contender.name}, 1 MiB"
            try:
                shown[name] = _time(partial(course.run, made), course.target, runs)
                course.check()
            except Failed as error:
                section.exact = section.exact and contender.is_peer
                section.notes.append(f"{contender.name}: {error}")
        for name, code in (("import segdl", "import segdl"), ("bare interpreter", "")):
            command = (sys.executable, "-c", code)
            shown[name] = _time(
                partial(course.run, Invocation(command=command)),
                course.target,
                runs,
            )
    for name, (walls, cpus) in shown.items():
        section.rows.append((name, spread(walls, 0), spread(cpus, 0)))
        section.data[name] = {"wall_ms": walls, "cpu_ms": cpus}
    section.checks = [
        Check(name=name, value=statistics.median(shown[name][0]), limit=most, unit="ms")
        for name, most in _LIMITS_MS.items()
        if name in shown
    ]
    return section


def _time(
    run: Callable[[], Usage], target: Path, runs: int
) -> tuple[list[float], list[float]]:
    """Run a program some times; give wall and CPU milliseconds of each."""
    usages = []
    for _ in range(runs):
        target.unlink(missing_ok=True)
        usages.append(run())
    return (
        [usage.wall_seconds * 1000 for usage in usages],
        [usage.cpu_seconds * 1000 for usage in usages],
    )
