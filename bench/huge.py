"""A file larger than memory: what it does to what others have in the page cache.

    4 GiB of another file, read twice ──> in the page cache
    40 GiB, sparse at the origin      ──> fetched, written, compared byte by byte
                                          memory unwritten at most, memory of the tree
    how much of the 4 GiB is left

The origin reads past the page cache (`directio`), so that what it does there is none
of what is measured. Quick runs take 5 GiB, which is past 2**32 bytes too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bench._cache import cached_bytes, watching_unwritten
from bench._contenders import Contender, segdl
from bench._content import (
    GIB,
    MIB,
    filesystem,
    make_sparse_file,
    show_size,
    warm,
)
from bench._course import Course, Failed, served, source_file
from bench._report import Check, Section, mebibytes
from bench._settings import Settings

_SAMPLE_SECONDS = 0.25
_LEFT_AT_LEAST = 0.95
_UNWRITTEN_MOST_MIB = 256.0
_PSS_MOST_MIB = 80.0


def run_huge(settings: Settings) -> Section:
    """Fetch it with segdl."""
    size = (5 if settings.quick else 40) * GIB
    section = Section(
        title=f"huge: {show_size(size)}, http to {filesystem(settings.directory)}",
        header=(
            *("", "wall s", "CPU s a GiB", "peak PSS MiB", "most unwritten MiB"),
            "of another file left in the page cache",
        ),
    )
    free = shutil.disk_usage(settings.directory).free
    if free < size + 2 * GIB:
        section.notes.append(f"left out: {show_size(size)} and some are not free")
        return section
    other = source_file(settings, settings.size)
    files = settings.directory / "sparse"
    files.mkdir()
    source = files / "huge.bin"
    ours = segdl()
    try:
        make_sparse_file(source, size)
        with served(
            settings, source, server="directio 1m; output_buffers 1 2m;"
        ) as course:
            try:
                _one(ours, course, other, section)
            except Failed as error:
                section.exact = False
                section.notes.append(f"{ours.name}: {error}")
    finally:
        shutil.rmtree(files)
    _check(section, ours.name)
    return section


def _one(contender: Contender, course: Course, other: Path, section: Section) -> None:
    course.prepare(warmed=False)
    for _ in range(2):
        warm(other)
    before = cached_bytes(other)
    made = contender.make(course.fetch(16))
    with watching_unwritten() as unwritten:
        usage = course.run(made, _SAMPLE_SECONDS)
    left = cached_bytes(other) / max(1, before)
    course.check()
    size = course.source.stat().st_size
    section.data[contender.name] = {
        "size": size,
        "wall_seconds": usage.wall_seconds,
        "cpu_seconds": usage.cpu_seconds,
        "peak_pss_bytes": usage.peak_pss_bytes,
        "unwritten_bytes": unwritten.most_bytes,
        "cached_before_bytes": before,
        "left": left,
    }
    section.rows.append(
        (
            *(contender.name, f"{usage.wall_seconds:.1f}"),
            f"{usage.cpu_seconds * GIB / size:.2f}",
            mebibytes(usage.peak_pss_bytes),
            mebibytes(unwritten.most_bytes),
            f"{left:.1%} of {mebibytes(before)} MiB",
        )
    )


def _check(section: Section, name: str) -> None:
    found = section.data.get(name)
    if found is None:
        return
    section.checks = [
        Check(
            name="share of another file that has left the page cache",
            value=1 - found["left"],
            limit=round(1 - _LEFT_AT_LEAST, 6),
        ),
        Check(
            name="most unwritten memory of the system",
            value=found["unwritten_bytes"] / MIB,
            limit=_UNWRITTEN_MOST_MIB,
            unit="MiB",
        ),
        Check(
            name="peak PSS of the tree",
            value=found["peak_pss_bytes"] / MIB,
            limit=_PSS_MOST_MIB,
            unit="MiB",
        ),
    ]
