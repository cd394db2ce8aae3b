"""What the scenarios give back, and how it is printed.

Scenario ──> Section: rows, notes, checks, data ──> Markdown on stdout, JSON in a file
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench._content import MIB
from bench._processes import ROOT

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """
    A figure and the limit it has to keep.

    Args:
        name: What is measured.
        value: What it was.
        limit: The most it may be.
        unit: Of both, such as "ms"; empty for a ratio.
    """

    name: str
    value: float
    limit: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        verdict = "kept" if self.kept else "MISSED"
        figures = f"{self.value:.3g}{unit} (limit {self.limit:g}{unit})"
        return f"{self.name}: {figures} {verdict}"


@dataclass(slots=True, kw_only=True)
class Section:
    """
    The outcome of one scenario.

    Args:
        title: One line.
        header: The names of the columns.
        rows: As many cells each.
        notes: Sentences below the table, such as what is not installed.
        checks: Figures with limits.
        exact: Whether every file that was compared had exactly the right bytes.
        data: Every single figure, for the JSON file.
    """

    title: str
    header: Sequence[str] = ()
    rows: list[Sequence[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    exact: bool = True
    data: dict[str, Any] = field(default_factory=dict)

    def markdown(self) -> str:
        """Give the section as Markdown."""
        lines = [f"## {self.title}", ""]
        if self.rows:
            lines.append("| " + " | ".join(self.header) + " |")
            lines.append("|" + "---|" * len(self.header))
            lines += ["| " + " | ".join(row) + " |" for row in self.rows]
            lines.append("")
        if not self.exact:
            lines.append("- **WRONG BYTES**")
        lines += [f"- {check}" for check in self.checks]
        lines += [f"- {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write the median, the least and the most of some seconds."""
    return (
        f"{statistics.median(values):.{digits}f} "
        f"({min(values):.{digits}f} - {max(values):.{digits}f})"
    )


def mebibytes(count: float) -> str:
    """Write a number of bytes in MiB."""
    return f"{count / MIB:.1f}"


def save(
    machine: dict[str, str], sections: dict[str, Section], also: Path | None
) -> Path:
    """
    Write everything as JSON.

    Args:
        machine: What it ran on.
        sections: By the scenario's name.
        also: A second file to write, None for none.

    Returns:
        The file in `bench/results/`.
    """
    record = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "scenarios": {
            name: {
                "title": section.title,
                "exact": section.exact,
                "checks": [
                    asdict(check) | {"kept": check.kept} for check in section.checks
                ],
                "notes": section.notes,
                "data": section.data,
            }
            for name, section in sections.items()
        },
    }
    text = json.dumps(record, indent=1) + "\n"
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(text, encoding="utf-8")
    if also is not None:
        also.write_text(text, encoding="utf-8")
    return path
