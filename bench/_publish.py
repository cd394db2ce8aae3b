"""docs/performance.md and its plot, written from the figures of one run or several.

Results ──> limits:   a row for each figure that has one
        ──> details:  every scenario's table
        ──> machine, flags
        ──> performance.png (needs matplotlib)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench._content import GIB, MIB, show_size
from bench._record import PERFORMANCE, PLOT, record
from bench._report import Results, table

_CURVES = ("connections", "size", "files")
# Bars of larger ratios end at the edge; the table has the figure.
_LARGEST_RATIO = 2.5


def publish(
    results: Sequence[Results], document: Path = PERFORMANCE, plot: Path = PLOT
) -> None:
    """
    Write the document and the plot.

    Args:
        results: Later ones take the place of earlier ones, scenario by scenario.
        document: To write into, between its marks.
        plot: To write.
    """
    merged = results[0]
    for later in results[1:]:
        merged = merged.with_later(later)
    record("limits", limits_table(merged), document)
    record("details", details(merged), document)
    facts = [f"- {fact}: {value}" for fact, value in merged.machine.items()]
    record("machine", "\n".join(facts), document)
    record("flags", flags_table(merged), document)
    draw(merged, plot)


def limits_table(results: Results) -> str:
    """Give a row for each figure that has a limit."""
    rows = []
    for name, section in results.sections.items():
        for check in section.checks:
            unit = f" {check.unit}" if check.unit else ""
            rows.append(
                (
                    *(name, check.name, f"{check.value:.3g}{unit}"),
                    *(f"{check.limit:g}{unit}", "yes" if check.kept else "**no**"),
                    results.marks[name],
                )
            )
    kept = sum(row[4] == "yes" for row in rows)
    header = ("scenario", "figure", "measured", "at most", "kept", "run")
    return "\n".join([f"{kept} of {len(rows)} are kept.", "", *table(header, rows)])


def details(results: Results) -> str:
    """Give every scenario's table."""
    return "\n".join(each.markdown(level=3) for each in results.sections.values())


def flags_table(results: Results) -> str:
    """Give the flags of every peer, with their reasons."""
    rows = [(name, "; ".join(lines)) for name, lines in results.flags.items()]
    return "\n".join(table(("peer", "flags, and why"), rows))


def draw(results: Results, path: Path) -> None:
    """Draw what the limits are about, and how the cost grows; needs matplotlib."""
    if find_spec("matplotlib") is None:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("Agg")  # needs no display
    pyplot: Any = import_module("matplotlib.pyplot")
    figure = pyplot.figure(figsize=(11, 9), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(3, 2))
    _draw_ratios(upper.subplots(), results)
    axes = lower.subplots(1, len(_CURVES) + 1)
    for axis, curve in zip(axes[:-1], _CURVES, strict=True):
        _draw_curve(axis, curve, _points(results, curve))
    _draw_tasks(axes[-1], _data(results, "tasks").get("tenths", []))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


def _data(results: Results, scenario: str) -> dict[str, Any]:
    section = results.sections.get(scenario)
    return {} if section is None else section.data


def _points(results: Results, curve: str) -> dict[str, dict[str, float]]:
    """Give a curve of `growth`; that over the size ends with `huge`'s file."""
    points: dict[str, dict[str, float]] = dict(_data(results, "growth").get(curve, {}))
    if curve == "size":
        for found in _data(results, "huge").values():
            points[show_size(found["size"])] = {
                "cpu_seconds_a_gib": found["cpu_seconds"] * GIB / found["size"],
                "pss_bytes": found["peak_pss_bytes"],
            }
    return points


def _draw_ratios(axis: Any, results: Results) -> None:
    checks = [
        (f"{name}: {check.name}", check)
        for name, section in results.sections.items()
        for check in section.checks
        if not check.unit and " / " in check.name
    ][::-1]
    names = [name for name, _ in checks]
    colors = ["tab:green" if check.kept else "tab:red" for _, check in checks]
    axis.barh(names, [check.value for _, check in checks], color=colors)
    axis.set_xlim(0, _LARGEST_RATIO)
    for row, (_, check) in enumerate(checks):
        axis.plot([check.limit] * 2, [row - 0.4, row + 0.4], color="black")
    axis.set_title("segdl over what it is compared with; black: the limit", fontsize=9)
    axis.tick_params(labelsize=6)


def _draw_curve(axis: Any, name: str, points: dict[str, dict[str, float]]) -> None:
    labels = list(points)
    axis.plot(labels, [each["cpu_seconds_a_gib"] for each in points.values()], "o-")
    axis.set_ylim(bottom=0)
    axis.set_title(f"{name}: CPU s a GiB (blue), PSS MiB (orange)", fontsize=7)
    other = axis.twinx()
    peaks = [each["pss_bytes"] / MIB for each in points.values()]
    other.plot(labels, peaks, "s--", color="tab:orange")
    other.set_ylim(bottom=0)
    for each in (axis, other):
        each.tick_params(labelsize=6)


def _draw_tasks(axis: Any, tenths: list[float]) -> None:
    axis.plot([10 * (number + 1) for number in range(len(tenths))], tenths, "o-")
    axis.set_ylim(bottom=0)
    axis.set_title("bytes a task, by % of 100,000", fontsize=7)
    axis.tick_params(labelsize=6)
