"""Peak memory of the whole process tree, and the memory of a very large plan."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from bench._contenders import missing, peers, segdl
from bench._content import MIB, show_size
from bench._course import Failed, served, source_file
from bench._report import Check, Section, mebibytes
from bench._settings import Settings
from segdl._manifest import Piece, PieceTable
from segdl._plan import Plan, piece_size
from segdl._ranges import ByteRange

_TREE_LIMIT_MIB = 80.0
_PLAN_LIMIT_MIB = 20.0
_PLAN_LIMIT_SECONDS = 0.2
_LANES = 16
_SAMPLE_SECONDS = 0.05


def run_tree(settings: Settings) -> Section:
    """Sample the trees of all, at 16 connections, and segdl's for two sizes."""
    small = (64 if settings.quick else 256) * MIB
    section = Section(
        title=f"memory: peak PSS of the process tree at {_LANES} connections",
        header=("", "file", "peak PSS MiB", "processes"),
    )
    ours = segdl("-x", str(_LANES))
    runs = [(contender, small, False) for contender in peers()] + [
        (ours, size, tls) for size in (small, settings.size) for tls in (False, True)
    ]
    peaks = [0]
    for contender, size, tls in runs:
        file = f"{show_size(size)}, {'https' if tls else 'http'}"
        with served(settings, source_file(settings, size), tls=tls) as course:
            course.prepare()
            try:
                usage = course.run(
                    contender.make(course.fetch(_LANES)), _SAMPLE_SECONDS
                )
                course.check()
            except Failed as error:
                section.exact = section.exact and contender.is_peer
                section.notes.append(f"{contender.name}: {error}")
                continue
        if not contender.is_peer:
            peaks.append(usage.peak_pss_bytes)
        shown = mebibytes(usage.peak_pss_bytes)
        section.rows.append((contender.name, file, shown, str(usage.processes)))
        section.data[f"{contender.name}, {file}"] = usage.peak_pss_bytes
    section.notes += missing()
    section.checks.append(
        Check(
            name="peak PSS of the tree",
            value=max(peaks) / MIB,
            limit=_TREE_LIMIT_MIB,
            unit="MiB",
        )
    )
    return section


def run_plan(settings: Settings) -> Section:
    """Measure the plan and the piece table of a file of 1 TiB."""
    size = 1 << 40
    piece = piece_size(size)
    cases: dict[str, Callable[[], Any]] = {
        f"begun, {_LANES} lanes": lambda: _begun(size, piece),
        "every other piece done": lambda: _fragmented(size, piece),
        "table of all pieces": lambda: _table(size, piece),
    }
    section = Section(
        title=f"plan: {show_size(size)} in pieces of {show_size(piece)}",
        header=("", "time ms", "memory MiB"),
    )
    settings.say(f"{size // piece} pieces")
    for name, make in cases.items():
        seconds, count = _cost(make)
        section.rows.append((name, f"{seconds * 1000:.1f}", mebibytes(count)))
        section.data[name] = {"seconds": seconds, "bytes": count}
        section.checks += [
            Check(
                name=f"{name}, memory",
                value=count / MIB,
                limit=_PLAN_LIMIT_MIB,
                unit="MiB",
            ),
            Check(
                name=f"{name}, time",
                value=seconds,
                limit=_PLAN_LIMIT_SECONDS,
                unit="s",
            ),
        ]
    return section


def _begun(size: int, piece: int) -> Plan:
    plan = Plan(size, piece)
    plan.divide(_LANES)
    for lane in range(_LANES):
        plan.take(lane)
    return plan


def _fragmented(size: int, piece: int) -> Plan:
    # The most runs a plan can have: what a resume would find at worst.
    done = [
        ByteRange(begin, begin + piece) for begin in range(0, size - piece, 2 * piece)
    ]
    return Plan(size, piece, done)


def _table(size: int, piece: int) -> PieceTable:
    return PieceTable(
        Piece(begin, piece, "0" * 16, record)
        for record, begin in enumerate(range(0, size, piece))
    )


def _cost(make: Callable[[], Any]) -> tuple[float, int]:
    """Give seconds (without tracing) and the peak of traced bytes."""
    begin = time.perf_counter()
    make()
    seconds = time.perf_counter() - begin
    tracemalloc.start()
    try:
        kept = make()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return seconds, peak
