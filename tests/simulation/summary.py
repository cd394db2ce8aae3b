"""What many cases come to: a row for each family, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from simulation.desk import Result

_GIB = 1 << 30

_HEAD = (
    "family",
    "cases",
    "median",
    "p95",
    "worst",
    "requests / GiB",
    "fetched twice",
    "most connections",
    "refused",
    "broken",
)


def quantile(values: Sequence[float], part: float) -> float:
    """
    Give the smallest value that so many of all don't exceed.

    Args:
        values: At least one.
        part: From 0 to 1.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * part) - 1)]


def by_family(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Sort results by their families, in the order in which these come."""
    rows: dict[str, list[Result]] = {}
    for result in results:
        rows.setdefault(result.case.family, []).append(result)
    return rows


def table(results: Iterable[Result]) -> str:
    """Write a row for each family, and one for all."""
    rows = by_family(results)
    everything = [result for own in rows.values() for result in own]
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD))]
    lines += [_line(_row(family, own)) for family, own in rows.items()]
    lines.append(_line(_row("all", everything)))
    return "\n".join(lines)


def _row(name: str, results: Sequence[Result]) -> list[str]:
    ratios = [result.ratio for result in results]
    size = sum(result.case.server.size for result in results)
    twice = sum(result.twice_bytes for result in results)
    return [
        name,
        str(len(results)),
        f"{statistics.median(ratios):.2f}",
        f"{quantile(ratios, 0.95):.2f}",
        f"{max(ratios):.2f}",
        f"{sum(r.requests for r in results) / size * _GIB:.0f}",
        f"{100 * twice / size:.2f} %",
        str(max(result.connections for result in results)),
        str(sum(result.refused for result in results)),
        str(sum(1 for result in results if result.broken)),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
