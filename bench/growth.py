"""What a GiB costs as the work grows: more connections, larger files, more tasks.

Each figure is the median of some runs of segdl alone, over http to a disk. Two numbers
must stay flat: CPU seconds a GiB, and the memory of the process tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench._contenders import Contender, segdl
from bench._content import GIB, MIB, show_size
from bench._course import Course, Failed, served, source_file
from bench._race import SAMPLE_SECONDS
from bench._report import Check, Section, mebibytes
from bench._settings import Settings
from bench.batch import batch_files, batch_lap

CONNECTIONS = (1, 4, 16, 64)
SIZES = (64 * MIB, 256 * MIB, GIB, 4 * GIB)
FILES = (1, 10, 1000)
_RUNS, _QUICK_RUNS = 2, 1
# The most that the last figure of a row may be over its least.
_FLAT = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """
    One figure of a curve.

    Args:
        label: What it stands at, such as "16".
        cpu_a_gib: Seconds.
        pss_bytes: Peak of the process tree.
        wall: Seconds.
    """

    label: str
    cpu_a_gib: float
    pss_bytes: float
    wall: float


def run_growth(settings: Settings) -> Section:
    """Measure the three curves."""
    largest = 256 * MIB if settings.quick else GIB
    section = Section(
        title="growth: what a GiB costs as the work grows",
        header=("", "at", "wall s", "CPU s a GiB", "peak PSS MiB"),
    )
    curves: dict[str, Callable[[], list[Point]]] = {
        "connections": lambda: _connections(settings, largest),
        "size": lambda: _sizes(settings, 4 * largest),
        "files": lambda: _files(settings, largest),
    }
    for name, measure in curves.items():
        try:
            points = measure()
        except Failed as error:
            section.exact = False
            section.notes.append(f"{name}: {error}")
            continue
        _add(section, name, points)
    section.notes.append(
        "a size past memory is `huge`'s; 100,000 tasks at once are `tasks`'s"
    )
    return section


def _add(section: Section, name: str, points: Sequence[Point]) -> None:
    for point in points:
        section.rows.append(
            (
                *(name, point.label, f"{point.wall:.2f}", f"{point.cpu_a_gib:.2f}"),
                mebibytes(point.pss_bytes),
            )
        )
    section.data[name] = {
        point.label: {
            "wall_seconds": point.wall,
            "cpu_seconds_a_gib": point.cpu_a_gib,
            "pss_bytes": point.pss_bytes,
        }
        for point in points
    }
    # A small file costs the start of everything, which is `cold`'s to measure.
    for what, values in (
        ("CPU a GiB", [point.cpu_a_gib for point in points]),
        ("peak PSS", [point.pss_bytes for point in points]),
    ):
        section.checks.append(
            Check(
                name=f"{name}, {what}: the last over the least",
                value=values[-1] / max(min(values), 1e-9),
                limit=_FLAT,
            )
        )


def _connections(settings: Settings, size: int) -> list[Point]:
    with served(settings, source_file(settings, size)) as course:
        return [
            _point(settings, course, segdl("-x", str(count)), str(count))
            for count in CONNECTIONS
        ]


def _sizes(settings: Settings, most: int) -> list[Point]:
    points = []
    for size in SIZES:
        if size <= most:
            with served(settings, source_file(settings, size)) as course:
                points.append(_point(settings, course, segdl(), show_size(size)))
    return points


def _point(
    settings: Settings, course: Course, contender: Contender, label: str
) -> Point:
    usages = []
    for _ in range(_runs(settings)):
        course.prepare()
        made = contender.make(course.fetch(16))
        usages.append(course.run(made, SAMPLE_SECONDS))
        course.check()
    size = course.source.stat().st_size
    wall = median(usage.wall_seconds for usage in usages)
    settings.say(f"{contender.name}, {show_size(size)}: {wall:.2f} s")
    return Point(
        label=label,
        cpu_a_gib=median(usage.cpu_seconds for usage in usages) * GIB / size,
        pss_bytes=median(usage.peak_pss_bytes for usage in usages),
        wall=wall,
    )


def _files(settings: Settings, total: int) -> list[Point]:
    points = []
    for count in FILES:
        sources = batch_files(settings, count, total // count // 4096 * 4096)
        with served(settings, sources[0]) as course:
            runs = [
                batch_lap(course, segdl(), sources, sampled=True)
                for _ in range(_runs(settings))
            ]
        size = sum(path.stat().st_size for path in sources)
        wall = median(run.wall for run in runs)
        settings.say(f"{count} files: {wall:.2f} s")
        points.append(
            Point(
                label=str(count),
                cpu_a_gib=median(run.cpu for run in runs) * GIB / size,
                pss_bytes=median(run.pss_bytes or 0 for run in runs),
                wall=wall,
            )
        )
    return points


def _runs(settings: Settings) -> int:
    return _QUICK_RUNS if settings.quick else _RUNS
